//! Promises 1 to 3: what becomes of a batch.

use rand::{Rng, RngExt, SeedableRng};

use super::*;

/// Promise 1.
pub async fn a_batch_is_stored_with_its_positions(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::chat());
    let (bob, lobby) = (stream("user:bob"), stream("room:lobby"));
    assert!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS).is_empty());
    let said: Vec<_> = (1..=20).map(|n| Said::new(&bob, n)).collect();
    let other = Said::new(&lobby, 1);
    let payloads = said.iter().map(|said| (3, said.payload())).chain([(5, other.payload())]);
    let tally = kept(&*archive, &topic.batch(payloads)).await;
    assert_eq!(tally, Tally { rows: 21, ..Tally::default() });
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), [(3, 20), (5, 1)].into());
    assert!(archive.positions(USER_STATUS_EVENTS).await.expect(ANSWERS).is_empty());
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));
    assert_eq!(shown(&*archive, &lobby).await, [other.payload()]);
    assert!(shown(&*archive, &stream("user:bo")).await.is_empty());
    // What retention removed from the log is covered by the span alone.
    let mut later = topic.batch([(5, Said::new(&lobby, 2).payload())]);
    (later.spans[0].to, later.records[0].position.offset) = (100, 99);
    kept(&*archive, &later).await;
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), [(3, 20), (5, 100)].into());
    let hole = Batch { spans: vec![Span { partition: 5, from: 100, to: 120 }], records: Vec::new(), ..later };
    assert_eq!(kept(&*archive, &hole).await, Tally::default());
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), [(3, 20), (5, 120)].into());
}

/// Promise 1.
pub async fn a_batch_from_elsewhere_is_fenced_and_changes_nothing(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let first = topic.batch([(0, Said::new(&bob, 1).payload()), (1, Bytes::from_static(b"garbage"))]);
    kept(&*archive, &first).await;
    let again = archive.store(&first).await.expect(ANSWERS);
    assert_eq!(again, Stored::Fenced, "the same once more");
    let mut half = topic.batch([(0, Said::new(&bob, 2).payload()), (1, Bytes::from_static(b"garbage"))]);
    half.spans[1].from = 7;
    assert_eq!(archive.store(&half).await.expect(ANSWERS), Stored::Fenced, "one of the spans is elsewhere");
    half.spans[1].from = 0;
    assert_eq!(archive.store(&half).await.expect(ANSWERS), Stored::Fenced, "at the beginning, too");
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), [(0, 1), (1, 1)].into());
    assert_eq!(shown(&*archive, &bob).await.len(), 1);
    assert_eq!(archive.dead_letters(None, 10).await.expect(ANSWERS).len(), 1);
    half.spans[1].from = 1;
    kept(&*archive, &half).await;
    assert_eq!(shown(&*archive, &bob).await.len(), 2);
}

/// Promise 2.
pub async fn a_copy_changes_nothing(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let said: Vec<_> = (1..=6).map(|n| Said::new(&bob, n)).collect();
    let twice = said[..3].iter().chain(&said[1..4]).map(Said::payload);
    let tally = topic.store(&*archive, twice).await;
    assert_eq!((tally.rows, tally.duplicates, tally.dead), (4, 2, 0));
    let tally = topic.store(&*archive, said.iter().map(Said::payload)).await;
    assert_eq!((tally.rows, tally.duplicates, tally.dead), (2, 4, 0));
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));

    let mut topic = Topic::new(USER_STATUS_EVENTS);
    let event = changed("bob", 1, Status::Online, NOW_MS);
    let tally = topic.store(&*archive, [event.clone(), event.clone()]).await;
    assert_eq!((tally.rows, tally.duplicates), (1, 1));
    let tally = topic.store(&*archive, [event]).await;
    assert_eq!((tally.rows, tally.duplicates), (0, 1));
}

