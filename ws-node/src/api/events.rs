//! `GET /api/events`: what clients have for the processors, from now on, line by line. For who looks, and plays the
//! processor by hand: whoever must miss nothing reads `client_events` with a consumer group.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use roost_backend::log::LogReader;
use roost_proto::events::CLIENT_EVENTS;
use roost_proto::{ErrorBody, ErrorCode};
use roost_service::guarded;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::reply::Response;

use super::access::{Api, LOOKERS_MAX, Refused, ended};
use crate::inputs::RETRY;

/// Pages that one has not read yet; then it is waited for.
const PAGES_MAX: usize = 2;
/// Who takes nothing for so long is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A line without anything, so that who is gone is noticed.
const SILENCE: Duration = Duration::from_secs(10);
/// For the log to say where it ends.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

impl Api {
    pub(super) async fn look(self: Arc<Self>, headers: &HeaderMap) -> Result<Response, Refused> {
        self.authorize(headers)?;
        if self.closing.is_cancelled() {
            return Err(ended().into());
        }
        let place = Arc::clone(&self.permits.lookers).try_acquire_owned();
        let place = place.map_err(|_| {
            let why = format!("at most {LOOKERS_MAX} look at the events of a node at once");
            ErrorBody::new(ErrorCode::RateLimited, why).retry_after(1000)
        })?;
        let reader = timeout(OPEN_TIMEOUT, self.log.read_from_end(CLIENT_EVENTS)).await;
        let reader = reader.ok().and_then(Result::ok).ok_or_else(ended)?;
        let (lines, shown) = mpsc::channel(PAGES_MAX);
        let closing = self.closing.clone();
        // One request's, though it outlives the answer's head.
        self.tasks.spawn(async move { guarded(show(reader, lines, place, closing)).await });
        let body = futures_util::stream::unfold(shown, |mut shown| async move {
            shown.recv().await.map(|line| (Ok::<Bytes, Infallible>(line), shown))
        });
        let mut response = warp::reply::stream(body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(response)
    }
}

/// Until nobody reads any more, or the node takes nothing new.
async fn show(
    mut reader: Box<dyn LogReader>,
    lines: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
    closing: CancellationToken,
) {
    loop {
        let records = tokio::select! {
            () = closing.cancelled() => return,
            () = lines.closed() => return,
            records = timeout(SILENCE, reader.next()) => records,
        };
        let mut text = Vec::new();
        match records {
            Ok(Ok(records)) => {
                for record in records {
                    // A client may have put ends of lines between its values.
                    let line =
                        record.payload.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b });
                    text.extend(line);
                    text.push(b'\n');
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "events cannot be read now");
                sleep(RETRY).await;
                continue;
            }
            Err(_) => text.push(b'\n'),
        }
        tokio::select! {
            () = closing.cancelled() => return,
            sent = timeout(READ_TIMEOUT, lines.send(text.into())) => if !matches!(sent, Ok(Ok(()))) { return },
        }
    }
}
