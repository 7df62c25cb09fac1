//! A way to Redis that can be shut: what a process sends is kept, and arrives when the gate is opened.
//!
//! The moment between a node's look at its lease and its write reaching Redis is some microseconds long. Here it
//! lasts for as long as a test needs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const CHUNK: usize = 64 * 1024;

/// A proxy in front of a Redis. All connections end with it.
pub struct Gate {
    pub url: String,
    state: Arc<State>,
    _accepting: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Shut,
    /// Open, and what Redis answers is noted.
    Watched,
}

struct State {
    mode: watch::Sender<Mode>,
    /// What was kept since the gate was shut.
    held: Mutex<Vec<u8>>,
    /// What Redis answered since the gate was opened.
    answers: Mutex<Vec<u8>>,
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

impl Gate {
    /// In front of the Redis at `redis_url`, open.
    pub async fn start(redis_url: &str) -> Self {
        let redis = roost_tests::wire::authority(redis_url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (mode, _) = watch::channel(Mode::Open);
        let state = Arc::new(State { mode, held: Mutex::default(), answers: Mutex::default() });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, redis, Arc::clone(&state)));
        Self { url: format!("redis://{addr}"), state, _accepting: accepting }
    }

    /// From now on nothing reaches Redis.
    pub fn shut(&self) {
        lock(&self.state.held).clear();
        self.state.mode.send_replace(Mode::Shut);
    }

    /// How often this text is in what was kept.
    pub fn held(&self, text: &str) -> usize {
        count(&lock(&self.state.held), text)
    }

    /// What was kept arrives now.
    pub fn open(&self) {
        lock(&self.state.answers).clear();
        self.state.mode.send_replace(Mode::Watched);
    }

    /// How often this text is in what Redis has answered since.
    pub fn answered(&self, text: &str) -> usize {
        count(&lock(&self.state.answers), text)
    }
}

async fn accept(listener: TcpListener, redis: String, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&redis).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        connections.spawn(ask(from_client, to_server, Arc::clone(&state)));
        connections.spawn(answer(from_server, to_client, Arc::clone(&state)));
    }
}

/// Towards Redis. Returning closes that half, and so in the end the connection.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>) {
    let mut mode = state.mode.subscribe();
    let (mut chunk, mut kept) = (vec![0; CHUNK], Vec::new());
    loop {
        let open = async { mode.wait_for(|mode| *mode != Mode::Shut).await.is_ok() };
        tokio::select! {
            biased;
            open = open, if !kept.is_empty() => {
                if !open || to.write_all(&kept).await.is_err() {
                    return;
                }
                kept.clear();
            }
            read = from.read(&mut chunk) => {
                let Ok(n @ 1..) = read else { return };
                kept.extend_from_slice(&chunk[..n]);
                if *state.mode.borrow() == Mode::Shut {
                    lock(&state.held).extend_from_slice(&chunk[..n]);
                }
            }
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if *state.mode.borrow() == Mode::Watched {
            lock(&state.answers).extend_from_slice(&chunk[..n]);
        }
        if to.write_all(&chunk[..n]).await.is_err() {
            return;
        }
    }
}
