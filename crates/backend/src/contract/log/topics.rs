//! Promises 7 and 8: topics and their ends.

use super::*;

/// Promise 7.
pub async fn a_new_topic_can_be_used_at_once(f: &Fixture) {
    for _ in 0..3 {
        let topic = f.topic(3).await;
        assert_eq!(f.log.end(&topic, 2).await.expect("an end"), 0);
        let mut reader = f.reader(&topic).await;
        let position = f.sender().send(&topic, 2).await;
        assert_eq!(read(&mut *reader, 1).await[0].position, position);
    }
}

/// Promise 7.
pub async fn ensuring_a_topic_again_changes_nothing(f: &Fixture) {
    let name = f.name();
    let both = tokio::join!(f.log.ensure_topic(&name, spec(2)), f.log.ensure_topic(&name, spec(2)));
    both.0.expect("made");
    both.1.expect("made at the same time");
    f.sender().send(&name, 1).await;
    f.log.ensure_topic(&name, spec(2)).await.expect("there already");
    assert_eq!(f.log.end(&name, 1).await.expect("an end"), 1);
}

/// Promise 7.
pub async fn another_partition_count_is_refused(f: &Fixture) {
    let topic = f.topic(2).await;
    match f.log.ensure_topic(&topic, spec(3)).await {
        Err(LogError::Partitions { topic: named, found: 2, wanted: 3 }) => assert_eq!(named, *topic),
        other => panic!("{other:?}"),
    }
    f.log.ensure_topic(&topic, spec(2)).await.expect("unchanged");
}

/// Promise 12.
pub async fn a_removed_topic_is_gone_and_others_stay(f: &Fixture) {
    let (gone, stays) = (f.topic(2).await, f.topic(1).await);
    let mut sender = f.sender();
    sender.send(&gone, 1).await;
    sender.send(&stays, 0).await;
    assert!(f.log.remove_topic(&gone).await.expect("removed"));
    let removed = async {
        while f.log.remove_topic(&gone).await.expect("an answer") || f.log.end(&gone, 1).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, removed).await.expect("brokers take a moment");
    assert!(!f.log.remove_topic(&f.name()).await.expect("there was none"));
    assert_eq!(f.log.end(&stays, 0).await.expect("an end"), 1);
}

/// Promise 8.
pub async fn the_end_is_past_everything_reported_before_the_question(f: &Fixture) {
    let topic = f.topic(2).await;
    let mut sender = f.sender();
    for n in 0..30 {
        let position = sender.send(&topic, 1).await;
        assert_eq!(f.log.end(&topic, 1).await.expect("an end"), position.offset + 1);
        assert_eq!(position.offset, n);
    }
    assert_eq!(f.log.end(&topic, 0).await.expect("an end"), 0);
}

/// Promise 11.
pub async fn the_first_record_is_named(f: &Fixture) {
    let topic = f.topic(2).await;
    assert_eq!(f.log.first(&topic, 1).await.expect("the end"), 0);
    let mut sender = f.sender();
    for _ in 0..3 {
        sender.send(&topic, 1).await;
    }
    assert_eq!(f.log.first(&topic, 1).await.expect("a record"), 0);
}

/// Promise 8, for a reconnect storm: questions may share an answer, but never one older than themselves.
pub async fn many_ends_can_be_asked_at_once(f: &Fixture) {
    let topic = f.topic(4).await;
    let mut sender = f.sender();
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..400 {
        let position = sender.send(&topic, n % 4).await;
        let (log, topic) = (Arc::clone(&f.log), Arc::clone(&topic));
        asked.spawn(async move { (position, log.end(&topic, position.partition).await) });
    }
    while let Some(answer) = timeout(SOON, asked.join_next()).await.expect("an answer") {
        let (position, end) = answer.expect("no panic");
        assert!(end.expect("an end") > position.offset, "{position:?}");
    }
}

pub async fn a_topic_that_is_not_there_is_an_error_soon(f: &Fixture) {
    let missing = f.name();
    let topic = f.topic(1).await;
    let asked = Instant::now();
    assert!(f.log.read_from_end(&missing).await.is_err());
    assert!(f.log.end(&missing, 0).await.is_err());
    assert!(f.log.end(&topic, 1).await.is_err(), "a partition that is not there");
    assert!(asked.elapsed() < SOON);
    f.log.end(&topic, 0).await.expect("others are not troubled");
}

pub async fn the_log_says_that_it_answers(f: &Fixture) {
    f.log.ping().await.expect("the log answers");
}
