//! What operators ask of a running node, on its admin port, with a service token: empty it, and explain.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use roost_backend::store::{Limit, Store};
use roost_proto::claims::Role;
use roost_proto::events::Message;
use roost_proto::limits::BATCH_BYTES_MAX;
use roost_proto::{ErrorBody, ErrorCode, MessageId, Offset, StreamId, UserId};
use roost_service::admin::SID_HEADER;
use roost_service::tokens::{self, Verifier};
use roost_service::{Health, query, reply};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::core::{Explained, Input, Query};
use crate::inputs::NodeInput;
use crate::node::Status;
use crate::socket;

/// The node's task answers within a batch of events; the store within its own limit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Messages of a stream that are looked through.
const SEARCH_MAX: usize = 10_000;

/// What the routes work with.
pub(crate) struct Operator {
    pub events: mpsc::Sender<NodeInput>,
    pub store: Arc<dyn Store>,
    pub verifier: Verifier,
    pub status: watch::Receiver<Status>,
    /// The process was asked to end: there is no way back.
    pub stopping: CancellationToken,
    pub health: Health,
    pub vnodes: u32,
    /// One request at a time.
    pub permit: Semaphore,
}

#[derive(Debug, Deserialize)]
struct ExplainQuery {
    user: Option<String>,
    id: Option<String>,
    /// The receiver of the message, if it is known: then it is looked for in the inbox too.
    to: Option<String>,
}

/// `POST` and `DELETE /drain`, `GET /explain`.
pub(crate) fn routes(operator: Operator) -> BoxedFilter<(Response,)> {
    let operator = Arc::new(operator);
    let with = {
        let operator = Arc::clone(&operator);
        warp::any().map(move || Arc::clone(&operator))
    };
    let drain = warp::path!("drain").and(warp::post()).map(|| true);
    let undrain = warp::path!("drain").and(warp::delete()).map(|| false);
    let drain = drain.or(undrain).unify().and(with.clone()).and(warp::header::headers_cloned()).then(
        |on: bool, operator: Arc<Operator>, headers: HeaderMap| async move {
            answer(operator.drain(on, &headers).await)
        },
    );
    let explain = warp::path!("explain")
        .and(warp::get())
        .and(with)
        .and(warp::header::headers_cloned())
        .and(query::raw())
        .then(|operator: Arc<Operator>, headers: HeaderMap, query: String| async move {
            answer(operator.explain(&query, &headers).await)
        });
    drain.or(explain).unify().boxed()
}

fn answer(result: Result<(StatusCode, Value), ErrorBody>) -> Response {
    match result {
        Ok((status, body)) => reply::json(status, &body),
        Err(error) => reply::error(&error),
    }
}

fn bad(why: impl ToString) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, why.to_string())
}

fn ended() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, "the node does not answer: it is ending, or has too much to do")
}

impl Operator {
    fn authorize(&self, headers: &HeaderMap) -> Result<(), ErrorBody> {
        let token = tokens::bearer(headers);
        let token =
            token.ok_or_else(|| ErrorBody::new(ErrorCode::Unauthorized, "a service token is needed"))?;
        let claims = self.verifier.verify(token, socket::wall_s()).map_err(|e| e.body())?;
        if claims.role != Role::Service {
            return Err(ErrorBody::new(ErrorCode::Forbidden, "only a service token may do this"));
        }
        // Admin addresses are often the same on every host; what is meant for one node must not happen to another.
        let sid = self.status.borrow().sid.clone();
        match headers.get(SID_HEADER) {
            Some(meant) if sid.as_ref().is_none_or(|sid| meant != sid.as_str()) => {
                let text = "another node answers at this admin address: see ADMIN_ADVERTISED_ADDR";
                Err(ErrorBody::new(ErrorCode::Conflict, text))
            }
            _ => Ok(()),
        }
    }

