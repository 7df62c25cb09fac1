//! Promise 6: pages are bounded in bytes, at the store, and show everything all the same.

use super::*;
use crate::archive::PAGE_BYTES_MAX;

/// Sixteen of these are a page to the byte.
const SIXTEENTH: usize = PAGE_BYTES_MAX / 16;

/// A message whose frame has so many bytes.
fn said_of(stream: &StreamId, offset: u64, bytes: usize) -> Said {
    let said = |length| Said { data: format!("\"{}\"", "x".repeat(length)), ..Said::new(stream, offset) };
    let around = said(0).payload().len();
    said(bytes.checked_sub(around).expect("room for its texts"))
}

async fn said(archive: &dyn Archive, topic: &mut Topic, stream: &StreamId, sizes: &[usize]) -> Vec<Said> {
    let said: Vec<_> = (1..).zip(sizes).map(|(offset, bytes)| said_of(stream, offset, *bytes)).collect();
    topic.store(archive, said.iter().map(Said::payload)).await;
    said
}

fn sent(client: &str, seq: u64, data: usize) -> Bytes {
    let data = RawValue::from_string(format!("\"{}\"", "x".repeat(data - 2))).expect("JSON");
    let id = MessageId::new(format!("e-{seq}")).expect("an event's id");
    numbered_bytes(VnodeId(9), OLD, Seq(seq), &event_rest(&user(client), &id, NOW_MS + seq, &data))
}

/// The `n`th result of an event: a record of so many bytes.
fn result(client: &str, seq: u64, n: usize, bytes: usize) -> Bytes {
    let record = |length| {
        let of = format!("\"client_id\":\"{client}\",\"event_id\":\"e-{seq}\",\"result_id\":\"r-{seq}-{n}\"");
        format!("{{\"type\":\"t\",{of},\"data\":\"{}\"}}", "x".repeat(length))
    };
    record(bytes - record(0).len()).into()
}

fn asked(client: &str, place: ArchivePosition<Moment>, limit: usize) -> Asked {
    Asked { user: user(client), from_ms: 0, to_ms: u64::MAX, place, limit }
}

/// Sizes that begin small and turn large, and the other way, so that no guess from those before is right.
fn uneven() -> Vec<usize> {
    let small = |n| std::iter::repeat_n(400, n);
    let large = |n| std::iter::repeat_n(60_000, n);
    small(40).chain(large(40)).chain(small(3)).chain([300_000]).chain(large(2)).chain(small(90)).collect()
}

/// Whether a page, nearest first, ends where its bytes say; `more` if something comes after it.
fn check_end(sizes: &[usize], limit: usize, more: bool) {
    let (all, before_last) = (sizes.iter().sum::<usize>(), sizes.iter().rev().skip(1).sum::<usize>());
    assert!(sizes.len() <= 2 || before_last <= PAGE_BYTES_MAX, "more than a page: {sizes:?}");
    let full = sizes.len() == limit || (sizes.len() >= 2 && all > PAGE_BYTES_MAX);
    assert!(full || !more, "it ends too early: {sizes:?}");
}

/// Everything from one end to the other, page by page, nearest first.
async fn walk<K: Copy, T>(
    mut place: ArchivePosition<K>,
    limit: usize,
    ask: impl AsyncFn(ArchivePosition<K>) -> Vec<(K, T)>,
    size: impl Fn(&T) -> usize,
) -> Vec<(K, T)> {
    let forth = matches!(place, ArchivePosition::After(_));
    let (mut all, mut last) = (Vec::new(), Vec::new());
    loop {
        let mut page = ask(place).await;
        if forth {
            page.reverse();
        }
        if !last.is_empty() {
            check_end(&last, limit, !page.is_empty());
        }
        let Some((key, _)) = page.last() else { return all };
        place = if forth { ArchivePosition::After(*key) } else { ArchivePosition::Before(*key) };
        last = page.iter().map(|(_, entry)| size(entry)).collect();
        all.extend(page);
    }
}

fn reversed<T>(mut all: Vec<T>) -> Vec<T> {
    all.reverse();
    all
}

/// Promise 6.
pub async fn a_page_of_messages_ends_with_the_byte_that_is_too_much(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::chat());
    let (bob, eve) = (stream("user:bob"), stream("user:eve"));
    said(&*archive, &mut topic, &bob, &[SIXTEENTH; 20]).await;
    said(&*archive, &mut topic, &eve, &[SIXTEENTH + 1; 20]).await;
    for (stream, entries) in [(&bob, 17), (&eve, 16)] {
        for place in [ArchivePosition::Newest, ArchivePosition::After(Cursor::default())] {
            let page = archive.messages(stream, place, 100).await.expect(ANSWERS);
            assert_eq!(page.len(), entries, "{stream} {place:?}");
        }
    }
}

/// Promise 6.
pub async fn pages_of_uneven_messages_show_everything_once_in_both_directions(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let said = said(&*archive, &mut topic, &bob, &uneven()).await;
    let ask = async |place| archive.messages(&bob, place, 70).await.expect(ANSWERS);
    let back = walk(ArchivePosition::Newest, 70, ask, Bytes::len).await;
    assert!(back.iter().map(|(_, frame)| frame).eq(&newest_first(&said)));
    let forth = walk(ArchivePosition::After(Cursor::default()), 70, ask, Bytes::len).await;
    assert!(reversed(forth) == back);
}

