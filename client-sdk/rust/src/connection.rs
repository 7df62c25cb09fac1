//! One WebSocket: frames out, frames in, never blocking the driver.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use roost_proto::frames::SUBPROTOCOL;
use roost_proto::limits::UNANSWERED_MAX;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::error::{Cause, Failure, Trouble};
use crate::route::retry_after_ms;

/// Tungstenite allocates it at once, per connection; a typical frame is under 1 KiB.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Written to the socket at the latest when so much has gathered.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Commands are limited by [`UNANSWERED_MAX`]; acks and pongs are few, unless the server floods and does not read.
const OUTGOING_MAX: usize = 2 * UNANSWERED_MAX;
/// With so many frames waiting, signals are not added: they would be old when they are written.
const OFFERED_MAX: usize = 16;
/// How long a server may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What came from a connection.
#[derive(Debug)]
pub(crate) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// A ping or pong of the WebSocket itself, which tungstenite answers.
    Control,
    Closed {
        code: Option<u16>,
        reason: String,
    },
}

#[derive(Debug)]
pub(crate) struct Connection {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    outgoing: VecDeque<Message>,
    /// Why nothing can be written any more. What arrived before may still be read, the close code first of all.
    write_failed: Option<String>,
}

impl Connection {
    /// Opens a socket to a node. The caller sets the time limit.
    pub(crate) async fn open(url: &str, frame_bytes_max: usize) -> Result<Self, Trouble> {
        let mut request = url.into_client_request().map_err(|e| trouble(url, e))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_frame_size(Some(frame_bytes_max))
            .max_message_size(Some(frame_bytes_max));
        let (ws, _) =
            connect_async_with_config(request, Some(config), true).await.map_err(|e| trouble(url, e))?;
        Ok(Self { ws, outgoing: VecDeque::new(), write_failed: None })
    }

    /// Queues a frame; [`Connection::poll`] writes it.
    pub(crate) fn write(&mut self, text: &Arc<str>) {
        if self.outgoing.len() < OUTGOING_MAX {
            self.outgoing.push_back(Message::text(&**text));
        } else {
            self.write_failed.get_or_insert_with(|| "the server takes nothing".to_owned());
        }
    }

    /// Queues a frame, unless others wait already.
    pub(crate) fn offer(&mut self, text: &Arc<str>) {
        if self.outgoing.len() < OFFERED_MAX {
            self.write(text);
        }
    }

    /// Writes what can be written, then gives what can be read, if `read`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Incoming> {
        if self.write_failed.is_none()
            && let Poll::Ready(Err(e)) = self.poll_write(cx)
        {
            self.write_failed = Some(e.to_string());
        }
        if !read {
            return Poll::Pending;
        }
        match (Pin::new(&mut self.ws).poll_next(cx), &self.write_failed) {
            (Poll::Ready(item), _) => Poll::Ready(incoming(item)),
            (Poll::Pending, Some(reason)) => {
                Poll::Ready(Incoming::Closed { code: None, reason: reason.clone() })
            }
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut ws = Pin::new(&mut self.ws);
        while !self.outgoing.is_empty() {
            ready!(ws.as_mut().poll_ready(cx))?;
            if let Some(message) = self.outgoing.pop_front() {
                ws.as_mut().start_send(message)?;
            }
        }
        ws.poll_flush(cx)
    }

    /// Writes what is left and says goodbye, as far as the server and the time allow.
    pub(crate) async fn close(mut self, code: u16) {
        let goodbye = async {
            for message in std::mem::take(&mut self.outgoing) {
                self.ws.feed(message).await?;
            }
            // Fails if the server closed first; its close frame is then answered by reading on.
            let _ = self.ws.close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::default() })).await;
            while let Some(Ok(_)) = self.ws.next().await {}
            Ok::<(), Error>(())
        };
        // It is over either way: nobody waits for what could not be written.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

fn incoming(item: Option<Result<Message, Error>>) -> Incoming {
    match item {
        Some(Ok(Message::Text(text))) => Incoming::Text(text),
        Some(Ok(Message::Binary(_))) => Incoming::Binary,
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Incoming::Control,
        Some(Ok(Message::Close(Some(frame)))) => {
            Incoming::Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() }
        }
        Some(Ok(Message::Close(None))) => {
            Incoming::Closed { code: None, reason: "closed without a code".to_owned() }
        }
        Some(Err(e)) => Incoming::Closed { code: None, reason: e.to_string() },
        None => Incoming::Closed { code: None, reason: "the socket ended".to_owned() },
    }
}

/// What a failed handshake means for the next try.
fn trouble(url: &str, e: Error) -> Trouble {
    match e {
        Error::Http(response) => {
            let (status, after_ms) = (response.status().as_u16(), retry_after_ms(response.headers()));
            let body = response.body().as_deref().unwrap_or_default();
            let message: String = String::from_utf8_lossy(body).chars().take(200).collect();
            match status {
                401 => Trouble::Token(format!("{url}: HTTP 401: {message}")),
                403 => Trouble::Fatal(Failure::Refused { status, message }),
                _ => {
                    let why = format!("{url}: HTTP {status}: {message}");
                    Trouble::Retry { after_ms, cause: Cause::Node, why }
                }
            }
        }
        Error::Url(UrlError::TlsFeatureNotEnabled) => Trouble::Fatal(Failure::NoTls(url.to_owned())),
        e => Trouble::retry(format!("{url}: {e}")),
    }
}
