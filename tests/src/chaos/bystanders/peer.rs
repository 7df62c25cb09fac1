//! One socket of somebody who follows no rules: it says what it likes and reads when it likes.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::cluster::{now_s, token};
use crate::wire::authority;

/// For one socket to be welcomed: a home that is moved or lost has a successor by then.
const WELCOMED_WITHIN: Duration = Duration::from_secs(20);
/// Longer than any run.
const TOKEN_S: u64 = 24 * 3_600;
const AGAIN_AFTER: Duration = Duration::from_millis(100);

pub(super) type Socket = WebSocketStream<TcpStream>;

/// Where sockets are opened, and how.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// Who says where a user is at home.
    pub front: String,
    pub http: reqwest::Client,
}

/// What came over a socket.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame.
    Frame(Value),
    /// It is over, with this close code.
    Closed(u16),
}

/// A socket that was welcomed.
#[derive(Debug)]
pub(super) struct Peer {
    pub socket: Socket,
    pub welcome: Value,
}

impl Door {
    /// A session of this user, at its home.
    ///
    /// # Errors
    /// If it is not welcomed in time, with what was said last.
    pub(super) async fn come(&self, user: &str, fields: &Value) -> anyhow::Result<Peer> {
        self.come_narrow(user, fields, None).await
    }

    /// The same, with so many bytes of the kernel's for what is not read.
    ///
    /// # Errors
    /// As [`Door::come`].
    pub(super) async fn come_narrow(
        &self,
        user: &str,
        fields: &Value,
        buffer: Option<u32>,
    ) -> anyhow::Result<Peer> {
        let mut last = anyhow::anyhow!("no try");
        let trying = async {
            loop {
                match self.try_once(user, fields, buffer).await {
                    Ok(peer) => return peer,
                    Err(error) => last = error,
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        };
        let came = timeout(WELCOMED_WITHIN, trying).await;
        came.map_err(|_| last.context(format!("{user} is not welcomed within {WELCOMED_WITHIN:?}")))
    }

    async fn try_once(&self, user: &str, fields: &Value, buffer: Option<u32>) -> anyhow::Result<Peer> {
        let answer = self.http.get(format!("{}/route?userId={user}", self.front)).send().await?;
        let route: Value = answer.json().await?;
        let mut url = route["url"].as_str().with_context(|| route.to_string())?.to_owned();
        // A home may have moved since; whoever is told so twice asks again.
        for _ in 0..2 {
            let mut socket = open(&url, buffer).await?;
            let mut connect = fields.clone();
            connect["type"] = json!("connect");
            connect["token"] = json!(token(user, now_s() + TOKEN_S));
            socket.send(Message::text(connect.to_string())).await?;
            match hear(&mut socket).await {
                Heard::Frame(welcome) if welcome["type"] == "welcome" => {
                    return Ok(Peer { socket, welcome });
                }
                Heard::Frame(moved) if moved["type"] == "moved" => {
                    url = moved["url"].as_str().with_context(|| moved.to_string())?.to_owned();
                }
                other => bail!("instead of a welcome: {other:?}"),
            }
        }
        bail!("moved twice")
    }
}

impl Peer {
    /// # Errors
    /// If the socket is gone.
    pub(super) async fn say(&mut self, frame: &Value) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(frame.to_string())).await?)
    }

    /// Says a command and returns its reply; everything else that comes is passed over.
    ///
    /// # Errors
    /// If the socket is gone.
    pub(super) async fn ask(&mut self, command: &Value) -> anyhow::Result<Value> {
        self.say(command).await?;
        loop {
            match self.hear().await {
                Heard::Frame(reply) if reply["type"] == "reply" && reply["id"] == command["id"] => {
                    return Ok(reply);
                }
                Heard::Frame(..) => {}
                Heard::Closed(code) => bail!("closed with {code} instead of a reply"),
            }
        }
    }

    /// The next frame, or the end. Pings are answered here.
    pub(super) async fn hear(&mut self) -> Heard {
        hear(&mut self.socket).await
    }
}

/// The cursor that a message has.
pub(super) fn cursor(message: &Value) -> Value {
    json!({"generation": message["generation"], "offset": message["offset"]})
}

/// What the protocol calls a connection that broke without a close frame.
pub(super) const BROKEN: u16 = 1006;

async fn hear(socket: &mut Socket) -> Heard {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap_or_default();
                if frame["type"] == "ping" {
                    // If it cannot be said the next read ends.
                    let _ = socket.send(Message::text(r#"{"type":"pong"}"#)).await;
                    continue;
                }
                return Heard::Frame(frame);
            }
            Some(Ok(Message::Close(frame))) => return Heard::Closed(frame.map_or(BROKEN, |f| f.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Heard::Closed(BROKEN),
        }
    }
}

async fn open(url: &str, buffer: Option<u32>) -> anyhow::Result<Socket> {
    let addr = lookup_host(authority(url)).await?.next().context("no address")?;
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("roost.v1"));
    Ok(client_async(request, stream).await?.0)
}
