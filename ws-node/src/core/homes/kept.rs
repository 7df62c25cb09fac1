//! What was acknowledged while there was no home to hear it, or heard by one that ended before it had written it
//! (docs/decisions/0013). It is said again when the vnode has a home, here or elsewhere, whether the session that said
//! it is still there or not; and forgotten when a home that heard it has been ready for the grace, for then it reports
//! what is due.

use std::collections::BTreeMap;

use roost_proto::ids::{Epoch, MessageId, VnodeId};

use crate::core::keys::Now;
use crate::core::said::{SaidUpTo, Who};

/// Entries of a node, and their bytes: what 20,000 sessions said, for each has one. Beyond it what comes is not kept,
/// and counted.
const KEPT_MAX: usize = 20_000;

const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries in one record: with the longest names some 35 kB.
const SAID_PER_RECORD: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Entry {
    said: SaidUpTo,
    /// What the home elsewhere has heard of it, which may end before it has written that.
    heard: SaidUpTo,
}

/// What is kept for one vnode.
#[derive(Debug, Default)]
pub(super) struct OfVnode {
    entries: BTreeMap<Who, Entry>,
    /// The home elsewhere that is told, and what it is being told.
    home: Epoch,
    under_way: Option<(MessageId, Vec<(Who, SaidUpTo)>)>,
    /// When all is forgotten, since that home is ready.
    until: Option<u64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) vnodes: BTreeMap<VnodeId, OfVnode>,
    entries: usize,
    bytes: usize,
    /// Counts records.
    told: u64,
}

impl Entry {
    fn is_heard(&self) -> bool {
        self.said == self.heard
    }
}

impl OfVnode {
    fn is_heard(&self) -> bool {
        self.entries.values().all(Entry::is_heard)
    }
}

impl Kept {
    /// False if there is no room.
    pub(super) fn keep(&mut self, vnode: VnodeId, who: Who, said: SaidUpTo) -> bool {
        let there = self.vnodes.get(&vnode).is_some_and(|of| of.entries.contains_key(&who));
        if !there {
            let size = who.bytes();
            if self.entries >= KEPT_MAX || self.bytes + size > KEPT_BYTES_MAX {
                return false;
            }
            (self.entries, self.bytes) = (self.entries + 1, self.bytes + size);
        }
        let of = self.vnodes.entry(vnode).or_default();
        of.entries.entry(who).or_default().said.add(said);
        of.until = None;
        true
    }

    /// A home elsewhere may still hear some of it from here.
    pub(in crate::core) fn has_unheard(&self) -> bool {
        !self.vnodes.values().all(OfVnode::is_heard)
    }

    pub(super) fn take(&mut self, vnode: VnodeId) -> Vec<(Who, SaidUpTo)> {
        let entries = self.vnodes.remove(&vnode).map(|of| of.entries).unwrap_or_default();
        self.entries -= entries.len();
        self.bytes -= entries.keys().map(Who::bytes).sum::<usize>();
        entries.into_iter().map(|(who, entry)| (who, entry.said)).collect()
    }

    /// A home elsewhere is ready, or none is as far as the present table says; whether one that heard all had the
    /// grace.
    pub(super) fn is_over(
        &mut self,
        vnode: VnodeId,
        ready: Option<Epoch>,
        fresh: bool,
        grace_ms: u64,
        now: Now,
    ) -> bool {
        let Some(of) = self.vnodes.get_mut(&vnode) else { return false };
        let Some(epoch) = ready else {
            of.until = None;
            return false;
        };
        if std::mem::replace(&mut of.home, epoch) != epoch {
            (of.under_way, of.until) = (None, None);
            of.entries.values_mut().for_each(|entry| entry.heard = SaidUpTo::default());
        }
        if !fresh || !of.is_heard() {
            of.until = None;
            return false;
        }
        now.mono >= *of.until.get_or_insert(now.mono + grace_ms)
    }

    /// What the home elsewhere is to be told next.
    pub(super) fn tell(&mut self, vnode: VnodeId) -> Option<(MessageId, Vec<(Who, SaidUpTo)>)> {
        let of = self.vnodes.get_mut(&vnode).filter(|of| of.under_way.is_none())?;
        let news = of.entries.iter().filter(|(_, entry)| !entry.is_heard());
        let some: Vec<_> = news.take(SAID_PER_RECORD).map(|(who, e)| (who.clone(), e.said)).collect();
        if some.is_empty() {
            return None;
        }
        self.told += 1;
        let id = MessageId::new(format!("said-{}", self.told)).expect("letters and digits");
        of.under_way = Some((id.clone(), some.clone()));
        Some((id, some))
    }

