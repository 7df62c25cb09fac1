//! Frames: what clients of that release say is understood, and what its servers say is what today's say, or less.

use std::collections::BTreeSet;

use roost_proto::answers::{Accepted, Listed, Paged, Watched};
use roost_proto::frames::{Empty, Joined};
use roost_proto::{ClientFrame, Json, ServerFrame};
use roost_tests::schema::{CLIENT, SERVER};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::set::{Set, all, text};

/// A frame as it was sent.
struct Frame {
    text: String,
    /// It is none, and is to be refused.
    bad: bool,
    /// It is one, and was refused for what it asks.
    refused: bool,
}

/// Those of one direction.
fn frames(set: &Set, from: &str) -> Vec<Frame> {
    let files = ["frames.jsonl", "dev/frames.jsonl"].map(|name| set.lines(name));
    let lines = files.iter().flatten().filter(|line| line["from"] == from && line["text"].is_string());
    let frame = |line: &Value| {
        let text = text(line, "text").to_owned();
        Frame { text, bad: line["bad"] == true, refused: line["refused"] == true }
    };
    lines.map(frame).collect()
}

fn tag(text: &str) -> String {
    let frame: Value = serde_json::from_str(text).expect("a frame is JSON");
    frame["type"].as_str().expect("a frame has a type").to_owned()
}

/// A set without a frame proves nothing about it. Later releases have more frames than earlier ones.
const SAID: [&str; 17] = [
    "connect", "send", "event", "publish", "signal", "join", "leave", "members", "watch", "unwatch", "ack",
    "read", "status", "history", "refresh", "ping", "pong",
];
const HEARD: [&str; 12] = [
    "welcome",
    "reply",
    "message",
    "reset",
    "read",
    "member",
    "presence",
    "signal",
    "moved",
    "token_expiring",
    "ping",
    "pong",
];

#[test]
fn a_set_has_every_frame() {
    for set in all() {
        for (from, tags) in [("client", &SAID[..]), ("server", &HEARD[..])] {
            let there: BTreeSet<String> =
                frames(&set, from).iter().filter(|frame| !frame.bad).map(|frame| tag(&frame.text)).collect();
            let wanted = tags.iter().map(ToString::to_string).collect();
            assert!(there.is_superset(&wanted), "{set:?}, {from}: {there:?}");
        }
    }
}

#[test]
fn what_clients_said_is_understood() {
    for set in all() {
        for Frame { text, bad, refused } in frames(&set, "client") {
            let parsed = ClientFrame::parse(&text);
            assert_eq!(parsed.is_err(), bad, "{text}: {parsed:?}");
            if !bad && !refused {
                let frame: Value = serde_json::from_str(&text).expect("it was parsed");
                CLIENT.check(&frame).unwrap_or_else(|wrong| panic!("{wrong}, in the frame {text}"));
            }
        }
    }
}

#[test]
fn what_servers_said_is_still_what_the_schemas_say() {
    for set in all() {
        for Frame { text, .. } in frames(&set, "server") {
            ServerFrame::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let frame: Value = serde_json::from_str(&text).expect("it was parsed");
            SERVER.check(&frame).unwrap_or_else(|wrong| panic!("{wrong}, in the frame {text}"));
        }
    }
}

/// Whether this is what today's server would say, to the byte.
fn is_said<T: Serialize + DeserializeOwned>(ok: &Json) -> bool {
    ok.read::<T>().is_ok_and(|answer| Json::of(&answer) == *ok)
}

#[test]
fn every_answer_of_that_release_is_one_of_todays() {
    let kinds: [fn(&Json) -> bool; 6] = [
        is_said::<Empty>,
        is_said::<Accepted>,
        is_said::<Joined>,
        is_said::<Listed>,
        is_said::<Watched>,
        is_said::<Paged>,
    ];
    for set in all() {
        let mut seen = [false; 6];
        for Frame { text, .. } in frames(&set, "server") {
            let Ok(ServerFrame::Reply(reply)) = ServerFrame::parse(&text) else { continue };
            let Some(ok) = reply.ok else { continue };
            let kind = kinds.iter().position(|is_said| is_said(&ok));
            seen[kind.unwrap_or_else(|| panic!("no answer of today's: {text}"))] = true;
        }
        assert_eq!(seen, [true; 6], "{set:?}: every kind of answer");
    }
}
