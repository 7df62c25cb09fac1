//! Promises 4 and 7: what cannot be kept.

use super::*;

/// A record that is no message, and what the reason begins with.
fn unreadable() -> Vec<(Bytes, &'static str)> {
    let message = |from: &str, at: &str| {
        format!(
            "{{\"stream\":\"user:bob\",\"generation\":7,\"offset\":1,\"id\":\"m\",\"kind\":\"message\",\
             \"from\":\"{from}\",\"at\":\"{at}\",\"data\":1}}"
        )
    };
    vec![
        (Bytes::new(), "not a record"),
        (Bytes::from_static(b"\x00\xff\xfe"), "not a record"),
        (Bytes::from_static(b"{\"stream\":\"nowhere\"}"), "not a record"),
        (message("a\\u0000b", "2026-11-21T06:40:00Z").into(), "'from' has a NUL"),
        (message("a", "9999-11-21T06:40:00Z").into(), "'at' is not between"),
    ]
}

/// Promise 4.
pub async fn what_cannot_be_read_is_a_dead_letter_and_holds_up_nothing(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let (bad, said) = (unreadable(), [Said::new(&bob, 1), Said::new(&bob, 2)]);
    let mut payloads = vec![said[0].payload()];
    payloads.extend(bad.iter().map(|(payload, _)| payload.clone()));
    payloads.push(said[1].payload());
    let tally = topic.store(&*archive, payloads).await;
    assert_eq!((tally.rows, tally.dead), (2, bad.len() as u64));
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), topic.ends);
    let mut letters = archive.dead_letters(None, 100).await.expect(ANSWERS);
    letters.reverse();
    assert_eq!(letters.len(), bad.len());
    for (n, (letter, (payload, reason))) in letters.iter().zip(bad).enumerate() {
        assert_eq!((&letter.payload, &letter.key[..]), (&payload, &b"key"[..]));
        assert_eq!(letter.position, Position { partition: 0, offset: n as u64 + 1 });
        assert!(letter.topic == CHAT_EVENTS && letter.reason.starts_with(reason), "{letter:?}");
    }
}

/// Promise 4: some of many.
pub async fn what_the_database_refuses_is_a_dead_letter_and_holds_up_nothing(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    f.refuse(true).await;
    let bad = [1, 7, 8, 63, 100];
    let kind = |n| if bad.contains(&n) { "refused" } else { "message" };
    let said: Vec<_> = (1..=100).map(|n| Said { kind: kind(n), ..Said::new(&bob, n) }).collect();
    let copies = [said[1].payload(), said[98].payload()];
    let tally = topic.store(&*archive, said.iter().map(Said::payload).chain(copies)).await;
    assert_eq!((tally.rows, tally.duplicates, tally.dead), (95, 2, 5));
    let good: Vec<_> = said.into_iter().filter(|said| said.kind == "message").collect();
    assert_eq!(shown(&*archive, &bob).await, newest_first(&good));
    let letters = archive.dead_letters(None, 100).await.expect(ANSWERS);
    let mut places: Vec<_> = letters.iter().map(|letter| letter.position.offset + 1).collect();
    places.sort_unstable();
    assert_eq!(places, bad);
    assert!(letters.iter().all(|letter| !letter.reason.is_empty()));
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), topic.ends);
}

/// Promise 7.
pub async fn a_dead_letter_is_replayed_or_stays_with_its_reason(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    f.refuse(true).await;
    let said = Said { kind: "refused", ..Said::new(&bob, 1) };
    topic.store(&*archive, [said.payload(), Bytes::from_static(b"garbage")]).await;
    let letters = archive.dead_letters(None, 10).await.expect(ANSWERS);
    let id =
        |payload: &[u8]| letters.iter().find(|letter| &letter.payload[..] == payload).expect("a letter").id;
    let (refused, garbage) = (id(&said.payload()), id(b"garbage"));
    assert!(matches!(archive.replay(refused).await.expect(ANSWERS), Replayed::Refused(_)));
    assert!(shown(&*archive, &bob).await.is_empty());
    f.refuse(false).await;
    assert_eq!(archive.replay(refused).await.expect(ANSWERS), Replayed::Stored);
    assert_eq!(archive.replay(refused).await.expect(ANSWERS), Replayed::Missing);
    assert_eq!(shown(&*archive, &bob).await, [said.payload()]);
    assert!(matches!(archive.replay(garbage).await.expect(ANSWERS), Replayed::Refused(_)));
    assert_eq!(archive.dead_letters(None, 10).await.expect(ANSWERS).len(), 1);
    assert_eq!(
        archive.positions(CHAT_EVENTS).await.expect(ANSWERS),
        topic.ends,
        "a replay moves no position"
    );
}

pub async fn dead_letters_come_in_pages_and_can_be_discarded(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::chat());
    topic.store(&*archive, (0..7).map(|n| Bytes::from(format!("bad {n}")))).await;
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = archive.dead_letters(before, 3).await.expect(ANSWERS);
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        seen.extend(page);
    }
    assert!(seen.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
    let payloads: Vec<_> = seen.iter().map(|letter| String::from_utf8_lossy(&letter.payload)).collect();
    assert_eq!(payloads, ["bad 6", "bad 5", "bad 4", "bad 3", "bad 2", "bad 1", "bad 0"]);
    assert!(archive.discard(seen[2].id).await.expect(ANSWERS));
    assert!(!archive.discard(seen[2].id).await.expect(ANSWERS));
    assert_eq!(archive.dead_letters(None, 100).await.expect(ANSWERS).len(), 6);
}
