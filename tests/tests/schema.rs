//! The JSON Schemas in `docs/schema` are those of the types, and say what `docs/PROTOCOL.md` says.
//!
//! That the server's frames are what they say is checked by every conformance test: see `roost_tests::wire`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use roost_proto::ids::{DeviceId, MessageId, NodeId, RoomId, SessionId, StreamId, UserId};
use roost_proto::{ClientFrame, ServerFrame};
use roost_tests::schema::{CLIENT, SERVER, Schemas};
use serde_json::{Value, json};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The examples of frames in a section of the document: what stands in its blocks of JSON, with a type.
fn examples(document: &str, section: &str) -> Vec<Value> {
    let after = document.split(&format!("\n### {section}\n")).nth(1).expect("the section is there");
    let inside = after.split("\n## ").next().and_then(|rest| rest.split("\n### ").next()).expect("it ends");
    let blocks = inside.split("```json\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let values = |block: &str| -> Vec<Value> {
        let values = serde_json::Deserializer::from_str(block).into_iter();
        values.map(|v| v.unwrap_or_else(|wrong| panic!("{wrong} in an example:\n{block}"))).collect()
    };
    blocks.flat_map(values).filter(|value: &Value| value["type"].is_string()).collect()
}

/// Writes what is missing or different, so that it has only to be looked at and committed.
#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let mut stale = Vec::new();
    for (side, schemas) in [("client", ClientFrame::schemas()), ("server", ServerFrame::schemas())] {
        let dir = docs().join("schema").join(side);
        fs::create_dir_all(&dir).expect("a directory");
        let there = fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let mut left: BTreeSet<PathBuf> = there.collect();
        for (tag, schema) in schemas {
            let path = dir.join(format!("{tag}.json"));
            let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                fs::write(&path, text).expect("written");
                stale.push(path.clone());
            }
            left.remove(&path);
        }
        for path in left {
            fs::remove_file(&path).expect("removed");
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "made anew from the types; look at them and commit them: {stale:#?}");
}

/// Every frame has an example in the section of its direction, and every example there is what its schema says.
#[test]
fn the_examples_in_the_document_are_what_their_schemas_say() {
    let document = fs::read_to_string(docs().join("PROTOCOL.md")).expect("docs/PROTOCOL.md is there");
    let sides: [(&str, &Schemas, &[&str]); 2] =
        [("Client to server", &CLIENT, ClientFrame::TAGS), ("Server to client", &SERVER, ServerFrame::TAGS)];
    for (section, schemas, tags) in sides {
        let mut without: BTreeSet<&str> = tags.iter().copied().collect();
        for example in examples(&document, section) {
            schemas.check(&example).unwrap_or_else(|wrong| panic!("{wrong}, in the example {example}"));
            without.remove(example["type"].as_str().expect("a text"));
        }
        assert!(without.is_empty(), "{section}: no example of {without:?}");
    }
}

