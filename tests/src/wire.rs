//! A client that knows nothing but the wire: WebSocket frames as JSON values, and HTTP as text.
//!
//! Not the SDK, and not the types of `roost-proto`: what is read here is what anyone's own client would read. It
//! answers pings and keeps frames that were not asked for yet; it never reconnects. Every frame that it says, unless it
//! is said as text, and every frame that it hears must be what its JSON Schema says.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::schema::{CLIENT, SERVER};

/// For whatever must happen: only a failing test waits so long.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How to open a socket.
#[derive(Debug, Clone, Default)]
pub struct Dial {
    pub url: String,
    /// The value of `Authorization`.
    pub authorization: Option<String>,
    /// What is offered as `Sec-WebSocket-Protocol`; nothing leaves the header out.
    pub subprotocols: Vec<String>,
    /// The page that a browser would say it is.
    pub origin: Option<String>,
    /// The kernel's receive buffer in bytes, for a reader that is to be slow soon.
    pub receive_buffer: Option<u32>,
}

impl Dial {
    /// As most clients do: with `roost.v1` and nothing else.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), subprotocols: vec!["roost.v1".to_owned()], ..Self::default() }
    }
}

/// What came over a socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    Frame(Value),
    /// With what the close frame said; nothing if there was none.
    Closed(Option<(u16, String)>),
}

/// One open socket.
#[derive(Debug)]
pub struct Wire {
    socket: WebSocketStream<TcpStream>,
    /// The subprotocol that the server chose.
    pub subprotocol: Option<String>,
    /// Read, and not asked for yet.
    kept: VecDeque<Value>,
    closed: Option<Option<(u16, String)>>,
}

impl Wire {
    /// Opens a socket with `roost.v1`; `connect` has to follow.
    pub async fn open(url: &str) -> Self {
        Self::dial(Dial::new(url)).await.expect("the upgrade is accepted")
    }

