//! A link that this node opened: dialled, proven, and written until it ends.

use std::pin::pin;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request};
use roost_backend::store::Store;
use roost_proto::ids::Sid;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::proof::{End, Meeting, nonce};
use super::{HEADER, OPEN_TIMEOUT, PING_EVERY, SILENT_MAX, secret, websocket};
use crate::core::{Input, LinkInput, LinkKey};
use crate::inputs::NodeInput;

/// Payloads written together.
const BATCH: usize = 64;
/// What is written is told to the core in portions: it counts in megabytes.
const TOLD_BYTES: usize = 64 * 1024;

/// See the module's text.
pub(super) struct Dialled {
    pub link: LinkKey,
    pub admin: String,
    pub from: Sid,
    pub to: Sid,
    pub events: mpsc::Sender<NodeInput>,
}

type Socket = WebSocketStream<TcpStream>;

/// What is written is taken, and before the other end would count as silent.
async fn taken(written: impl Future<Output = Result<(), Error>>) -> Result<(), String> {
    match timeout(SILENT_MAX, written).await {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => Err("it takes nothing".into()),
    }
}

impl Dialled {
    /// To its end, which is told.
    pub(super) async fn run(self, store: &dyn Store, queue: mpsc::Receiver<Bytes>) {
        let ended = match self.open(store).await {
            Ok(socket) => {
                self.tell(LinkInput::Opened(self.link)).await;
                tracing::debug!(to = %self.to, "a link is open");
                self.write(socket, queue).await
            }
            Err(why) => Err(why),
        };
        if let Err(why) = ended {
            tracing::debug!(to = %self.to, admin = self.admin, why, "there is no link");
        }
        self.tell(LinkInput::Closed(self.link)).await;
    }

    async fn tell(&self, input: LinkInput) {
        // Fails only when the node has ended.
        let _ = self.events.send(NodeInput::Core(Input::Link(input))).await;
    }

    async fn open(&self, store: &dyn Store) -> Result<Socket, String> {
        let secret = secret(store).await?;
        let meet = async {
            let stream = TcpStream::connect(&self.admin).await.map_err(|e| e.to_string())?;
            // A record must not wait for the answer to an earlier one.
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            let own = nonce();
            let said = format!("{} {} {own}", self.from, self.to);
            let (mut socket, answer) =
                client_async_with_config(self.request(&said)?, stream, Some(websocket()))
                    .await
                    .map_err(|e| e.to_string())?;
            let answer = answer.headers().get(HEADER).and_then(|value| value.to_str().ok());
            let (theirs, proof) =
                answer.and_then(|answer| answer.split_once(' ')).ok_or("it proves nothing")?;
            let meeting = Meeting {
                from: self.from.clone(),
                to: self.to.clone(),
                nonce_of_from: own,
                nonce_of_to: theirs.into(),
            };
            if !meeting.is_proven(&secret, End::Accepted, proof) {
                return Err("it does not know the secret of this ring".to_owned());
            }
            let proof = meeting.proof(&secret, End::Dialled);
            socket.send(Message::binary(proof)).await.map_err(|e| e.to_string())?;
            Ok(socket)
        };
        timeout(OPEN_TIMEOUT, meet).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }

    fn request(&self, said: &str) -> Result<Request<()>, String> {
        let url = format!("ws://{}/link", self.admin);
        let mut request = url.into_client_request().map_err(|e| e.to_string())?;
        let said = HeaderValue::from_str(said).map_err(|e| e.to_string())?;
        request.headers_mut().insert(HEADER, said);
        Ok(request)
    }

    /// Until nobody sends any more, or the other end is silent for too long.
    async fn write(&self, mut socket: Socket, mut queue: mpsc::Receiver<Bytes>) -> Result<(), String> {
        let mut batch = Vec::with_capacity(BATCH);
        let (mut heard, mut written) = (Instant::now(), 0);
        let mut alarm = pin!(sleep_until(heard + PING_EVERY));
        loop {
            tokio::select! {
                n = queue.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        let _ = timeout(OPEN_TIMEOUT, socket.close(None)).await;
                        return Ok(());
                    }
                    let bytes: usize = batch.iter().map(Bytes::len).sum();
                    let all = async {
                        for payload in batch.drain(..) {
                            socket.feed(Message::Binary(payload)).await?;
                        }
                        socket.flush().await
                    };
                    taken(all).await?;
                    written += bytes;
                    if written >= TOLD_BYTES {
                        self.tell(LinkInput::Written(self.link, written)).await;
                        written = 0;
                    }
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Close(_))) | None => return Err("it was closed".into()),
                    Some(Ok(_)) => heard = Instant::now(),
                    Some(Err(error)) => return Err(error.to_string()),
                },
                () = &mut alarm => {
                    if heard.elapsed() >= SILENT_MAX {
                        return Err("it is silent".into());
                    }
                    alarm.as_mut().reset(Instant::now() + PING_EVERY);
                    taken(socket.send(Message::Ping(Bytes::new()))).await?;
                }
            }
        }
    }
}
