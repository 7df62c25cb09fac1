//! Pages of a hot window, newest first (promise 13).

use roost_proto::ids::{Cursor, Epoch, Offset};

use super::*;

async fn page(owner: &Owner, stream: &StreamId, before: Option<(u64, u64)>, limit: usize) -> Page {
    let before = before.map(|(generation, offset)| Cursor::new(Epoch(generation), Offset(offset)));
    let limit = Limit { entries: limit, bytes: 1 << 40 };
    owner.store.page(V, stream, before, limit).await.expect("the store answers")
}

fn shown(page: &Page) -> (Vec<u64>, bool, bool) {
    (page.entries.iter().map(|(offset, _)| offset.0).collect(), page.more, page.older)
}

pub async fn pages_go_back_from_the_newest_to_where_the_stream_began(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let bob = inbox("bob");
    assert_eq!(page(&owner, &bob, None, 3).await, Page { generation: Epoch(10), ..Page::default() });
    owner.write((1..=7).map(|i| append(&bob, &format!("m{i}"))).collect()).await;
    let newest = page(&owner, &bob, None, 3).await;
    assert_eq!(shown(&newest), (vec![7, 6, 5], true, false));
    assert_eq!(newest.before(), Some(Cursor::new(Epoch(10), Offset(5))));
    assert_eq!(newest.entries[0].1, owner.read(&bob, 6, 1).await.entries[0].1, "the same bytes as a read");
    assert_eq!(shown(&page(&owner, &bob, Some((10, 5)), 3).await), (vec![4, 3, 2], true, false));
    let last = page(&owner, &bob, Some((10, 2)), 3).await;
    assert_eq!((shown(&last), last.before()), ((vec![1], false, false), None));
    assert!(!shown(&page(&owner, &bob, None, 7).await).1, "exactly all of it");
    assert_eq!(shown(&page(&owner, &bob, Some((10, 1)), 3).await), (vec![], false, false));
    assert_eq!(shown(&page(&owner, &bob, Some((10, 100)), 1).await), (vec![7], true, false));
}

pub async fn a_page_says_when_the_window_ends_before_the_stream(fixture: &dyn Fixture) {
    let config = StoreConfig { stream_max_len: 5, stream_max_age_ms: 60_000, ..CONFIG };
    let a = Process::start_with(fixture, config).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let bob = inbox("bob");
    for i in 1..=8 {
        owner.write(vec![append(&bob, &format!("m{i}"))]).await;
    }
    assert_eq!(shown(&page(&owner, &bob, None, 4).await), (vec![8, 7, 6, 5], true, false));
    assert_eq!(shown(&page(&owner, &bob, Some((10, 5)), 4).await), (vec![4], false, true));
    assert_eq!(shown(&page(&owner, &bob, Some((10, 3)), 4).await), (vec![], false, true));
    assert_eq!(shown(&page(&owner, &bob, Some((9, 100)), 4).await), (vec![], false, true));
}

/// A new generation begins empty: what is left of the one before is only in the log.
pub async fn a_page_shows_nothing_of_an_earlier_generation(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let bob = inbox("bob");
    owner.write(vec![append(&bob, "m1")]).await;
    let again = Activate { prove: true, held: None, ..a.activation(V, &sid("ws-1", 1), Epoch(11)) };
    let ActivateAnswer::Activated(begun) = a.activate(&again).await else { panic!("the epoch is larger") };
    assert_eq!(begun.generation, Epoch(11));
    let found = page(&owner, &bob, None, 10).await;
    assert_eq!((found.generation, shown(&found)), (Epoch(11), (vec![], false, true)));
}

/// However many entries are wanted: one at least, so that a reader gets on.
pub async fn what_is_read_ends_where_its_bytes_are_full(fixture: &dyn Fixture) {
    let a = Process::start(fixture).await;
    let mut owner = a.own(V, &sid("ws-1", 1), Epoch(10)).await;
    let bob = inbox("bob");
    let sized = |n: usize, bytes: usize| {
        let rest = Bytes::from(format!("\"id\":\"m{n}\",\"data\":\"{}\"}}", "x".repeat(bytes)));
        Op::Append(AppendOp { rest, ..message(&bob, &format!("m{n}"), 1) })
    };
    // One of 60 kB among small ones, then a hundred small ones.
    owner.write((1..=9).map(|n| sized(n, if n == 3 { 60_000 } else { 100 })).collect()).await;
    owner.write((10..=109).map(|n| sized(n, 100)).collect()).await;
    let read = async |after: u64, entries: usize, bytes: usize| {
        let limit = Limit { entries, bytes };
        let window = owner.store.read(V, &bob, Epoch(10), Offset(after), limit).await;
        window.expect("the store answers").entries
    };
    let offsets = |entries: &[(Offset, Bytes)]| entries.iter().map(|(o, _)| o.0).collect::<Vec<_>>();
    assert_eq!(offsets(&read(0, 100, 10_000).await), [1, 2], "the third is too large");
    assert_eq!(offsets(&read(2, 100, 10_000).await), [3], "however large, one is given");
    assert_eq!(offsets(&read(2, 100, 0).await), [3]);
    assert_eq!(offsets(&read(0, 4, 1 << 20).await), [1, 2, 3, 4], "nor more entries than are wanted");
    let all = read(3, 200, 1 << 20).await;
    assert_eq!(offsets(&all), (4..=109).collect::<Vec<_>>());
    let size: usize = all[..50].iter().map(|(_, frame)| frame.len()).sum();
    assert_eq!(read(3, 200, size).await, all[..50], "to the byte");
    assert_eq!(read(3, 200, size - 1).await, all[..49]);
    let back = async |before: u64, bytes: usize| {
        let before = Some(Cursor::new(Epoch(10), Offset(before)));
        owner.store.page(V, &bob, before, Limit { entries: 100, bytes }).await.expect("the store answers")
    };
    assert_eq!(shown(&back(6, 10_000).await), (vec![5, 4], true, false));
    assert_eq!(shown(&back(4, 10_000).await), (vec![3], true, false));
    assert_eq!(shown(&back(3, 10_000).await), (vec![2, 1], false, false));
}
