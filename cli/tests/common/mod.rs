//! The program itself, and a `roost dev` to ask.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For whatever must happen: only a failing test, or a machine with a lot else to do, waits so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program with an environment of its own.
pub(crate) fn roost(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roost"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// Waits for its end; one that does not end is killed.
pub(crate) fn ended(mut child: Child, limit: Duration) -> Output {
    let since = Instant::now();
    while child.try_wait().expect("it can be waited for").is_none() {
        if since.elapsed() > limit {
            child.kill().expect("it can be killed");
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("what it said")
}

/// A directory of this run alone, gone with the test.
pub(crate) struct Dir(pub PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name} {}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path of text")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A `roost dev` of one node.
pub(crate) struct Dev {
    child: Child,
    pub url: String,
    port: u16,
    dir: Option<Dir>,
    /// What it printed until it said how to end it.
    pub greeting: Vec<String>,
    _stdout: BufReader<ChildStdout>,
}

impl Dev {
    pub(crate) fn start(name: &str) -> Self {
        Self::with(name, &[])
    }

    /// With these variables in its environment.
    pub(crate) fn with(name: &str, vars: &[(&str, &str)]) -> Self {
        Self::at(Dir::new(name), row(), vars)
    }

    /// Killed, and started again as it was.
    pub(crate) fn restarted(mut self) -> Self {
        self.kill();
        let (dir, port) = (self.dir.take().expect("there until now"), self.port);
        drop(self);
        Self::at(dir, port, &[])
    }

    fn at(dir: Dir, port: u16, vars: &[(&str, &str)]) -> Self {
        let mut command = roost(&["dev", "--nodes", "1", "--port", &port.to_string()]);
        command.env("ROOST_DATA_DIR", dir.path()).env("VNODES", "16").envs(vars.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut greeting = Vec::new();
        while greeting.last().is_none_or(|line: &String| !line.starts_with("Ctrl-C")) {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).expect("a line"), 0, "it ended: {greeting:#?}");
            greeting.push(line.trim_end().to_owned());
        }
        let url = format!("http://127.0.0.1:{port}");
        Self { child, url, port, dir: Some(dir), greeting, _stdout: stdout }
    }

    /// The program, as in another terminal that knows this cluster.
    pub(crate) fn roost(&self, args: &[&str]) -> Command {
        let mut command = roost(args);
        let dir = self.dir.as_ref().expect("there until it is started again");
        command.env("ROOST_DATA_DIR", dir.path()).env("ROOST_URL", &self.url);
        command
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first of a row of ports that are free.
fn row() -> u16 {
    for _ in 0..100 {
        let first = 20_000 + rand::random::<u16>() % 10_000;
        let wanted = [0, 1, 10, 100, 101, 110].map(|n| TcpListener::bind(("127.0.0.1", first + n)));
        if wanted.iter().all(Result::is_ok) {
            return first;
        }
    }
    panic!("no free row of ports");
}
