//! Where everything lives: which vnode an id falls into, and which node should own which vnode.
//!
//! Pure functions over values: no I/O, no clock, no randomness. This crate alone decides placement; leases,
//! liveness and the pace over time belong to the coordinator and the nodes.

#![warn(missing_docs)]

pub mod hash;
pub mod plan;
pub mod ranges;

pub use hash::{RingError, VNODES_MAX, check_vnodes, vnode, vnode_of_room, vnode_of_stream, vnode_of_user};
pub use plan::{Move, PlanInput, PlanNode, plan};
pub use ranges::{Pins, PinsError};