/// Promise 6: there is one, whatever it costs, and the next says that there is more.
pub async fn an_entry_that_is_larger_than_a_page_is_shown(f: &impl Fixture) {
    let (archive, mut topic, bob) = (f.archive(), Topic::chat(), stream("user:bob"));
    let said = said(&*archive, &mut topic, &bob, &[3 * PAGE_BYTES_MAX, 500, 500, 2 * PAGE_BYTES_MAX]).await;
    let offsets = async |place| {
        let page = archive.messages(&bob, place, 100).await.expect(ANSWERS);
        page.iter().map(|(at, _)| at.offset.0).collect::<Vec<_>>()
    };
    assert_eq!(offsets(ArchivePosition::Newest).await, [4, 3]);
    assert_eq!(offsets(ArchivePosition::Before(said[3].cursor)).await, [3, 2, 1]);
    assert_eq!(offsets(ArchivePosition::After(Cursor::default())).await, [2, 1]);
    assert_eq!(offsets(ArchivePosition::After(said[1].cursor)).await, [4, 3]);
    assert_eq!(offsets(ArchivePosition::Before(said[1].cursor)).await, [1]);
}

/// Promise 6: an event is as large as its results.
pub async fn pages_of_events_with_large_results_show_everything_once_in_both_directions(f: &impl Fixture) {
    let (archive, mut events, mut results) =
        (f.archive(), Topic::new(CLIENT_EVENTS), Topic::new(CLIENT_RESULTS));
    events.store(&*archive, (1..=60).map(|seq| sent("alice", seq, 40))).await;
    // None, a few small ones, as many as are shown as large as they may be, and more than are shown.
    let of = |seq: u64| match seq % 6 {
        0 => (RESULTS_SHOWN_MAX + 4, SIXTEENTH),
        1 | 2 => (3, 150),
        3 => (1, SIXTEENTH),
        _ => (0, 0),
    };
    for seq in 1..=60 {
        let (count, bytes) = of(seq);
        results.store(&*archive, (0..count).map(|n| result("alice", seq, n, bytes))).await;
    }
    let ask = async |place| archive.events(&asked("alice", place, 25)).await.expect(ANSWERS);
    let back = walk(ArchivePosition::Newest, 25, ask, Answered::size).await;
    let shown: Vec<_> = back
        .iter()
        .map(|(at, event)| (at.seq.0, event.results.iter().map(|record| record.get().len()).collect()))
        .collect();
    let expected: Vec<_> =
        (1..=60).rev().map(|seq| (seq, vec![of(seq).1; of(seq).0.min(RESULTS_SHOWN_MAX)])).collect();
    assert_eq!(shown, expected);
    let first = back[0].1.results[0].get();
    assert!(first.contains("\"result_id\":\"r-60-0\""), "the oldest of them: {}", &first[..100]);
    let begin = Moment { at_ms: NOW_MS, epoch: Epoch(0), seq: Seq(0) };
    let forth = walk(ArchivePosition::After(begin), 25, ask, Answered::size).await;
    let texts = |all: &[(Moment, Answered)]| {
        let text =
            |(at, event): &(Moment, Answered)| (*at, serde_json::to_string(&event.results).expect("JSON"));
        all.iter().map(text).collect::<Vec<_>>()
    };
    assert!(texts(&reversed(forth)) == texts(&back));
}

/// Promise 6.
pub async fn a_page_of_events_ends_with_the_byte_that_is_too_much(f: &impl Fixture) {
    let (archive, mut events, mut results) =
        (f.archive(), Topic::new(CLIENT_EVENTS), Topic::new(CLIENT_RESULTS));
    for (client, data) in [("alice", 100), ("carol", 101)] {
        events.store(&*archive, (1..=6).map(|seq| sent(client, seq, data))).await;
        // Eight results and the data are half a page, or a byte more.
        let rest = |n| if n == 0 { SIXTEENTH - 100 } else { SIXTEENTH };
        let all = (1..=6).flat_map(|seq| (0..8).map(move |n| (seq, n)));
        results.store(&*archive, all.map(|(seq, n)| result(client, seq, n, rest(n)))).await;
    }
    let begin = Moment { at_ms: NOW_MS, epoch: Epoch(0), seq: Seq(0) };
    for (client, entries) in [("alice", 3), ("carol", 2)] {
        for place in [ArchivePosition::Newest, ArchivePosition::After(begin)] {
            let page = archive.events(&asked(client, place, 100)).await.expect(ANSWERS);
            assert_eq!(page.len(), entries, "{client} {place:?}");
            assert!(page.iter().all(|(_, event)| event.results.len() == 8));
        }
    }
}

/// Promise 6.
pub async fn pages_of_dead_letters_are_bounded_in_bytes(f: &impl Fixture) {
    let (archive, mut topic) = (f.archive(), Topic::chat());
    // With their keys, newest last: two that fill a page to the byte, one of a megabyte, and small ones.
    let half = PAGE_BYTES_MAX / 2;
    let sizes = [900, PAGE_BYTES_MAX + 7, 500, 500, half, half, half, half, half + 1, 90];
    let payload = |bytes: &usize| Bytes::from("!".repeat(bytes - "key".len()));
    topic.store(&*archive, sizes.iter().map(payload)).await;
    let size = |letter: &DeadLetter| letter.key.len() + letter.payload.len();
    let ask = async |place| {
        let before = match place {
            ArchivePosition::Before(id) => Some(id),
            _ => None,
        };
        let page = archive.dead_letters(before, 100).await.expect(ANSWERS);
        page.into_iter().map(|letter| (letter.id, letter)).collect::<Vec<_>>()
    };
    let all = walk(ArchivePosition::Newest, 100, ask, size).await;
    assert_eq!(all.iter().map(|(_, letter)| size(letter)).collect::<Vec<_>>(), reversed(sizes.to_vec()));
    assert_eq!(ask(ArchivePosition::Before(all[1].0)).await.len(), 3, "two fill it to the byte");
    assert_eq!(ask(ArchivePosition::Newest).await.len(), 3);
    assert_eq!(ask(ArchivePosition::Before(all[7].0)).await.len(), 2);
}
