//! What the commands say of an address: a wrong one within three seconds, and `roost dev` those that work.
#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Dev, LIMIT, ended, roost};

const SECRET: (&str, &str) = ("JWT_SECRET", "a secret of thirty-two characters");
/// Beside the three seconds, for a machine with a lot else to do.
const SLACK: Duration = Duration::from_secs(4);

/// The commands that talk over the SDK, and some that ask over HTTP.
const COMMANDS: &[&[&str]] = &[
    &["send", "bob", "hi", "--from", "alice"],
    &["listen", "bob"],
    &["join", "lobby"],
    &["publish", "lobby", "hi"],
    &["members", "lobby"],
    &["signal", "typing", "true", "--to", "bob"],
    &["watch", "bob"],
    &["event", "1", "--user", "alice"],
    &["route", "bob"],
    &["history", "user:bob"],
];

/// Something that listens and answers every request with `answer`.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

/// What is wrong with how these commands end at this address, if anything is.
fn mistakes(url: &str, says: &[&str]) -> Vec<String> {
    let began = Instant::now();
    let started = COMMANDS.iter().map(|args| {
        let mut command = roost(args);
        command.env("ROOST_URL", url).env(SECRET.0, SECRET.1).env("ROOST_DATA_DIR", "/nonexistent");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let started: Vec<_> = started.collect();
    let mut wrong = Vec::new();
    for (child, args) in started.into_iter().zip(COMMANDS) {
        let output = ended(child, LIMIT);
        let (code, took) = (output.status.code(), began.elapsed());
        let said = String::from_utf8(output.stderr).unwrap();
        let right = code == Some(1) && said.contains(url) && says.iter().any(|says| said.contains(says));
        if !right || took > Duration::from_secs(3) + SLACK {
            wrong.push(format!("{args:?} at {url}, after {took:?}: {code:?} {said}"));
        }
    }
    wrong
}

#[test]
fn a_wrong_address_ends_a_command_within_seconds_and_is_named() {
    let stranger = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnone");
    let mut wrong = mistakes("http://127.0.0.1:1", &["onnection refused"]);
    // No label is that long (RFC 1035 §2.3.4): nobody is asked for it.
    let nowhere = format!("http://{}.invalid:7300", "a".repeat(70));
    wrong.extend(mistakes(&nowhere, &["no such host", "failed to lookup address"]));
    wrong.extend(mistakes(&stranger, &["is not a coordinator's", "is not of a Roost cluster"]));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A coordinator that is gone ends nothing that was connected.
#[test]
fn a_listener_that_was_connected_waits_for_the_cluster() {
    let dev = Dev::start("a restart");
    let mut listen = dev.roost(&["listen", "bob", "--count", "1"]);
    let mut listener = listen.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(listener.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("Connected")));
    let dev = dev.restarted();
    assert!(said.any(|line| line.contains("not connected: ") || line.contains("Reconnecting")));
    assert!(said.any(|line| line.contains("Connected {")), "it came back");
    let since = Instant::now();
    while listener.try_wait().unwrap().is_none() && since.elapsed() < LIMIT {
        assert!(dev.roost(&["send", "bob", "hi", "--from", "alice"]).output().unwrap().status.success());
    }
    assert!(String::from_utf8(ended(listener, LIMIT).stdout).unwrap().contains("hi"));
}

/// A line of the greeting, in a terminal that has nothing of the first one's environment.
fn terminal(line: &str, more: &str) -> Command {
    let mut command = Command::new("sh");
    command.env_clear().args(["-c", &format!("exec env {line}{more}")]).stdin(Stdio::null());
    command
}

fn its_commands_work(dev: &Dev) {
    let line = |what: &str| {
        let found = dev.greeting.iter().find(|line| line.contains(what) && line.starts_with("  "));
        found.unwrap_or_else(|| panic!("no {what:?} in {:#?}", dev.greeting)).trim()
    };
    let mut listener = terminal(line(" listen bob"), " --count 1").stdout(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while listener.try_wait().unwrap().is_none() && since.elapsed() < LIMIT {
        let sent = terminal(line(" send bob"), "").output().unwrap();
        assert!(sent.status.success(), "{sent:?}");
    }
    let heard = ended(listener, LIMIT);
    assert!(String::from_utf8(heard.stdout).unwrap().contains("hello from alice"));
    let routed = terminal(line(" route bob"), "").output().unwrap();
    assert!(routed.status.success(), "{routed:?}");
}

#[test]
fn what_a_cluster_in_one_process_says_to_try_works_in_another_terminal() {
    its_commands_work(&Dev::start("a data directory"));
}

#[test]
fn it_works_too_when_the_secret_is_only_in_the_first_terminals_environment() {
    let dev = Dev::with("a secret elsewhere", &[SECRET, ("JWT_AUDIENCE", "chat"), ("JWT_ISSUER", "me")]);
    assert!(!dev.greeting.iter().any(|line| line.contains(SECRET.1)), "the secret is not shown");
    its_commands_work(&dev);
}