    /// Opens a socket.
    ///
    /// # Errors
    /// What tungstenite says, among them every HTTP answer but 101.
    pub async fn dial(dial: Dial) -> Result<Self, Error> {
        let mut request = dial.url.as_str().into_client_request()?;
        let header = |value: &str| HeaderValue::from_str(value).expect("a header's value");
        if let Some(authorization) = &dial.authorization {
            request.headers_mut().insert("authorization", header(authorization));
        }
        if let Some(origin) = &dial.origin {
            request.headers_mut().insert("origin", header(origin));
        }
        if !dial.subprotocols.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", header(&dial.subprotocols.join(", ")));
        }
        let stream = tcp(authority(&dial.url), dial.receive_buffer).await?;
        let (socket, response) = client_async(request, stream).await?;
        let chosen = response.headers().get("sec-websocket-protocol");
        let subprotocol = chosen.map(|value| value.to_str().expect("text").to_owned());
        Ok(Self { socket, subprotocol, kept: VecDeque::new(), closed: None })
    }

    /// Opens a socket and says `connect` with these fields.
    pub async fn connect(url: &str, fields: Value) -> Self {
        let mut wire = Self::open(url).await;
        wire.say_connect(fields).await;
        wire
    }

    /// Says `connect` with these fields.
    pub async fn say_connect(&mut self, mut fields: Value) {
        fields["type"] = json!("connect");
        self.send(fields).await;
    }

    /// Sends one frame; one that is not to be good is sent by [`Wire::send_text`].
    pub async fn send(&mut self, frame: Value) {
        self.send_text(&good(frame)).await;
    }

    /// Sends many frames, flushed once.
    pub async fn send_all(&mut self, frames: impl IntoIterator<Item = Value>) {
        for frame in frames {
            self.socket.feed(Message::text(good(frame))).await.expect("the socket takes a frame");
        }
        self.socket.flush().await.expect("the socket takes frames");
    }

    /// Sends a text frame as it is, JSON or not.
    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends a text frame of any bytes, UTF-8 or not.
    pub async fn send_bytes_as_text(&mut self, bytes: &[u8]) {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(Data::Text), true);
        self.send_message(Message::Frame(frame)).await;
    }

    /// Sends a text in two fragments (RFC 6455 §5.4).
    pub async fn send_in_halves(&mut self, text: &str) {
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let first = Frame::message(first.to_vec(), OpCode::Data(Data::Text), false);
        let second = Frame::message(second.to_vec(), OpCode::Data(Data::Continue), true);
        self.send_message(Message::Frame(first)).await;
        self.send_message(Message::Frame(second)).await;
    }

    /// Sends a frame whose opcode is reserved (RFC 6455 §5.2).
    pub async fn send_reserved(&mut self) {
        let frame = Frame::message(&b"x"[..], OpCode::Data(Data::Reserved(3)), true);
        self.send_message(Message::Frame(frame)).await;
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        self.send_message(Message::binary(bytes.to_vec())).await;
    }

    async fn send_message(&mut self, message: Message) {
        // A server that has closed already is seen by who reads next, which says more.
        if let Err(error) = self.socket.send(message).await {
            assert!(!matches!(error, Error::Utf8(_) | Error::Capacity(_)), "not sent: {error}");
        }
    }

    /// Says a `send` and returns without waiting for its reply.
    pub async fn say(&mut self, id: &str, to: &str, data: Value) {
        self.send(json!({"type": "send", "id": id, "to": to, "data": data})).await;
    }

    /// Says a `send` and returns its reply.
    pub async fn ask(&mut self, id: &str, to: &str, data: Value) -> Value {
        self.say(id, to, data).await;
        self.reply(id).await
    }

    /// Chooses a status and waits until that is done.
    pub async fn choose(&mut self, id: &str, status: &str) {
        self.send(json!({"type": "status", "id": id, "status": status})).await;
        let reply = self.reply(id).await;
        assert!(reply["ok"].is_object(), "{reply}");
    }

    /// Watches these users and returns what they show now.
    pub async fn watch(&mut self, id: &str, users: &[&str]) -> Vec<Value> {
        let reply = self.ask_about(id, "watch", users).await;
        reply["ok"]["users"].as_array().unwrap_or_else(|| panic!("{reply}")).clone()
    }

    /// Says `watch` or `unwatch` and returns the reply.
    pub async fn ask_about(&mut self, id: &str, command: &str, users: &[&str]) -> Value {
        self.send(json!({"type": command, "id": id, "users": users})).await;
        self.reply(id).await
    }

    /// What comes next, frame or end. Frames kept by [`Wire::reply`] and [`Wire::message`] come first.
    pub async fn next(&mut self) -> Incoming {
        match self.kept.pop_front() {
            Some(frame) => Incoming::Frame(frame),
            None => self.read(Instant::now() + LIMIT).await.expect("something comes in time"),
        }
    }

    /// The next frame; a socket that is closed instead fails the test.
    pub async fn frame(&mut self) -> Value {
        match self.next().await {
            Incoming::Frame(frame) => frame,
            Incoming::Closed(why) => panic!("closed instead of a frame: {why:?}"),
        }
    }

    /// The next frame, which stays the next one.
    pub async fn peek(&mut self) -> Value {
        let frame = self.frame().await;
        self.kept.push_front(frame.clone());
        frame
    }

    /// The next frame of this type; others are kept.
    pub async fn frame_of(&mut self, tag: &str) -> Value {
        self.find(tag, |frame| frame["type"] == tag).await
    }

    /// The next `message`; other frames are kept.
    pub async fn message(&mut self) -> Value {
        self.frame_of("message").await
    }

    /// The reply to the command `id`; other frames are kept.
    pub async fn reply(&mut self, id: &str) -> Value {
        self.find(id, |frame| frame["type"] == "reply" && frame["id"] == id).await
    }

    /// The code and reason that it is closed with; frames before that are kept.
    pub async fn close_code(&mut self) -> (u16, String) {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.read(deadline).await.expect("the socket is closed in time") {
                Incoming::Frame(frame) => self.kept.push_back(frame),
                Incoming::Closed(why) => return why.expect("a close frame"),
            }
        }
    }

    /// Closes it and waits until the server has seen that. True if it answered with a close frame of its own
    /// (RFC 6455 §5.5.1).
    pub async fn close(mut self) -> bool {
        let _ = self.socket.close(None).await;
        let deadline = Instant::now() + LIMIT;
        let mut answered = false;
        while let Ok(Some(Ok(message))) = timeout_at(deadline, self.socket.next()).await {
            answered |= message.is_close();
        }
        answered
    }

    async fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at).expect("it was found");
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.read(deadline).await {
                Some(Incoming::Frame(frame)) if wanted(&frame) => return frame,
                Some(Incoming::Frame(frame)) => self.kept.push_back(frame),
                Some(Incoming::Closed(why)) => panic!("closed instead of '{what}': {why:?}"),
                None => panic!("no '{what}' in time; last came {:?}", self.kept.back()),
            }
        }
    }

    /// The next frame or the end; nothing if neither comes in time. Pings are answered here.
    async fn read(&mut self, deadline: Instant) -> Option<Incoming> {
        if let Some(why) = &self.closed {
            return Some(Incoming::Closed(why.clone()));
        }
        loop {
            let why = match timeout_at(deadline, self.socket.next()).await.ok()? {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                    SERVER.check(&frame).unwrap_or_else(|wrong| panic!("{wrong}, in the frame {frame}"));
                    if frame["type"] == "ping" {
                        self.send(json!({"type": "pong"})).await;
                        continue;
                    }
                    return Some(Incoming::Frame(frame));
                }
                Some(Ok(Message::Close(frame))) => frame.map(|f| (u16::from(f.code), f.reason.to_string())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(other)) => panic!("the server speaks JSON text, not {other:?}"),
                Some(Err(_)) | None => None,
            };
            self.closed = Some(why.clone());
            return Some(Incoming::Closed(why));
        }
    }
}

