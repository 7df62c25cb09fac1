//! The archiver: keeps `chat_events` and `user_status_events` in a database, and answers for the past.
//!
//! Any number of them run. Each reads the partitions that fall to it (`share`) and stores what it reads together with
//! the positions (`follow`), so that nothing is lost or doubled however often they change places
//! (docs/decisions/0010). It commits nothing to the log, and nobody waits for it: with all of them gone messages get
//! through all the same, and the history stands still.

pub mod config;
mod error;
mod follow;
mod gather;
mod metrics;
mod routes;
mod server;
mod share;
mod watch;

pub use config::{ArchiverConfig, Settings};
pub use error::BindError;
pub use server::{Archiver, Starting};
