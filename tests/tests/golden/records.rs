//! Records: nodes of that release and of this one read each other's, and what is in the topics is understood.

use roost_proto::events::{CHAT_EVENTS, CLIENT_EVENTS, UNDELIVERED_EVENTS, USER_STATUS_EVENTS};
use roost_proto::events::{ClientEvent, Message, PARTITIONS, StatusEvent};
use roost_proto::records::{ItemBody, Record};
use roost_proto::results::{CLIENT_RESULTS, ClientResult, DEAD_LETTERS, Refused};
use roost_proto::{StreamId, UserId, VnodeId};
use roost_ring::{vnode_of_stream, vnode_of_user};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::set::{Set, all, text};

fn parsed<T: DeserializeOwned>(line: &Value) -> T {
    let value = text(line, "value");
    serde_json::from_str(value).unwrap_or_else(|e| panic!("{e}, in the record {value}"))
}

fn user(line: &Value) -> UserId {
    UserId::new(text(line, "key")).expect("the key is a user's id")
}

fn in_place(line: &Value, vnode: VnodeId) {
    assert_eq!(line["partition"], vnode.0 as u32 % PARTITIONS, "{line}");
}

fn check_chat(set: &Set, line: &Value) {
    let message: Message = parsed(line);
    let key = StreamId::new(text(line, "key")).expect("the key is a stream");
    assert_eq!(message.stream, key);
    in_place(line, vnode_of_stream(&key, vnodes(set)));
}

fn check_undelivered(set: &Set, line: &Value) {
    let message: Message = parsed(line);
    assert_eq!(message.stream, StreamId::inbox(&user(line)));
    in_place(line, vnode_of_user(&user(line), vnodes(set)));
}

fn check_status(line: &Value) {
    let event: StatusEvent = parsed(line);
    assert_eq!(event.user, user(line));
    in_place(line, event.vnode);
}

fn check_event(line: &Value) {
    let event: ClientEvent = parsed(line);
    assert_eq!(event.client_id, user(line));
    in_place(line, event.vnode);
}

/// Today's reading of a record, said again, is the record: nothing of it was lost on the way.
fn check_between_nodes(line: &Value) -> String {
    let record: Record = parsed(line);
    let again = serde_json::to_value(&record).expect("records always encode");
    assert_eq!(again, serde_json::from_str::<Value>(text(line, "value")).expect("JSON"));
    let key = text(line, "key");
    in_place(line, VnodeId(key.parse().expect("the key is a vnode")));
    if let Record::Item(item) = &record
        && let Some(body) = &item.body
    {
        let _: ItemBody =
            serde_json::from_str(body.get()).unwrap_or_else(|e| panic!("{e}, in {}", body.get()));
    }
    again.as_object().and_then(|record| record.keys().next()).expect("one key").clone()
}

fn vnodes(set: &Set) -> u32 {
    u32::try_from(set.number("vnodes")).expect("a ring's size")
}

#[test]
fn what_is_in_the_topics_is_understood() {
    for set in all() {
        let mut between_nodes = BTreeSet::new();
        let topics = set.topics();
        for topic in
            [CHAT_EVENTS, USER_STATUS_EVENTS, UNDELIVERED_EVENTS, CLIENT_EVENTS, CLIENT_RESULTS, DEAD_LETTERS]
        {
            assert!(topics.get(topic).is_some_and(|lines| !lines.is_empty()), "{set:?} has no {topic}");
        }
        for (topic, lines) in &topics {
            for line in lines {
                match topic.as_str() {
                    CHAT_EVENTS => check_chat(&set, line),
                    UNDELIVERED_EVENTS => check_undelivered(&set, line),
                    USER_STATUS_EVENTS => check_status(line),
                    CLIENT_EVENTS => check_event(line),
                    CLIENT_RESULTS => {
                        drop(ClientResult::parse(text(line, "value").as_bytes()).expect("a result"));
                    }
                    DEAD_LETTERS => drop(parsed::<Refused>(line)),
                    nodes if nodes.starts_with("messages-") => {
                        between_nodes.insert(check_between_nodes(line));
                    }
                    other => panic!("a topic of nobody's: {other}"),
                }
            }
        }
        let wanted =
            ["item", "confirm", "probe", "took", "recall", "recalled", "disconnect"].map(str::to_owned);
        assert!(between_nodes.is_superset(&BTreeSet::from(wanted)), "{set:?}: {between_nodes:?}");
    }
}
