//! The topics of nodes that are gone.
//!
//! A leader removes the row of a node that was gone for `FORGET_AFTER_S`; a lease later one of the nodes that saw the
//! row until then removes the topic, since coordinators read no Kafka. Only of a name that was in the table of this
//! very cluster, as a tombstone, is the topic ever removed: what else is called `messages-…` on the brokers is
//! somebody else's. Plain state, and the task that carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use roost_backend::log::{Log, LogError};
use roost_backend::store::{DataSet, NodeState, Store, Table};
use roost_proto::NodeId;
use roost_proto::events::messages_topic;
use roost_service::boot_ms;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Another may have to do it, should the first one fail: so long, in milliseconds, a name is remembered.
const REMEMBERED_MS: u64 = 86_400_000;
/// The table is read every second: after so many milliseconds without it nobody looked.
const BLIND_MS: u64 = 5000;
/// Names remembered; with more, topics stay behind until `roost forget`.
const NAMES_MAX: usize = 4096;
/// The log's own time limit for it is 20 s.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(25);
/// Pause after a removal that failed.
const AGAIN_MS: u64 = 60_000;

/// Who is in the table, as last read, and when that was, by a clock that goes on while the machine sleeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    data_set: DataSet,
    settling: bool,
    nodes: BTreeMap<NodeId, NodeState>,
    read_ms: u64,
}

impl Names {
    pub(crate) fn of(table: &Table, read_ms: u64) -> Self {
        let nodes = table.nodes.iter().map(|(node, row)| (node.clone(), row.state)).collect();
        Self { data_set: table.data_set.clone(), settling: table.settling, nodes, read_ms }
    }

    /// One node does it: the living that is first by name.
    fn first(&self) -> Option<&NodeId> {
        self.nodes.iter().find(|(_, state)| **state == NodeState::Up).map(|(node, _)| node)
    }
}

/// What one node knows of names that are gone.
#[derive(Debug)]
pub(crate) struct Janitor {
    me: NodeId,
    lease_ttl_ms: u64,
    data_set: DataSet,
    read_ms: u64,
    /// Names whose row was a tombstone when it was last seen, and since when it is not there any more.
    gone: BTreeMap<NodeId, Option<u64>>,
    not_before_ms: u64,
}

impl Janitor {
    pub(crate) fn new(me: NodeId, lease_ttl_ms: u64) -> Self {
        let (data_set, gone) = (DataSet::default(), BTreeMap::new());
        Self { me, lease_ttl_ms, data_set, read_ms: 0, gone, not_before_ms: 0 }
    }

    /// The table was read: the name whose topic is to be removed now, if there is one.
    pub(crate) fn look(&mut self, names: &Names) -> Option<NodeId> {
        let now = names.read_ms;
        if names.data_set != self.data_set {
            // Rows that are not there may be of nodes that have not registered again.
            self.gone.clear();
            self.data_set = names.data_set.clone();
        }
        // An absence counts only as long as it is looked at: what nobody saw may have come and gone.
        let blind = now.saturating_sub(self.read_ms) > BLIND_MS;
        self.read_ms = now;
        if blind || names.settling {
            self.gone.values_mut().for_each(|since| *since = None);
        }
        for (node, state) in &names.nodes {
            if *state != NodeState::Revoked {
                self.gone.remove(node);
            } else if self.gone.len() < NAMES_MAX || self.gone.contains_key(node) {
                self.gone.insert(node.clone(), None);
            }
        }
        if names.settling {
            return None;
        }
        let absent = |node: &NodeId| !names.nodes.contains_key(node);
        for (_, since) in self.gone.iter_mut().filter(|(node, _)| absent(node)) {
            since.get_or_insert(now);
        }
        let age = |since: u64| now.saturating_sub(since);
        self.gone.retain(|_, since| since.is_none_or(|since| age(since) < REMEMBERED_MS));
        if names.first() != Some(&self.me) || now < self.not_before_ms {
            return None;
        }
        let over = |(_, since): &(&NodeId, &Option<u64>)| since.is_some_and(|s| age(s) >= self.lease_ttl_ms);
        self.gone.iter().find(over).map(|(node, _)| node.clone())
    }

    /// Whether the removal was done; otherwise it is tried again.
    pub(crate) fn removed(&mut self, node: &NodeId, done: bool, now_ms: u64) {
        if done {
            self.gone.remove(node);
        } else {
            self.not_before_ms = now_ms + AGAIN_MS;
        }
    }
}

pub(crate) fn topics_removed(registry: &prometheus::Registry) -> prometheus::Result<IntCounter> {
    let help = "Topics of nodes that were forgotten, removed by this one";
    let counter = IntCounter::new("roost_topics_removed_total", help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// Until `stop`.
pub(crate) async fn run(
    mut janitor: Janitor,
    mut names: watch::Receiver<Names>,
    store: Arc<dyn Store>,
    log: Arc<dyn Log>,
    removed: IntCounter,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = names.changed() => if changed.is_err() { return },
        }
        let seen = names.borrow_and_update().clone();
        let Some(node) = janitor.look(&seen) else { continue };
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = remove(&*store, &*log, &node) => done,
        };
        removed.inc_by(u64::from(done == Some(true)));
        janitor.removed(&node, done.is_some(), boot_ms());
    }
}

