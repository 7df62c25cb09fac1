//! `/api/nodes/<node>/drain` and `/api/explain`: passed on to the nodes, which check the token once more.
//!
//! Nodes do this on their admin ports, which operators often cannot reach; a coordinator can.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use roost_backend::store::NodeRow;
use roost_proto::{ErrorBody, ErrorCode, NodeId, Sid};
use roost_service::admin::{SID_HEADER, is_unspecified};
use roost_service::{guarded, reply};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::SemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;
use warp::http::header::{AUTHORIZATION, HOST, HeaderValue};
use warp::http::{HeaderMap, Method, Request, StatusCode};
use warp::reply::Response;

use super::Api;
use crate::gate::Asker;

/// A node answers within its own limits, which are shorter.
const NODE_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest answer of a node that is passed on.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nodes asked at once.
const NODES_AT_ONCE: usize = 64;
/// Requests of operators at once.
pub(super) const OPERATORS_MAX: usize = 4;

/// Hands `POST` or `DELETE /drain` to the node.
pub(super) async fn drain(
    api: &Api,
    asker: &Asker,
    method: Method,
    node: &str,
    headers: &HeaderMap,
) -> Response {
    let _permit = match admitted(api, asker) {
        Ok(permit) => permit,
        Err(error) => return reply::error(&error),
    };
    let table = api.view.load().table.clone();
    let row = NodeId::new(node).ok().and_then(|node| table.living_node(&node).cloned());
    let Some(row) = row else {
        return reply::error(&ErrorBody::new(ErrorCode::NotFound, format!("no node '{node}' is running")));
    };
    match ask(&row.admin, method, "/drain", &row.sid, headers.get(AUTHORIZATION)).await {
        Ok((status, body)) => reply::json(status, &body),
        Err(why) => {
            let text = format!("{node} cannot be asked at its admin address: {why}");
            reply::error(&ErrorBody::new(ErrorCode::Unavailable, text))
        }
    }
}

/// The token first: who may not ask takes no place of those who may.
fn admitted<'a>(api: &'a Api, asker: &Asker) -> Result<SemaphorePermit<'a>, ErrorBody> {
    asker.is_service()?;
    let permit = api.operators.try_acquire();
    permit.map_err(|_| ErrorBody::new(ErrorCode::RateLimited, "too many requests of operators at once"))
}

/// Asks every living node, and answers with what each says. A node that refuses the token refuses for all.
pub(super) async fn explain(api: &Api, asker: &Asker, query: &str, headers: &HeaderMap) -> Response {
    let _permit = match admitted(api, asker) {
        Ok(permit) => permit,
        Err(error) => return reply::error(&error),
    };
    let table = api.view.load().table.clone();
    let mut nodes: Vec<(NodeId, NodeRow)> =
        table.living().map(|(node, row)| (node.clone(), row.clone())).collect();
    let mut answers: BTreeMap<NodeId, Value> = BTreeMap::new();
    let (path, token) = (format!("/explain?{query}"), headers.get(AUTHORIZATION).cloned());
    let mut asking = JoinSet::new();
    while !nodes.is_empty() || !asking.is_empty() {
        while let Some((node, row)) = (asking.len() < NODES_AT_ONCE).then(|| nodes.pop()).flatten() {
            let (path, token) = (path.clone(), token.clone());
            asking.spawn(async move {
                let asked = guarded(ask(&row.admin, Method::GET, &path, &row.sid, token.as_ref())).await;
                (node, asked.unwrap_or_else(|bug| Err(bug.to_string())))
            });
        }
        match asking.join_next().await {
            Some(Ok((_, Ok((status, body)))))
                if status.is_client_error() && status != StatusCode::CONFLICT =>
            {
                return reply::json(status, &body);
            }
            Some(Ok((node, Ok((_, body))))) => drop(answers.insert(node, body)),
            Some(Ok((node, Err(why)))) => drop(answers.insert(node, json!({"error": {"message": why}}))),
            Some(Err(failure)) => tracing::error!(%failure, "asking a node broke"),
            None => {}
        }
    }
    reply::ok(&json!({"nodes": answers}))
}

/// One request to an admin port; anything but an answer in JSON is told in words.
async fn ask(
    admin: &str,
    method: Method,
    path: &str,
    sid: &Sid,
    token: Option<&HeaderValue>,
) -> Result<(StatusCode, Value), String> {
    // This machine, whoever asks: the token is for another.
    if is_unspecified(admin) {
        return Err("it is not one to connect to: set ADMIN_ADVERTISED_ADDR".into());
    }
    match timeout(NODE_TIMEOUT, exchange(admin, method, path, sid, token)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {NODE_TIMEOUT:?}")),
    }
}

async fn exchange(
    admin: &str,
    method: Method,
    path: &str,
    sid: &Sid,
    token: Option<&HeaderValue>,
) -> Result<(StatusCode, Value), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection, which ends with `sender`.
    let driving = tokio::spawn(connection);
    // The node refuses if it is not the one that is meant.
    let mut request =
        Request::builder().method(method).uri(path).header(HOST, admin).header(SID_HEADER, sid.as_str());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await?.to_bytes();
    driving.abort();
    Ok((status, serde_json::from_slice(&body)?))
}
