//! Whoever reads what the program prints may stop reading: it ends without a word.
#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

mod common;

use std::process::{Command, Stdio};
use std::time::Instant;

use common::{Dev, Dir, LIMIT, ended, roost};

/// How it ends when nobody reads its output.
fn unread(mut command: Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = ended(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap(), LIMIT);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// What it says beside its output is no fault.
fn silent((code, said): &(Option<i32>, String)) -> bool {
    *code == Some(0) && said.lines().all(|line| line.starts_with("# "))
}

#[test]
fn every_command_ends_without_a_word_when_nobody_reads() {
    let dev = Dev::start("closed pipe");
    let secret = dev.roost(&["send", "bob", "hi", "--from", "alice"]).output().unwrap();
    assert!(secret.status.success(), "{secret:?}");
    let health = format!("{}/ring", dev.url);
    let mut wrong = Vec::new();
    for args in [
        &["--help"] as &[&str],
        &["--version"],
        &["token", "alice"],
        &["health", &health],
        &["route", "bob"],
        &["plan", "--with", "ws-9"],
        &["explain", "bob"],
        &["explain", "bob", "--json"],
        &["history", "user:bob"],
        &["send", "bob", "again", "--from", "alice"],
        &["publish", "lobby", "hi"],
        &["watch", "bob"],
        &["disconnect", "carol"],
        &["results", "send", "bob", "e-1"],
        &["drain", "ws-1", "--undo"],
    ] {
        let outcome = unread(dev.roost(args));
        if !silent(&outcome) {
            wrong.push(format!("{args:?}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_waits_for_messages_ends_at_the_first_that_nobody_reads() {
    let dev = Dev::start("closed pipe of a listener");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut listen = dev.roost(&["listen", "bob"]);
    let mut listener = listen.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    // It may not be there yet when the first is sent.
    let since = Instant::now();
    while listener.try_wait().unwrap().is_none() && since.elapsed() < LIMIT {
        assert!(dev.roost(&["send", "bob", "hi", "--from", "alice"]).output().unwrap().status.success());
    }
    let output = ended(listener, LIMIT);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!String::from_utf8(output.stderr).unwrap().contains("panicked"));
}

#[test]
fn a_cluster_in_one_process_ends_too() {
    let dir = Dir::new("closed pipe of a cluster");
    let mut command = roost(&["dev", "--nodes", "1", "--port", "31700"]);
    command.env("ROOST_DATA_DIR", dir.path()).env("VNODES", "16");
    let (code, said) = unread(command);
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn a_failure_that_nobody_reads_is_an_exit_code_and_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for (args, code) in [
        (&["route", "bob", "--url", "http://127.0.0.1:1"] as &[&str], 1),
        (&["dev", "--nodes", "0"], 64),
        (&["token", "bob"], 1),
    ] {
        let mut command = roost(args);
        command.env("ROOST_DATA_DIR", "/nonexistent").stderr(writer.try_clone().unwrap());
        let ended = ended(command.stdout(Stdio::null()).spawn().unwrap(), LIMIT);
        assert_eq!(ended.status.code(), Some(code), "{args:?}");
    }
}
