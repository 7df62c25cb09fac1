//! What an accept loop counts. Each listener has its own, told apart by the label `listener`.

use prometheus::{IntCounter, IntGauge, Opts, Registry};

/// The counters of one listener; cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    connections: IntGauge,
    refused_full: IntCounter,
    refused_rate: IntCounter,
    refused_proxy: IntCounter,
    accept_failures: IntCounter,
    header_timeouts: IntCounter,
    request_timeouts: IntCounter,
    cut: IntCounter,
}

impl HttpMetrics {
    /// Registers the counters of the listener called `listener` ("public", "admin").
    ///
    /// # Errors
    /// If the registry has them already.
    pub fn register(registry: &Registry, listener: &str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("listener", listener);
        let refused = |reason: &str| {
            let help = "Connections refused: full (503), the rate of one address (429), what a proxy said of them (closed)";
            IntCounter::with_opts(opts("roost_http_refused_total", help).const_label("reason", reason))
        };
        let counter = |name: &str, help: &str| IntCounter::with_opts(opts(name, help));
        let own = Self {
            connections: IntGauge::with_opts(opts(
                "roost_http_connections",
                "Open connections, upgraded ones included",
            ))?,
            refused_full: refused("full")?,
            refused_rate: refused("rate")?,
            refused_proxy: refused("proxy")?,
            accept_failures: counter(
                "roost_http_accept_failures_total",
                "Times the system refused to hand over a connection",
            )?,
            header_timeouts: counter(
                "roost_http_header_timeouts_total",
                "Connections closed because no whole request came in time",
            )?,
            request_timeouts: counter(
                "roost_http_request_timeouts_total",
                "Requests answered 504 because nobody answered in time",
            )?,
            cut: counter(
                "roost_http_cut_total",
                "Connections cut because the shutdown could not wait longer",
            )?,
        };
        registry.register(Box::new(own.connections.clone()))?;
        let counters = [
            &own.refused_full,
            &own.refused_rate,
            &own.refused_proxy,
            &own.accept_failures,
            &own.header_timeouts,
            &own.request_timeouts,
            &own.cut,
        ];
        for counter in counters {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(own)
    }

    /// Counters that nobody reads, for tests and tools.
    ///
    /// # Panics
    /// Never: a fresh registry has nothing that could collide.
    pub fn unregistered() -> Self {
        Self::register(&Registry::new(), "none").expect("a fresh registry is empty")
    }

    pub(super) fn opened(&self) {
        self.connections.inc();
    }
    pub(super) fn closed(&self) {
        self.connections.dec();
    }
    pub(super) fn refused_full(&self) {
        self.refused_full.inc();
    }
    pub(super) fn refused_rate(&self) {
        self.refused_rate.inc();
    }
    pub(super) fn refused_proxy(&self) {
        self.refused_proxy.inc();
    }
    pub(super) fn accept_failed(&self) {
        self.accept_failures.inc();
    }
    pub(super) fn header_timeout(&self) {
        self.header_timeouts.inc();
    }
    pub(super) fn request_timeout(&self) {
        self.request_timeouts.inc();
    }
    pub(super) fn cut(&self) {
        self.cut.inc();
    }
}
