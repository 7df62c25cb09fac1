//! The contract of each trait as functions that run against any implementation of it.
//!
//! A function's name is the sentence it checks. They panic when a promise is broken, so a back end's test file
//! only has to make the back end and call them.

pub mod archive;
pub mod log;
pub mod store;