fn good(frame: Value) -> String {
    CLIENT.check(&frame).unwrap_or_else(|wrong| panic!("{wrong}, in the frame {frame}"));
    frame.to_string()
}

async fn tcp(authority: &str, receive_buffer: Option<u32>) -> std::io::Result<TcpStream> {
    let addr = lookup_host(authority).await?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `host:port` of a URL.
pub fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// The answer to an HTTP request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Everything before the body, in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as JSON, or null.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Asks with a `GET` and these headers, on a connection of its own.
pub async fn get(url: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    request("GET", url, path, headers).await
}

/// Asks without a body, on a connection of its own.
///
/// By hand, because what a good client would refuse to send has to be sent too.
pub async fn request(method: &str, url: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    request_with(method, url, path, headers, "").await
}

/// Asks with a body, on a connection of its own.
pub async fn request_with(
    method: &str,
    url: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", authority(url));
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    let exchange = async {
        let mut stream = tcp(authority(url), None).await?;
        // A server that refuses before it has read everything may close first.
        let _ = stream.write_all(text.as_bytes()).await;
        read_answer(&mut stream).await
    };
    let answer = tokio::time::timeout(LIMIT, exchange).await.expect("an answer in time");
    answer.expect("an answer")
}

/// Asks with a body of which the end never comes: what is answered all the same, and the connection, which stays.
pub async fn begin(line: &str, url: &str, token: &str) -> (Answer, TcpStream) {
    let head = format!("{line} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n", authority(url));
    let exchange = async {
        let mut stream = tcp(authority(url), None).await?;
        stream.write_all(format!("{head}content-length: 60000\r\n\r\n{{").as_bytes()).await?;
        let answer = read_answer(&mut stream).await?;
        std::io::Result::Ok((answer, stream))
    };
    let answer = tokio::time::timeout(LIMIT, exchange).await.expect("an answer in time");
    answer.expect("an answer")
}

async fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes) {
            return Ok(answer);
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// An answer, once its head and as much of its body as `content-length` says are there.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head: head.to_lowercase(), body: body.to_owned() };
    let length = answer.header("content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    if answer.body.len() < length {
        return None;
    }
    answer.body.truncate(length);
    Some(answer)
}
