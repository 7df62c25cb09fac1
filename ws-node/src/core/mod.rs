//! The protocol core of a ws-node: everything it decides, as one state machine.
//!
//! `step(event, now)` takes what happened and returns what to do; there is no clock, no socket and no back end in
//! here. The node's task ([`crate::node`]) carries actions out and brings their answers back as events; the
//! simulation in `tests/` does the same with faults.
//!
//! A folder per owner: its `mod.rs` has what it owns, with private fields; the files beside it have the parts of that,
//! and chapters: `impl NodeCore` blocks for what needs more than one owner. A chapter is imported by nobody.
//! The rule numbers in comments are those of `docs/decisions/0001-protocol-core.md`.

mod actions;
mod ask;
mod calls;
mod canary;
mod channels;
mod command;
mod config;
mod counters;
mod effects;
mod explain;
mod flow;
mod following;
mod homes;
mod input;
mod keys;
mod membership;
mod message;
mod node;
mod outbound;
mod results;
mod rights;
mod rooms;
mod said;
mod sessions;
mod watching;

pub use actions::{Action, Ending, Observation, SendQueue};
pub use ask::Ask;
pub use calls::ApiCommand;
pub use channels::shares::ShareConfig;
pub use command::{Command, OfConnection};
pub use config::{CoreConfig, ItemLane, Rule};
pub use counters::{Counters, Gauges};
pub use explain::{Explained, Query};
pub use homes::sweeping::TicketShown;
pub use input::{Connecting, Input, Maybe};
pub use keys::{CallKey, Now, SessionKey};
pub use node::NodeCore;
pub use outbound::link::{LinkInput, LinkKey, LinkOrder};
pub use rights::Rights;
pub use sessions::credit::Taken;
pub mod history {
    pub use super::sessions::history::{Asked, answer, limit};
}
pub use sessions::limit::SessionPolicy;
