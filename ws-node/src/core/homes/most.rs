//! Who has most of a place that all share: when it is full, the oldest of theirs gives way, so that nobody loses
//! anything to another who took it all, be that one or ten of them.

use std::collections::{BTreeMap, BTreeSet};

/// Elements by their owner, and within that by age.
#[derive(Debug)]
pub(crate) struct Most<K> {
    of: BTreeMap<String, BTreeSet<(u64, K)>>,
    ranked: BTreeSet<(usize, String)>,
}

impl<K> Default for Most<K> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), ranked: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Most<K> {
    pub(crate) fn insert(&mut self, owner: &str, since_ms: u64, element: K) {
        self.change(owner, |elements| _ = elements.insert((since_ms, element)));
    }

    pub(crate) fn remove(&mut self, owner: &str, since_ms: u64, element: &K) {
        self.change(owner, |elements| _ = elements.remove(&(since_ms, element.clone())));
    }

    /// The oldest of who has most.
    pub(crate) fn oldest(&self) -> Option<&K> {
        let (_, owner) = self.ranked.last()?;
        self.of.get(owner)?.first().map(|(_, element)| element)
    }

    fn change(&mut self, owner: &str, what: impl FnOnce(&mut BTreeSet<(u64, K)>)) {
        let elements = self.of.entry(owner.to_owned()).or_default();
        let before = elements.len();
        what(elements);
        let after = elements.len();
        if after == 0 {
            self.of.remove(owner);
        }
        if before != after {
            self.ranked.remove(&(before, owner.to_owned()));
            if after > 0 {
                self.ranked.insert((after, owner.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_who_has_most_gives_way() {
        let mut most = Most::default();
        assert_eq!(most.oldest(), None);
        for n in 0..10 {
            most.insert("eve", 100 + n, n);
        }
        most.insert("alice", 1, 77);
        most.insert("eve", 105, 5);
        for n in 0..9 {
            assert_eq!(most.oldest(), Some(&n));
            most.remove("eve", 100 + n, &n);
        }
        most.insert("alice", 2, 78);
        assert_eq!(most.oldest(), Some(&77), "two against one");
        most.remove("alice", 9, &1);
        most.remove("bob", 9, &1);
        for (since_ms, n) in [(1, 77), (2, 78)] {
            most.remove("alice", since_ms, &n);
        }
        most.remove("eve", 109, &9);
        assert!(most.oldest().is_none() && most.of.is_empty() && most.ranked.is_empty());
    }
}