/// A schema that takes everything proves nothing.
#[test]
fn what_is_wrong_is_refused_and_what_is_unknown_is_not() {
    let send = json!({"type": "send", "id": "m-1", "to": "bob", "data": null});
    let join = json!({"type": "join", "id": "j-1", "room": "lobby"});
    let signal = json!({"type": "signal", "room": "lobby", "kind": "typing", "data": true});
    let history = json!({"type": "history", "id": "h-1", "stream": "room:lobby", "limit": 100});
    let reply = json!({"type": "reply", "id": null, "error":
        {"code": "bad_request", "message": "expected ident", "retryable": false}});
    let published = json!({"type": "reply", "id": "p-1", "ok": {"at": "2026-11-21T11:09:40.321Z"}});
    let joined = json!({"type": "reply", "id": "j-1", "ok":
        {"cursor": {"generation": 1, "offset": 9}, "recovered": true, "replayed": 2}});
    let page = json!({"type": "reply", "id": "h-1", "ok": {"messages": []}});
    let done = json!({"type": "reply", "id": "s-1", "ok": {}});
    let member = json!({"type": "member", "room": "lobby", "user": "bob", "change": "join"});
    let gone = json!("left out");
    for (schemas, frame, field, wrong) in [
        (&CLIENT, &send, "/id", &gone),
        (&CLIENT, &send, "/id", &json!("a b")),
        (&CLIENT, &send, "/id", &json!("")),
        (&CLIENT, &send, "/id", &json!("x".repeat(65))),
        (&CLIENT, &send, "/to", &json!("#lobby")),
        (&CLIENT, &send, "/to", &json!(7)),
        (&CLIENT, &send, "/data", &gone),
        (&CLIENT, &send, "/type", &json!("dance")),
        (&CLIENT, &join, "/room", &json!("a\nb")),
        (&CLIENT, &join, "/presence", &json!("yes")),
        (&CLIENT, &join, "/cursor", &json!({"generation": 1})),
        (&CLIENT, &join, "/cursor", &json!({"generation": 1, "offset": -1})),
        (&CLIENT, &signal, "/room", &gone),
        (&CLIENT, &signal, "/to", &json!("bob")),
        (&CLIENT, &signal, "/kind", &json!("x".repeat(65))),
        (&CLIENT, &history, "/limit", &json!(101)),
        (&CLIENT, &history, "/stream", &json!("lobby")),
        (&SERVER, &reply, "/error", &gone),
        (&SERVER, &reply, "/ok", &json!({})),
        (&SERVER, &reply, "/id", &gone),
        (&SERVER, &reply, "/error/code", &json!("no")),
        (&SERVER, &reply, "/error/retryable", &gone),
        (&SERVER, &published, "/ok/at", &json!("yesterday")),
        (&SERVER, &published, "/ok/cursor", &json!({"generation": 1})),
        (&SERVER, &page, "/ok/messages", &json!([{"type": "message"}])),
        (&SERVER, &joined, "/ok/recovered", &gone),
        (&SERVER, &done, "/ok/users", &json!({})),
        (&SERVER, &member, "/change", &json!("stay")),
        (&SERVER, &member, "/user", &json!("")),
    ] {
        assert_eq!(schemas.check(frame), Ok(()));
        let (above, name) = field.rsplit_once('/').expect("a path");
        let mut changed = frame.clone();
        let fields = changed.pointer_mut(above).and_then(Value::as_object_mut).expect("an object");
        if *wrong == gone {
            fields.remove(name);
        } else {
            fields.insert(name.to_owned(), wrong.clone());
        }
        assert!(schemas.check(&changed).is_err(), "taken: {changed}");
        let mut later = frame.clone();
        later["later"] = json!([]);
        assert_eq!(schemas.check(&later), Ok(()), "a field may be added");
    }
}

/// The patterns of ids are those of the code: for each character of Latin-1 and some beyond, first and later.
#[test]
fn the_schemas_take_the_ids_that_the_code_takes() {
    let characters = ('\0'..='\u{ff}').chain(['ſ', '\u{2028}', '家', '🦀']);
    let ids = characters.flat_map(|c| [String::from(c), format!("x{c}")]).chain([String::new()]);
    let cursor = json!({"generation": 1, "offset": 1});
    let welcome = json!({"type": "welcome", "session": "s", "user": "u", "node": "n", "vnode": 1, "epoch": 1,
        "ping_interval_ms": 1, "cursor": cursor, "recovered": true, "replayed": 0});
    let leave = json!({"type": "leave", "id": "x", "room": "r"});
    let history = json!({"type": "history", "id": "x", "stream": "room:x"});
    let connect = json!({"type": "connect"});
    for id in ids {
        for (schemas, frame, field, text, taken) in [
            (&SERVER, &welcome, "user", id.clone(), UserId::new(&id).is_ok()),
            (&SERVER, &welcome, "node", id.clone(), NodeId::new(&id).is_ok()),
            (&SERVER, &welcome, "session", id.clone(), SessionId::new(&id).is_ok()),
            (&CLIENT, &leave, "room", id.clone(), RoomId::new(&id).is_ok()),
            (&CLIENT, &leave, "id", id.clone(), MessageId::new(&id).is_ok()),
            (&CLIENT, &connect, "device", id.clone(), DeviceId::new(&id).is_ok()),
            (&CLIENT, &history, "stream", id.clone(), StreamId::new(&id).is_ok()),
            (&CLIENT, &history, "stream", format!("user:{id}"), StreamId::new(format!("user:{id}")).is_ok()),
            (&CLIENT, &history, "stream", format!("room:{id}"), StreamId::new(format!("room:{id}")).is_ok()),
        ] {
            let mut frame = frame.clone();
            frame[field] = json!(text);
            assert_eq!(schemas.check(&frame).is_ok(), taken, "{field} {text:?}");
        }
    }
}
