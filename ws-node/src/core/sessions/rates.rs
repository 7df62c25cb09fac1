//! How fast sessions come: what this node can take, found by trying, and what it sends to others.
//!
//! A node that takes newcomers faster than it can welcome them makes all of them wait, and the impatient come
//! again. So it measures how long a welcome takes and says in its row how many a second it takes; coordinators
//! (`connect_after_ms`) and nodes that hand over (`moved.after_ms`) keep to that.

use std::collections::BTreeMap;

use roost_proto::NodeId;

/// A welcome that takes longer shows that there are too many at once, in milliseconds: ten times a quiet one on the
/// slowest machine tried, a quarter of what a user notices as a pause.
const SLOW_MS: u64 = 250;

/// Slow ones among the welcomes of one beat that count as overload: one in this many, and more than a chance few.
const SLOW_ONE_IN: u32 = 10;

const SLOW_MIN: u32 = 3;

/// However slow it gets, some come in: else nothing would show that it got better.
const PER_S_MIN: u64 = 20;

/// No turn is later than this, in milliseconds: as long as a client waits. Who comes beyond that comes too early for
/// the target, which is better than to be told nothing for minutes.
const AHEAD_MS_MAX: u64 = 15_000;

/// The rate of newcomers this node takes: down by a third when they wait, up by a tenth when they do not.
/// (Also when few came: else the usual coming and going would hold it down at its own pace.)
#[derive(Debug)]
pub(crate) struct Accepting {
    per_s: u64,
    max: u64,
    welcomed: u32,
    slow: u32,
}

impl Accepting {
    pub(crate) fn new(max: u64) -> Self {
        Self { per_s: max, max, welcomed: 0, slow: 0 }
    }

    pub(crate) fn per_s(&self) -> u64 {
        self.per_s
    }

    /// A newcomer was welcomed `took_ms` after its home began to open it.
    pub(crate) fn welcomed(&mut self, took_ms: u64) {
        self.welcomed += 1;
        self.slow += u32::from(took_ms > SLOW_MS);
    }

    /// Judges what came since the last beat.
    pub(crate) fn beat(&mut self) {
        let (welcomed, slow) = (std::mem::take(&mut self.welcomed), std::mem::take(&mut self.slow));
        if slow >= SLOW_MIN && slow * SLOW_ONE_IN > welcomed {
            self.per_s = (self.per_s * 2 / 3).max(PER_S_MIN.min(self.max));
        } else {
            self.per_s = (self.per_s + self.per_s / 10 + 1).min(self.max);
        }
    }
}

/// When the next session may go to each node, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct MigrationRate {
    slots: BTreeMap<NodeId, u64>,
    /// Turns that were asked for beyond the longest delay.
    beyond: u64,
}

impl MigrationRate {
    /// Takes the next turn; how long until then, in milliseconds.
    pub(crate) fn next(&mut self, node: &NodeId, per_s: u64, now_ms: u64) -> u64 {
        let latest = (now_ms + AHEAD_MS_MAX) * 1000;
        let slot = self.slots.entry(node.clone()).or_default();
        let next = (*slot).max(now_ms * 1000) + 1_000_000 / per_s.max(1);
        *slot = next.min(latest);
        if next <= latest {
            return next / 1000 - now_ms;
        }
        // Spread over the whole time, each as far from the others as can be (steps of the golden ratio).
        self.beyond += 1;
        ((self.beyond as f64 * 0.618_034).fract() * AHEAD_MS_MAX as f64) as u64
    }

    /// How long what was promised so far takes, in milliseconds.
    pub(crate) fn behind(&self, node: &NodeId, now_ms: u64) -> u64 {
        self.slots.get(node).map_or(0, |slot| (slot / 1000).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_fewer_while_welcomes_are_slow_and_more_again_when_they_are_not() {
        let mut accepting = Accepting::new(900);
        let beat = |accepting: &mut Accepting, took_ms| {
            let coming = accepting.per_s() / 2;
            (0..coming).for_each(|_| accepting.welcomed(took_ms));
            accepting.beat();
        };
        beat(&mut accepting, 100);
        assert_eq!(accepting.per_s(), 900, "never above what is configured");
        beat(&mut accepting, 300);
        beat(&mut accepting, 300);
        assert_eq!(accepting.per_s(), 400);
        (0..50).for_each(|_| beat(&mut accepting, 300));
        assert_eq!(accepting.per_s(), 20, "some come in always");
        (0..45).for_each(|_| beat(&mut accepting, 10));
        assert_eq!(accepting.per_s(), 900);
    }

    #[test]
    fn a_few_slow_ones_among_many_change_nothing() {
        let mut accepting = Accepting::new(100);
        (0..9).for_each(|_| accepting.welcomed(10));
        accepting.welcomed(1000);
        accepting.beat();
        assert_eq!(accepting.per_s(), 100);
        (0..2).for_each(|_| accepting.welcomed(1000));
        accepting.beat();
        assert_eq!(accepting.per_s(), 100, "two of two say little");
    }

    #[test]
    fn turns_are_spread_over_time_for_each_node_apart() {
        let [a, b] = ["a", "b"].map(|name| NodeId::new(name).unwrap());
        let mut pace = MigrationRate::default();
        let turns: Vec<u64> = (0..3).map(|_| pace.next(&a, 100, 1000)).collect();
        assert_eq!(turns, [10, 20, 30]);
        assert_eq!((pace.next(&b, 100, 1000), pace.behind(&a, 1000)), (10, 30));
        assert_eq!(pace.next(&a, 100, 5000), 10, "an idle time is not saved up");
    }

    #[test]
    fn nobody_is_told_to_wait_longer_than_a_client_does() {
        let a = NodeId::new("a").unwrap();
        let mut pace = MigrationRate::default();
        let mut turns: Vec<u64> = (0..3000).map(|_| pace.next(&a, 100, 1000)).collect();
        assert_eq!((turns[1499], pace.behind(&a, 1000)), (15_000, 15_000));
        let mut late = turns.split_off(1500);
        late.sort_unstable();
        let gaps = late.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(late[1499] < 15_000 && gaps.max().unwrap() <= 20, "those beyond are spread as well");
        assert_eq!(pace.behind(&a, 10_000), 6_000, "and what is behind goes with the time");
    }
}
