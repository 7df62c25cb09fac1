//! What Roost needs of the world, as three small traits, and their implementations.
//!
//! [`Log`](log::Log) is the canonical log and the transport between nodes; [`Store`](store::Store) says who owns
//! what and holds the hot end of every stream; [`Archive`](archive::Archive) keeps what has been. Each trait's numbered promises are its contract; one suite
//! ([`contract`]) runs them on every implementation. Only this crate names rdkafka, redis, PostgreSQL and
//! SQLite.

#![warn(missing_docs)]

pub mod archive;
#[allow(missing_docs, reason = "a promise's name is its sentence")]
pub mod contract;
pub mod embedded;
pub mod kafka;
pub mod log;
pub mod postgres;
pub mod redis;
pub mod store;
