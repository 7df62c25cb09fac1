//! Promises 2, 4, 6 and 7 on clients' events, their results, and what others could not place.

use super::*;

/// An event of `client`, under this epoch.
fn event_in(epoch: Epoch, client: &str, seq: u64, id: &str) -> Bytes {
    let data = RawValue::from_string(format!("{{\"n\": {seq}}}")).expect("JSON");
    let id = MessageId::new(id).expect("an event's id");
    numbered_bytes(VnodeId(9), epoch, Seq(seq), &event_rest(&user(client), &id, NOW_MS + seq * 60_000, &data))
}

fn event(client: &str, seq: u64) -> Bytes {
    event_in(OLD, client, seq, &format!("e-{seq}"))
}

/// A result with an id of its own, or without one.
fn result(client: &str, event: &str, id: Option<&str>, data: &str) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("\"result_id\":\"{id}\", "));
    format!(
        "{{\"type\":\"event_accepted\",\"client_id\":\"{client}\",\"event_id\":\"{event}\", {id}\"data\":{data}}}"
    )
    .into()
}

fn asked(place: ArchivePosition<Moment>, limit: usize) -> Asked {
    Asked { user: user("alice"), from_ms: 0, to_ms: u64::MAX, place, limit }
}

/// Alice's events, newest first, each with the texts of its results.
async fn alices(archive: &dyn Archive) -> Vec<(String, Vec<String>)> {
    let page = archive.events(&asked(ArchivePosition::Newest, 100)).await.expect(ANSWERS);
    let texts = |event: &Answered| event.results.iter().map(|text| text.get().to_owned()).collect();
    page.iter().map(|(_, event)| (event.event.event_id.to_string(), texts(event))).collect()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("a text")
}

/// Promise 6.
pub async fn events_are_shown_with_their_results(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::new(CLIENT_EVENTS));
    let events = [event("alice", 1), event("bob", 2), event("alice", 3)];
    assert_eq!(topic.store(&*archive, events.clone()).await, Tally { rows: 3, ..Tally::default() });
    let results = [
        result("alice", "e-3", Some("r-1"), "{\"b\":1,  \"a\":1.50}"),
        result("bob", "e-3", None, "\"another's\""),
        result("alice", "e-3", None, "2"),
        result("alice", "e-9", None, "\"of no event\""),
    ];
    let mut topic = Topic::new(CLIENT_RESULTS);
    assert_eq!(topic.store(&*archive, results.clone()).await, Tally { rows: 4, ..Tally::default() });
    let page = archive.events(&asked(ArchivePosition::Newest, 100)).await.expect(ANSWERS);
    let encoded: Vec<_> =
        page.iter().map(|(_, found)| serde_json::to_value(&found.event).expect("JSON")).collect();
    let stored = |event: &Bytes| {
        let event: ClientEvent = serde_json::from_slice(event).expect("an event");
        serde_json::to_value(event).expect("JSON")
    };
    assert_eq!(encoded, [stored(&events[2]), stored(&events[0])]);
    let said = |n: &[usize]| n.iter().map(|n| text(&results[*n])).collect::<Vec<_>>();
    assert_eq!(alices(&*archive).await, [("e-3".into(), said(&[0, 2])), ("e-1".into(), said(&[]))]);
    let between = Asked { from_ms: NOW_MS, to_ms: NOW_MS + 60_000, ..asked(ArchivePosition::Newest, 9) };
    assert_eq!(archive.events(&between).await.expect(ANSWERS).len(), 1);
}

/// Promise 6.
pub async fn pages_of_events_show_everything_once_in_both_directions(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::new(CLIENT_EVENTS));
    topic.store(&*archive, (1..=10).map(|seq| event("alice", seq))).await;
    let page = async |place| archive.events(&asked(place, 4)).await.expect(ANSWERS);
    let (mut place, mut back) = (ArchivePosition::Newest, Vec::new());
    loop {
        let page = page(place).await;
        let Some((oldest, _)) = page.last() else { break };
        place = ArchivePosition::Before(*oldest);
        back.extend(page.into_iter().map(|(at, _)| at));
    }
    assert_eq!(back.iter().map(|at| at.seq.0).collect::<Vec<_>>(), (1..=10).rev().collect::<Vec<_>>());
    let two = archive.events(&asked(ArchivePosition::After(back[7]), 2)).await.expect(ANSWERS);
    assert_eq!(two.iter().map(|(at, _)| at.seq.0).collect::<Vec<_>>(), [5, 4], "the nearest");
}

