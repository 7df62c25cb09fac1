//! A user of Redis that lacks a right, and two clusters in one Redis.

use std::collections::{BTreeMap, BTreeSet};

use redis::cmd;
use roost_backend::contract::store::{
    CONFIG, Fixture as _, NOW_MS, Owner, Process, V, append, eventually, inbox, message, sid, user,
};
use roost_backend::redis::RedisStore;
use roost_backend::store::*;
use roost_proto::ids::{Cursor, Epoch, MessageId, NodeId, Offset, StreamId, VnodeId};
use roost_proto::live::Version;
use tokio::sync::mpsc;

use super::RedisFixture;

/// The commands that a script does.
fn commands_of(code: &str) -> BTreeSet<String> {
    let named = code.split("call('").skip(1).chain(code.split("try('").skip(1));
    named.map(|rest| rest.split('\'').next().unwrap_or_default().to_owned()).collect()
}

async fn acl(fixture: &RedisFixture, words: &str) {
    let mut acl = cmd("ACL");
    acl.arg("SETUSER").arg("roost");
    acl.arg(words.split_whitespace().collect::<Vec<_>>());
    fixture.run(&acl).await;
}

fn url_of(fixture: &RedisFixture) -> String {
    fixture.url().replace("redis://", "redis://roost:secret@")
}

/// The line that OPERATIONS gives.
fn documented_rights() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).expect("the page is there");
    let line = text.lines().find_map(|line| line.strip_prefix("ACL SETUSER roost "));
    line.expect("OPERATIONS gives a line").to_owned()
}

/// A process under a user that may do everything.
async fn limited(fixture: &RedisFixture) -> Process {
    acl(fixture, "reset on >secret ~* &* +@all").await;
    let store = RedisStore::connect(&url_of(fixture), CONFIG).await.expect("all is permitted");
    let data_set = store.open_ring(roost_backend::contract::store::VNODES).await.expect("the ring opens");
    Process { store: std::sync::Arc::new(store), data_set }
}

fn room() -> StreamId {
    StreamId::new("room:hall").expect("a valid room")
}

/// Every kind of operation; `first` comes before the others.
fn everything(epoch: Epoch, first: &str) -> Vec<Op> {
    let id = |name: &str| MessageId::new(name).expect("a valid id");
    let (bob, cursor) = (user("bob"), Cursor::new(epoch, Offset(1)));
    let due = AppendOp {
        due: true,
        wanted: Some(ReceiptRequest { from: user("alice"), id: id("m1"), since_ms: 1, delivered: false }),
        ..message(&inbox("bob"), "m1", 1)
    };
    let answer = AppendOp { closes: Some(Closes::TimedOut(id("e0"))), ..message(&inbox("bob"), "t0", 1) };
    let roster =
        RosterEntry { chosen: Default::default(), since: 1, last_seen: None, sessions: 1, generation: epoch };
    let event = Some(bytes::Bytes::from_static(b"\"user\":\"bob\",\"status\":\"online\"}"));
    let seen = Some(Seen { chosen: Default::default(), since: 1, last_seen: 1, generation: epoch });
    let device = roost_proto::DeviceId::new("phone").expect("a valid device");
    let rest = bytes::Bytes::from_static(b"\"event_id\":\"e1\"}");
    vec![
        append(&inbox("bob"), first),
        append(&room(), first),
        Op::Append(due),
        append(&room(), "m1"),
        Op::Append(answer),
        Op::Event(EventOp { client: bob.clone(), id: id("e1"), hash: 1, at: NOW_MS, rest }),
        Op::Presence(PresenceOp { user: bob.clone(), roster: Some(roster), seen, event }),
        Op::Open { user: bob.clone(), device: Some(device.clone()) },
        Op::Ack { user: bob.clone(), device, cursor },
        Op::Read { user: bob.clone(), cursor },
        Op::Undelivered { user: bob, cursor, bytes: 0 },
        Op::Tail { stream: room() },
        Op::Member(MemberOp {
            stream: room(),
            user: user("bob"),
            entry: None,
            version: Version { epoch, n: 1 },
            last: true,
            note: bytes::Bytes::from_static(b"{}"),
        }),
    ]
}

/// What the owner knows to be on its way to the log.
#[derive(Default)]
struct Known(Vec<String>);

