//! The SQLite files of `roost dev`: today's embedded back end opens them and goes on.

use std::sync::Arc;

use roost_backend::embedded::EmbeddedArchive;
use roost_proto::claims::Role;
use roost_tests::archive::Reader;
use roost_tests::cluster::{Backend, Setup, TempDir, now_s, token_of};
use serde_json::{Value, json};

use crate::set::{Set, all, streams, text};

/// A copy that may be written to.
fn copy(set: &Set) -> TempDir {
    let dir = TempDir::default();
    for name in ["store.db", "log.db", "archive.db"] {
        std::fs::copy(set.path("dev").join(name), dir.path().join(name)).expect("a copy");
    }
    dir
}

/// The messages that clients of `roost dev` were sent.
fn heard(set: &Set) -> Vec<Value> {
    let lines = set.lines("dev/frames.jsonl");
    let frames = lines.iter().filter(|line| line["from"] == "server" && line["text"].is_string());
    let frames =
        frames.map(|line| serde_json::from_str::<Value>(text(line, "text")).expect("a frame is JSON"));
    frames.filter(|frame| frame["type"] == "message").collect()
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|message| text(message, "id")).collect()
}

/// P3, P5: two nodes of today on a copy of the files: who was away resumes, and is sent what was sent then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_go_on_with_the_files_of_roost_dev() {
    for set in all() {
        let dir = copy(&set);
        let cluster =
            Setup::new(Backend::File(dir.path().to_owned()), 2).start().await.expect("it needs no services");
        for (stream, messages) in streams(heard(&set).iter()) {
            let (_, first) = messages.first_key_value().expect("not empty");
            let cursor = json!({"generation": first["generation"], "offset": 0});
            let (user, fields) = match stream.strip_prefix("room:") {
                Some(room) => ("reader", json!({"rooms": [{"room": room, "cursor": cursor}]})),
                None => (stream.strip_prefix("user:").expect("an inbox"), json!({"cursor": cursor})),
            };
            let (mut wire, welcome) = cluster.connect(user, fields).await;
            let told = if stream.starts_with("room:") { &welcome["rooms"][0] } else { &welcome };
            assert_eq!(told["recovered"], true, "{stream}: {welcome}");
            for offset in 1..=*messages.last_key_value().expect("not empty").0 {
                let message = wire.message().await;
                assert_eq!(message["offset"], offset);
                if let Some(then) = messages.get(&offset) {
                    assert_eq!(message, *then);
                }
            }
            wire.close().await;
        }
        let (mut a, _) = cluster.connect("alice", json!({})).await;
        let reply = a.ask("now", "alice", json!("from today")).await;
        assert!(reply["ok"].is_object(), "{reply}");
        cluster.stop().await;
    }
}

/// What was archived is found: messages, who was there when, and events with their results.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_of_roost_dev_answers() {
    for set in all() {
        let dir = copy(&set);
        let cluster =
            Setup::new(Backend::File(dir.path().to_owned()), 1).start().await.expect("it needs no services");
        let archive = EmbeddedArchive::open(&dir.path().join("archive.db"), Arc::new(|| now_s() * 1_000));
        let archiver = cluster.archiver(Arc::new(archive.expect("the file can be opened"))).await;
        let reader = Reader::new(&archiver, token_of("service", Role::Service));
        for (stream, messages) in streams(heard(&set).iter()) {
            let page = reader.good(&format!("/history?stream={stream}&limit=500")).await;
            let page = page["messages"].as_array().expect("a list");
            for message in messages.values() {
                assert!(page.contains(message), "{message} is not in {page:?}");
            }
        }
        let changes = reader.good("/presence/history?userId=alice").await;
        assert_eq!(
            changes["changes"].as_array().map(|all| all.last().expect("one")["cause"].clone()),
            Some(json!("connected"))
        );
        let events = reader.good("/events?userId=alice").await;
        let answered =
            events["events"].as_array().expect("a list").iter().find(|event| event["event_id"] == "e-1");
        let results = &answered.unwrap_or_else(|| panic!("{events}"))["results"];
        assert_eq!(results.as_array().map(Vec::len), Some(1), "{results}");
        let roll = reader.good("/history?stream=room:roll&limit=500").await;
        assert!(ids(&roll["messages"]).contains(&"roll-0"), "{roll}");
        archiver.shutdown(std::time::Duration::from_secs(5)).await;
        cluster.stop().await;
    }
}
