//! A way to a server that can be shut: what a process sends is kept, and arrives when the gate is opened. Or it is
//! cut, and whoever comes is refused.
//!
//! The moment between a node's look at its lease and its write reaching Redis is some microseconds long. Here it
//! lasts for as long as a test needs it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const CHUNK: usize = 64 * 1024;

/// A proxy in front of one server, or of several, of which each new connection goes to the next one that takes it.
/// All connections end with it.
pub struct Proxy {
    pub addr: SocketAddr,
    state: Arc<State>,
    _accepting: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Shut,
    /// Open, and what the server answers is noted.
    Watched,
    /// The same, and no answer arrives.
    Muted,
    /// Connections are closed, new ones too.
    Cut,
}

struct State {
    mode: watch::Sender<Mode>,
    /// What was kept since the gate was shut.
    held: Mutex<Vec<u8>>,
    /// What was answered since the gate was opened.
    answers: Mutex<Vec<u8>>,
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

impl Proxy {
    /// In front of these servers (`host:port`), open, at a free port.
    pub async fn start(servers: &[String]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), servers).await
    }

    /// The same at this address.
    pub async fn start_at(addr: SocketAddr, servers: &[String]) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (mode, _) = watch::channel(Mode::Open);
        let state = Arc::new(State { mode, held: Mutex::default(), answers: Mutex::default() });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, servers.to_vec(), Arc::clone(&state)));
        Self { addr, state, _accepting: accepting }
    }

    /// From now on nothing reaches the server.
    pub fn shut(&self) {
        lock(&self.state.held).clear();
        self.state.mode.send_replace(Mode::Shut);
    }

    /// How often this text is in what was kept.
    pub fn held(&self, text: &str) -> usize {
        count(&lock(&self.state.held), text)
    }

    /// Closes every connection, and new ones until it is opened.
    pub fn cut(&self) {
        self.state.mode.send_replace(Mode::Cut);
    }

    /// As at the start: what was kept arrives now, and no answer is noted.
    pub fn restore(&self) {
        self.state.mode.send_replace(Mode::Open);
    }

    /// What was kept arrives now, and answers are noted.
    pub fn open(&self) {
        lock(&self.state.answers).clear();
        self.state.mode.send_replace(Mode::Watched);
    }

    /// From now on no answer of the server arrives; it is noted instead.
    pub fn mute(&self) {
        lock(&self.state.answers).clear();
        self.state.mode.send_replace(Mode::Muted);
    }

    /// How often this text is in what was answered since.
    pub fn answered(&self, text: &str) -> usize {
        count(&lock(&self.state.answers), text)
    }
}

async fn accept(listener: TcpListener, servers: Vec<String>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    let mut turn = 0;
    while let Ok((client, _)) = listener.accept().await {
        // What has ended is forgotten: a gate may stand for hours.
        while connections.try_join_next().is_some() {}
        if *state.mode.borrow() == Mode::Cut {
            continue;
        }
        turn += 1;
        let Some(server) = connect(&servers, turn).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        connections.spawn(pass(client, server, Arc::clone(&state)));
    }
}

async fn connect(servers: &[String], turn: usize) -> Option<TcpStream> {
    for i in 0..servers.len() {
        if let Ok(stream) = TcpStream::connect(&servers[(turn + i) % servers.len()]).await {
            return Some(stream);
        }
    }
    None
}

/// Until one side closes both ways, or the gate is cut.
async fn pass(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut mode = state.mode.subscribe();
    tokio::select! {
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
        _ = async { tokio::join!(ask(from_client, to_server, &state), answer(from_server, to_client, &state)) } => {}
    }
}

/// Towards the server. Returning closes that half, and so in the end the connection.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
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

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        let mode = *state.mode.borrow();
        if matches!(mode, Mode::Watched | Mode::Muted) {
            lock(&state.answers).extend_from_slice(&chunk[..n]);
        }
        if mode != Mode::Muted && to.write_all(&chunk[..n]).await.is_err() {
            return;
        }
    }
}
