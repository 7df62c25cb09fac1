//! One process of a cluster, and where its program is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::{LIMIT, until};

/// Of each log so much is printed when a test fails.
const LOG_LINES_SHOWN: usize = 60;
/// Below the ports that systems give to outgoing connections, so that none of those takes one that was just found
/// free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// What can be sent to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Stop,
    Continue,
}

/// A child process with its log; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with this environment and nothing else of ours; its output goes to `dir/name.log`, after
    /// what an earlier life of this name wrote.
    pub(super) fn spawn(name: &str, program: &Path, vars: &BTreeMap<&str, String>, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log file");
        let copy = file.try_clone().expect("a second handle");
        let filter = std::env::var("ROOST_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
        let mut command = Command::new(program);
        command.env_clear().env("RUST_LOG", filter).env("RUST_BACKTRACE", "1").envs(vars);
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child =
            command.spawn().unwrap_or_else(|e| panic!("{} cannot be started: {e}", program.display()));
        Self { name: name.to_owned(), child, log }
    }

    /// By process id. Returns when the kernel has done it: a stopped process runs no further instruction.
    pub async fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "TERM",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        let pid = self.child.id();
        // `kill` is built into every shell, and a program only on some systems.
        let kill =
            tokio::process::Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().await;
        assert!(kill.expect("a shell").success(), "{}: kill -{name} {pid}", self.name);
        if signal == Signal::Stop {
            until("the process is stopped", LIMIT, async || self.is_stopped().then_some(())).await;
        }
    }

    /// As far as /proc says so; elsewhere it is believed.
    fn is_stopped(&self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())) else {
            return true;
        };
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, LIMIT, async || self.child.try_wait().expect("our own child")).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log_so_far()()
    }

    /// Its log, whenever it is asked for.
    pub fn log_so_far(&self) -> impl Fn() -> String + use<> {
        let log = self.log.clone();
        move || std::fs::read_to_string(&log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            println!("--- {} (the last {} of {} lines)", self.name, shown.len(), lines.len());
            shown.iter().for_each(|line| println!("{line}"));
        }
    }
}

/// The programs, where cargo puts them: beside the directory of this test's executable.
#[derive(Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    pub(super) fn beside_this() -> Self {
        let here = std::env::current_exe().expect("a path");
        // A test is in target/<profile>/deps, a program of this package in target/<profile>.
        let dir = here.parent().expect("a directory");
        let dir = if dir.ends_with("deps") { dir.parent().expect("target/<profile>") } else { dir };
        Self(dir.to_owned())
    }

    pub(super) fn find(&self, name: &str) -> PathBuf {
        let Self(dir) = self;
        let path = dir.join(name);
        let built = std::fs::metadata(&path).and_then(|file| file.modified());
        let cure = format!("cargo build -p roost-{name} (with --release, if the tests are)");
        assert!(built.is_ok(), "{} is missing; build it first: {cure}", path.display());
        // `cargo test -p roost-tests` builds the libraries that it uses itself, and not these programs.
        if built.ok() < newest(&dir.join("deps"), &format!("libroost_{}-", name.replace('-', "_"))) {
            println!("{} is older than its library and may be stale: {cure}", path.display());
        }
        path
    }
}

/// When the last of the libraries with this prefix was made.
fn newest(dir: &Path, prefix: &str) -> Option<SystemTime> {
    let files = std::fs::read_dir(dir).ok()?.flatten();
    let libraries = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(prefix) && name.ends_with(".rlib")
    });
    libraries.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

/// Free now, and given to nobody else in this process: whoever gets it binds it a moment later.
fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..PORTS.end - PORTS.start)));
    let candidates =
        std::iter::repeat_with(|| PORTS.start + next.fetch_add(1, Relaxed) % (PORTS.end - PORTS.start));
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.take(1_000).find(free).expect("a free port")
}

/// Where a process of ours may listen.
pub fn free_addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}
