//! What Prometheus sees of one node. Counters and gauges are those of the core, told once a tick: a row of a table each.

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::core::{Counters, Gauges, Observation};

/// Buckets in seconds, from half a millisecond (one round trip to the log on the same host) to the 20 s after
/// which a command is answered `unknown`.
pub(crate) const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
];

/// A name, the label that tells its counters apart, and what they are. The help names every value of the label.
type Family = (&'static str, &'static str, &'static str);

const MESSAGES: &str = "roost_messages_total";
const EVENTS: &str = "roost_events_total";
const VNODES: &str = "roost_vnode_changes_total";
const WRITES: &str = "roost_store_writes_total";
const SIGNALS: &str = "roost_signals_total";
const PRESENCE: &str = "roost_presence_total";
const CHANNELS: &str = "roost_channel_events_total";
const SESSIONS: &str = "roost_session_events_total";
const DROPPED: &str = "dropped";

const FAMILIES: [Family; 8] = [
    (MESSAGES, "kind", "Messages by what was done with them"),
    (EVENTS, "kind", "Events of clients"),
    (VNODES, "change", "Changes of ownership"),
    (WRITES, "outcome", "Writes to vnodes by outcome"),
    (SIGNALS, "outcome", "Signals by outcome"),
    (PRESENCE, "kind", "Presence of watched users"),
    (CHANNELS, "event", "Between nodes"),
    (SESSIONS, "event", "Sessions"),
];

/// A family, a value of its label, what that means where the word does not say, and what is counted under it.
type Row = (&'static str, &'static str, &'static str, Count);
type Count = fn(&Counters) -> u64;

const ROWS: [Row; 44] = [
    (MESSAGES, "sent", "", |c| c.sends),
    (MESSAGES, "refused", "", |c| c.refused),
    (MESSAGES, "appended", "", |c| c.appended),
    (MESSAGES, "duplicate", "", |c| c.duplicates),
    (MESSAGES, "conflict", "", |c| c.conflicts),
    (MESSAGES, "delivered", "", |c| c.delivered),
    (MESSAGES, "replayed", "", |c| c.replayed),
    (MESSAGES, "found_by_tail", "a publication whose live copy was lost", |c| c.found_by_tail),
    (MESSAGES, "status_event", "", |c| c.status_events),
    (MESSAGES, "undelivered", "not acknowledged in time", |c| c.undelivered),
    (MESSAGES, "receipt", "confirmed by its receiver's home", |c| c.receipts),
    (
        MESSAGES,
        "ack_not_kept",
        "acknowledgements that no home could hear, and for which there was no room",
        |c| c.acks_not_kept,
    ),
    (EVENTS, "sent", "to the processors", |c| c.events),
    (EVENTS, "timeout", "no result in time", |c| c.events_timed_out),
    (EVENTS, "result", "confirmed by its client's home", |c| c.results),
    (EVENTS, "result_conflict", "its id was used before with another body", |c| c.results_conflicting),
    (EVENTS, "result_refused", "its client is unknown", |c| c.results_refused),
    (EVENTS, "result_malformed", "", |c| c.results_malformed),
    (VNODES, "claim", "", |c| c.claims),
    (VNODES, "takeover", "", |c| c.takeovers),
    (VNODES, "handoff", "", |c| c.handoffs),
    (VNODES, "suspension", "", |c| c.suspensions),
    (VNODES, "generation", "", |c| c.generations_begun),
    (WRITES, "sent", "", |c| c.writes),
    (WRITES, "unknown", "", |c| c.writes_unknown),
    (WRITES, "fenced", "refused because another owns it", |c| c.writes_fenced),
    (SIGNALS, "sent", "", |c| c.signals),
    (SIGNALS, DROPPED, "", |c| c.signals_dropped),
    (PRESENCE, "told", "frames to watchers", |c| c.presence_told),
    (PRESENCE, "found", "changes that were read because their publication was lost", |c| c.presence_found),
    (CHANNELS, "confirm", "", |c| c.confirms),
    (CHANNELS, "ask", "", |c| c.asks),
    (CHANNELS, "probe", "", |c| c.probes),
    (CHANNELS, "void", "", |c| c.void_records),
    (CHANNELS, "copy", "items that came by a link", |c| c.copies),
    (CHANNELS, "undecodable", "", |c| c.undecodable),
    (CHANNELS, "moved", "", |c| c.moved),
    (CHANNELS, "reply_ok", "", |c| c.replies_ok),
    (CHANNELS, "reply_unknown", "", |c| c.replies_unknown),
    (SESSIONS, "refused", "too many of the user", |c| c.sessions_refused),
    (SESSIONS, "replaced", "gave way to a newer one", |c| c.sessions_replaced),
    (SESSIONS, "disconnected", "by the server API", |c| c.sessions_disconnected),
    (SESSIONS, "refreshed", "a new token", |c| c.refreshed),
    (SESSIONS, "refresh_refused", "", |c| c.refreshes_refused),
];

fn help(family: &str, what: &str) -> String {
    let rows = ROWS.iter().filter(|row| row.0 == family).map(|(_, label, meaning, _)| match *meaning {
        "" => (*label).to_owned(),
        meaning => format!("{label} ({meaning})"),
    });
    format!("{what}: {}", rows.collect::<Vec<_>>().join(", "))
}

/// A gauge's name, its help, and its value.
type Level = (&'static str, &'static str, Gauged);
type Gauged = fn(&Gauges) -> f64;

const LEVELS: [Level; 14] = [
    ("roost_ws_connections", "Sessions connected to this node", |g| g.sessions as f64),
    ("roost_rooms", "Rooms with sessions of this node in them", |g| g.rooms as f64),
    ("roost_room_listeners", "Sessions in rooms, each once per room", |g| g.listeners as f64),
    ("roost_watched_users", "Users whose presence sessions of this node watch", |g| g.watched as f64),
    ("roost_watchers", "Sessions that watch somebody's presence", |g| g.watchers as f64),
    ("roost_vnodes_owned", "Vnodes whose lease this node has", |g| g.owned as f64),
    ("roost_vnodes_ready", "Vnodes this node serves", |g| g.ready as f64),
    ("roost_outbox_depth", "Events appended and not yet in the log", |g| g.outbox as f64),
    ("roost_channel_depth", "Items not yet confirmed by their home", |g| g.channel_items as f64),
    ("roost_links", "Links that this node opened to others and that are open", |g| g.links as f64),
    ("roost_view_age_seconds", "Time since the table was read", |g| seconds(g.view_age_ms)),
    (
        "roost_canary_age_seconds",
        "Since the last message of this node's own was sent that was confirmed by its home and the log",
        |g| seconds(g.canary_age_ms),
    ),
    ("roost_canary_round_trip_seconds", "How long that one took", |g| seconds(g.canary_took_ms.unwrap_or(0))),
    ("roost_accepts_per_second", "Newcomers this node takes per second at most", |g| g.accepts_per_s as f64),
];

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

pub(crate) struct Metrics {
    last: Counters,
    last_commands: u64,
    counts: Vec<(IntCounter, Count)>,
    levels: Vec<(Gauge, Gauged)>,
    lease_age: Gauge,
    lag: Gauge,
    under_way: IntGaugeVec,
    signals_dropped: IntCounter,
    results_lag: IntGaugeVec,
    redis: IntCounter,
    append: Histogram,
    delivery: Histogram,
    reply: Histogram,
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    let gauge = Gauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(gauges.clone()))?;
    Ok(gauges)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// Counts sockets of pages that are not allowed.
pub(crate) fn origins_refused(registry: &Registry) -> prometheus::Result<IntCounter> {
    counter(registry, "roost_origins_refused_total", "Sockets refused for the page they came from")
}

impl Metrics {
    pub(crate) fn register(r: &Registry) -> prometheus::Result<Self> {
        let (mut counts, mut signals_dropped) = (Vec::new(), None);
        for (name, key, what) in FAMILIES {
            let family = IntCounterVec::new(Opts::new(name, help(name, what)), &[key])?;
            r.register(Box::new(family.clone()))?;
            for (_, label, _, count) in ROWS.iter().filter(|row| row.0 == name) {
                counts.push((family.with_label_values(&[label]), *count));
            }
            if name == SIGNALS {
                signals_dropped = Some(family.with_label_values(&[DROPPED]));
            }
        }
        let levels = LEVELS.iter().map(|(name, help, level)| Ok((gauge(r, name, help)?, *level)));
        Ok(Self {
            last: Counters::default(),
            last_commands: 0,
            counts,
            levels: levels.collect::<prometheus::Result<_>>()?,
            lease_age: gauge(r, "roost_lease_age_seconds", "Time since the oldest lease was renewed")?,
            lag: gauge(r, "roost_kafka_consumer_lag", "Records of this node's topic not read yet")?,
            under_way: gauges(
                r,
                "roost_bytes_under_way",
                "Bytes under way: to the store in writes, from it in reads, and to sockets beyond what each has for \
                 itself",
                "what",
            )?,
            signals_dropped: signals_dropped.expect("the table has it"),
            results_lag: gauges(
                r,
                "roost_results_lag",
                "Records of client_results that are not handed out yet",
                "partition",
            )?,
            redis: counter(r, "roost_redis_commands_total", "Commands and scripts sent to the store")?,
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
    pub(crate) fn results_lag(&self) -> IntGaugeVec {
        self.results_lag.clone()
    }

    pub(crate) fn observe(&self, what: Observation, us: u64) {
        let histogram = match what {
            Observation::Append => &self.append,
            Observation::Delivery => &self.delivery,
            Observation::Reply => &self.reply,
        };
        histogram.observe(us as f64 / 1e6);
    }

    /// One that the core had sent was not published.
    pub(crate) fn signal_dropped(&self) {
        self.signals_dropped.inc();
    }

    pub(crate) fn lag(&self, records: u64) {
        self.lag.set(records as f64);
    }

    /// Brings everything up to what the core says.
    pub(crate) fn update(&mut self, now: Counters, gauges: Gauges, lease_ttl_ms: u64, commands: u64) {
        for (gauge, level) in &self.levels {
            gauge.set(level(&gauges));
        }
        let age = gauges.lease_left_ms.map_or(0, |left| lease_ttl_ms.saturating_sub(left));
        self.lease_age.set(seconds(age));
        let under_way =
            [("writes", gauges.write_bytes), ("reads", gauges.read_bytes), ("sockets", gauges.socket_bytes)];
        for (what, bytes) in under_way {
            self.under_way.with_label_values(&[what]).set(bytes as i64);
        }
        self.redis.inc_by(commands - self.last_commands);
        self.last_commands = commands;
        let last = std::mem::replace(&mut self.last, now);
        for (counter, count) in &self.counts {
            counter.inc_by(count(&now) - count(&last));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn what_the_core_counts_is_shown_under_its_label_and_every_label_is_explained() {
        let registry = Registry::new();
        let mut metrics = Metrics::register(&registry).unwrap();
        let mut counters = Counters { presence_told: 5, signals_dropped: 1, ..Counters::default() };
        metrics.update(counters, Gauges::default(), 0, 0);
        counters.presence_told = 7;
        metrics.update(counters, Gauges { sessions: 3, ..Gauges::default() }, 0, 0);
        metrics.signal_dropped();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "# HELP roost_presence_total Presence of watched users: told (frames to watchers), found (changes that \
             were read because their publication was lost)\n",
            "roost_presence_total{kind=\"told\"} 7\n",
            "roost_signals_total{outcome=\"dropped\"} 2\n",
            "roost_ws_connections 3\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