impl Known {
    fn inherit(&mut self, outbox: &[OutboxEvent]) {
        self.0.extend(outbox.iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()));
    }

    fn write(&mut self, ops: &[Op], results: &[OpResult]) {
        for (op, result) in ops.iter().zip(results) {
            match (op, result) {
                (Op::Append(op), OpResult::Appended { .. }) => self.0.push(format!("\"id\":\"{}\"", op.id)),
                (Op::Event(op), OpResult::Accepted) => self.0.push(format!("\"event_id\":\"{}\"", op.id)),
                _ => {}
            }
        }
    }

    /// Nothing is taken for done that is not on its way.
    fn holds(&self, ops: &[Op], results: &[OpResult], at: &str) {
        for (op, result) in ops.iter().zip(results) {
            let (OpResult::Duplicate { .. }, Op::Append(AppendOp { id, .. }) | Op::Event(EventOp { id, .. })) =
                (result, op)
            else {
                continue;
            };
            let named = [format!("\"id\":\"{id}\""), format!("\"event_id\":\"{id}\"")];
            let is_known = self.0.iter().any(|text| named.iter().any(|name| text.contains(name)));
            assert!(is_known, "{at}: {id} is taken for done, and on its way nowhere");
        }
    }
}

/// Writes until it is done; who finds its data lost takes the vnode over anew.
async fn persists(a: &Process, owner: &mut Owner, known: &mut Known, first: &str, at: &str) {
    let me = owner.fence.sid.clone();
    for _ in 0..5 {
        let ops = everything(owner.generation, first);
        let write = owner.write_of(ops.clone());
        match eventually("the store takes it", || async { a.store.write(&write).await.ok() }).await {
            WriteAnswer::Done { seq, results } => {
                known.write(&ops, &results);
                owner.fence.seq = seq;
                return known.holds(&ops, &results, at);
            }
            WriteAnswer::Behind { seq, outbox } => {
                known.inherit(&outbox);
                owner.fence.seq = seq;
            }
            WriteAnswer::Lost | WriteAnswer::Rewound => {
                let (vnode, epoch) = (owner.fence.vnode, Epoch(owner.fence.epoch.0 + 1));
                let held = Some((owner.fence.epoch, owner.fence.seq));
                let request = Activate { prove: true, held, ..a.activation(vnode, &me, epoch) };
                let ActivateAnswer::Activated(activated) = a.activate(&request).await else {
                    panic!("{at}: a larger epoch")
                };
                known.inherit(&activated.outbox);
                *owner = a.owner(vnode, &me, epoch, &activated);
            }
            WriteAnswer::Deposed | WriteAnswer::Refused => panic!("{at}: nobody else has it"),
        }
    }
    panic!("{at}: it never ends");
}

/// A place (stream, generation, offset) has one message, whatever was refused.
async fn places_have_one_message(fixture: &RedisFixture, vnode: VnodeId, at: &str) {
    let mut ask = cmd("XRANGE");
    ask.arg(format!("{{v{vnode}}}:outbox")).arg("-").arg("+");
    let entries: Vec<(String, BTreeMap<String, String>)> =
        ask.query_async(&mut fixture.admin().await).await.expect("Redis answers");
    let mut places = BTreeMap::new();
    for (_, entry) in entries.into_iter().filter(|(_, entry)| entry["topic"] == "chat") {
        let message: serde_json::Value = serde_json::from_str(&entry["event"]).expect("JSON");
        let place = (entry["key"].clone(), message["generation"].to_string(), message["offset"].to_string());
        let id = message["id"].to_string();
        let before = places.insert(place.clone(), id.clone());
        assert!(before.is_none(), "{at}: {place:?} names {before:?} and {id}");
    }
    assert!(places.len() >= 4, "{at}: {places:?}");
}

/// Promise P2. Redis takes nothing back: a command that is refused must not leave half of a write behind that a repeat
/// takes for the whole.
#[tokio::test]
async fn no_refused_command_leaves_a_write_that_a_repeat_takes_for_done() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = limited(&fixture).await;
    let (mut refusals, mut torn) = (0, 0);
    for (i, command) in commands_of(include_str!("../../src/redis/write.lua")).iter().enumerate() {
        let vnode = VnodeId(i as u16);
        let mut owner = a.own(vnode, &sid("ws-1", 1), Epoch(10)).await;
        let mut known = Known::default();
        let before = [append(&inbox("bob"), "m0"), append(&room(), "m0")].to_vec();
        let results = owner.write(before.clone()).await;
        known.write(&before, &results);
        acl(&fixture, &format!("-{command}")).await;
        let write = owner.write_of(everything(owner.generation, "m1"));
        match a.store.write(&write).await {
            Err(StoreError::Refused(_)) => refusals += 1,
            Err(other) => panic!("{command}: {other}"),
            Ok(WriteAnswer::Done { seq, results }) => {
                known.write(&write.ops, &results);
                owner.fence.seq = seq;
            }
            Ok(other) => panic!("{command}: {other:?}"),
        }
        let mark: Option<String> =
            redis::AsyncCommands::hget(&mut fixture.admin().await, format!("{{v{vnode}}}:head"), "torn")
                .await
                .expect("Redis answers");
        torn += u32::from(mark.as_deref() == Some("1"));
        acl(&fixture, &format!("+{command}")).await;
        // Somebody else's message comes first now.
        persists(&a, &mut owner, &mut known, "m2", command).await;
        places_have_one_message(&fixture, vnode, command).await;
        persists(&a, &mut owner, &mut known, "m3", command).await;
    }
    assert!(refusals > 10 && torn > 5, "{refusals} refused, {torn} of them in the middle");
}