/// Promise 2: by their ids, of which the first stands.
pub async fn an_event_and_a_result_are_kept_once_by_their_ids(f: &impl Fixture) {
    let (archive, mut events) = (f.archive(), Topic::new(CLIENT_EVENTS));
    // After the store lost its data: another epoch, other numbers.
    let again = event_in(Epoch(NOW_MS), "alice", 7, "e-1");
    let tally = events.store(&*archive, [event("alice", 1), event("alice", 1), again.clone()]).await;
    assert_eq!((tally.rows, tally.duplicates), (1, 2));
    let tally = events.store(&*archive, [again, event("alice", 2), event_in(OLD, "bob", 3, "e-1")]).await;
    assert_eq!((tally.rows, tally.duplicates), (2, 1));
    let mut results = Topic::new(CLIENT_RESULTS);
    let (first, later) = (result("alice", "e-1", None, "1"), result("alice", "e-1", None, "2"));
    let tally = results.store(&*archive, [first.clone(), later.clone()]).await;
    assert_eq!((tally.rows, tally.duplicates), (1, 1));
    let tally = results.store(&*archive, [later, result("alice", "e-1", Some("r-2"), "3")]).await;
    assert_eq!((tally.rows, tally.duplicates), (1, 1));
    let both = vec![text(&first), text(&result("alice", "e-1", Some("r-2"), "3"))];
    assert_eq!(alices(&*archive).await, [("e-2".into(), vec![]), ("e-1".into(), both)]);
}

/// Promise 4: what customers' processors write is anything.
pub async fn what_is_no_result_is_a_dead_letter_and_holds_up_nothing(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::new(CLIENT_RESULTS));
    let large = result("alice", "e-1", None, &format!("\"{}\"", "x".repeat(1024 * 1024)));
    let bad = [
        (Bytes::from_static(b"{\"type\":"), "type: EOF"),
        (Bytes::from_static(b"{\"type\":\"t\",\"event_id\":\"e-1\"}"), "missing field `client_id`"),
        (result("#nobody", "e-1", None, "1"), "client_id: a user id"),
        (result("alice", "e-1", None, "\"\\u0000\""), "a text contains U+0000"),
        (large, "1048"),
    ];
    let mut payloads: Vec<_> = bad.iter().map(|(payload, _)| payload.clone()).collect();
    payloads.insert(2, result("alice", "e-1", None, "1"));
    let tally = topic.store(&*archive, payloads).await;
    assert_eq!((tally.rows, tally.dead), (1, 5));
    assert_eq!(archive.positions(CLIENT_RESULTS).await.expect(ANSWERS), topic.ends);
    let mut letters = Vec::new();
    while let Some(letter) = letters_before(&*archive, letters.last()).await {
        letters.push(letter);
    }
    letters.reverse();
    assert_eq!(letters.len(), 5);
    for (letter, (payload, reason)) in letters.iter().zip(bad) {
        assert_eq!((letter.topic.as_str(), &letter.payload), (CLIENT_RESULTS, &payload));
        assert!(letter.reason.starts_with(reason), "{}", letter.reason);
    }
}

async fn letters_before(archive: &dyn Archive, last: Option<&DeadLetter>) -> Option<DeadLetter> {
    archive.dead_letters(last.map(|letter| letter.id), 1).await.expect(ANSWERS).pop()
}

/// Promises 4 and 7: a result for a client whom nobody knew, refused by two nodes.
pub async fn what_a_node_could_not_place_is_the_letter_of_the_original(f: &impl Fixture) {
    let (archive, mut results, mut topic) =
        (f.archive(), Topic::new(CLIENT_RESULTS), Topic::new(DEAD_LETTERS));
    let original = result("alice", "e-1", None, "1");
    let refused = Refused {
        topic: CLIENT_RESULTS.into(),
        partition: 3,
        offset: 17,
        key: "alice".into(),
        payload: text(&original),
        reason: "unknown client: alice".into(),
    };
    let refused = |partition| Refused { partition, ..refused.clone() };
    let record = |refused: &Refused| Bytes::from(serde_json::to_vec(refused).expect("JSON"));
    let records =
        [record(&refused(3)), record(&refused(3)), record(&refused(u32::MAX)), Bytes::from_static(b"?")];
    assert_eq!(topic.store(&*archive, records).await, Tally { dead: 4, ..Tally::default() });
    topic.store(&*archive, [record(&refused(3))]).await;
    assert_eq!(archive.positions(DEAD_LETTERS).await.expect(ANSWERS), topic.ends);
    let mut letters = archive.dead_letters(None, 100).await.expect(ANSWERS);
    letters.reverse();
    let places: Vec<_> =
        letters.iter().map(|l| (l.topic.as_str(), l.position.partition, l.position.offset)).collect();
    assert_eq!(places, [(CLIENT_RESULTS, 3, 17), (DEAD_LETTERS, 0, 2), (DEAD_LETTERS, 0, 3)]);
    assert_eq!((&letters[0].payload, &letters[0].key[..]), (&original, &b"alice"[..]));
    assert_eq!(letters[0].reason, "unknown client: alice");
    // The archive itself has taken it from its topic: a replay is not a second result.
    results.store(&*archive, [original]).await;
    Topic::new(CLIENT_EVENTS).store(&*archive, [event("alice", 1)]).await;
    assert_eq!(archive.replay(letters[0].id).await.expect(ANSWERS), Replayed::Stored);
    assert!(matches!(archive.replay(letters[1].id).await.expect(ANSWERS), Replayed::Refused(_)));
    assert_eq!(alices(&*archive).await[0].1.len(), 1);
    assert_eq!(archive.dead_letters(None, 100).await.expect(ANSWERS).len(), 2);
}

