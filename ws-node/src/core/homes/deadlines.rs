//! What is kept about places in inboxes, or about events: found by user, and by age.

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::InboxPosition;
use roost_proto::ids::{Cursor, UserId};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Deadlines<T, K = InboxPosition> {
    kept: BTreeMap<K, (u64, T)>,
    by_age: BTreeSet<(u64, K)>,
}

impl<T, K> Default for Deadlines<T, K> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), by_age: BTreeSet::new() }
    }
}

impl<T, K: Ord + Clone> Deadlines<T, K> {
    pub(crate) fn insert(&mut self, place: K, since_ms: u64, what: T) {
        self.remove(&place);
        self.by_age.insert((since_ms, place.clone()));
        self.kept.insert(place, (since_ms, what));
    }

    pub(crate) fn remove(&mut self, place: &K) -> Option<T> {
        let (since_ms, what) = self.kept.remove(place)?;
        self.by_age.remove(&(since_ms, place.clone()));
        Some(what)
    }

    /// With since when it is there.
    pub(crate) fn get(&self, place: &K) -> Option<(u64, &T)> {
        self.kept.get(place).map(|(since_ms, what)| (*since_ms, what))
    }

    pub(crate) fn get_mut(&mut self, place: &K) -> Option<&mut T> {
        self.kept.get_mut(place).map(|(_, what)| what)
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &T)> {
        self.kept.iter().map(|(place, (_, what))| (place, what))
    }

    /// The oldest that was not passed over, and since when it is there.
    pub(crate) fn oldest(&self) -> Option<(u64, &K)> {
        self.by_age.first().map(|(since_ms, place)| (*since_ms, place))
    }

    pub(crate) fn not_passed_over(&self) -> usize {
        self.by_age.len()
    }

    /// Keeps the oldest, and will not find it by age again.
    pub(crate) fn pass_over(&mut self) -> Option<K> {
        self.by_age.pop_first().map(|(_, place)| place)
    }

    /// The same of another than the oldest.
    pub(crate) fn pass_over_this(&mut self, place: &K) {
        if let Some((since_ms, _)) = self.kept.get(place) {
            self.by_age.remove(&(*since_ms, place.clone()));
        }
    }
}

impl<T> Deadlines<T> {
    /// All of `user` up to `cursor`, in order.
    pub(crate) fn covered(
        &self,
        user: &UserId,
        cursor: Cursor,
    ) -> impl Iterator<Item = (&InboxPosition, &T)> {
        let covered = (user.clone(), Cursor::default())..=(user.clone(), cursor);
        self.kept.range(covered).map(|(place, (_, what))| (place, what))
    }
}