    async fn tell(&self, input: NodeInput) -> Result<(), ErrorBody> {
        let sent = timeout(ANSWER_TIMEOUT, self.events.send(input)).await;
        sent.ok().and_then(Result::ok).ok_or_else(ended)
    }

    /// What the node's task knows.
    async fn ask(&self, query: Query) -> Result<Explained, ErrorBody> {
        let (told, told_to) = oneshot::channel();
        self.tell(NodeInput::Explain(query, told)).await?;
        timeout(ANSWER_TIMEOUT, told_to).await.ok().and_then(Result::ok).ok_or_else(ended)
    }

    /// The node gives everything away and stays; its process ends as always, by a signal.
    async fn drain(&self, on: bool, headers: &HeaderMap) -> Result<(StatusCode, Value), ErrorBody> {
        self.authorize(headers)?;
        if self.stopping.is_cancelled() {
            return Err(ErrorBody::new(ErrorCode::Conflict, "the process was asked to end, and does"));
        }
        // One after the other, so that what `/readyz` says is what the node does.
        let _permit = self.permit.acquire().await;
        if on {
            self.tell(NodeInput::Core(Input::Drain)).await?;
            self.health.drain();
        } else {
            self.tell(NodeInput::Core(Input::Undrain)).await?;
            self.health.undrain();
        }
        tracing::info!(draining = on, "an operator asked for it");
        Ok((StatusCode::ACCEPTED, json!({"draining": on})))
    }

    async fn explain(&self, query: &str, headers: &HeaderMap) -> Result<(StatusCode, Value), ErrorBody> {
        self.authorize(headers)?;
        let query: ExplainQuery = query::read(query)?;
        let asked = match (&query.user, &query.id) {
            (Some(user), None) => Query::User(UserId::new(user).map_err(|e| bad(format!("user: {e}")))?),
            (None, Some(id)) => Query::Message(MessageId::new(id).map_err(|e| bad(format!("id: {e}")))?),
            _ => return Err(bad("one of user= and id= is needed")),
        };
        // An answer may take the node's task a while: one at a time.
        let _permit = self.permit.acquire().await;
        let mut body = json!(self.ask(asked.clone()).await?);
        if let (Query::Message(id), Some(to)) = (asked, query.to) {
            let to = UserId::new(to).map_err(|e| bad(format!("to: {e}")))?;
            body["kept"] = self.kept(&id, &to).await?;
        }
        Ok((StatusCode::OK, body))
    }

    /// Where the message is in the inbox of `to`, if this node is its home.
    async fn kept(&self, id: &MessageId, to: &UserId) -> Result<Value, ErrorBody> {
        let stream = StreamId::inbox(to);
        let vnode = roost_ring::vnode_of_stream(&stream, self.vnodes);
        let explained = self.ask(Query::User(to.clone())).await?;
        let Explained { home: Some(home), sessions, .. } = explained else { return Ok(Value::Null) };
        let (mut entries, mut searched, mut after) = (Vec::<Value>::new(), 0, Offset(0));
        while searched < SEARCH_MAX {
            let limit = Limit { entries: SEARCH_MAX - searched, bytes: BATCH_BYTES_MAX };
            let window = self.store.read(vnode, &stream, home.generation, after, limit);
            let window =
                timeout(ANSWER_TIMEOUT, window).await.ok().and_then(Result::ok).ok_or_else(|| {
                    let why = "the store does not answer: its messages cannot be looked through";
                    ErrorBody::new(ErrorCode::Unavailable, why)
                })?;
            let Some((last, _)) = window.entries.last() else { break };
            after = *last;
            searched += window.entries.len();
            entries.extend(window.entries.iter().filter_map(|(offset, frame)| {
                let message: Message = serde_json::from_slice(frame).ok()?;
                let found = || json!({"offset": offset, "from": message.from, "at": message.at});
                (message.id == *id).then(found)
            }));
        }
        Ok(json!({
            "stream": stream,
            "generation": home.generation,
            "entries": entries,
            "searched": searched,
            "sessions": sessions,
        }))
    }
}
