//! The crate from outside: over loopback on ephemeral ports, and as processes of their own.

#![expect(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but does not see their helpers")]

mod admin;
mod config;
mod http;
mod processes;
mod proxies;
mod support;
mod tokens;
