//! One connection: frames in, frames out, and the clocks that belong to a connection alone.
//!
//! What a session may do and what it is sent is decided by the core; here are the limits that need no knowledge
//! of anything else: time to `connect`, pings, malformed frames, the token's end.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use futures_util::{FutureExt, SinkExt, StreamExt};
use prometheus::IntCounter;
use roost_proto::codes::CloseCode;
use roost_proto::frames::{ClientFrame, Connect, Empty, Reply, ServerFrame, TokenExpiring};
use roost_proto::limits::*;
use roost_proto::{Claims, ErrorBody, ErrorCode, FrameError, UserId};
use roost_service::ratelimit::Bucket;
use roost_service::tokens::{TokenError, Verifier};
use roost_service::{Panicked, guarded};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::{Command, Connecting, Input, OfConnection, Rights, SessionKey, Taken};
use crate::inputs::{NodeInput, Out};
use crate::lifetime::Lifetime;
use crate::origin::Origins;
use crate::silence::Silence;
use crate::wire::Frames;

/// A socket that takes nothing for this long is gone: the longest a living one may be silent.
const WRITE_TIMEOUT: Duration = Duration::from_millis(PING_INTERVAL_MS + PONG_TIMEOUT_MS);
/// Time for the other side to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Frames written together, as many as one call to the system takes.
const WRITE_BATCH: usize = 64;

/// What all connections of a node share.
pub(crate) struct Shared {
    pub events: mpsc::Sender<NodeInput>,
    /// Bytes that may wait in it.
    pub bytes: Arc<Semaphore>,
    pub verifier: Verifier,
    /// Pages that may connect; none: all.
    pub origins: Option<Origins>,
    pub origins_refused: IntCounter,
    /// A session is told this long before its token ends.
    pub token_expiring: Duration,
    pub next: AtomicU64,
    /// Frames of any kind read from one connection, per second and in a burst; 0: no limit.
    pub frames: (u32, u32),
    /// Frames and bytes of messages and signals that may be on their way to one socket.
    pub credit: (usize, usize),
    pub signal_credit: (usize, usize),
    /// Room for all message frames on credit, all replies, and what the server says of itself.
    pub queue_max: usize,
    pub sockets: TaskTracker,
    /// Cancelled when the remaining connections are closed with 3001.
    pub closing: CancellationToken,
    /// Cancelled when they end without a word.
    pub stop: CancellationToken,
}

impl Shared {
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        // The system's clock, not the node's: what a token says is about the present.
        self.verifier.verify(token, wall_s())
    }
}

pub(crate) fn wall_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

type Socket = WebSocketStream<TcpStream>;
type Closing = (CloseCode, String);

/// Serves one connection to its end. A bug that panics ends it, and nobody else's.
pub(crate) async fn run(shared: Arc<Shared>, mut socket: Socket, claims: Option<Claims>) {
    let bug = |bug: Panicked| Some((CloseCode::Bug, bug.to_string()));
    let closing = guarded(served(&shared, &mut socket, claims)).await.unwrap_or_else(bug);
    match closing {
        Some((code, reason)) => close(&mut socket, code, &reason).await,
        // A close frame from the other side is answered by what tungstenite has queued (RFC 6455 §5.5.1).
        None => drop(timeout(CLOSE_TIMEOUT, socket.flush()).await),
    }
}

/// Until it is to be closed, with a word or without.
async fn served(shared: &Shared, socket: &mut Socket, claims: Option<Claims>) -> Option<Closing> {
    let deadline = Instant::now() + Duration::from_millis(CONNECT_TIMEOUT_MS);
    let mut bad = BadFrames::default();
    let connect = tokio::select! {
        connect = first_frame(socket, &mut bad) => connect,
        () = sleep_until(deadline) => Err(Some((CloseCode::NoConnect, "no connect frame in time".into()))),
        () = shared.closing.cancelled() => Err(Some((CloseCode::Draining, "this node is being stopped".into()))),
    };
    let opened = match connect {
        Ok(connect) => open(shared, connect, claims).await,
        Err(closing) => Err(closing),
    };
    match opened {
        Ok(session) => session.serve(shared, socket, bad).await,
        Err(closing) => closing,
    }
}

