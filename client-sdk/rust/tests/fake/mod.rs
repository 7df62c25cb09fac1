//! A coordinator and nodes over loopback, whose every frame is written by the test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use roost_client::{Builder, Client, Cursor, Epoch, Event, Events, Offset, State};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Everything here takes milliseconds; a test that waits so long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Of nobody: the client does not check, and asks for no claim when it knows the user.
pub(crate) const TOKEN: &str = "e30.e30.c2ln";

/// A node: gives the test the sockets that clients open.
pub(crate) struct Node {
    pub url: String,
    sockets: mpsc::Receiver<Socket>,
}

impl Node {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/socket", listener.local_addr().unwrap());
        let (tx, sockets) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                #[allow(clippy::result_large_err)]
                let select = |request: &Request, mut response: Response| {
                    assert_eq!(request.headers()["sec-websocket-protocol"], "roost.v1");
                    assert!(request.uri().query().is_none(), "a token must not be in the query");
                    response
                        .headers_mut()
                        .insert("sec-websocket-protocol", HeaderValue::from_static("roost.v1"));
                    Ok(response)
                };
                if let Ok(ws) = tokio_tungstenite::accept_hdr_async(stream, select).await
                    && tx.send(Socket(ws)).await.is_err()
                {
                    break;
                }
            }
        });
        Self { url, sockets }
    }

    pub(crate) async fn socket(&mut self) -> Socket {
        tokio::time::timeout(LIMIT, self.sockets.recv()).await.expect("no socket in time").unwrap()
    }

    /// A socket whose `connect` was read.
    pub(crate) async fn connect(&mut self) -> (Socket, Value) {
        let mut socket = self.socket().await;
        let connect = socket.read().await;
        assert_eq!(connect["type"], "connect");
        (socket, connect)
    }

    /// A socket that was welcomed at `tail`, with nothing missed.
    pub(crate) async fn welcome(&mut self, tail: u64) -> (Socket, Value) {
        let (mut socket, connect) = self.connect().await;
        let replayed = connect["cursor"]["offset"].as_u64().map_or(0, |offset| tail - offset);
        socket.write(welcome(tail, true, replayed)).await;
        (socket, connect)
    }
}

/// The server's side of one socket.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub(crate) async fn write(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next frame that is not an ack.
    pub(crate) async fn read(&mut self) -> Value {
        loop {
            let frame = self.read_any().await;
            if frame["type"] != "ack" {
                return frame;
            }
        }
    }

    pub(crate) async fn read_any(&mut self) -> Value {
        match tokio::time::timeout(LIMIT, self.0.next()).await.expect("no frame in time") {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("not a frame: {other:?}"),
        }
    }

    /// Reads up to the client's close, and gives its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        let close = async {
            while let Some(Ok(message)) = self.0.next().await {
                if let Message::Close(frame) = message {
                    return frame.map_or(1005, |f| f.code.into());
                }
            }
            1006
        };
        tokio::time::timeout(LIMIT, close).await.expect("not closed in time")
    }

    /// Answers the `send` or `status` that comes next, and gives it.
    pub(crate) async fn confirm(&mut self) -> Value {
        let command = self.read().await;
        self.write(json!({"type": "reply", "id": command["id"], "ok": {"at": "then"}})).await;
        command
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "because".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

pub(crate) fn welcome(tail: u64, recovered: bool, replayed: u64) -> Value {
    json!({"type": "welcome", "session": "s-1", "user": "alice", "node": "ws-1", "vnode": 1, "epoch": 3,
        "ping_interval_ms": 25_000, "cursor": {"generation": 1, "offset": tail}, "recovered": recovered,
        "replayed": replayed, "through": "p0"})
}

pub(crate) fn message(offset: u64) -> Value {
    large_message(offset, 2)
}

pub(crate) fn large_message(offset: u64, bytes: usize) -> Value {
    json!({"type": "message", "stream": "user:alice", "generation": 1, "offset": offset, "id": format!("m{offset}"),
        "kind": "message", "from": "bob", "at": "then", "data": {"text": "x".repeat(bytes)}})
}

/// A coordinator that answers `/route` with what it is told.
pub(crate) struct Coordinator {
    pub url: String,
    answer: Arc<Mutex<String>>,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Coordinator {
    pub(crate) async fn bind(node: &Node) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let coordinator = Self { url, answer: Arc::default(), asked: Arc::default() };
        coordinator.names(node);
        let (answer, asked) = (Arc::clone(&coordinator.answer), Arc::clone(&coordinator.asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                asked.lock().unwrap().push(line);
                let answer = answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        coordinator
    }

    pub(crate) fn names(&self, node: &Node) {
        let route = json!({"user_id": "alice", "vnode": 1, "node": "ws-1", "url": node.url, "epoch": 3,
            "connect_after_ms": 0});
        self.answers("200 OK", "", &route.to_string());
    }

    pub(crate) fn answers(&self, status: &str, header: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() = format!(
            "HTTP/1.1 {status}\r\n{header}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
    }

    pub(crate) fn client(&self) -> Builder {
        let (min, max) = (Duration::from_millis(5), Duration::from_millis(20));
        Client::builder(&self.url).token(TOKEN).user("alice").backoff(min, max)
    }
}

/// A coordinator, a node, and a client that is connected with nothing missed.
pub(crate) struct Connected {
    pub coordinator: Coordinator,
    pub node: Node,
    pub socket: Socket,
    pub client: Client,
    pub events: Events,
}

pub(crate) async fn connected(with: impl FnOnce(Builder) -> Builder) -> Connected {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    let (client, events) = with(coordinator.client()).connect().await.unwrap();
    let (socket, _) = node.welcome(5).await;
    client.connected(LIMIT).await.unwrap();
    Connected { coordinator, node, socket, client, events }
}

/// The next event that is not about the state.
pub(crate) async fn next(events: &mut Events) -> Event {
    loop {
        match tokio::time::timeout(LIMIT, events.recv())
            .await
            .expect("no event in time")
            .expect("events ended")
        {
            Event::State { .. } => {}
            event => return event,
        }
    }
}

pub(crate) async fn next_offset(events: &mut Events) -> u64 {
    match next(events).await {
        Event::Message(m) => m.offset.0,
        other => panic!("not a message: {other:?}"),
    }
}

pub(crate) async fn state(client: &Client, wanted: impl FnMut(&State) -> bool) -> State {
    let mut states = client.state();
    tokio::time::timeout(LIMIT, states.wait_for(wanted))
        .await
        .expect("not that state in time")
        .unwrap()
        .clone()
}

/// A place in the one generation of the tests.
pub(crate) fn at(offset: u64) -> Cursor {
    Cursor::new(Epoch(1), Offset(offset))
}

/// Waits for a condition.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
