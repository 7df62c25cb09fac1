//! The chaos run: real processes on real Kafka and Redis, users in a conversation, and one fault after the other.
//!
//! [`runner`] does it and writes a [`history`](crate::history); [`check`] reads the history and the topics, judges,
//! and makes the table of docs/RELIABILITY.md. [`archive`], [`measure`], [`storm`], [`leaderless`] and [`bystanders`] are measurements with the same
//! cluster. Who started the services stops them (`scripts/chaos`).

pub mod archive;
pub mod bystanders;
pub mod check;
pub mod company;
pub mod dump;
pub mod faults;
pub mod leaderless;
pub mod load;
pub mod measure;
pub mod options;
pub mod outside;
pub mod processor;
pub mod runner;
pub mod scenario;
pub mod storm;
pub mod table;
pub mod visitors;

/// Of a run, in its directory.
pub const HISTORY: &str = "history.jsonl";
