//! Thousands of clients in a program of their own: what they have to do must not be in the times of others.
//!
//! The crowd writes what it sees to its standard output, as lines of a [`history`](crate::history), and ends when its
//! standard input does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use crate::conversation::{SEND_TIMEOUT, Talk};
use crate::history::{History, Line, What};
use crate::ledger::Ledger;
use crate::processes::Front;

/// What was confirmed when the end was asked for has arrived by then.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// For all of them to say goodbye.
const DISPERSED_WITHIN: Duration = Duration::from_secs(60);

/// The program: waits of clients and names come on standard input, a line each and then an empty one.
///
/// # Errors
/// If nobody says who is in it.
pub async fn crowd(coordinator: String) -> anyhow::Result<()> {
    let (backoff, names) = who_comes()?;
    let ledger = Ledger::with(History::create(Path::new("/dev/stdout"))?);
    let talk = Talk::open_with(&Front { url: coordinator, backoff }, names, ledger, SEND_TIMEOUT).await;
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await?;
    sleep(LAST_WORDS).await;
    talk.close().await;
    Ok(())
}

fn who_comes() -> anyhow::Result<((Duration, Duration), Vec<String>)> {
    let lines = std::io::stdin().lines().map_while(Result::ok);
    let mut lines = lines.take_while(|line| !line.is_empty());
    let mut wait = || {
        let line = lines.next().context("standard input ends too soon")?;
        anyhow::Ok(Duration::from_millis(line.parse()?))
    };
    Ok(((wait()?, wait()?), lines.collect()))
}

/// The program from outside; killed when dropped.
pub struct Crowd {
    child: Child,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Crowd {
    /// Clients with these names. What they see is given to `note` with the time at which it was said; their numbers
    /// are those of the names.
    ///
    /// # Errors
    /// If the program does not start.
    pub fn gather(
        front: &Front,
        names: &[String],
        note: impl Fn(What) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["crowd", &front.url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("it was asked for")?;
        let (shortest, longest) = front.backoff;
        writeln!(input, "{}\n{}\n{}\n", shortest.as_millis(), longest.as_millis(), names.join("\n"))?;
        child.stdin = Some(input);
        let output = BufReader::new(child.stdout.take().context("it was asked for")?);
        let reading = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line: Line = serde_json::from_str(&line).expect("a line of a history");
                note(line.what);
            }
        });
        Ok(Self { child, reading: Some(reading) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All of them leave; everything they saw has been told when this returns.
    ///
    /// # Errors
    /// If the program failed.
    pub async fn disperse(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let reading = self.reading.take().context("only here")?;
        let read = tokio::task::spawn_blocking(move || reading.join());
        let read = tokio::time::timeout(DISPERSED_WITHIN, read).await.context("the crowd does not go")?;
        read?.map_err(|_| anyhow::anyhow!("what the crowd said cannot be read"))?;
        anyhow::ensure!(self.child.wait()?.success(), "the crowd failed");
        Ok(())
    }
}
