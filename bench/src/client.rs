//! A bare client: no retries, no cursor, nothing between the measurement and the socket.

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use roost_proto::frames::ServerFrame;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::cluster::Cluster;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Some frames. tungstenite clears its buffer before every read, 128 KiB if not told: that would be most of what a
/// reader costs here.
const READ_BUFFER_BYTES: usize = 8 * 1024;

pub(crate) async fn open(url: &str) -> Result<Socket> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let (socket, _) = connect_async_with_config(url, Some(config), true).await?;
    Ok(socket)
}

pub(crate) struct Client {
    socket: Socket,
    prefix: String,
}

impl Client {
    pub(crate) async fn connect(cluster: &Cluster, user: &str) -> Result<Self> {
        Self::connect_to(&cluster.route(user).await?, cluster.token(user)).await
    }

    /// To a home that is known.
    pub(crate) async fn connect_to(url: &str, token: String) -> Result<Self> {
        let mut socket = open(url).await?;
        socket.send(Message::text(format!(r#"{{"type":"connect","token":"{token}"}}"#))).await?;
        let prefix = format!("{:016x}", rand::random::<u64>());
        let mut client = Self { socket, prefix };
        client.until("welcome").await?;
        Ok(client)
    }

    /// The socket of a user who is in `room` from the beginning.
    pub(crate) async fn join(cluster: &Cluster, user: String, room: &str) -> Result<Socket> {
        let token = cluster.token(&user);
        let connect = format!(r#"{{"type":"connect","token":"{token}","rooms":[{{"room":"{room}"}}]}}"#);
        Self::enter(&cluster.route(&user).await?, connect).await
    }

    /// The socket of whoever is welcomed after this first frame.
    pub(crate) async fn enter(url: &str, connect: String) -> Result<Socket> {
        let mut socket = open(url).await?;
        socket.send(Message::text(connect)).await?;
        let mut client = Self { socket, prefix: String::new() };
        client.until("welcome").await?;
        Ok(client.socket)
    }

    pub(crate) async fn publish(&mut self, room: &str, n: u64, data: &str) -> Result<()> {
        let id = &self.prefix;
        let frame = format!(r#"{{"type":"publish","id":"{id}-{n}","room":"{room}","data":{data}}}"#);
        Ok(self.socket.send(Message::text(frame)).await?)
    }

    pub(crate) async fn send(&mut self, to: &str, n: usize) -> Result<()> {
        let (id, pad) = (&self.prefix, "x".repeat(200));
        let frame =
            format!(r#"{{"type":"send","id":"{id}-{n}","to":"{to}","data":{{"n":{n},"pad":"{pad}"}}}}"#);
        Ok(self.socket.send(Message::text(frame)).await?)
    }

    /// Sends a command and reads its reply.
    pub(crate) async fn ask(&mut self, frame: String) -> Result<ServerFrame> {
        self.socket.send(Message::text(frame)).await?;
        loop {
            let message = self.socket.next().await.context("the connection ended")??;
            let Message::Text(text) = message else { continue };
            if text.starts_with(r#"{"type":"reply""#) {
                return Ok(ServerFrame::parse(&text)?);
            }
        }
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Reads to the next frame of this type; an error reply ends the measurement.
    pub(crate) async fn until(&mut self, kind: &str) -> Result<()> {
        let head = format!(r#"{{"type":"{kind}""#);
        loop {
            let message = self.socket.next().await.context("the connection ended")??;
            let Message::Text(text) = message else { continue };
            if text.starts_with(&head) {
                if kind == "reply" && text.contains(r#""error""#) {
                    bail!("refused: {text}");
                }
                return Ok(());
            }
        }
    }
}
