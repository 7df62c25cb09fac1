//! What an earlier release said and kept, held against this build: `tests/golden/README.md` says what is in a set and
//! how it was made.
//!
//! A build that fails here cannot follow that release in a running cluster, or cannot go on with its data. Each set is
//! read as it is; nothing is written beside it.

#[path = "golden/files.rs"]
mod files;
#[path = "golden/frames.rs"]
mod frames;
#[path = "golden/records.rs"]
mod records;
#[path = "golden/redis.rs"]
mod redis;
#[path = "golden/set.rs"]
mod set;
