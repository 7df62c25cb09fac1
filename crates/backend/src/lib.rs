//! What Roost needs of the world, as two small traits, and their implementations.
//!
//! [`Log`](log::Log) is the canonical log and the transport between nodes; [`Store`](store::Store) says who owns
//! what and holds the hot end of every stream. Each trait's numbered promises are its contract; one suite
//! ([`contract`]) runs them on every implementation. Only this crate names rdkafka, redis and SQLite.

pub mod contract;
pub mod embedded;
pub mod kafka;
pub mod log;
pub mod redis;
pub mod store;
