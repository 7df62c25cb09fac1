//! Promises 5, 6, 10 and 11: what a reader sees, and where it goes on.

use std::collections::BTreeMap;

use super::*;

/// Promise 5.
pub async fn a_reader_begins_at_the_end_of_the_moment_it_was_made(f: &Fixture) {
    let topic = f.topic(2).await;
    let mut sender = f.sender();
    for n in 0..10 {
        sender.send(&topic, n % 2).await;
    }
    let mut reader = f.reader(&topic).await;
    assert_silent(&mut *reader).await;
    let after = sender.send(&topic, 1).await;
    assert_eq!(read(&mut *reader, 1).await[0].position, after);
}

/// Promise 5, while somebody produces without a pause.
pub async fn a_reader_made_in_the_midst_of_records_misses_none_after_it(f: &Fixture) {
    const COUNT: u64 = 2000;
    let topic = f.topic(1).await;
    let mut sender = f.sender();
    // The turns of the two sides interleave at each report.
    let (ready, mut made) = tokio::sync::oneshot::channel();
    let produce = async {
        let mut first_after = None;
        for n in 0..COUNT {
            if first_after.is_none() && (made.try_recv().is_ok() || n == COUNT - 10) {
                first_after = Some(n);
            }
            sender.send(&topic, 0).await;
        }
        first_after.expect("set near the end at the latest")
    };
    let read_all = async {
        tokio::task::yield_now().await;
        let mut reader = f.reader(&topic).await;
        let _ = ready.send(());
        let mut tokens = Vec::new();
        while tokens.last() != Some(&(COUNT - 1)) {
            tokens.extend(read(&mut *reader, 1).await.iter().map(token));
        }
        tokens
    };
    let (first_after, tokens) = tokio::join!(produce, read_all);
    assert!(tokens[0] <= first_after, "the reader begins at {}, {first_after} came after it", tokens[0]);
    assert_eq!(tokens, (tokens[0]..COUNT).collect::<Vec<_>>());
}

/// Promise 5 for each of several readers.
pub async fn every_reader_sees_every_record(f: &Fixture) {
    let topic = f.topic(2).await;
    let mut readers = [f.reader(&topic).await, f.reader(&topic).await];
    let mut sender = f.sender();
    for n in 0..20 {
        sender.take(&topic, n % 2);
    }
    for reader in &mut readers {
        let tokens: HashSet<u64> = read(&mut **reader, 20).await.iter().map(token).collect();
        assert_eq!(tokens, (0..20).collect());
    }
}

/// Promise 6.
pub async fn next_waits_for_a_record(f: &Fixture) {
    let topic = f.topic(1).await;
    let mut reader = f.reader(&topic).await;
    let mut sender = f.sender();
    let (records, ()) = tokio::join!(read(&mut *reader, 1), async {
        tokio::time::sleep(A_MOMENT).await;
        sender.take(&topic, 0);
    });
    assert_eq!(records.len(), 1);
}

/// Promise 6.
pub async fn a_dropped_next_loses_nothing(f: &Fixture) {
    const COUNT: u64 = 500;
    let topic = f.topic(2).await;
    let mut reader = f.reader(&topic).await;
    let mut sender = f.sender();
    let mut tokens: [Vec<u64>; 2] = Default::default();
    let deadline = Instant::now() + SOON;
    while tokens.iter().map(Vec::len).sum::<usize>() < COUNT as usize {
        assert!(Instant::now() < deadline, "records are missing: {tokens:?}");
        if sender.next < COUNT {
            sender.take(&topic, (sender.next % 2) as u32);
        }
        // Mostly too short for a record to arrive: this drops a waiting `next` over and over.
        if let Ok(Ok(records)) = timeout(Duration::from_micros(200), reader.next()).await {
            for record in records {
                tokens[record.position.partition as usize].push(token(&record));
            }
        }
        while sender.reports.try_recv().is_ok() {}
    }
    for (partition, tokens) in tokens.iter().enumerate() {
        assert_eq!(*tokens, (0..COUNT / 2).map(|n| 2 * n + partition as u64).collect::<Vec<_>>());
    }
}

