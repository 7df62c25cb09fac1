//! Promises 1 to 4: what becomes of a record.

use super::*;

/// Promises 1 and 3.
pub async fn records_of_a_partition_are_read_in_the_order_produced_and_once(f: &Fixture) {
    const EACH: u64 = 500;
    let topic = f.topic(3).await;
    let mut reader = f.reader(&topic).await;
    let mut sender = f.sender();
    for n in 0..3 * EACH {
        sender.take(&topic, (n % 3) as u32);
    }
    sender.positions(3 * EACH as usize).await;
    let records = read(&mut *reader, 3 * EACH as usize).await;
    for partition in 0..3 {
        let of_it = records.iter().filter(|r| u64::from(r.position.partition) == partition);
        let tokens: Vec<u64> = of_it.map(token).collect();
        assert_eq!(tokens, (0..EACH).map(|n| 3 * n + partition).collect::<Vec<_>>());
    }
    assert_silent(&mut *reader).await;
}

/// Promise 3.
pub async fn readers_see_a_record_at_its_reported_position_as_it_was_sent(f: &Fixture) {
    let topic = f.topic(2).await;
    let mut reader = f.reader(&topic).await;
    let mut sender = f.sender();
    let contents: [(&[u8], &[u8]); 4] = [(b"", b""), (b"k", b""), (b"", b"p"), (&[0, 255], &[7; 64 * 1024])];
    for (n, (key, payload)) in contents.into_iter().enumerate() {
        let (key, payload) = (Bytes::from_static(key), Bytes::copy_from_slice(payload));
        let record =
            Outgoing { topic: Arc::clone(&topic), partition: 1, key, payload, token: u64::MAX - n as u64 };
        sender.producer.produce(record).expect("the queue has room");
    }
    let positions = sender.positions(contents.len()).await;
    let records = read(&mut *reader, contents.len()).await;
    for (n, record) in records.iter().enumerate() {
        assert_eq!((u64::MAX - n as u64, record.position), positions[n]);
        assert_eq!((&record.key[..], &record.payload[..]), contents[n]);
    }
}

/// Promise 2.
pub async fn every_record_taken_gets_exactly_one_report(f: &Fixture) {
    const COUNT: u64 = 300;
    let topic = f.topic(4).await;
    let missing = f.name();
    let mut sender = f.sender();
    for n in 0..COUNT {
        sender.take(&topic, (n % 4) as u32);
    }
    let nowhere = [sender.take(&missing, 0), sender.take(&topic, 4)];
    let mut seen = HashSet::new();
    for _ in 0..COUNT + 2 {
        let report = sender.report().await;
        assert!(seen.insert(report.token), "a second report of {}", report.token);
        assert_eq!(report.result.is_err(), nowhere.contains(&report.token), "{report:?}");
    }
    assert!(timeout(A_MOMENT, sender.reports.recv()).await.is_err(), "a report too many");
}

/// Promise 3: reports of a partition come in its order, and their offsets are its own.
pub async fn reports_of_a_partition_come_in_order(f: &Fixture) {
    const COUNT: usize = 400;
    let topic = f.topic(2).await;
    let mut sender = f.sender_of(Durability::Outbox);
    for n in 0..COUNT {
        sender.take(&topic, (n % 2) as u32);
    }
    let positions = sender.positions(COUNT).await;
    for partition in 0..2 {
        let of_it = positions.iter().filter(|(_, position)| position.partition == partition);
        let of_it: Vec<_> = of_it.map(|(token, position)| (*token, position.offset)).collect();
        let expected = (0..COUNT as u64 / 2).map(|n| (2 * n + u64::from(partition), n));
        assert_eq!(of_it, expected.collect::<Vec<_>>());
    }
}

/// Promise 4: what was refused was not taken, and nothing that was taken is lost by it.
pub async fn a_full_queue_refuses_and_the_rest_is_reported(f: &Fixture) {
    // Far above any sensible bound on records.
    const ENDLESS: u64 = 2_000_000;
    let topic = f.topic(1).await;
    let (reports, mut received) = mpsc::channel(1);
    let producer = f.log.producer(Durability::Transport, reports).expect("a producer");
    let started = Instant::now();
    let taken = (0..ENDLESS).find(|&n| producer.produce(numbered(&topic, 0, n)).is_err());
    let taken = taken.expect("a bound on what nobody takes the reports of");
    assert!(started.elapsed() < SOON, "produce waits");
    assert!(!producer.flush(A_MOMENT).await, "flush must not claim what nobody could be told");
    for n in 0..taken {
        let report = timeout(SOON, received.recv()).await.expect("a report").expect("the producer lives");
        assert_eq!((report.token, report.result.is_ok()), (n, true));
    }
    assert!(producer.flush(SOON).await);
    assert!(timeout(A_MOMENT, received.recv()).await.is_err(), "a report of what was refused");
    producer.produce(numbered(&topic, 0, taken)).expect("the queue has room again");
    let report = timeout(SOON, received.recv()).await.expect("a report").expect("the producer lives");
    assert_eq!(report.token, taken);
}

/// `flush` of promise 2.
pub async fn flush_waits_for_every_report(f: &Fixture) {
    const COUNT: usize = 200;
    let topic = f.topic(2).await;
    let mut sender = f.sender();
    assert!(sender.producer.flush(Duration::ZERO).await, "nothing is in flight");
    for n in 0..COUNT {
        sender.take(&topic, (n % 2) as u32);
    }
    assert!(sender.producer.flush(SOON).await);
    let reported = std::iter::from_fn(|| sender.reports.try_recv().ok()).count();
    assert_eq!(reported, COUNT, "all reports are there when flush returns");
}

pub async fn nobody_is_troubled_by_those_who_went_away(f: &Fixture) {
    let topic = f.topic(1).await;
    let mut reader = f.reader(&topic).await;
    let mut sender = f.sender();
    let (reports, gone) = mpsc::channel(1);
    drop(gone);
    let unheard = f.log.producer(Durability::Transport, reports).expect("a producer");
    for n in 0..10 {
        unheard.produce(numbered(&topic, 0, n)).expect("the queue has room");
    }
    assert!(unheard.flush(SOON).await, "reports nobody wants are through");
    drop(f.reader(&topic).await);
    let (reports, stuck) = mpsc::channel(1);
    let unread = f.log.producer(Durability::Outbox, reports).expect("a producer");
    for n in 0..10 {
        unread.produce(numbered(&topic, 0, n)).expect("the queue has room");
    }
    drop(unread);
    sender.send(&topic, 0).await;
    read(&mut *reader, 11).await;
    drop(stuck);
}