/// Promise 3.
pub async fn a_message_that_comes_again_is_kept_once(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let new = Epoch(NOW_MS);
    let again = |old: &Said, offset| Said {
        cursor: Cursor::new(new, Offset(offset)),
        at_ms: NOW_MS + 60_000,
        ..old.clone()
    };
    let mut said: Vec<_> = (1..=4).map(|n| Said { at_ms: NOW_MS - 1_000, ..Said::new(&bob, n) }).collect();
    topic.store(&*archive, said[..3].iter().map(Said::payload)).await;
    // Once among what is there, once in the same batch.
    let both = [said[3].payload(), again(&said[1], 1).payload(), again(&said[3], 2).payload()];
    let tally = topic.store(&*archive, both.clone()).await;
    assert_eq!((tally.rows, tally.aliases), (1, 2));
    let tally = topic.store(&*archive, both).await;
    assert_eq!((tally.rows, tally.duplicates, tally.aliases), (0, 1, 0), "copies of all that");
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));
    // Other data under the same id is another message, and so is another's; and whatever comes much later.
    let other = Said { data: "1".into(), ..again(&said[0], 3) };
    let elsewhere = Said { stream: stream("room:lobby"), ..again(&said[0], 1) };
    let late = Said { at_ms: NOW_MS + AGAIN_WITHIN_MS, ..again(&said[2], 4) };
    let tally = topic.store(&*archive, [&other, &elsewhere, &late].map(Said::payload)).await;
    assert_eq!((tally.rows, tally.aliases), (3, 0));
    said.extend([other, late]);
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));
}

/// Promise 1: two archivers that each believe the partition to be theirs.
pub async fn of_two_who_read_the_same_partition_each_record_is_kept_once(f: &impl Fixture) {
    const COUNT: u64 = 60;
    let (archive, bob) = (f.archive(), stream("user:bob"));
    let said: Vec<_> = (1..=COUNT).map(|n| Said::new(&bob, n)).collect();
    let read_on = async |step: usize| {
        loop {
            let next = archive.positions(CHAT_EVENTS).await.expect(ANSWERS).get(&0).copied().unwrap_or(0);
            if next == COUNT {
                return;
            }
            let mut topic = Topic { name: CHAT_EVENTS, ends: [(0, next)].into() };
            let some = said[next as usize..].iter().take(step).map(|said| (0, said.payload()));
            // A rival's transaction may cost us ours.
            let _ = archive.store(&topic.batch(some)).await;
        }
    };
    tokio::join!(read_on(3), read_on(4), read_on(5));
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));
}

/// Promises 1 to 4, on whatever comes.
pub async fn random_batches_are_kept_as_they_came(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::chat());
    let mut rng = rand::rngs::StdRng::seed_from_u64(7);
    let streams: Vec<_> = (0..5).map(|n| stream(&format!("user:u{n}"))).collect();
    let mut kept_of: BTreeMap<usize, Vec<Said>> = BTreeMap::new();
    let mut garbage = 0;
    for _ in 0..30 {
        let mut records = Vec::new();
        let (mut rows, mut copies, mut dead) = (0, 0, 0);
        for _ in 0..rng.random_range(0..60) {
            let of = rng.random_range(0..streams.len());
            let said = kept_of.entry(of).or_default();
            let payload = match rng.random_range(0..20) {
                0 => {
                    dead += 1;
                    let mut bytes = vec![0; rng.random_range(0..40)];
                    rng.fill_bytes(&mut bytes);
                    bytes.into()
                }
                1..4 if !said.is_empty() => {
                    copies += 1;
                    said[rng.random_range(0..said.len())].payload()
                }
                _ => {
                    rows += 1;
                    let mut new = Said::new(&streams[of], said.len() as u64 + 1);
                    // Over many weeks.
                    new.at_ms = NOW_MS + rng.random_range(0..20) * 86_400_000;
                    said.push(new.clone());
                    new.payload()
                }
            };
            records.push((of as u32 % 3, payload));
        }
        garbage += dead;
        let batch = topic.batch(records);
        let tally = kept(&*archive, &batch).await;
        assert_eq!((tally.rows, tally.duplicates, tally.dead), (rows, copies, dead));
        if rng.random_bool(0.3) && !batch.records.is_empty() {
            assert_eq!(archive.store(&batch).await.expect(ANSWERS), Stored::Fenced);
        }
    }
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), topic.ends);
    for (of, said) in &kept_of {
        assert_eq!(shown(&*archive, &streams[*of]).await, newest_first(said));
    }
    assert_eq!(archive.dead_letters(None, 10_000).await.expect(ANSWERS).len() as u64, garbage);
}

pub async fn canaries_are_not_kept(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let canary = Said { kind: "canary", ..Said::new(&bob, 1) };
    let tally = topic.store(&*archive, [canary.payload()]).await;
    assert_eq!(tally, Tally { skipped: 1, ..Tally::default() });
    assert!(shown(&*archive, &bob).await.is_empty());
    assert_eq!(archive.positions(CHAT_EVENTS).await.expect(ANSWERS), topic.ends);
}
