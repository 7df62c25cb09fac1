//! The command `history`: pages of the own inbox.

use roost_proto::answers::Paged;
use roost_proto::frames::ServerFrame;
use roost_proto::history::{Before, History};
use roost_proto::ids::{MessageId, StreamId};
use roost_ws_node::core::Command;

use super::harness::Harness;

fn ask(
    harness: &mut Harness,
    session: u64,
    id: &str,
    stream: &str,
    before: Option<Before>,
    limit: Option<usize>,
) {
    let stream = StreamId::new(stream).unwrap();
    let history = History { id: MessageId::new(id).unwrap(), stream, before, limit };
    harness.command(session, Command::History(history));
}

fn page(harness: &Harness, session: u64, id: &str) -> Paged {
    let reply = harness.frames.iter().find_map(|(key, frame)| match frame {
        ServerFrame::Reply(reply) if *key == session && reply.id.as_deref() == Some(id) => {
            reply.ok.as_ref()?.read().ok()
        }
        _ => None,
    });
    reply.unwrap_or_else(|| panic!("no page {id}: {:?}", harness.told(session, id)))
}

fn ids(page: &Paged) -> Vec<String> {
    let id = |text: &str| {
        serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].as_str().unwrap().to_owned()
    };
    page.messages.iter().map(|message| id(message.get())).collect()
}

#[test]
fn pages_of_the_own_inbox_go_back_to_where_the_window_begins() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.archive_url = Some("http://history".into()));
    harness.store.stream_max_len = 5;
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    for i in 1..=7 {
        harness.say(sender, &bob, &format!("m{i}"));
        harness.run(20);
    }
    harness.run(200);
    let own = format!("user:{bob}");
    ask(&mut harness, reader, "h1", &own, None, Some(3));
    harness.run(10);
    let first = page(&harness, reader, "h1");
    assert_eq!((ids(&first), first.older), (vec!["m7".into(), "m6".into(), "m5".into()], false));
    ask(&mut harness, reader, "h2", &own, first.before, Some(3));
    harness.run(10);
    let second = page(&harness, reader, "h2");
    assert_eq!((ids(&second), second.before, second.older), (vec!["m4".into(), "m3".into()], None, true));
    assert_eq!(first.next, None, "there is more in the window");
    let Before(at) = first.before.unwrap();
    let last = format!("{}%3A{}", at.generation, at.offset.0 - 2);
    let next = format!("http://history/history?stream=user%3A{bob}&before={last}");
    assert_eq!(second.next, Some(next), "the archive has what follows");
}

#[test]
fn a_page_is_refused_with_the_code_of_its_fault() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.credit = 1);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, reader) = (harness.connect(0, &alice), harness.connect(1, &bob));
    let own = format!("user:{bob}");
    for (id, stream, limit, code) in [
        ("other", format!("user:{alice}"), None, "forbidden"),
        ("room", "room:lobby".to_owned(), None, "forbidden"),
        ("none", own.clone(), Some(0), "bad_request"),
        ("many", own.clone(), Some(101), "bad_request"),
    ] {
        ask(&mut harness, reader, id, &stream, None, limit);
        assert_eq!(harness.told(reader, id), [code], "{id}");
    }
    harness.no_store.insert(1);
    ask(&mut harness, reader, "away", &own, None, None);
    harness.run(1000);
    assert_eq!(harness.told(reader, "away"), ["unavailable"]);
    harness.no_store.clear();
    // Whoever reads nothing is sent no more pages than messages.
    harness.stalled.insert(reader);
    harness.say(sender, &bob, "m1");
    harness.run(2000);
    ask(&mut harness, reader, "unread", &own, None, None);
    harness.run(100);
    assert!(harness.told(reader, "unread").is_empty(), "nothing is read for it meanwhile");
    harness.drain(reader);
    harness.run(100);
    assert_eq!(ids(&page(&harness, reader, "unread")), ["m1"]);
}
