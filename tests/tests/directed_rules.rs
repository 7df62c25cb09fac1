//! Rules that random schedules reach too rarely, each with the interleaving it is there for.
//!
//! A scenario takes the rule to switch off: it must keep its promise with `None`, and break it with the rule off,
//! or the scenario proves nothing. Numbers are those of `docs/decisions/0001-protocol-core.md`.

#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

#[path = "directed_rules/access.rs"]
mod access;
#[path = "directed_rules/due.rs"]
mod due;
#[path = "directed_rules/harness.rs"]
mod harness;
#[path = "directed_rules/history.rs"]
mod history;
#[path = "directed_rules/homes.rs"]
mod homes;
#[path = "directed_rules/invisible.rs"]
mod invisible;
#[path = "directed_rules/linked.rs"]
mod linked;
#[path = "directed_rules/ownership.rs"]
mod ownership;
#[path = "directed_rules/presence.rs"]
mod presence;
#[path = "directed_rules/questions.rs"]
mod questions;
#[path = "directed_rules/receipts.rs"]
mod receipts;
#[path = "directed_rules/results.rs"]
mod results;
#[path = "directed_rules/rooms.rs"]
mod rooms;
#[path = "directed_rules/sending.rs"]
mod sending;
#[path = "directed_rules/sessions.rs"]
mod sessions;
#[path = "directed_rules/shares.rs"]
mod shares;
#[path = "directed_rules/watching.rs"]
mod watching;
