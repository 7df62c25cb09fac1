//! What Roost's programs share: the accept loop, health and metrics, tokens, configuration, logging, signals.
//!
//! It knows no back end and keeps no global state (ten servers run in one process): every handle is passed in. Only the
//! log and the count of panics are the process's.
//! What a request *means* is the business of `coordinator` and `ws-node`.

pub mod about;
pub mod admin;
pub mod body;
pub mod boot;
pub mod config;
pub mod cors;
pub mod http;
pub mod panics;
pub mod permits;
pub mod proxies;
pub mod query;
pub mod ratelimit;
pub mod reply;
pub mod secret;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod tokens;

pub use about::{About, Variable};
pub use admin::Health;
pub use boot::boot_ms;
pub use config::{CommonConfig, ConfigError};
pub use http::{ConnectionSlot, HttpLimits, HttpMetrics, listen, serve};
pub use panics::{Panicked, guarded};
pub use permits::{Permit, Permits};
pub use proxies::{ClientAddr, TrustedProxies};
pub use ratelimit::{Bucket, Rates};
pub use secret::Secret;
pub use shutdown::{Signals, open, run_main};
pub use tasks::{Jobs, TaskEnded, Tasks};
pub use tokens::{TokenError, Verifier};