/// Promise 6: a bound on how long one `next` keeps its caller busy.
pub async fn next_returns_a_few_hundred_records_at_most(f: &Fixture) {
    const COUNT: usize = 3000;
    let topic = f.topic(1).await;
    let mut reader = f.reader(&topic).await;
    let mut sender = f.sender();
    for _ in 0..COUNT {
        sender.take(&topic, 0);
    }
    sender.positions(COUNT).await;
    let mut seen = 0;
    while seen < COUNT {
        let records = read(&mut *reader, 1).await;
        assert!((1..1000).contains(&records.len()));
        seen += records.len();
    }
}

pub async fn lag_counts_what_was_not_returned_yet(f: &Fixture) {
    let topic = f.topic(2).await;
    let mut sender = f.sender();
    sender.send(&topic, 0).await;
    let mut reader = f.reader(&topic).await;
    assert_eq!(reader.lag(), 0);
    for n in 0..10 {
        sender.send(&topic, n % 2).await;
    }
    let deadline = Instant::now() + SOON;
    while reader.lag() != 10 {
        assert!(Instant::now() < deadline, "lag is {}", reader.lag());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    read(&mut *reader, 10).await;
    assert_eq!(reader.lag(), 0);
}

/// Promise 10.
pub async fn a_reader_of_some_partitions_begins_where_it_is_told_and_sees_no_others(f: &Fixture) {
    let topic = f.topic(4).await;
    let mut sender = f.sender();
    for n in 0..40 {
        sender.send(&topic, n % 4).await;
    }
    let at = |partition, offset| Position { partition, offset };
    let mut reader = f.log.read_from(&topic, &[at(3, 10), at(1, 7)]).await.expect("a reader");
    let places = |records: &[LogRecord]| records.iter().map(|r| r.position).collect::<Vec<_>>();
    assert_eq!(places(&read(&mut *reader, 3).await), [at(1, 7), at(1, 8), at(1, 9)]);
    assert_silent(&mut *reader).await;
    for partition in 0..4 {
        sender.send(&topic, partition).await;
    }
    let mut after = places(&read(&mut *reader, 2).await);
    after.sort();
    assert_eq!(after, [at(1, 10), at(3, 10)]);
    assert_silent(&mut *reader).await;
    let nowhere = f.log.read_from(&topic, &[at(4, 0)]).await;
    assert!(nowhere.is_err(), "there is no such partition");
}

/// Promise 10: the topic was made anew, and is shorter than it was.
pub async fn a_reader_told_to_begin_beyond_the_end_begins_with_the_earliest_record(f: &Fixture) {
    let topic = f.topic(1).await;
    let mut sender = f.sender();
    let first = sender.send(&topic, 0).await;
    let beyond = Position { partition: 0, offset: 1_000 };
    let mut reader = f.log.read_from(&topic, &[beyond]).await.expect("a reader");
    assert_eq!(read(&mut *reader, 1).await[0].position, first);
}

/// Promise 11.
pub async fn what_is_committed_is_found_by_whoever_asks(f: &Fixture) {
    let topic = f.topic(3).await;
    assert_eq!(f.log.committed(&topic).await.expect("the log answers"), BTreeMap::new());
    let at = |partition, offset| Position { partition, offset };
    f.log.commit(&topic, &[at(0, 7), at(2, 0)]).await.expect("the log answers");
    f.log.commit(&topic, &[at(2, 5)]).await.expect("the log answers");
    f.log.commit(&topic, &[at(2, 4)]).await.expect("going back is allowed");
    assert_eq!(f.log.committed(&topic).await.expect("the log answers"), BTreeMap::from([(0, 7), (2, 4)]));
}