/// Reads until `connect`; other frames are told to wait for it.
async fn first_frame(socket: &mut Socket, bad: &mut BadFrames) -> Result<Connect, Option<Closing>> {
    loop {
        match read(socket.next().await)? {
            Some(Ok(ClientFrame::Connect(connect))) => return Ok(connect),
            Some(Ok(other)) => {
                let error = ErrorBody::new(ErrorCode::BadRequest, "the first frame is 'connect'");
                let id = other.id().map(ToString::to_string);
                refuse(socket, bad, FrameError { id, error }).await?;
            }
            Some(Err(error)) => refuse(socket, bad, error).await?,
            None => {}
        }
    }
}

async fn refuse(socket: &mut Socket, bad: &mut BadFrames, error: FrameError) -> Result<(), Option<Closing>> {
    bad.count()?;
    let reply = ServerFrame::Reply(Reply::error(error.id, error.error)).to_json();
    write(socket, Message::text(reply)).await
}

/// One incoming message as a frame; `None` for those of the WebSocket protocol itself.
fn read(
    message: Option<Result<Message, WsError>>,
) -> Result<Option<Result<ClientFrame, FrameError>>, Option<Closing>> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(ClientFrame::parse(&text))),
        Some(Ok(Message::Binary(_))) => Err(Some((CloseCode::Binary, "frames are JSON text".into()))),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Close(_))) | None => Err(None),
        Some(Err(error)) => Err(fault(&error)),
    }
}

/// tungstenite does not say itself why it gives up (RFC 6455 §7.4.1).
fn fault(error: &WsError) -> Option<Closing> {
    match error {
        WsError::Utf8(_) => Some((CloseCode::NotUtf8, "a text frame is not UTF-8".into())),
        WsError::Capacity(CapacityError::MessageTooLong { .. } | CapacityError::TooManyHeaders) => {
            Some((CloseCode::TooLarge, format!("a message is larger than {FRAME_BYTES_MAX} bytes")))
        }
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        WsError::Protocol(error) => Some((CloseCode::Protocol, error.to_string())),
        _ => None,
    }
}