    /// The home elsewhere heard what it was told under this id, or did not.
    pub(super) fn told(&mut self, vnode: VnodeId, id: &MessageId, heard: bool) {
        let Some(of) = self.vnodes.get_mut(&vnode) else { return };
        let Some((_, some)) = of.under_way.take_if(|(asked, _)| asked == id) else { return };
        for (who, said) in some {
            if let Some(entry) = of.entries.get_mut(&who).filter(|_| heard) {
                entry.heard = said;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use roost_proto::ids::UserId;

    use super::*;
    use roost_proto::ids::{Cursor, Offset};

    const V: VnodeId = VnodeId(3);

    fn who(name: &str) -> Who {
        Who { user: UserId::new(name).unwrap(), device: None, quiet: false }
    }

    fn acked(offset: u64) -> SaidUpTo {
        SaidUpTo { acked: Some(Cursor::new(Epoch(7), Offset(offset))), read: None }
    }

    #[test]
    fn what_is_kept_is_bounded_and_counted() {
        let mut kept = Kept::default();
        for n in 0..KEPT_MAX + 10 {
            assert_eq!(kept.keep(V, who(&format!("u{n}")), acked(1)), n < KEPT_MAX);
            kept.keep(V, who(&format!("u{n}")), acked(2));
        }
        assert_eq!(kept.entries, KEPT_MAX);
        kept.keep(V, who("u1"), acked(3));
        assert_eq!(kept.vnodes[&V].entries[&who("u1")].said, acked(3), "what is there already can grow");
        assert_eq!(kept.take(V).len(), KEPT_MAX);
        assert_eq!((kept.entries, kept.bytes), (0, 0));
        let there_is_room =
            (0..KEPT_MAX).filter(|n| kept.keep(V, who(&format!("{n:0>128}")), acked(1))).count();
        assert_eq!(there_is_room, kept.entries);
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.entries < KEPT_MAX);
    }

    #[test]
    fn a_home_elsewhere_is_told_once_and_the_next_one_again() {
        let (mut kept, now) = (Kept::default(), Now::default());
        kept.keep(V, who("bob"), acked(1));
        kept.keep(V, who("eve"), acked(1));
        assert!(!kept.is_over(V, Some(Epoch(8)), true, 100, now));
        assert!(kept.has_unheard());
        let (id, said) = kept.tell(V).unwrap();
        assert_eq!(said.len(), 2);
        assert!(kept.tell(V).is_none(), "one record at a time");
        kept.keep(V, who("bob"), acked(2));
        kept.told(V, &MessageId::new("said-0").unwrap(), true);
        assert!(kept.tell(V).is_none(), "an answer to another record");
        kept.told(V, &id, true);
        let (id, said) = kept.tell(V).unwrap();
        assert_eq!(said, [(who("bob"), acked(2))]);
        kept.told(V, &id, false);
        let (id, _) = kept.tell(V).unwrap();
        kept.told(V, &id, true);
        assert!(kept.tell(V).is_none() && !kept.has_unheard());
        let at = |mono| Now { mono, ..now };
        let is_over = |kept: &mut Kept, epoch: Option<u64>, fresh, mono| {
            kept.is_over(V, epoch.map(Epoch), fresh, 100, at(mono))
        };
        assert!(!is_over(&mut kept, Some(9), true, 99), "it may have ended before it had written that");
        let (id, said) = kept.tell(V).unwrap();
        assert_eq!(said.len(), 2);
        assert!(!is_over(&mut kept, Some(9), true, 250), "ready for the grace, and it has not heard it");
        kept.told(V, &id, true);
        assert!(!is_over(&mut kept, Some(9), true, 300));
        assert!(!is_over(&mut kept, Some(9), false, 450), "nobody knows whether it is still there");
        assert!(!is_over(&mut kept, Some(9), true, 500));
        assert!(!is_over(&mut kept, None, true, 550));
        assert!(!is_over(&mut kept, Some(9), true, 650));
        assert!(is_over(&mut kept, Some(9), true, 750), "ready for the grace");
    }
}