/// Whether there was a topic; nothing if it has to be tried again.
async fn remove(store: &dyn Store, log: &dyn Log, node: &NodeId) -> Option<bool> {
    // Whoever starts under that name makes its topic and then registers: looked at once more, at the last moment.
    let back = match store.table().await {
        Ok(table) => table.settling || table.nodes.contains_key(node),
        Err(_) => true,
    };
    if back {
        return None;
    }
    let topic = messages_topic(node);
    let outcome = timeout(REMOVAL_TIMEOUT, log.remove_topic(&topic)).await;
    match outcome.unwrap_or(Err(LogError::Timeout(REMOVAL_TIMEOUT))) {
        Ok(done) => {
            tracing::info!(topic, done, "its node was forgotten: the topic is removed");
            Some(done)
        }
        Err(error) => {
            tracing::warn!(topic, %error, "its node was forgotten, and the topic cannot be removed now");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: u64 = 6000;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn names(read_ms: u64, nodes: &[(&str, NodeState)]) -> Names {
        let nodes = nodes.iter().map(|(name, state)| (id(name), *state)).collect();
        Names { data_set: DataSet("d0".into()), settling: false, nodes, read_ms }
    }

    /// `ws-1` looks every second, from `from` to `to`; the answers that came.
    fn watched(janitor: &mut Janitor, from: u64, to: u64, nodes: &[(&str, NodeState)]) -> Vec<(u64, NodeId)> {
        let look = |at| janitor.look(&names(at, nodes)).map(|node| (at, node));
        (from..=to).step_by(1000).filter_map(look).collect()
    }

    const ALONE: &[(&str, NodeState)] = &[("ws-1", NodeState::Up)];
    const WITH_TOMBSTONE: &[(&str, NodeState)] = &[("ws-1", NodeState::Up), ("ws-9", NodeState::Revoked)];

    fn janitor() -> Janitor {
        Janitor::new(id("ws-1"), LEASE)
    }

    #[test]
    fn a_topic_goes_a_lease_after_its_tombstone() {
        let mut janitor = janitor();
        assert_eq!(watched(&mut janitor, 0, 99_000, WITH_TOMBSTONE), []);
        assert_eq!(watched(&mut janitor, 100_000, 105_000, ALONE), []);
        assert_eq!(watched(&mut janitor, 106_000, 106_000, ALONE), [(106_000, id("ws-9"))]);
        janitor.removed(&id("ws-9"), true, 106_000);
        assert_eq!(watched(&mut janitor, 107_000, 300_000, ALONE), [], "once");
    }

    #[test]
    fn a_removal_that_failed_is_tried_again_after_a_pause() {
        let mut janitor = janitor();
        watched(&mut janitor, 0, 9000, WITH_TOMBSTONE);
        watched(&mut janitor, 10_000, 16_000, ALONE);
        janitor.removed(&id("ws-9"), false, 16_000);
        let again = watched(&mut janitor, 17_000, 76_000, ALONE);
        assert_eq!(again, [(76_000, id("ws-9"))]);
    }

    /// An earlier version removes the row of a node that stops, and an operator any; the name may be back in a minute.
    #[test]
    fn without_a_tombstone_nothing_is_removed() {
        let both: &[_] = &[("ws-1", NodeState::Up), ("ws-9", NodeState::Draining)];
        let mut janitor = janitor();
        watched(&mut janitor, 0, 9000, both);
        assert_eq!(watched(&mut janitor, 10_000, 100_000, ALONE), []);
    }

    #[test]
    fn a_name_that_comes_back_keeps_its_topic() {
        let back: &[_] = &[("ws-1", NodeState::Up), ("ws-9", NodeState::Up)];
        let mut janitor = janitor();
        watched(&mut janitor, 0, 9000, WITH_TOMBSTONE);
        assert_eq!(watched(&mut janitor, 10_000, 15_000, ALONE), []);
        assert_eq!(watched(&mut janitor, 16_000, 50_000, back), []);
        assert_eq!(
            watched(&mut janitor, 51_000, 99_000, ALONE),
            [],
            "nor is it forgotten without a tombstone"
        );
    }

    #[test]
    fn only_what_was_looked_at_counts() {
        let mut janitor = janitor();
        watched(&mut janitor, 0, 9000, WITH_TOMBSTONE);
        watched(&mut janitor, 10_000, 14_000, ALONE);
        // The store was away, or this machine slept for a week.
        assert_eq!(watched(&mut janitor, 604_800_000, 604_805_000, ALONE), []);
        assert_eq!(watched(&mut janitor, 604_806_000, 604_806_000, ALONE), [(604_806_000, id("ws-9"))]);
    }

    #[test]
    fn other_data_and_a_table_that_settles_say_nothing_of_who_is_gone() {
        let mut janitor = janitor();
        watched(&mut janitor, 0, 9000, WITH_TOMBSTONE);
        for at in (10_000..40_000).step_by(1000) {
            assert_eq!(janitor.look(&Names { settling: true, ..names(at, ALONE) }), None);
        }
        assert_eq!(watched(&mut janitor, 40_000, 45_000, ALONE), [], "counted from the end of it");
        for at in (46_000..90_000).step_by(1000) {
            let other = Names { data_set: DataSet("d1".into()), ..names(at, ALONE) };
            assert_eq!(janitor.look(&other), None, "ws-9 may just not have registered again");
        }
    }

    #[test]
    fn one_node_does_it_and_the_next_if_that_one_is_gone() {
        let with = |first| vec![("ws-0", first), ("ws-1", NodeState::Up)];
        let mut janitor = janitor();
        watched(&mut janitor, 0, 9000, WITH_TOMBSTONE);
        assert_eq!(watched(&mut janitor, 10_000, 60_000, &with(NodeState::Up)), []);
        assert_eq!(watched(&mut janitor, 61_000, 61_000, &with(NodeState::Draining)), [(61_000, id("ws-9"))]);
    }
}