/// The same of the control plane: what failed is done again.
#[tokio::test]
async fn no_refused_command_stops_the_control_plane_for_good() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = limited(&fixture).await;
    let scripts = ["register", "claim", "renew", "own_rows", "lead", "resign", "assign", "deregister", "lib"];
    let mut commands = BTreeSet::new();
    for script in scripts {
        let path = format!("{}/src/redis/{script}.lua", env!("CARGO_MANIFEST_DIR"));
        commands.extend(commands_of(&std::fs::read_to_string(path).expect("it is there")));
    }
    assert!(commands.len() > 8, "{commands:?}");
    for (i, command) in commands.iter().enumerate() {
        let (me, vnode) = (sid("ws-1", i as u64 + 1), VnodeId(i as u16));
        acl(&fixture, &format!("-{command}")).await;
        a.store.table().await.ok();
        let row = a.renewal(&me, &[]);
        let register = Register {
            data_set: a.data_set.clone(),
            node: me.node(),
            row: roost_backend::contract::store::node_row(&me),
        };
        a.store.register(&register).await.ok();
        a.store.claim(&a.claim_of(vnode, &me)).await.ok();
        a.store.renew(&row).await.ok();
        acl(&fixture, &format!("+{command}")).await;
        eventually("it registers", || async { a.store.register(&register).await.ok() }).await;
        let ClaimAnswer::Granted(epoch) = a.claim(vnode, &me).await else { panic!("{command}: it is free") };
        assert_eq!(a.renew(&me, &[(vnode, epoch)]).await, RenewAnswer::Renewed(vec![true]), "{command}");
        assert_eq!(a.store.set_ready(&a.rows(&me, &[(vnode, epoch)])).await.ok(), Some(vec![true]));
        assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading, "{command}");
        assert!(a.resign("boss").await, "{command}");
    }
}

/// Core rule 19: a data set that is named without its mark could be claimed while others still hold it.
#[tokio::test]
async fn no_data_set_is_named_without_settling() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = limited(&fixture).await;
    for command in commands_of(include_str!("../../src/redis/data_set.lua")) {
        fixture.follow_and_lead().await;
        fixture.run(cmd("DEL").arg("{roost}:settling")).await;
        acl(&fixture, &format!("-{command}")).await;
        a.store.lead(&Lead { data_set: a.data_set.clone(), token: "boss".into(), frozen: None }).await.ok();
        acl(&fixture, &format!("+{command}")).await;
        let table = eventually("the table", || async { a.store.table().await.ok() }).await;
        eventually("it is named", || async {
            let lead = Lead { data_set: table.data_set.clone(), token: "boss".into(), frozen: None };
            a.store.lead(&lead).await.ok()
        })
        .await;
        assert!(a.table().await.settling, "without {command}");
    }
}

/// Exit 64, and which: a user of Redis 7 begins without channels.
#[tokio::test]
async fn who_lacks_a_right_is_told_which_before_it_begins() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let refused = async |rights: String, named: &str| {
        acl(&fixture, &rights).await;
        let answer = RedisStore::connect(&url_of(&fixture), CONFIG).await;
        let text = answer.err().map(|e| format!("{e:?}")).unwrap_or_default();
        assert!(text.starts_with("Config(") && text.contains(named), "{rights}: wanted {named}, got {text}");
    };
    let mut commands = commands_of(include_str!("../../src/redis/self_test.lua"));
    commands.extend(["EVALSHA", "SUBSCRIBE", "PING", "MULTI", "EXEC"].map(str::to_owned));
    for command in commands {
        refused(format!("reset on >secret ~* &* +@all -{command}"), &command).await;
    }
    refused("reset on >secret ~* resetchannels +@all".into(), "SUBSCRIBE").await;
    refused("reset on >secret ~* resetchannels +@all".into(), "PUBLISH").await;
    refused("reset on >secret ~{roost}:* &* +@all".into(), "{v0}").await;
    refused("reset on >secret ~{v*}:* &* +@all".into(), "{roost}").await;
}

