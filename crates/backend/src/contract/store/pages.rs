//! Pages of a hot window, newest first (promise 13).

use roost_proto::ids::{Cursor, Epoch, Offset};

use super::*;

async fn page(owner: &Owner, stream: &StreamId, before: Option<(u64, u64)>, limit: usize) -> Page {
    let before = before.map(|(generation, offset)| Cursor::new(Epoch(generation), Offset(offset)));
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
    assert_eq!(shown(&newest.clone().fit(1)), (vec![7], true, false), "one at least");
    assert_eq!(newest.clone().fit(1 << 20), newest);
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
