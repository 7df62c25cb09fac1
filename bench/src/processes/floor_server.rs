//! The bare server, a process of its own: tungstenite and warp with nothing behind them.
//!
//! `/echo` answers every text with itself, `/hub` is a subscriber and `/publish` a publisher of one broadcast, and
//! any other path is held open. It ends when its standard input does: with the benchmark, however that ends.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use warp::Filter;

/// As a ws-node has it.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Frames that wait for one subscriber, as many as a session's credit.
const QUEUE: usize = 256;
/// Of those, handed to the socket between two flushes.
const BATCH: usize = 64;
/// As long as an answer of a coordinator.
const ROUTE: &str = r#"{"user_id":"from-00000000-000","vnode":310,"node":"bench-00000000-1","url":"ws://127.0.0.1:40000/socket","epoch":1795259103927,"connect_after_ms":0}"#;

type Subscribers = Arc<Mutex<Vec<mpsc::Sender<Utf8Bytes>>>>;

/// Writes both of its addresses on one line, WebSocket first, and serves until its standard input ends.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let http = TcpListener::bind("127.0.0.1:0").await?;
    println!("{} {}", listener.local_addr()?, http.local_addr()?);
    let route = warp::path!("route")
        .and(warp::get())
        .and(warp::query::raw())
        .map(|_query: String| warp::reply::with_header(ROUTE, "content-type", "application/json"));
    tokio::spawn(warp::serve(route).incoming(http).run());
    let subscribers = Subscribers::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, Arc::clone(&subscribers)));
        }
    });
    // Nobody writes to it: the end comes, or nothing.
    let ends = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(ends).await??;
    Ok(())
}

async fn connection(stream: TcpStream, subscribers: Subscribers) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut path = String::new();
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    #[expect(clippy::result_large_err, reason = "the type is tungstenite's")]
    let callback = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, callback, Some(config)).await?;
    match path.as_str() {
        "/echo" => echo(socket).await,
        "/hub" => subscriber(socket, &subscribers).await,
        "/publish" => publisher(socket, &subscribers).await,
        _ => held(socket).await,
    }
}

async fn echo(mut socket: WebSocketStream<TcpStream>) -> Result<()> {
    while let Some(frame) = socket.next().await {
        if let text @ Message::Text(_) = frame? {
            socket.send(text).await?;
        }
    }
    Ok(())
}

async fn held(mut socket: WebSocketStream<TcpStream>) -> Result<()> {
    while let Some(frame) = socket.next().await {
        frame?;
    }
    Ok(())
}

async fn subscriber(mut socket: WebSocketStream<TcpStream>, subscribers: &Subscribers) -> Result<()> {
    let (queue, mut frames) = mpsc::channel(QUEUE);
    subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(queue);
    // Told that it gets everything from now on.
    socket.send(Message::text("subscribed")).await?;
    let mut batch = Vec::new();
    while frames.recv_many(&mut batch, BATCH).await > 0 {
        for frame in batch.drain(..) {
            socket.feed(Message::Text(frame)).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn publisher(mut socket: WebSocketStream<TcpStream>, subscribers: &Subscribers) -> Result<()> {
    let queues = std::mem::take(&mut *subscribers.lock().unwrap_or_else(PoisonError::into_inner));
    // It has the subscribers to itself, and they are closed when it goes.
    while let Some(frame) = socket.next().await {
        let Message::Text(text) = frame? else { continue };
        for queue in &queues {
            // Not `send` for all: it has the task yield every now and then, and each of those it told writes a single
            // frame.
            if let Err(TrySendError::Full(text)) = queue.try_send(text.clone()) {
                // A subscriber that went gets nothing more.
                let _ = queue.send(text).await;
            }
        }
    }
    Ok(())
}
