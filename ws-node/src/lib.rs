//! The home of users: WebSockets, streams, presence.
//!
//! [`core`] decides everything and does nothing; [`node`] carries its actions to the back ends and sockets;
//! [`live`] what goes over publish and subscribe; [`socket`] is one connection; [`server`] opens the ports, owns the
//! tasks and knows how to stop. Placement is not decided here but by the coordinators; the past is not kept here but
//! by the archiver.

mod api;
pub mod config;
pub mod core;
pub mod error;
mod inputs;
mod janitor;
mod lifetime;
mod link;
mod live;
mod metrics;
mod node;
mod operate;
mod origin;
mod questions;
mod results;
pub mod server;
mod silence;
mod socket;
mod upgrade;
mod wire;

pub use config::{SessionSettings, Settings, ShareSettings, WsNodeConfig};
pub use error::{BindError, Ended};
pub use origin::Origins;
pub use server::{Backends, Ports, Server};
