//! The traits without servers: in memory, or kept in SQLite files. A product of its own (`roost dev`), with the
//! same limits and lifetimes as the real services.

mod archive;
mod connections;
mod file;
mod log;
mod store;
mod subscribers;

pub use archive::EmbeddedArchive;
pub use log::EmbeddedLog;
pub use store::EmbeddedStore;
