//! What only a process of its own can show: exit codes, signals, a full file table. The test binary starts itself
//! again with [`child`] as the one test, and a role.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use roost_service::{ConfigError, HttpLimits, Panicked, Signals, Tasks, guarded, shutdown};

use crate::support::{PATIENCE, read_answer, start};

const ROLE: &str = "ROOST_SERVICE_TEST_ROLE";

fn command(role: &str) -> Command {
    // Few files for everyone: only one role wants to run out of them.
    let mut command = Command::new("sh");
    let run = "ulimit -n 256; exec \"$0\" --exact processes::child --nocapture --test-threads=1";
    command.args(["-c", run]).arg(std::env::current_exe().unwrap());
    command.env(ROLE, role).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(role: &str) -> Output {
    command(role).output().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(sent.success());
}

/// Waits for its end; a child that does not end is killed.
fn exit_code(mut child: Child) -> Option<i32> {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if since.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the child does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Not a test: the other end of those below.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    std::process::exit(
        match role.as_str() {
            "config" => shutdown::run("demo", || async {
                let wrong = Err::<(), _>(ConfigError::missing("KAFKA_BROKERS", "run\n`roost dev`"));
                wrong.context("starting").context("demo")
            }),
            "failure" => shutdown::run("demo", || async {
                let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                Err(anyhow::Error::from(refused).context("cannot reach redis"))
            }),
            "leftover" => shutdown::run("demo", || async {
                tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(3600)));
                Ok(())
            }),
            "signals" | "orderly" => shutdown::run("demo", || async move {
                let signals = Signals::install()?;
                println!("installed");
                println!("first {}", signals.first().await);
                if role == "signals" {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                Ok(())
            }),
            "files" => shutdown::run("demo", run_out_of_files),
            "bug" => shutdown::run("demo", || async move {
                tokio::spawn(async { panic!("nobody would notice") });
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(())
            }),
            "guarded bug" => shutdown::run("demo", || async move {
                let ended = tokio::spawn(guarded(async { panic!("a request's") })).await?;
                assert_eq!(ended, Err::<(), _>(Panicked));
                Ok(())
            }),
            "task broken" | "task ended" => shutdown::run("demo", || async move {
                let mut tasks = Tasks::default();
                tasks.spawn("inbox", async move { assert_eq!(role, "task ended") });
                Err(anyhow::Error::from(tasks.join().await).context("the server"))
            }),
            other => panic!("{other}"),
        }
        .into(),
    );
}

#[test]
fn wrong_configuration_is_one_line_and_exit_64() {
    let ended = output("config");
    assert_eq!(ended.status.code(), Some(64));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "demo: KAFKA_BROKERS is not set: run `roost dev`\n");
}

#[test]
fn any_other_failure_is_the_chain_of_causes_and_exit_1() {
    let ended = output("failure");
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "demo: cannot reach redis: connection refused\n");
}

/// A task that others rely on is not missed in silence; what is one request's is that request's.
#[test]
fn a_bug_ends_the_process_unless_it_is_a_requests() {
    for (role, code, said) in [("bug", 70, "nobody would notice"), ("guarded bug", 0, "a request's")] {
        let ended = output(role);
        assert_eq!(ended.status.code(), Some(code), "{role}");
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.starts_with("a bug at ") && told.contains(said), "{told}");
    }
}

#[test]
fn a_task_that_ends_or_panics_ends_the_process_and_is_named() {
    for (role, said) in [
        ("task broken", " in the task 'inbox': assertion"),
        ("task ended", "demo: a bug: the server: the task 'inbox' ended by itself\n"),
    ] {
        let ended = output(role);
        assert_eq!(ended.status.code(), Some(70), "{role}");
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn a_task_that_nobody_waits_for_does_not_keep_the_process() {
    assert_eq!(exit_code(command("leftover").spawn().unwrap()), Some(0));
}

#[test]
fn the_first_signal_is_an_orderly_end_and_the_second_leaves_at_once() {
    let table = [
        ("orderly", "TERM", None, 0),
        ("signals", "TERM", Some("INT"), 130),
        ("signals", "INT", Some("INT"), 130),
    ];
    for (role, first, second, code) in table {
        let mut child = command(role).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with("installed")));
        signal(&child, first);
        assert!(lines.any(|line| line == format!("first SIG{first}")));
        if let Some(second) = second {
            signal(&child, second);
        }
        assert_eq!(exit_code(child), Some(code), "{role} {first} {second:?}");
    }
}

/// The listener must neither die nor spin when the process has no file left for a connection, and go on when it
/// has.
async fn run_out_of_files() -> anyhow::Result<()> {
    let filter = warp::Filter::boxed(warp::Filter::map(warp::any(), || roost_service::reply::ok(&"hello")));
    let server = start(HttpLimits { handshakes_per_s: 0, ..HttpLimits::default() }, filter).await;
    // The client's own file is taken before there are none.
    let client = tokio::net::TcpSocket::new_v4()?;
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
        anyhow::ensure!(files.len() < 256, "ulimit did not work");
    }
    let since = Instant::now();
    let mut stream = client.connect(server.addr).await?;
    tokio::io::AsyncWriteExt::write_all(
        &mut stream,
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await?;
    while server.metric("roost_http_accept_failures_total") < 4.0 {
        anyhow::ensure!(since.elapsed() < PATIENCE, "nothing failed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Pauses of 10, 20 and 40 ms lie between four attempts.
    anyhow::ensure!(since.elapsed() >= Duration::from_millis(70), "it spins");
    drop(files);
    anyhow::ensure!(read_answer(&mut stream).await.status == 200);
    Ok(())
}

#[test]
fn a_full_file_table_is_survived() {
    let ended = output("files");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
}
