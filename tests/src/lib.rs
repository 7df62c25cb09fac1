//! Whole-cluster tests of Roost: what they share.

pub mod archive;
pub mod chaos;
pub mod chat;
pub mod cluster;
pub mod gate;
pub mod history;
pub mod judge;
pub mod ledger;
pub mod presence;
pub mod processes;
pub mod schema;
pub mod sim;
pub mod talk;
pub mod wire;
pub mod witness;
