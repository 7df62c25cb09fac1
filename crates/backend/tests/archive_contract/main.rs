//! The contract of the archive on each back end.

mod embedded;
mod postgres;
