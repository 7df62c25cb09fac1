//! What happens to a conversation when processes of the cluster are stopped, killed, paused or doubled, when Redis
//! forgets everything, and when nobody coordinates: on real Kafka and Redis, with the programs themselves.
//!
//! Each test has a cluster of its own, and they take turns: their clusters are timed for a machine that they have
//! to themselves. Sleeps here are the pace of a conversation; whatever must have happened is waited for.

#[path = "failover/conversation.rs"]
mod conversation;
#[path = "failover/lost.rs"]
mod lost;
#[path = "failover/pause.rs"]
mod pause;
#[path = "failover/rights.rs"]
mod rights;
#[path = "failover/scale.rs"]
mod scale;
#[path = "failover/services.rs"]
mod services;

/// One cluster at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
