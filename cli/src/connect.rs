//! The way to a cluster: what is tried, why it fails, and when a command gives up.
//!
//! The SDK tries for ever. Who typed a command wants to know within seconds that its address is wrong; once there was a
//! connection it is not, and a coordinator that restarts ends nothing.

use std::future::pending;
use std::time::Duration;

use anyhow::anyhow;
use roost_client::{Client, ConnectTrouble};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::out::note;

/// A coordinator that is just being started has so long; with what a process takes to begin it is below three seconds.
const NOBODY_THERE: Duration = Duration::from_millis(2_500);
/// For commands that have no limit of their own.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Waits until there is a connection, and says meanwhile what is in the way.
///
/// # Errors
/// As [`in_vain`].
pub(crate) async fn connected(client: &Client, limit: Duration) -> anyhow::Result<()> {
    tokio::select! {
        // In this order: what is said last is not said twice.
        biased;
        why = in_vain(client, limit) => Err(why),
        connected = client.connected(limit) => Ok(connected?),
        () = tell(client.trouble()) => Ok(()),
    }
}

/// Why it is not worth trying any longer; never for a client that was connected.
///
/// No coordinator is at the address for [`NOBODY_THERE`], or there is no connection within `limit`, or there never can be.
pub(crate) async fn in_vain(client: &Client, limit: Duration) -> anyhow::Error {
    let connected = tokio::select! {
        connected = client.connected(limit) => connected,
        trouble = nobody_there(client) => return anyhow!("not connected: {trouble}"),
    };
    match connected {
        Ok(()) => pending().await,
        Err(error) => error.into(),
    }
}

async fn nobody_there(client: &Client) -> ConnectTrouble {
    sleep(NOBODY_THERE).await;
    let mut trouble = client.trouble();
    let is_the_address = |t: &Option<ConnectTrouble>| t.as_ref().is_some_and(|t| t.cause.is_the_address());
    let found = trouble.wait_for(is_the_address).await.ok().and_then(|trouble| trouble.clone());
    match found {
        Some(trouble) => trouble,
        // The client has ended; who waits for it says why.
        None => pending().await,
    }
}

/// Says each trouble once.
async fn tell(mut trouble: watch::Receiver<Option<ConnectTrouble>>) {
    let mut told = None;
    loop {
        let now = trouble.borrow_and_update().clone();
        if let Some(trouble) = now.as_ref().filter(|_| now != told) {
            note!("# not connected: {trouble}; trying again");
        }
        told = now;
        if trouble.changed().await.is_err() {
            return pending().await;
        }
    }
}