async fn write(socket: &mut Socket, message: Message) -> Result<(), Option<Closing>> {
    match timeout(WRITE_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

async fn close(socket: &mut Socket, code: CloseCode, reason: &str) {
    let reason = cut(reason, REASON_BYTES_MAX);
    let frame = CloseFrame { code: code.code().into(), reason: reason.to_owned().into() };
    let _ = timeout(CLOSE_TIMEOUT, async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await;
}

/// As much of a text as a close frame takes: a control frame carries 125 bytes, two of them the code (RFC 6455 §5.5).
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Says why, and closes: for a connection that is not served at all.
pub(crate) async fn turn_away(mut socket: Socket, code: CloseCode, reason: &str) {
    close(&mut socket, code, reason).await;
}

/// Malformed frames of the last minute.
#[derive(Debug, Default)]
struct BadFrames(VecDeque<Instant>);

impl BadFrames {
    fn count(&mut self) -> Result<(), Option<Closing>> {
        let now = Instant::now();
        self.0.push_back(now);
        while self.0.front().is_some_and(|at| now - *at > Duration::from_secs(60)) {
            self.0.pop_front();
        }
        if self.0.len() < BAD_FRAMES_PER_MIN_MAX {
            return Ok(());
        }
        Err(Some((CloseCode::BadFrames, "too many malformed frames".into())))
    }
}

/// Checks the token and brings the connection to the core.
async fn open(shared: &Shared, connect: Connect, claims: Option<Claims>) -> Result<Session, Option<Closing>> {
    let claims = match (connect.token.as_deref(), claims) {
        (Some(token), _) => shared.verify(token).map_err(|e| match e {
            TokenError::Expired => Some((CloseCode::TokenExpired, e.to_string())),
            _ => Some((CloseCode::BadToken, e.to_string())),
        })?,
        (None, Some(claims)) => claims,
        (None, None) => return Err(Some((CloseCode::BadToken, "no token".into()))),
    };
    let key = SessionKey(shared.next.fetch_add(1, Ordering::Relaxed));
    let (out, queue) = mpsc::channel(shared.queue_max);
    let connecting = Connecting {
        session: key,
        user: claims.sub.clone(),
        device: connect.device,
        rights: Rights::of(claims.rooms, claims.watch, claims.role),
        epoch: connect.epoch,
        cursor: connect.cursor,
        rooms: connect.rooms,
    };
    let input = NodeInput::Connect(Box::new(connecting), out);
    shared.events.send(input).await.map_err(|_| None)?;
    Ok(Session {
        key,
        user: claims.sub,
        queue,
        taken: Taken::new(key, shared.credit, shared.signal_credit),
        lifetime: Lifetime::of(claims.exp, wall_s(), shared.token_expiring, Instant::now()),
        events: shared.events.clone(),
        began: Instant::now(),
        frames: Bucket::new(shared.frames.0, shared.frames.1),
        refreshes: Bucket::new(REFRESHES_PER_S, REFRESHES_BURST),
        silence: Silence::default(),
        greeted: false,
        told: false,
    })
}

/// An authenticated connection. Dropping it tells the core.
struct Session {
    key: SessionKey,
    user: UserId,
    queue: mpsc::Receiver<Out>,
    taken: Taken,
    lifetime: Lifetime,
    events: mpsc::Sender<NodeInput>,
    began: Instant,
    frames: Bucket,
    refreshes: Bucket,
    silence: Silence,
    /// The first frame was written: `welcome` or `moved`.
    greeted: bool,
    told: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.told {
            // Only after a panic of this task; a full queue is left to the next frame that finds nobody.
            let _ = self.events.try_send(NodeInput::Core(Input::Closed { session: self.key }));
        }
    }
}

impl Session {
    async fn serve(mut self, shared: &Shared, socket: &mut Socket, bad: BadFrames) -> Option<Closing> {
        let closing = self.exchange(shared, socket, bad).await;
        let closed = Input::Closed { session: self.key };
        self.told = self.events.send(NodeInput::Core(closed)).await.is_ok();
        closing
    }

    /// Frames that come faster than any application sends them are read later, not refused: the core and the other
    /// sessions of the node do not notice.
    async fn pace(&mut self) {
        let now = self.began.elapsed().as_millis() as u64;
        if let Err(wait_ms) = self.frames.take(now) {
            tokio::time::sleep(Duration::from_millis(wait_ms.min(1000))).await;
        }
    }

    async fn exchange(
        &mut self,
        shared: &Shared,
        socket: &mut Socket,
        mut bad: BadFrames,
    ) -> Option<Closing> {
        let mut batch = Vec::new();
        // Both outlive the turns of the loop: to make them anew for every batch would cost more than the batch.
        let mut alarm = pin!(sleep_until(self.next_alarm()));
        let mut closing = pin!(shared.closing.cancelled());
        loop {
            // What is put off only is noticed when the alarm goes off.
            let next = self.next_alarm();
            if next < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(next);
            }
            let outcome = tokio::select! {
                n = self.queue.recv_many(&mut batch, WRITE_BATCH) => {
                    if n == 0 {
                        return Some((CloseCode::TooSlow, "what was sent here is not read".into()));
                    }
                    self.write_batch(socket, &mut batch).await
                }
                message = socket.next() => self.heard(shared, socket, message, &mut bad).await,
                () = &mut alarm => self.on_alarm(shared, socket, &mut bad).await,
                () = &mut closing => Err(Some((CloseCode::Draining, "this node is being stopped".into()))),
            };
            if let Err(closing) = outcome {
                return closing;
            }
        }
    }

    /// When something is to be done that nobody asks for.
    fn next_alarm(&self) -> Instant {
        let tells = Some(self.lifetime.tells()).filter(|_| self.greeted && !self.lifetime.told());
        let ends = self.lifetime.ends().min(self.silence.ends());
        tells.map_or(ends, |tells| tells.min(ends))
    }

    /// Does what is due.
    async fn on_alarm(
        &mut self,
        shared: &Shared,
        socket: &mut Socket,
        bad: &mut BadFrames,
    ) -> Result<(), Option<Closing>> {
        let now = Instant::now();
        if now >= self.lifetime.ends() {
            return Err(Some((CloseCode::TokenExpired, "the token expired".into())));
        }
        if self.greeted && !self.lifetime.told() && now >= self.lifetime.tells() {
            let expiring = TokenExpiring { in_ms: self.lifetime.tell(now) };
            write(socket, Message::text(ServerFrame::TokenExpiring(expiring).to_json())).await?;
        }
        if now < self.silence.ends() {
            return Ok(());
        }
        // An answer may have come while this task was busy: it is read before anything is concluded.
        match socket.next().now_or_never() {
            Some(message) => self.heard(shared, socket, message, bad).await,
            None if self.silence.was_pinged() => {
                Err(Some((CloseCode::NoPong, "no answer to a ping in time".into())))
            }
            None => {
                self.silence.ping();
                write(socket, Message::text(ServerFrame::Ping(Empty {}).to_json())).await
            }
        }
    }

    /// Writes what the core handed over, and says so when it is time (see [`Taken`]).
    async fn write_batch(
        &mut self,
        socket: &mut Socket,
        batch: &mut Vec<Out>,
    ) -> Result<(), Option<Closing>> {
        self.greeted = true;
        let mut frames = Frames::default();
        let mut closing = None;
        for out in batch.drain(..) {
            match out {
                Out::Frame { frame, queue, bytes } => {
                    frames.push(frame);
                    self.taken.take(queue, bytes);
                }
                Out::Close { code, reason } => {
                    closing = Some((code, reason.into_owned()));
                    break;
                }
            }
        }
        // What tungstenite has of its own, a pong perhaps, goes first: then it has nothing half written.
        let Ok(Ok(())) = timeout(WRITE_TIMEOUT, socket.flush()).await else { return Err(None) };
        // A slow reader takes something again and again.
        while frames.has_remaining() {
            let written = timeout(WRITE_TIMEOUT, socket.get_mut().write_buf(&mut frames)).await;
            let Ok(Ok(1..)) = written else { return Err(None) };
        }
        if let Some(closing) = closing {
            return Err(Some(closing));
        }
        match self.taken.due() {
            Some(drained) => self.tell(drained).await,
            None => Ok(()),
        }
    }

    async fn heard(
        &mut self,
        shared: &Shared,
        socket: &mut Socket,
        message: Option<Result<Message, WsError>>,
        bad: &mut BadFrames,
    ) -> Result<(), Option<Closing>> {
        let bytes = if let Some(Ok(Message::Text(text))) = &message { text.len() } else { 0 };
        let frame = read(message)?;
        if frame.is_some() {
            self.silence.end();
        }
        self.pace().await;
        let frame = match frame {
            None => return Ok(()),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return refuse(socket, bad, error).await,
        };
        match Command::of(frame, |token| self.refresh(shared, token)) {
            Ok(command) => self.say(shared, command, bytes).await,
            Err(OfConnection::Pong) => Ok(()),
            Err(OfConnection::Ping) => {
                write(socket, Message::text(ServerFrame::Pong(Empty {}).to_json())).await
            }
            Err(OfConnection::Connect) => {
                let error = ErrorBody::new(ErrorCode::BadRequest, "this connection is connected already");
                refuse(socket, bad, FrameError { id: None, error }).await
            }
        }
    }

    /// Takes a fresh token of the same user; one that is not accepted changes nothing.
    fn refresh(&mut self, shared: &Shared, token: &str) -> Result<Rights, ErrorBody> {
        let now = self.began.elapsed().as_millis() as u64;
        self.refreshes
            .take(now)
            .map_err(|wait| ErrorBody::new(ErrorCode::RateLimited, "too many tokens").retry_after(wait))?;
        let claims = shared.verify(token).map_err(|e| e.body())?;
        if claims.sub != self.user {
            return Err(ErrorBody::new(ErrorCode::Unauthorized, "the token is for another user"));
        }
        let now_s = wall_s();
        // The leeway of the clocks lets such a token in, but it would end the session at once.
        if claims.exp <= now_s {
            return Err(TokenError::Expired.body());
        }
        self.lifetime = Lifetime::of(claims.exp, now_s, shared.token_expiring, Instant::now());
        Ok(Rights::of(claims.rooms, claims.watch, claims.role))
    }

    /// Brings a command to the core when there is room for its bytes.
    async fn say(&self, shared: &Shared, command: Command, bytes: usize) -> Result<(), Option<Closing>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&shared.bytes).acquire_many_owned(bytes).await.map_err(|_| None)?;
        let said = Input::Command { session: self.key, command };
        self.events.send(NodeInput::Said(said, room)).await.map_err(|_| None)
    }

    async fn tell(&self, event: Input) -> Result<(), Option<Closing>> {
        self.events.send(NodeInput::Core(event)).await.map_err(|_| None)
    }
}
