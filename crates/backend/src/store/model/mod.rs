//! What a store does, as plain state: no clock, no lock, no I/O.
//!
//! [`Control`] is the control plane, [`VnodeData`] the data of one vnode. The Redis scripts say the same in Lua.

mod control;
mod data;
mod devices;
mod due;
mod tickets;

pub use control::Control;
pub use data::{Change, VnodeData};