/// Promise 2: beside the message itself.
pub async fn that_a_message_was_not_delivered_is_kept_once(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::new(UNDELIVERED_EVENTS), stream("user:bob"));
    let said = [Said::new(&bob, 1), Said::new(&bob, 2)];
    let tally = topic.store(&*archive, said.iter().map(Said::payload)).await;
    assert_eq!((tally.rows, tally.duplicates), (2, 0));
    let tally = topic.store(&*archive, said.iter().map(Said::payload)).await;
    assert_eq!((tally.rows, tally.duplicates), (0, 2));
    assert!(shown(&*archive, &bob).await.is_empty(), "the message comes from chat_events");
    assert_eq!(Topic::chat().store(&*archive, said.iter().map(Said::payload)).await.rows, 2);
}

/// Promise 6: no page is much larger than it may be, and none hides anything.
pub async fn pages_of_large_texts_are_shorter(f: &impl Fixture) {
    let (archive, bob) = (f.archive(), stream("user:bob"));
    let large = format!("\"{}\"", "x".repeat(60_000));
    let said: Vec<_> = (1..=40).map(|n| Said { data: large.clone(), ..Said::new(&bob, n) }).collect();
    Topic::chat().store(&*archive, said.iter().map(Said::payload)).await;
    let (mut place, mut all) = (ArchivePosition::Newest, Vec::new());
    loop {
        let page = archive.messages(&bob, place, 100).await.expect(ANSWERS);
        let Some((oldest, _)) = page.last() else { break };
        assert!((1..=18).contains(&page.len()), "{}", page.len());
        place = ArchivePosition::Before(*oldest);
        all.extend(page.into_iter().map(|(_, frame)| frame));
    }
    assert_eq!(all, newest_first(&said));
    let forth = archive.messages(&bob, ArchivePosition::After(said[0].cursor), 100).await.expect(ANSWERS);
    assert_eq!(forth.last().expect("a page").0, said[1].cursor, "the nearest");

    Topic::new(CLIENT_EVENTS).store(&*archive, (1..=4).map(|seq| event("alice", seq))).await;
    let results = (1..=4).flat_map(|seq| (0..20).map(move |n| (format!("e-{seq}"), format!("r-{seq}-{n}"))));
    let results = results.map(|(event, id)| result("alice", &event, Some(&id), &large));
    Topic::new(CLIENT_RESULTS).store(&*archive, results).await;
    let page = archive.events(&asked(ArchivePosition::Newest, 100)).await.expect(ANSWERS);
    assert_eq!(page.iter().map(|(_, event)| event.results.len()).collect::<Vec<_>>(), [RESULTS_SHOWN_MAX; 2]);
    let page = archive.events(&asked(ArchivePosition::Before(page[1].0), 100)).await.expect(ANSWERS);
    assert_eq!(page.len(), 2);
}

pub async fn events_that_are_too_old_are_removed(f: &impl Fixture) {
    let archive = f.archive();
    Topic::new(CLIENT_EVENTS).store(&*archive, [event("alice", 1)]).await;
    Topic::new(CLIENT_RESULTS).store(&*archive, [result("alice", "e-1", None, "1")]).await;
    archive.trim(NOW_MS + 30 * 86_400_000).await.expect(ANSWERS);
    assert!(alices(&*archive).await.is_empty());
    // Nothing is known of them any more.
    let again = Topic { name: CLIENT_RESULTS, ends: [(0, 1)].into() };
    assert_eq!({ again }.store(&*archive, [result("alice", "e-1", None, "1")]).await.rows, 1);
}
