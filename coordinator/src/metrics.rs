//! What one coordinator counts, in a registry of its own.

use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

use crate::leader::RevokeCause;

/// How a `/route` look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routed {
    Ok,
    BadRequest,
    /// The vnode has no ready home.
    NoHome,
    /// The last table is too old to say.
    Stale,
}

/// What became of a request of the server API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// A node answered, whatever it said.
    Answered,
    /// Refused here: no token, too many at once, a body that cannot be passed on.
    Refused,
    /// No node could be reached.
    Unavailable,
    /// A node did not answer: it may have been done.
    Unknown,
}

/// Whose requests were too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    Address,
    User,
}

/// The counters of one coordinator; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    routes: [IntCounter; 4],
    presence: [IntCounter; 2],
    forwarded: [IntCounter; 4],
    limited: [IntCounter; 2],
    view_reads: [IntCounter; 2],
    view_age: Gauge,
    connect_delay: Gauge,
    ready_vnodes: IntGauge,
    nodes: IntGauge,
    leader: IntGauge,
    assignments: IntCounter,
    moves: IntCounter,
    revocations: [IntCounter; 2],
    forgotten: IntCounter,
    pins_overlapping: IntGauge,
    store_commands: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// If the registry has them already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let r = registry;
        let counter = |name, help| registered(r, IntCounter::new(name, help));
        let gauge = |name, help| registered(r, IntGauge::new(name, help));
        let results = ["ok", "bad_request", "no_home", "stale"];
        let routes = labelled(r, "roost_coordinator_routes_total", "Look-ups on /route", "result", results)?;
        let results = ["ok", "unavailable"];
        let presence =
            labelled(r, "roost_coordinator_presence_total", "Requests on /presence", "result", results)?;
        let results = ["answered", "refused", "unavailable", "unknown"];
        let help = "Requests of the server API, passed on to a node";
        let forwarded = labelled(r, "roost_coordinator_api_requests_total", help, "result", results)?;
        let help = "Requests refused because there were too many of one address, or of one user";
        let limited = labelled(r, "roost_coordinator_limited_total", help, "whose", ["address", "user"])?;
        let results = ["ok", "failed"];
        let view_reads =
            labelled(r, "roost_coordinator_view_reads_total", "Times the table was read", "result", results)?;
        let help = "Age of the table that answers are given from";
        let view_age = registered(r, Gauge::new("roost_coordinator_view_age_seconds", help))?;
        let help = "The longest delay that /route asks a newcomer for, while many come back at once";
        let connect_delay = registered(r, Gauge::new("roost_coordinator_connect_delay_seconds", help))?;
        let help = "Nodes declared dead by this leader: silent for a lease, or gone and refusing connections";
        let causes = ["silent", "refused"];
        let revocations = labelled(r, "roost_coordinator_revocations_total", help, "cause", causes)?;
        let help = "Rows of nodes that were gone for FORGET_AFTER_S, removed by this leader";
        let forgotten = counter("roost_coordinator_forgotten_total", help)?;
        let leader = gauge("roost_coordinator_leader", "1 on the coordinator that leads")?;
        let ready_vnodes = gauge("roost_coordinator_ready_vnodes", "Vnodes with a ready home")?;
        let nodes = gauge("roost_coordinator_nodes", "Nodes that are registered and not revoked")?;
        let help = "Vnodes pinned by several living nodes";
        let pins_overlapping = gauge("roost_coordinator_pins_overlapping", help)?;
        let help = "Changes of the assignment by this leader";
        let assignments = counter("roost_coordinator_assignments_total", help)?;
        let moves = counter("roost_coordinator_moves_total", "Vnodes given to another node by this leader")?;
        let help = "Commands sent to the store";
        let store_commands = counter("roost_coordinator_store_commands_total", help)?;
        Ok(Self {
            routes,
            presence,
            forwarded,
            limited,
            view_reads,
            view_age,
            connect_delay,
            ready_vnodes,
            nodes,
            leader,
            assignments,
            moves,
            revocations,
            forgotten,
            pins_overlapping,
            store_commands,
        })
    }

    pub(crate) fn routed(&self, result: Routed) {
        self.routes[result as usize].inc();
    }

    pub(crate) fn presence(&self, ok: bool) {
        self.presence[usize::from(!ok)].inc();
    }

    pub(crate) fn forwarded(&self, result: Forwarded) {
        self.forwarded[result as usize].inc();
    }

    pub(crate) fn limited(&self, whose: Limited) {
        self.limited[whose as usize].inc();
    }

    pub(crate) fn view_read(&self, ok: bool) {
        self.view_reads[usize::from(!ok)].inc();
    }

    pub(crate) fn view_age(&self, age: Duration) {
        self.view_age.set(age.as_secs_f64());
    }

    pub(crate) fn ring(&self, ready_vnodes: usize, nodes: usize, longest_delay_ms: u64) {
        self.connect_delay.set(longest_delay_ms as f64 / 1000.0);
        self.ready_vnodes.set(as_gauge(ready_vnodes));
        self.nodes.set(as_gauge(nodes));
    }

    pub(crate) fn leading(&self, leads: bool, pins_overlapping: usize) {
        self.leader.set(i64::from(leads));
        self.pins_overlapping.set(as_gauge(pins_overlapping));
    }

    pub(crate) fn assigned(&self, moves: usize) {
        self.assignments.inc();
        self.moves.inc_by(moves as u64);
    }

    pub(crate) fn revoked(&self, cause: RevokeCause) {
        self.revocations[cause as usize].inc();
    }

    pub(crate) fn forgotten(&self) {
        self.forgotten.inc();
    }

    /// `total` is the store's own count, which only grows.
    pub(crate) fn store_commands(&self, total: u64) {
        self.store_commands.inc_by(total.saturating_sub(self.store_commands.get()));
    }
}

fn as_gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// One counter for each value of the label, all there from the start: a rate over a series that appears with its
/// first event misses that event.
fn labelled<const N: usize>(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: [&str; N],
) -> prometheus::Result<[IntCounter; N]> {
    let vec = registered(registry, IntCounterVec::new(Opts::new(name, help), &[label]))?;
    Ok(values.map(|value| vec.with_label_values(&[value])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_series_from_the_start() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.routed(Routed::NoHome);
        metrics.revoked(RevokeCause::Refused);
        metrics.forwarded(Forwarded::Unknown);
        metrics.store_commands(7);
        metrics.store_commands(9);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "roost_coordinator_routes_total{result=\"no_home\"} 1",
            "roost_coordinator_routes_total{result=\"stale\"} 0",
            "roost_coordinator_api_requests_total{result=\"answered\"} 0",
            "roost_coordinator_api_requests_total{result=\"unknown\"} 1",
            "roost_coordinator_revocations_total{cause=\"refused\"} 1",
            "roost_coordinator_revocations_total{cause=\"silent\"} 0",
            "roost_coordinator_store_commands_total 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(Metrics::register(&registry).is_err());
    }
}
