//! What Prometheus sees of one node. Counters are those of the core, told once a tick.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::core::Counters;
use crate::core::{Gauges, Observation};

/// Buckets in seconds, from half a millisecond (one round trip to the log on the same host) to the 20 s after
/// which a command is answered `unknown`.
pub const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
];

pub struct Metrics {
    last: Counters,
    last_commands: u64,
    connections: IntGauge,
    rooms: IntGauge,
    listeners: IntGauge,
    watched: IntGauge,
    watchers: IntGauge,
    owned: IntGauge,
    ready: IntGauge,
    lease_age: Gauge,
    outbox: IntGauge,
    channel: IntGauge,
    lag: IntGauge,
    view_age: Gauge,
    canary_age: Gauge,
    canary_took: Gauge,
    accepts: IntGauge,
    under_way: IntGaugeVec,
    messages: IntCounterVec,
    vnodes: IntCounterVec,
    writes: IntCounterVec,
    channel_events: IntCounterVec,
    signals: IntCounterVec,
    presence: IntCounterVec,
    session_events: IntCounterVec,
    events: IntCounterVec,
    results_lag: IntGaugeVec,
    redis: IntCounter,
    append: Histogram,
    delivery: Histogram,
    reply: Histogram,
}

fn int_gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// Counts sockets of pages that are not allowed.
pub fn origins_refused(registry: &Registry) -> prometheus::Result<IntCounter> {
    let counter =
        IntCounter::new("roost_origins_refused_total", "Sockets refused for the page they came from")?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// A label, and what was counted under it before and by now.
type Counted = (&'static str, u64, u64);

impl Metrics {
    pub fn register(r: &Registry) -> prometheus::Result<Self> {
        let redis = IntCounter::new("roost_redis_commands_total", "Commands and scripts sent to the store")?;
        r.register(Box::new(redis.clone()))?;
        let lag = Opts::new("roost_results_lag", "Records of client_results that are not handed out yet");
        let results_lag = IntGaugeVec::new(lag, &["partition"])?;
        r.register(Box::new(results_lag.clone()))?;
        Ok(Self {
            last: Counters::default(),
            last_commands: 0,
            connections: int_gauge(r, "roost_ws_connections", "Sessions connected to this node")?,
            rooms: int_gauge(r, "roost_rooms", "Rooms with sessions of this node in them")?,
            listeners: int_gauge(r, "roost_room_listeners", "Sessions in rooms, each once per room")?,
            watched: int_gauge(r, "roost_watched_users", "Users whose presence sessions of this node watch")?,
            watchers: int_gauge(r, "roost_watchers", "Sessions that watch somebody's presence")?,
            owned: int_gauge(r, "roost_vnodes_owned", "Vnodes whose lease this node has")?,
            ready: int_gauge(r, "roost_vnodes_ready", "Vnodes this node serves")?,
            lease_age: gauge(r, "roost_lease_age_seconds", "Time since the oldest lease was renewed")?,
            outbox: int_gauge(r, "roost_outbox_depth", "Events appended and not yet in the log")?,
            channel: int_gauge(r, "roost_channel_depth", "Items not yet confirmed by their home")?,
            lag: int_gauge(r, "roost_kafka_consumer_lag", "Records of this node's topic not read yet")?,
            view_age: gauge(r, "roost_view_age_seconds", "Time since the table was read")?,
            canary_age: gauge(
                r,
                "roost_canary_age_seconds",
                "Since the last message of this node's own was sent that was confirmed by its home and the log",
            )?,
            canary_took: gauge(r, "roost_canary_round_trip_seconds", "How long that one took")?,
            under_way: {
                let help = "Bytes under way: to the store in writes, from it in reads, and to sockets beyond what each \
                            has for itself";
                let gauges = IntGaugeVec::new(Opts::new("roost_bytes_under_way", help), &["what"])?;
                r.register(Box::new(gauges.clone()))?;
                gauges
            },
            accepts: int_gauge(
                r,
                "roost_accepts_per_second",
                "Newcomers this node takes per second at most",
            )?,
            messages: counters(
                r,
                "roost_messages_total",
                "Messages by what was done with them: sent, refused, appended, duplicate, conflict, delivered, \
                 replayed, found_by_tail (a publication whose live copy was lost), status_event, undelivered (not \
                 acknowledged in time), receipt (confirmed by its receiver's home), ack_not_kept (acknowledgements \
                 that no home could hear, and for which there was no room)",
                "kind",
            )?,
            vnodes: counters(
                r,
                "roost_vnode_changes_total",
                "Changes of ownership: claim, takeover, handoff, suspension, generation",
                "change",
            )?,
            writes: counters(
                r,
                "roost_store_writes_total",
                "Writes to vnodes by outcome: sent, unknown, fenced (refused because another owns it)",
                "outcome",
            )?,
            channel_events: counters(
                r,
                "roost_channel_events_total",
                "Between nodes: confirm, ask, probe, void, undecodable, moved, reply_ok, reply_unknown",
                "event",
            )?,
            signals: counters(r, "roost_signals_total", "Signals by outcome: sent, dropped", "outcome")?,
            presence: counters(
                r,
                "roost_presence_total",
                "Presence of watched users: told (frames to watchers), found (changes that were read because their \
                 publication was lost)",
                "kind",
            )?,
            session_events: counters(
                r,
                "roost_session_events_total",
                "Sessions: refused (too many of the user), replaced (gave way to a newer one), disconnected (by the \
                 server API), refreshed (a new token), refresh_refused",
                "event",
            )?,
            events: counters(
                r,
                "roost_events_total",
                "Events of clients: sent (to the processors), timeout (no result in time), result (confirmed by its \
                 client's home), result_conflict (its id was used before with another body), result_refused (its \
                 client is unknown), result_malformed",
                "kind",
            )?,
            results_lag,
            redis,
            append: histogram(r, "roost_append_seconds", "A write of one batch: sent until answered")?,
            delivery: histogram(
                r,
                "roost_delivery_seconds",
                "An item at its home: arrived until handed to a session",
            )?,
            reply: histogram(
                r,
                "roost_reply_seconds",
                "A send: read from the socket until its reply was handed to it",
            )?,
        })
    }

    /// What is left of a partition of `client_results` that this node reads.
    pub fn results_lag(&self) -> IntGaugeVec {
        self.results_lag.clone()
    }

    pub fn observe(&self, what: Observation, us: u64) {
        let histogram = match what {
            Observation::Append => &self.append,
            Observation::Delivery => &self.delivery,
            Observation::Reply => &self.reply,
        };
        histogram.observe(us as f64 / 1e6);
    }

    /// One that the core had sent was not published.
    pub fn signal_dropped(&self) {
        self.signals.with_label_values(&["dropped"]).inc();
    }

    pub fn lag(&self, records: u64) {
        self.lag.set(records as i64);
    }

    /// Brings everything up to what the core says.
    pub fn update(&mut self, now: Counters, gauges: Gauges, lease_ttl_ms: u64, commands: u64) {
        self.connections.set(gauges.sessions as i64);
        self.rooms.set(gauges.rooms as i64);
        self.listeners.set(gauges.listeners as i64);
        self.watched.set(gauges.watched as i64);
        self.watchers.set(gauges.watchers as i64);
        self.owned.set(gauges.owned as i64);
        self.ready.set(gauges.ready as i64);
        let age = gauges.lease_left_ms.map_or(0, |left| lease_ttl_ms.saturating_sub(left));
        self.lease_age.set(age as f64 / 1000.0);
        self.outbox.set(gauges.outbox as i64);
        self.channel.set(gauges.channel_items as i64);
        self.view_age.set(gauges.view_age_ms as f64 / 1000.0);
        self.canary_age.set(gauges.canary_age_ms as f64 / 1000.0);
        self.canary_took.set(gauges.canary_took_ms.unwrap_or(0) as f64 / 1000.0);
        self.accepts.set(gauges.accepts_per_s as i64);
        let under_way =
            [("writes", gauges.write_bytes), ("reads", gauges.read_bytes), ("sockets", gauges.socket_bytes)];
        for (what, bytes) in under_way {
            self.under_way.with_label_values(&[what]).set(bytes as i64);
        }
        self.redis.inc_by(commands - self.last_commands);
        self.last_commands = commands;
        let last = std::mem::replace(&mut self.last, now);
        let counted: [(_, &[Counted]); 8] = [
            (
                &self.messages,
                &[
                    ("sent", last.sends, now.sends),
                    ("refused", last.refused, now.refused),
                    ("appended", last.appended, now.appended),
                    ("duplicate", last.duplicates, now.duplicates),
                    ("conflict", last.conflicts, now.conflicts),
                    ("delivered", last.delivered, now.delivered),
                    ("replayed", last.replayed, now.replayed),
                    ("found_by_tail", last.found_by_tail, now.found_by_tail),
                    ("status_event", last.status_events, now.status_events),
                    ("undelivered", last.undelivered, now.undelivered),
                    ("receipt", last.receipts, now.receipts),
                    ("ack_not_kept", last.acks_not_kept, now.acks_not_kept),
                ],
            ),
            (
                &self.events,
                &[
                    ("sent", last.events, now.events),
                    ("timeout", last.events_timed_out, now.events_timed_out),
                    ("result", last.results, now.results),
                    ("result_conflict", last.results_conflicting, now.results_conflicting),
                    ("result_refused", last.results_refused, now.results_refused),
                    ("result_malformed", last.results_malformed, now.results_malformed),
                ],
            ),
            (
                &self.vnodes,
                &[
                    ("claim", last.claims, now.claims),
                    ("takeover", last.takeovers, now.takeovers),
                    ("handoff", last.handoffs, now.handoffs),
                    ("suspension", last.suspensions, now.suspensions),
                    ("generation", last.generations_begun, now.generations_begun),
                ],
            ),
            (
                &self.writes,
                &[
                    ("sent", last.writes, now.writes),
                    ("unknown", last.writes_unknown, now.writes_unknown),
                    ("fenced", last.writes_fenced, now.writes_fenced),
                ],
            ),
            (
                &self.signals,
                &[
                    ("sent", last.signals, now.signals),
                    ("dropped", last.signals_dropped, now.signals_dropped),
                ],
            ),
            (
                &self.presence,
                &[
                    ("told", last.presence_told, now.presence_told),
                    ("found", last.presence_found, now.presence_found),
                ],
            ),
            (
                &self.channel_events,
                &[
                    ("confirm", last.confirms, now.confirms),
                    ("ask", last.asks, now.asks),
                    ("probe", last.probes, now.probes),
                    ("void", last.void_records, now.void_records),
                    ("undecodable", last.undecodable, now.undecodable),
                    ("moved", last.moved, now.moved),
                    ("reply_ok", last.replies_ok, now.replies_ok),
                    ("reply_unknown", last.replies_unknown, now.replies_unknown),
                ],
            ),
            (
                &self.session_events,
                &[
                    ("refused", last.sessions_refused, now.sessions_refused),
                    ("replaced", last.sessions_replaced, now.sessions_replaced),
                    ("disconnected", last.sessions_disconnected, now.sessions_disconnected),
                    ("refreshed", last.refreshed, now.refreshed),
                    ("refresh_refused", last.refreshes_refused, now.refreshes_refused),
                ],
            ),
        ];
        for (family, counts) in counted {
            for (label, before, after) in counts {
                family.with_label_values(&[label]).inc_by(after - before);
            }
        }
    }
}
