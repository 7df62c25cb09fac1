//! What one node is told, by a struct: for the program, and for whoever embeds one.

use roost_proto::NodeId;
use roost_proto::events::PARTITIONS;
use roost_proto::limits::TOKEN_EXPIRING_MS;
use roost_ring::Pins;
use roost_service::tokens::Verifier;
use roost_service::{CommonConfig, HttpLimits};

use crate::core::CoreConfig;
use crate::origin::Origins;

/// A stuck path shows within two of these, in milliseconds; 17,000 small messages a day and node.
const CANARY_EVERY_MS: u64 = 5_000;

/// The settings of one node.
#[derive(Clone)]
pub struct WsNodeConfig {
    pub core: CoreConfig,
    pub access: Access,
    pub verifier: Verifier,
    /// After so long what nodes left behind that are gone is removed; 0: never.
    pub forget_after_s: u64,
    /// Of the public listener.
    pub http: HttpLimits,
}

impl WsNodeConfig {
    /// With the defaults of the protocol; `pins` has been checked.
    pub fn new(node: NodeId, vnodes: u32, pins: &Pins, verifier: Verifier) -> Self {
        let core = CoreConfig {
            vnodes,
            partitions: PARTITIONS,
            pins: pins.to_string(),
            pinned: pins.vnodes().to_vec(),
            random: rand::random(),
            canary_every_ms: CANARY_EVERY_MS,
            ..CoreConfig::new(node)
        };
        let http = HttpLimits::default();
        Self { core, access: Access::default(), verifier, forget_after_s: 0, http }
    }

    /// Takes over what every program of a cluster is told alike.
    pub fn take_common(&mut self, common: &CommonConfig) {
        let (core, tuning) = (&mut self.core, &common.tuning);
        core.lease_ttl_ms = tuning.lease_ttl_ms;
        core.linger_ms = tuning.presence_linger_ms;
        core.grace_ms = tuning.presence_grace_ms;
        core.undelivered_after_ms = tuning.undelivered_after_ms;
        core.event_timeout_ms = tuning.event_timeout_ms;
        self.forget_after_s = tuning.forget_after_s;
        self.http = common.http.clone();
    }
}

/// What a connection needs to know beyond its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Pages that may connect; none: all.
    pub origins: Option<Origins>,
    /// A session is told this long before its token ends, in milliseconds.
    pub token_expiring_ms: u64,
}

impl Default for Access {
    fn default() -> Self {
        Self { origins: None, token_expiring_ms: TOKEN_EXPIRING_MS }
    }
}
