//! Both traits without servers: in memory, or kept in SQLite files. A product of its own (`roost dev`), with the
//! same limits and lifetimes as the real services.

mod ears;
mod log;
mod store;

pub use log::EmbeddedLog;
pub use store::EmbeddedStore;
