//! Publish and subscribe (promise 12, and those of [`Subscriber`]).

use roost_proto::events::{Status, StatusCause, message_bytes, status_rest};
use roost_proto::ids::{Cursor, Offset};
use roost_proto::live::{Version, presence_note};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::writes::online;
use super::*;

fn room(name: &str) -> StreamId {
    StreamId::new(format!("room:{name}")).expect("a valid stream")
}

fn channel(stream: &StreamId) -> LiveChannel {
    LiveChannel::Room { vnode: V, stream: stream.clone() }
}

/// The next thing told that is not a loss: a new connection may begin with one.
async fn told(queue: &mut mpsc::Receiver<LiveEvent>) -> (LiveChannel, Bytes) {
    loop {
        match timeout(DEADLINE, queue.recv()).await.expect("told in time").expect("the ear lives") {
            LiveEvent::Told { channel, payload } => return (channel, payload),
            LiveEvent::Missed => {}
        }
    }
}

async fn follow(subscriber: &dyn Subscriber, channel: &LiveChannel) {
    eventually("it is followed", || async { subscriber.follow(channel).await.ok() }).await;
}

pub async fn what_is_published_in_a_room_reaches_those_who_follow_it_in_order(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let (lobby, other) = (room("lobby \"q\" größe"), room("other"));
    let (tell, mut queue) = mpsc::channel(64);
    let subscriber = b.store.subscribe(tell);
    follow(&*subscriber, &channel(&lobby)).await;
    let note = Bytes::from_static(b"{\"member\":1}");
    let version = Version { epoch: Epoch(10), n: 1 };
    let (user, entry) = (user("bob"), Some(MemberEntry::default()));
    let member = MemberOp { stream: lobby.clone(), user, entry, version, last: false, note: note.clone() };
    owner.write(vec![append(&other, "x"), append(&lobby, "m1"), append(&inbox("bob"), "y")]).await;
    owner.write(vec![append(&lobby, "m1"), Op::Member(member), append(&lobby, "m2")]).await;
    let message = |id, offset| {
        message_bytes(&lobby, Cursor::new(Epoch(10), Offset(offset)), &message(&lobby, id, 1).rest)
    };
    for wanted in [message("m1", 1), note, message("m2", 2)] {
        assert_eq!(told(&mut queue).await, (channel(&lobby), wanted));
    }
    let found = b.store.standings(&[(V, lobby.clone()), (V, other)]).await.expect("the store answers");
    let at = |offset, version| Some(Standing { tail: Cursor::new(Epoch(10), Offset(offset)), version });
    assert_eq!(found, [at(2, version), at(1, Version::default())]);
    subscriber.unfollow(&channel(&lobby)).await;
}

/// Rule 30: one publication for all changes of a write, with the version that it follows.
pub async fn changes_of_presence_are_published_together_and_their_version_is_kept(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let (tell, mut queue) = mpsc::channel(64);
    let subscriber = b.store.subscribe(tell);
    let channel = LiveChannel::Presence(V);
    follow(&*subscriber, &channel).await;
    let event = |name: &str| {
        let user = user(name);
        status_rest(&user, Status::Online, StatusCause::Connected, NOW_MS, NOW_MS, None)
    };
    let shown = |name: &str| Op::Presence(PresenceOp { event: Some(event(name)), ..online(name) });
    let hidden = |name: &str| Op::Presence(PresenceOp { event: None, ..online(name) });
    owner.write(vec![hidden("eve")]).await;
    owner.write(vec![shown("zo\"ë"), hidden("dave"), shown("bob"), append(&inbox("bob"), "x")]).await;
    owner.write(vec![shown("bob"), shown("carol")]).await;
    let version = |n| Version { epoch: Epoch(10), n };
    let first = presence_note(Version::default(), version(4), &[event("zo\"ë"), event("bob")]);
    let second = presence_note(version(4), version(5), &[event("carol")]);
    for wanted in [first, second] {
        assert_eq!(told(&mut queue).await, (channel.clone(), wanted), "nothing of what nobody sees");
    }
    let standing = PresenceStanding { generation: Epoch(10), version: version(5) };
    let read = b.store.presence(V, &[user("dave")]).await.expect("the store answers");
    assert_eq!((read.standing, read.rows.len()), (standing, 1));
    let untouched = VnodeId(V.0 + 1);
    let found = b.store.presence_standings(&[untouched, V]).await.expect("the store answers");
    assert_eq!(found, [PresenceStanding::default(), standing]);
    a.own(V, &sid("ws-1", 2), Epoch(11)).await;
    let found = b.store.presence_standings(&[V]).await.expect("the store answers");
    assert_eq!(found, [standing], "another home is no change");
}

pub async fn a_shout_reaches_those_who_follow_its_channel_and_nobody_else(fixture: &dyn Fixture) {
    let (a, b) = (Process::start(fixture).await, Process::start(fixture).await);
    let (mine, others) = (LiveChannel::Node(node("ws-1")), LiveChannel::Node(node("ws-2")));
    let (tell, mut queue) = mpsc::channel(64);
    let subscriber = a.store.subscribe(tell);
    follow(&*subscriber, &mine).await;
    for (channel, text) in [(&others, "not for me"), (&mine, "one"), (&mine, "two \u{1F980}")] {
        b.store.publish(channel, Bytes::from(text)).await.expect("the store answers");
    }
    for wanted in ["one", "two \u{1F980}"] {
        assert_eq!(told(&mut queue).await, (mine.clone(), Bytes::from(wanted)));
    }
}

pub async fn a_full_queue_is_told_that_something_was_missed(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mine = LiveChannel::Node(node("ws-1"));
    let (tell, mut queue) = mpsc::channel(2);
    let subscriber = a.store.subscribe(tell);
    follow(&*subscriber, &mine).await;
    for n in 0..20 {
        a.store.publish(&mine, Bytes::from(n.to_string())).await.expect("the store answers");
    }
    // Emptied, it hears again; before that it is told of the loss.
    let told = async {
        let mut missed = false;
        loop {
            while let Ok(event) = queue.try_recv() {
                match event {
                    LiveEvent::Missed => missed = true,
                    LiveEvent::Told { payload, .. } if missed && payload == "later" => return,
                    LiveEvent::Told { .. } => {}
                }
            }
            a.store.publish(&mine, Bytes::from_static(b"later")).await.expect("the store answers");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, told).await.expect("the loss is told, and then what comes later");
}