/// The documented line is enough for all that a store does.
#[tokio::test]
async fn the_documented_rights_suffice() {
    let Some(fixture) = RedisFixture::own().await else { return };
    acl(&fixture, &documented_rights()).await;
    let store = RedisStore::connect(&url_of(&fixture), CONFIG).await.expect("it may");
    let data_set = store.open_ring(roost_backend::contract::store::VNODES).await.expect("the ring opens");
    let a = Process { store: std::sync::Arc::new(store), data_set };
    let me = a.join("ws-1", 1).await;
    let epoch = a.granted(V, &me).await;
    let mut owner = a.own(V, &me, epoch).await;
    let (tell, mut heard) = mpsc::channel(16);
    let subscriber = a.store.subscribe(tell);
    let channel = LiveChannel::Room { vnode: V, stream: room() };
    eventually("it follows", || async { subscriber.follow(&channel).await.ok() }).await;
    owner.write(everything(owner.generation, "m2")).await;
    loop {
        match heard.recv().await.expect("the ear lives") {
            LiveEvent::Told { channel: told, .. } if told == channel => break,
            _ => {}
        }
    }
    assert_eq!(a.renew(&me, &[(V, epoch)]).await, RenewAnswer::Renewed(vec![true]));
    a.store.presence(V, &[user("bob")]).await.expect("it may");
    a.store.standings(&[(V, room())]).await.expect("it may");
    a.own(V, &me, Epoch(epoch.0 + 1)).await;
    a.store.ping().await.expect("nothing was refused");
}

/// `/readyz` says it, and nothing else stops: who follows a room compares tails.
#[tokio::test]
async fn a_right_that_is_taken_away_is_named_until_it_is_back() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = limited(&fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    acl(&fixture, "resetchannels").await;
    let results = owner.write(vec![append(&room(), "m1")]).await;
    assert_eq!(results, [OpResult::Appended { offset: Offset(1) }], "what was published last fails nothing");
    let results = owner.write(vec![append(&room(), "m1b")]).await;
    assert_eq!(results, [OpResult::Appended { offset: Offset(2) }], "nor anything later");
    let said = a.store.ping().await.expect_err("it is refused").to_string();
    assert!(said.contains("PUBLISH") && said.contains("SUBSCRIBE"), "{said}");
    acl(&fixture, "&*").await;
    eventually("it is permitted again", || async { a.store.ping().await.ok() }).await;
    assert_eq!(owner.write(vec![append(&room(), "m2")]).await, [OpResult::Appended { offset: Offset(3) }]);
}

/// Publish and subscribe knows no databases.
#[tokio::test]
async fn clusters_in_two_databases_do_not_hear_each_other() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let in_database = async |n: u32| {
        let store =
            RedisStore::connect(&format!("{}/{n}", fixture.url()), CONFIG).await.expect("it is reached");
        let data_set = store.open_ring(roost_backend::contract::store::VNODES).await.expect("the ring opens");
        Process { store: std::sync::Arc::new(store) as std::sync::Arc<dyn Store>, data_set }
    };
    let (zero, three) = (in_database(0).await, in_database(3).await);
    let channels = [
        LiveChannel::Room { vnode: V, stream: room() },
        LiveChannel::Presence(V),
        LiveChannel::Node(NodeId::new("ws-1").expect("a valid node")),
    ];
    let mut subscribers = Vec::new();
    for process in [&zero, &three] {
        let (tell, heard) = mpsc::channel(64);
        let subscriber = process.store.subscribe(tell);
        for channel in &channels {
            eventually("it follows", || async { subscriber.follow(channel).await.ok() }).await;
        }
        subscribers.push((subscriber, heard));
    }
    let mut hints = three.store.hints();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    hints.borrow_and_update();
    for (process, epoch) in [(&zero, 10), (&three, 20)] {
        let mut owner = process.own(V, &sid("ws-1", 1), Epoch(epoch)).await;
        owner.write(everything(owner.generation, "m2")).await;
        process
            .store
            .publish(&channels[2], bytes::Bytes::from(format!("from {epoch}")))
            .await
            .expect("shouted");
        if epoch == 10 {
            zero.join("ws-1", 1).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            assert!(!hints.has_changed().expect("it lives"), "nor each other's hints");
        }
    }
    for ((_, heard), own) in subscribers.iter_mut().zip(["10", "20"]) {
        let mut texts = Vec::new();
        while !texts.iter().any(|text: &String| text.starts_with("from")) {
            if let LiveEvent::Told { payload, .. } = heard.recv().await.expect("the ear lives") {
                texts.push(String::from_utf8_lossy(&payload).into_owned());
            }
        }
        let strange = texts.iter().filter(|text| *text != "{}" && !text.contains(own)).collect::<Vec<_>>();
        assert!(texts.len() > 3 && strange.is_empty(), "{own}: {strange:?}");
    }
}
