//! What only Redis can get wrong: names and lifetimes of keys, settings, memory, a server that does not answer.

use std::time::{Duration, Instant};

use redis::{Value, cmd};
use roost_backend::contract::store::{CONFIG, NOW_MS};
use roost_backend::contract::store::{Fixture, Process, V, append, eventually, inbox, message, sid, user};
use roost_backend::redis::RedisStore;
use roost_backend::store::*;
use roost_proto::events::message_bytes;
use roost_proto::ids::{Cursor, DeviceId, Epoch, Offset, Seq, VnodeId};

use super::RedisFixture;

const DAY_MS: i64 = 86_400_000;

async fn asked<T: redis::FromRedisValue>(fixture: &RedisFixture, words: &[&str]) -> T {
    cmd(words[0]).arg(&words[1..]).query_async(&mut fixture.admin().await).await.expect("Redis does it")
}

/// What people look at with redis-cli when something is wrong (architecture §4).
#[tokio::test]
async fn keys_have_the_documented_names_types_and_lifetimes() {
    let Some(fixture) = RedisFixture::any().await else { return };
    let a = Process::start(&fixture).await;
    let me = a.join("ws-1", 1).await;
    let epoch = a.granted(V, &me).await;
    assert_eq!(a.lead("boss", None).await, LeadAnswer::Leading);
    assert!(a.assign("boss", 0, &[(V, me.node())]).await);
    let mut owner = a.own(V, &me, epoch).await;
    let roster = Some(RosterEntry {
        chosen: Default::default(),
        since: 1,
        last_seen: None,
        sessions: 1,
        generation: epoch,
    });
    let seen = Some(Seen { chosen: Default::default(), since: 1, last_seen: 1, generation: epoch });
    let device = DeviceId::new("phone").unwrap();
    owner
        .write(vec![
            append(&inbox("bob"), "m1"),
            append(&inbox("bob"), "m2"),
            Op::Presence(PresenceOp { user: user("bob"), roster, seen, event: None }),
            Op::Ack { user: user("bob"), device, cursor: Cursor::new(epoch, Offset(1)) },
        ])
        .await;
    let slice = NOW_MS / roost_proto::limits::IDS_KEPT_MS % 2;
    let ids = format!("{{v17}}:ids:user:bob:{slice}");
    let ids_ms = 2 * roost_proto::limits::IDS_KEPT_MS as i64 + 3_600_000;
    let lease_ms = CONFIG.lease_ttl_ms as i64;
    let wanted = [
        ("{roost}:ring", "hash", -1),
        ("{roost}:nodes", "hash", -1),
        ("{roost}:assignment", "hash", -1),
        ("{roost}:leader", "string", -1),
        ("{roost}:vnode:17", "string", lease_ms),
        ("{v17}:head", "hash", -1),
        ("{v17}:outbox", "stream", -1),
        ("{v17}:presence", "hash", -1),
        ("{v17}:stream:user:bob", "stream", DAY_MS),
        ("{v17}:tail:user:bob", "string", 30 * DAY_MS),
        (ids.as_str(), "hash", ids_ms),
        ("{v17}:seen:bob", "string", 30 * DAY_MS),
        ("{v17}:cursors:bob", "hash", 30 * DAY_MS),
    ];
    for (key, kind, ttl) in wanted {
        assert_eq!(asked::<String>(&fixture, &["TYPE", key]).await, kind, "{key}");
        let left: i64 = asked(&fixture, &["PTTL", key]).await;
        assert!(left <= ttl && left > ttl - 60_000, "{key} lives {left} ms, wanted {ttl}");
    }
    let mut keys: Vec<String> = asked(&fixture, &["KEYS", "*"]).await;
    keys.sort();
    let mut names: Vec<_> = wanted.iter().map(|(key, ..)| *key).collect();
    names.sort_unstable();
    assert_eq!(keys, names, "and no others");
    let entries: Vec<(String, Vec<String>)> = asked(&fixture, &["XRANGE", "{v17}:outbox", "-", "+"]).await;
    assert_eq!(entries.iter().map(|e| e.0.as_str()).collect::<Vec<_>>(), ["1-0", "2-0"]);
}

