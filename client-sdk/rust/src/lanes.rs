//! Which command may be written next. A lane (the sends to one inbox, say) keeps its order, and can be held at a command
//! until that one is answered. Every operation costs what it changes, not what waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use roost_proto::{RoomId, StreamId, UserId};

/// Commands of one lane keep their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OrderingKey {
    /// Sends to one inbox.
    To(UserId),
    /// Events.
    Events,
    /// What is published to one room.
    Room(RoomId),
    /// Coming into one room, leaving it, asking who is there: each may depend on the one before, so one is on the
    /// way at a time.
    Within(RoomId),
    /// Pages of one stream: each takes a good part of what may be on the way to a client, so one at a time.
    History(StreamId),
    /// The chosen status: the last one wins, so one is on the way at a time.
    Status,
    /// Whom to watch and whom not any more: each may undo the one before, so one is on the way at a time.
    Watch,
}

impl OrderingKey {
    /// Whether a command waits for the answer to the one before.
    pub(crate) fn is_one_at_a_time(&self) -> bool {
        matches!(self, Self::Status | Self::Within(_) | Self::History(_) | Self::Watch)
    }
}

/// Place of a command in the application's order.
pub(crate) type Seq = u64;

#[derive(Debug, Default)]
struct Queue {
    /// Every command of the lane. `Some` if it wants to be written, and then whether for the first time.
    wants: BTreeMap<Seq, Option<bool>>,
    /// Those at which it is held: nothing after the first of them goes out.
    holds: BTreeSet<Seq>,
}

impl Queue {
    fn is_open(&self, seq: Seq) -> bool {
        self.holds.first().is_none_or(|hold| seq <= *hold)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Lanes {
    queues: HashMap<OrderingKey, Queue>,
    /// What may go now, by (for the first time, place): repeats come first.
    open: BTreeSet<(bool, Seq)>,
}

impl Lanes {
    /// `seq` wants to be written.
    pub(crate) fn want(&mut self, lane: &OrderingKey, seq: Seq, first_time: bool) {
        let queue = self.queues.entry(lane.clone()).or_default();
        queue.wants.insert(seq, Some(first_time));
        if queue.is_open(seq) {
            self.open.insert((first_time, seq));
        }
    }

    /// Whether anything of this lane is there.
    pub(crate) fn has(&self, lane: &OrderingKey) -> bool {
        self.queues.contains_key(lane)
    }

    /// The next one to write.
    pub(crate) fn first(&self) -> Option<Seq> {
        self.open.first().map(|(_, seq)| *seq)
    }

    /// `seq` was written, or must wait for another reason.
    pub(crate) fn unwant(&mut self, lane: &OrderingKey, seq: Seq) {
        let wants = self.queues.get_mut(lane).and_then(|queue| queue.wants.get_mut(&seq));
        if let Some(first_time) = wants.and_then(Option::take) {
            self.open.remove(&(first_time, seq));
        }
    }

    /// What comes after `seq` waits until it is removed.
    pub(crate) fn hold(&mut self, lane: &OrderingKey, seq: Seq) {
        let Some(queue) = self.queues.get_mut(lane) else { return };
        let until = queue.holds.first().map_or(Unbounded, |hold| Included(*hold));
        if queue.is_open(seq) && queue.holds.insert(seq) {
            for (later, first_time) in queue.wants.range((Excluded(seq), until)) {
                if let Some(first_time) = first_time {
                    self.open.remove(&(*first_time, *later));
                }
            }
        } else {
            queue.holds.insert(seq);
        }
    }

    /// `seq` is done, and holds nothing any more.
    pub(crate) fn remove(&mut self, lane: &OrderingKey, seq: Seq) {
        self.unwant(lane, seq);
        let Some(queue) = self.queues.get_mut(lane) else { return };
        queue.wants.remove(&seq);
        let was_first = queue.holds.first() == Some(&seq);
        if queue.holds.remove(&seq) && was_first {
            let until = queue.holds.first().map_or(Unbounded, |hold| Included(*hold));
            for (later, first_time) in queue.wants.range((Excluded(seq), until)) {
                if let Some(first_time) = first_time {
                    self.open.insert((*first_time, *later));
                }
            }
        }
        if queue.wants.is_empty() {
            self.queues.remove(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(lanes: &Lanes) -> Vec<Seq> {
        lanes.open.iter().map(|(_, seq)| *seq).collect()
    }

    #[test]
    fn a_lane_is_held_at_its_first_hold() {
        let (mut lanes, lane) = (Lanes::default(), OrderingKey::To(UserId::new("bob").unwrap()));
        (1..=6).for_each(|seq| lanes.want(&lane, seq, true));
        lanes.hold(&lane, 4);
        assert_eq!(open(&lanes), [1, 2, 3, 4]);
        lanes.hold(&lane, 5);
        lanes.hold(&lane, 2);
        lanes.hold(&lane, 2);
        assert_eq!(open(&lanes), [1, 2]);
        lanes.unwant(&lane, 2);
        lanes.want(&lane, 7, true);
        assert_eq!(open(&lanes), [1]);
        lanes.remove(&lane, 2);
        assert_eq!(open(&lanes), [1, 3, 4]);
        lanes.remove(&lane, 5);
        lanes.remove(&lane, 4);
        assert_eq!(open(&lanes), [1, 3, 6, 7]);
        lanes.want(&lane, 8, false);
        assert_eq!(lanes.first(), Some(8), "a repeat comes first");
        [1, 3, 6, 7, 8].iter().for_each(|seq| lanes.remove(&lane, *seq));
        assert!(lanes.queues.is_empty() && lanes.open.is_empty());
    }
}
