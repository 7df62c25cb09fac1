//! Promises 6, 8 and 9: what is shown.

use super::*;

/// Promise 6.
pub async fn pages_of_messages_show_everything_once_in_both_directions(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    // A message a day, so that pages reach over the parts of a table.
    let daily = |n| Said { at_ms: NOW_MS + n * 86_400_000, ..Said::new(&bob, n) };
    let said: Vec<_> = (1..=25).map(daily).collect();
    topic.store(&*archive, said.iter().map(Said::payload)).await;
    let other = Said::new(&stream("user:bob2"), 3);
    topic.store(&*archive, [other.payload()]).await;
    let (mut place, mut back) = (ArchivePosition::Newest, Vec::new());
    loop {
        let page = archive.messages(&bob, place, 4).await.expect(ANSWERS);
        let Some((oldest, _)) = page.last() else { break };
        place = ArchivePosition::Before(*oldest);
        back.extend(page);
    }
    assert_eq!(back.iter().map(|(_, frame)| frame.clone()).collect::<Vec<_>>(), newest_first(&said));
    let (mut place, mut forth) = (ArchivePosition::After(Cursor::default()), Vec::new());
    loop {
        let page = archive.messages(&bob, place, 4).await.expect(ANSWERS);
        let Some((newest, _)) = page.first() else { break };
        place = ArchivePosition::After(*newest);
        forth.extend(page.into_iter().rev());
    }
    forth.reverse();
    assert_eq!(forth, back);
    let two = archive.messages(&bob, ArchivePosition::After(said[3].cursor), 2).await.expect(ANSWERS);
    assert_eq!(two.iter().map(|(at, _)| at.offset.0).collect::<Vec<_>>(), [6, 5], "the nearest");
}

/// Promise 6.
pub async fn generations_come_one_after_the_other(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let of = |generation: u64, n| Said {
        cursor: Cursor::new(Epoch(generation), Offset(n)),
        id: format!("m-{generation}-{n}"),
        ..Said::new(&bob, n)
    };
    let said = [of(OLD.0, 1), of(OLD.0, 2), of(OLD.0 + 5, 1), of(OLD.0 + 5, 2)];
    // A late copy of an old home comes after the first of the new one.
    topic.store(&*archive, [&said[2], &said[0], &said[3], &said[1]].map(Said::payload)).await;
    assert_eq!(shown(&*archive, &bob).await, newest_first(&said));
    let page = archive.messages(&bob, ArchivePosition::Before(said[2].cursor), 1).await.expect(ANSWERS);
    assert_eq!(page[0].0, said[1].cursor);
}

/// A user's morning: a change a minute.
async fn morning(archive: &dyn Archive) -> Vec<Bytes> {
    let mut topic = Topic::new(USER_STATUS_EVENTS);
    let statuses = [Status::Online, Status::Away, Status::Online, Status::Offline];
    let at = |n: usize| NOW_MS + n as u64 * 60_000;
    let events: Vec<_> = (0..4).map(|n| changed("bob", n as u64 + 1, statuses[n], at(n))).collect();
    topic.store(archive, events.iter().cloned().chain([changed("eve", 9, Status::Away, at(1))])).await;
    events
}

fn asked(from_ms: u64, to_ms: u64, place: ArchivePosition<Moment>, limit: usize) -> Asked {
    Asked { user: user("bob"), from_ms, to_ms, place, limit }
}

async fn status_at(archive: &dyn Archive, at_ms: u64) -> Option<Status> {
    let page = archive.changes(&asked(0, at_ms, ArchivePosition::Newest, 1)).await.expect(ANSWERS);
    page.first().map(|(_, event)| event.status)
}

/// Promise 6: who was there when.
pub async fn changes_of_a_status_are_found_by_time(f: &impl Fixture) {
    let archive = f.archive();
    let events = morning(&*archive).await;
    let all = archive.changes(&asked(0, u64::MAX, ArchivePosition::Newest, 10)).await.expect(ANSWERS);
    let encoded: Vec<_> = all.iter().map(|(_, event)| serde_json::to_vec(event).expect("JSON")).collect();
    assert_eq!(encoded, events.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(status_at(&*archive, NOW_MS - 1).await, None);
    assert_eq!(status_at(&*archive, NOW_MS).await, Some(Status::Online), "the very moment counts");
    assert_eq!(status_at(&*archive, NOW_MS + 119_999).await, Some(Status::Away));
    assert_eq!(status_at(&*archive, NOW_MS + 3_600_000).await, Some(Status::Offline));
    let between = asked(NOW_MS + 60_000, NOW_MS + 120_000, ArchivePosition::Newest, 10);
    let between = archive.changes(&between).await.expect(ANSWERS);
    assert_eq!(between.iter().map(|(_, event)| event.seq.0).collect::<Vec<_>>(), [3, 2]);
}

/// Promise 6.
pub async fn pages_of_changes_show_everything_once_in_both_directions(f: &impl Fixture) {
    let archive = f.archive();
    morning(&*archive).await;
    let page = async |place| archive.changes(&asked(0, u64::MAX, place, 3)).await.expect(ANSWERS);
    let first = page(ArchivePosition::Newest).await;
    let second = page(ArchivePosition::Before(first[2].0)).await;
    assert_eq!((first.len(), second.len()), (3, 1));
    assert_eq!(page(ArchivePosition::Before(second[0].0)).await.len(), 0);
    let back = page(ArchivePosition::After(second[0].0)).await;
    let places = |page: &[(Moment, _)]| page.iter().map(|(change, _)| *change).collect::<Vec<_>>();
    assert_eq!(places(&back), places(&first));
}

/// Promise 8.
pub async fn the_living_are_those_who_beat(f: &impl Fixture) {
    let archive = f.archive();
    assert_eq!(archive.beat("b").await.expect(ANSWERS), ["b"]);
    assert_eq!(archive.beat("a").await.expect(ANSWERS), ["a", "b"]);
    f.pass(crate::archive::LIVING_MS / 2).await;
    archive.beat("b").await.expect(ANSWERS);
    f.pass(crate::archive::LIVING_MS * 3 / 4).await;
    assert_eq!(archive.beat("c").await.expect(ANSWERS), ["b", "c"]);
    archive.leave("b").await.expect(ANSWERS);
    assert_eq!(archive.beat("c").await.expect(ANSWERS), ["c"]);
}

pub async fn what_is_too_old_is_removed(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let said: Vec<_> =
        (1..=40).map(|n| Said { at_ms: NOW_MS + n * 86_400_000, ..Said::new(&bob, n) }).collect();
    topic.store(&*archive, said.iter().map(Said::payload)).await;
    let mut presence = Topic::new(USER_STATUS_EVENTS);
    presence.store(&*archive, [changed("bob", 1, Status::Online, NOW_MS)]).await;
    archive.trim(said[29].at_ms).await.expect(ANSWERS);
    let left = archive.messages(&bob, ArchivePosition::Newest, 100).await.expect(ANSWERS);
    assert!((11..=17).contains(&left.len()), "in whole weeks at most: {}", left.len());
    assert_eq!(left[0].1, said[39].payload());
    assert_eq!(status_at(&*archive, u64::MAX).await, None);
    // It comes again all the same, for example from the log.
    assert_eq!(topic.store(&*archive, [said[0].payload()]).await.rows, 1);
}