/// An earlier version kept every device, and said nothing of uses.
#[tokio::test]
async fn devices_of_an_earlier_version_go_first_and_a_few_at_a_time() {
    let Some(fixture) = RedisFixture::any().await else { return };
    let a = Process::start(&fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let key = "{v17}:cursors:bob";
    let before: Vec<String> = (0..1000).map(|n| format!("old{n}")).collect();
    let words: Vec<&str> = ["HSET", key].into_iter().chain(before.iter().flat_map(|d| [d, "10:1"])).collect();
    assert_eq!(asked::<i64>(&fixture, &words).await, 1000);
    let of = |name: &str| DeviceId::new(name).unwrap();
    let known = owner.open_as("bob", Some(of("old7"))).await;
    assert_eq!((known.acked, known.forgotten), (Some(Cursor::new(Epoch(10), Offset(1))), false));
    let ack = Op::Ack { user: user("bob"), device: of("phone"), cursor: Cursor::new(Epoch(10), Offset(2)) };
    owner.write(vec![ack.clone()]).await;
    let left: i64 = asked(&fixture, &["HLEN", key]).await;
    assert!((700..950).contains(&left), "a part of them went: {left}");
    for _ in 0..20 {
        owner.write(vec![ack.clone()]).await;
    }
    let left: i64 = asked(&fixture, &["HLEN", key]).await;
    assert!(left <= 2 * DEVICES_KEPT as i64 + 3, "{left}");
    for (device, offset) in [("phone", 2), ("old7", 1)] {
        let opened = owner.open_as("bob", Some(of(device))).await;
        assert_eq!(opened.acked, Some(Cursor::new(Epoch(10), Offset(offset))), "{device} was used since");
    }
    let phone: String = asked(&fixture, &["HGET", key, "phone"]).await;
    assert_eq!(phone, "10:2", "as the earlier version reads it");
}

#[tokio::test]
async fn a_redis_that_evicts_is_refused() {
    let Some(fixture) = RedisFixture::with(&["--maxmemory-policy", "allkeys-lru"]).await else { return };
    let answer = RedisStore::connect(fixture.url(), CONFIG).await;
    assert!(
        matches!(&answer, Err(StoreError::Config(text)) if text.contains("maxmemory-policy")),
        "{:?}",
        answer.err()
    );
}

#[tokio::test]
async fn a_redis_that_hides_its_settings_is_taken_on_trust() {
    let Some(fixture) = RedisFixture::with(&["--rename-command", "CONFIG", ""]).await else { return };
    RedisStore::connect(fixture.url(), CONFIG).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_not_supported_or_not_allowed_says_so() {
    for url in ["rediss://h", "redis+cluster://h", "redis+sentinel://h", "unix:///s", "127.0.0.1:6379"] {
        let answer = RedisStore::connect(url, CONFIG).await;
        let text = "not supported yet";
        assert!(
            matches!(&answer, Err(StoreError::Config(e)) if e.contains(text)),
            "{url}: {:?}",
            answer.err()
        );
    }
    let nobody = RedisStore::connect("redis://127.0.0.1:1", CONFIG).await;
    assert!(matches!(nobody, Err(StoreError::Unreachable(_))), "{:?}", nobody.err());
    let Some(fixture) = RedisFixture::with(&[]).await else { return };
    let wrong = fixture.url().replace("redis://", "redis://:secret@");
    let answer = RedisStore::connect(&wrong, CONFIG).await;
    assert!(matches!(&answer, Err(StoreError::Config(e)) if !e.contains("secret")), "{:?}", answer.err());
}

/// Promise P9. The write that timed out lands when Redis wakes, and its repeat finds it (core rule 10).
#[tokio::test]
async fn a_frozen_redis_times_out_and_what_lands_late_is_found() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = Process::start(&fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    owner.write(vec![append(&inbox("bob"), "m1")]).await;
    fixture.signal("STOP").await;
    let write = owner.write_of(vec![append(&inbox("bob"), "m2")]);
    let asked = Instant::now();
    let answer = a.store.write(&write).await;
    assert!(matches!(answer, Err(StoreError::Timeout(_))), "{answer:?}");
    let again = a.store.write(&write).await;
    assert!(matches!(again, Err(StoreError::Timeout(_) | StoreError::Unreachable(_))), "{again:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "every wait ends");
    fixture.signal("CONT").await;
    let answer = eventually("Redis wakes", || async { a.store.write(&write).await.ok() }).await;
    match answer {
        WriteAnswer::Done { seq, .. } | WriteAnswer::Behind { seq, .. } => owner.fence.seq = seq,
        other => panic!("nobody else wrote, got {other:?}"),
    }
    let known = OpResult::Duplicate { offset: Offset(2), at: NOW_MS };
    assert_eq!(owner.write(vec![append(&inbox("bob"), "m2")]).await, [known]);
    assert_eq!(owner.read(&inbox("bob"), 0, 10).await.entries.len(), 2);
}

/// noeviction: a write that takes memory is refused whole; leases and trimming go on, or it would never recover.
#[tokio::test]
async fn a_full_redis_refuses_writes_whole_and_keeps_leases() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = Process::start(&fixture).await;
    let me = a.join("ws-1", 1).await;
    let epoch = a.granted(V, &me).await;
    let mut owner = a.own(V, &me, epoch).await;
    owner.write(vec![append(&inbox("bob"), "m1")]).await;
    asked::<Value>(&fixture, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let write = Write { trim: Seq(1), ..owner.write_of(vec![append(&inbox("bob"), "m2")]) };
    let answer = a.store.write(&write).await;
    assert!(matches!(&answer, Err(StoreError::Refused(text)) if text.contains("OOM")), "{answer:?}");
    assert_eq!(a.renew(&me, &[(V, epoch)]).await, RenewAnswer::Renewed(vec![true]));
    assert_eq!(asked::<u64>(&fixture, &["XLEN", "{v17}:outbox"]).await, 1);
    let trim = Write { trim: Seq(1), ..owner.write_of(vec![]) };
    owner.apply(&trim).await;
    assert_eq!(asked::<u64>(&fixture, &["XLEN", "{v17}:outbox"]).await, 0);
    asked::<Value>(&fixture, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(
        owner.write(vec![append(&inbox("bob"), "m2")]).await,
        [OpResult::Appended { offset: Offset(2) }]
    );
}

/// A node that comes back after an outage does not dial for each call that waits.
#[tokio::test]
async fn calls_on_a_dead_redis_fail_fast_between_attempts() {
    let Some(fixture) = RedisFixture::own().await else { return };
    let a = Process::start(&fixture).await;
    fixture.signal("KILL").await;
    eventually("the loss is noticed", || async { a.store.ping().await.err() }).await;
    let asked = Instant::now();
    for _ in 0..1000 {
        assert!(matches!(a.store.ping().await, Err(StoreError::Unreachable(_))));
    }
    assert!(asked.elapsed() < Duration::from_secs(5));
    fixture.crash().await;
    eventually("Redis is back", || async { a.store.ping().await.ok() }).await;
}

/// Lua's numbers print with an exponent from 1e14 on. No test can write so many events, so the counters are set.
#[tokio::test]
async fn counters_beyond_fourteen_digits_are_written_in_full() {
    let Some(fixture) = RedisFixture::any().await else { return };
    let a = Process::start(&fixture).await;
    let me = sid("ws-1", 1);
    a.own(V, &me, Epoch(10)).await;
    let (large, next) = (((1_u64 << 53) - 10).to_string(), Offset((1 << 53) - 9));
    asked::<Value>(&fixture, &["HSET", "{v17}:head", "seq", &large]).await;
    asked::<Value>(&fixture, &["SET", "{v17}:tail:user:bob", &format!("10:{large}")]).await;
    let mut owner = a.own(V, &me, Epoch(11)).await;
    let stale = owner.write_of(vec![]);
    assert_eq!(owner.write(vec![append(&inbox("bob"), "m1")]).await, [OpResult::Appended { offset: next }]);
    let opened = owner.open("bob").await;
    assert_eq!((opened.tail, opened.first), (next, next));
    let WriteAnswer::Behind { seq, outbox } = owner.put(&stale).await else { panic!("it was stale") };
    assert_eq!((seq.0, outbox.len(), outbox[0].seq.0), ((1 << 53) - 7, 1, (1 << 53) - 9));
    let expected =
        message_bytes(&inbox("bob"), Cursor::new(Epoch(10), next), &message(&inbox("bob"), "m1", 1).rest);
    assert_eq!(outbox[0].payload, expected);
    owner.fence.seq = seq;
    let trim = Write { trim: outbox[0].seq, ..owner.write_of(vec![append(&inbox("bob"), "m1")]) };
    assert_eq!(owner.apply(&trim).await, [OpResult::Duplicate { offset: next, at: NOW_MS }]);
    assert_eq!(asked::<u64>(&fixture, &["XLEN", "{v17}:outbox"]).await, 0);
}

/// Somebody removed a head by hand: the outbox it leaves must not stop the vnode for ever.
#[tokio::test]
async fn a_head_that_went_alone_leaves_a_vnode_that_works() {
    let Some(fixture) = RedisFixture::any().await else { return };
    let a = Process::start(&fixture).await;
    let me = sid("ws-1", 1);
    let mut owner = a.own(V, &me, Epoch(10)).await;
    owner.write(vec![append(&inbox("bob"), "m1"), append(&inbox("bob"), "m2")]).await;
    asked::<Value>(&fixture, &["DEL", "{v17}:head"]).await;
    let mut owner = a.own(V, &me, Epoch(11)).await;
    assert_eq!((owner.generation, owner.fence.seq), (Epoch(11), Seq(2)));
    assert_eq!(
        owner.write(vec![append(&inbox("bob"), "m3")]).await,
        [OpResult::Appended { offset: Offset(1) }]
    );
    let trim = Write { trim: Seq(3), ..owner.write_of(vec![]) };
    owner.apply(&trim).await;
    asked::<Value>(&fixture, &["DEL", "{v17}:head"]).await;
    let mut owner = a.own(V, &me, Epoch(12)).await;
    assert_eq!(owner.fence.seq, Seq(0));
    assert_eq!(
        owner.write(vec![append(&inbox("bob"), "m4")]).await,
        [OpResult::Appended { offset: Offset(1) }]
    );
}

#[tokio::test]
async fn each_call_is_one_script() {
    let Some(fixture) = RedisFixture::any().await else { return };
    let a = Process::start(&fixture).await;
    let me = a.join("ws-1", 1).await;
    let before = a.store.commands();
    let epoch = a.granted(V, &me).await;
    let mut owner = a.own(V, &me, epoch).await;
    owner.write(vec![append(&inbox("bob"), "m1"), append(&inbox("eve"), "m1")]).await;
    assert_eq!(
        a.renew(&me, &[(V, epoch), (VnodeId(1), epoch)]).await,
        RenewAnswer::Renewed(vec![true, false])
    );
    assert_eq!(a.store.commands() - before, 4);
}

/// A script that another client, or a restart, threw out of Redis' cache is loaded again.
#[tokio::test]
async fn scripts_that_redis_forgot_are_loaded_again() {
    let Some(fixture) = RedisFixture::any().await else { return };
    let a = Process::start(&fixture).await;
    let me = a.join("ws-1", 1).await;
    asked::<Value>(&fixture, &["SCRIPT", "FLUSH"]).await;
    assert!(matches!(a.claim(V, &me).await, ClaimAnswer::Granted(_)));
}
