//! What the environment says of the shares of users ([`crate::core::shares`]).

use roost_service::ConfigError;
use roost_service::config::{field, number, read};
use serde::Deserialize;

use super::node::WsNodeConfig;
use crate::core::ShareConfig;

/// The variables about shares: those of a ws-node, and of `roost dev`.
#[derive(Debug, Clone, Copy)]
pub struct ShareSettings(ShareConfig);

#[derive(Deserialize)]
struct Raw {
    sends_per_receiver_per_s: Option<String>,
    sends_per_receiver_burst: Option<String>,
    sends_per_user_per_s: Option<String>,
    sends_per_user_burst: Option<String>,
    send_bytes_per_user_per_s: Option<String>,
    send_bytes_per_user_burst: Option<String>,
    new_senders_per_s: Option<String>,
    new_senders_burst: Option<String>,
    new_streams_per_hour: Option<String>,
    watches_per_user_per_s: Option<String>,
    watches_per_user_burst: Option<String>,
}

impl ShareSettings {
    /// Reads and checks the environment, or a table in a test.
    ///
    /// # Errors
    /// The first wrong variable, by name.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let raw: Raw = read(vars)?;
        let is = ShareConfig::default();
        let rate = |name, value, default| field(name, value, default, number(0..=1_000_000_000));
        let burst = |name, value, default| field(name, value, default, number(1..=1_000_000_000));
        let new_streams = rate("NEW_STREAMS_PER_HOUR", raw.new_streams_per_hour, is.new_streams.0)?;
        Ok(Self(ShareConfig {
            to_one: (
                rate("SENDS_PER_RECEIVER_PER_S", raw.sends_per_receiver_per_s, is.to_one.0)?,
                burst("SENDS_PER_RECEIVER_BURST", raw.sends_per_receiver_burst, is.to_one.1)?,
            ),
            to_all: (
                rate("SENDS_PER_USER_PER_S", raw.sends_per_user_per_s, is.to_all.0)?,
                burst("SENDS_PER_USER_BURST", raw.sends_per_user_burst, is.to_all.1)?,
            ),
            bytes: (
                rate("SEND_BYTES_PER_USER_PER_S", raw.send_bytes_per_user_per_s, is.bytes.0)?,
                burst("SEND_BYTES_PER_USER_BURST", raw.send_bytes_per_user_burst, is.bytes.1)?,
            ),
            from_new: (
                rate("NEW_SENDERS_PER_S", raw.new_senders_per_s, is.from_new.0)?,
                burst("NEW_SENDERS_BURST", raw.new_senders_burst, is.from_new.1)?,
            ),
            new_streams: (new_streams, new_streams),
            watched: (
                rate("WATCHES_PER_USER_PER_S", raw.watches_per_user_per_s, is.watched.0)?,
                burst("WATCHES_PER_USER_BURST", raw.watches_per_user_burst, is.watched.1)?,
            ),
            ..is
        }))
    }

    /// Puts them where a node takes them from.
    pub fn apply(self, config: &mut WsNodeConfig) {
        config.core.shares = self.0;
    }
}
