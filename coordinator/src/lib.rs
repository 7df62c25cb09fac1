//! The coordinator: says where a user is at home, and plans who owns what.
//!
//! Any number of them run; each answers from memory, and one leads. [`leader`] decides and does nothing, `carry`
//! does and decides nothing, [`view`] is the table everyone looks at, `gate` knows who asks and how much, and `routes`
//! is what clients may ask. With all of them gone connected clients notice nothing. It keeps no data, plans no placement itself (that is `roost_ring`)
//! and never talks to a ws-node except to see if its admin port refuses.

mod carry;
pub mod config;
mod gate;
pub mod leader;
mod metrics;
mod routes;
mod server;
pub mod view;

pub use config::{CoordinatorConfig, RequestSettings};
pub use gate::RequestLimits;
pub use routes::{Console, DevCluster};
pub use server::{BindError, Coordinator};
