//! Whole-cluster tests of Roost: what they share.

pub mod cluster;
pub mod processes;
pub mod sim;
pub mod wire;
