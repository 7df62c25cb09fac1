//! The connections to Redis: made through a pool, checked for the data set, shared by all calls of a lane, replaced
//! when they fail.
//!
//! There is one for each [`Lane`]: what is large must not stand before what keeps leases. So a renewal proves nothing
//! of the way to the data, and it is the node that renews no row whose data does not answer. All of them lead to the
//! same life of the data, or those that do not are given up.
//!
//! A checkout from the pool costs a round trip, so the hot path uses clones of one multiplexed connection and the
//! pool only makes and counts it. The driver does not reconnect by itself, which suits: whatever a new connection
//! leads to may be other data, and must be asked before the first script (core rule 19).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::{Connection, Hook, HookError, Manager, Pool, PoolError};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, Script, cmd};
use tokio::time::{Instant, timeout};

use super::keys::{self, Channels};
use super::reply::{Fields, RESPONSE_TIMEOUT};
use super::rights::{denies, refused_at_start};
use crate::store::{DataSet, StoreError, fresh_name};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// All of making a connection: TCP, authentication, and the data-set check, which is two commands.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Between attempts: doubles from the first to the last. A node finds Redis again well within its lease.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// Calls that may wait for the socket at once; more wait for room. The driver's 50 is below one node's vnodes.
const PIPELINE_CALLS: usize = 1024;

/// For scripts that compare the life of the data.
pub(super) const LIFE: &str = include_str!("life.lua");
/// The script of core rule 19.
const DATA_SET: &str = include_str!("data_set.lua");

/// What the check of a connection found: a life of the data, and its name.
#[derive(Debug, Clone, Default)]
struct Found {
    run_id: String,
    replid: String,
    /// The empty name if there is no ring and this process has not opened one yet.
    data_set: DataSet,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Leases, nodes, the table, the lead: small, and never behind anything that is not.
    Control,
    /// Activations and writes.
    Writes,
    /// Windows, pages, presence.
    Reads,
}

impl Lane {
    pub(super) const ALL: [Self; 3] = [Self::Control, Self::Writes, Self::Reads];
}

/// The life of the data that the newest connection found, or the newest look over it, and the data set last seen in it.
#[derive(Default)]
struct Life(Mutex<Found>);

impl Life {
    /// A new connection leads here; true if the others may lead elsewhere.
    fn found(&self, found: &Found) -> bool {
        let mut life = lock(&self.0);
        let other = life.run_id != found.run_id;
        *life = found.clone();
        other
    }
}

/// What the check needs to know, shared with the pool's hook.
struct Check {
    script: Script,
    settling_ms: u64,
    /// The ring's size once opened; 0 before. Shared by the lanes.
    vnodes: Arc<AtomicU32>,
    /// The last finding, handed from the hook to the dial that ran it; dials are one at a time.
    found: Mutex<Option<Result<Found, StoreError>>>,
}

/// One connection and what is known of the data behind it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Held so that the pool counts it; taken out when the connection is given up.
    object: Mutex<Option<Connection>>,
    pub run_id: String,
    lane: Lane,
    /// Shared by all lanes.
    life: Arc<Life>,
}

struct Dial {
    failures: u32,
    not_before: Instant,
    last_error: String,
}

/// The connection of one lane.
struct Way {
    lane: Lane,
    pool: Pool,
    check: Arc<Check>,
    life: Arc<Life>,
    current: Mutex<Option<Arc<Link>>>,
    dial: tokio::sync::Mutex<Dial>,
}

/// The ways to Redis.
pub(super) struct Links {
    /// As in [`Lane::ALL`].
    ways: [Way; 3],
    vnodes: Arc<AtomicU32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a `redis://` address. Small requests must not wait for the answer to earlier ones, so Nagle's algorithm
/// is off.
pub(super) fn address(url: &str) -> Result<ConnectionInfo, StoreError> {
    let scheme = url.split_once("://").map_or("none", |(scheme, _)| scheme);
    if scheme != "redis" {
        let text = format!("the scheme '{scheme}' of the Redis address is not supported yet; redis:// is");
        return Err(StoreError::Config(text));
    }
    let info =
        url.into_connection_info().map_err(|e| StoreError::Config(format!("the Redis address: {e}")))?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

impl Link {
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Notes the data set that an answer over this connection named. Answers may be noted out of order, so this
    /// may be behind for a moment; one over a connection to another life says nothing.
    pub(super) fn saw(&self, data_set: &DataSet) {
        let mut life = lock(&self.life.0);
        if life.run_id == self.run_id && life.data_set != *data_set {
            life.data_set.clone_from(data_set);
        }
    }

    /// The data set last seen in the life that this connection leads to, whatever connection showed it; the empty
    /// name if a newer one leads to another. Only under it may a vnode be activated: a claim made before Redis went
    /// back names another.
    pub(super) fn data_set(&self) -> DataSet {
        let life = lock(&self.life.0);
        if life.run_id == self.run_id { life.data_set.clone() } else { DataSet::default() }
    }

    /// The history of the data last seen over such a connection.
    pub(super) fn replid(&self) -> String {
        lock(&self.life.0).replid.clone()
    }
}

impl Check {
    /// Asks a connection whose data this is, and names it anew if it is not what it was.
    async fn run(&self, connection: &mut MultiplexedConnection) -> Result<Found, StoreError> {
        let info = cmd("INFO").arg("server").query_async::<String>(connection).await;
        let info = match info {
            Ok(info) => info,
            Err(error) => return Err(refused_at_start(connection, &error).await),
        };
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim();
        if run_id.is_empty() {
            let text =
                "INFO server of this Redis names no run_id: a restart with older data could not be noticed";
            return Err(StoreError::Config(text.into()));
        }
        self.look(connection, run_id).await
    }

    async fn look(&self, connection: &mut MultiplexedConnection, run_id: &str) -> Result<Found, StoreError> {
        let (vnodes, fresh) = (self.vnodes.load(Ordering::Acquire), fresh_name());
        let mut script = self.script.key(keys::RING);
        script.key(keys::SETTLING).arg(&fresh).arg(run_id).arg(vnodes).arg(self.settling_ms);
        let answer = match script.invoke_async(connection).await {
            Ok(answer) => answer,
            Err(error) => return Err(refused_at_start(connection, &error).await),
        };
        let mut fields = Fields::new(answer)?;
        let (name, found, replid) = (fields.text()?, fields.number()?, fields.text()?);
        if replid.is_empty() {
            let text = "INFO replication of this Redis names no master_replid: data that went back could not be noticed";
            return Err(StoreError::Config(text.into()));
        }
        if vnodes != 0 && found != u64::from(vnodes) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(StoreError::Vnodes { found, wanted: vnodes });
        }
        if name == fresh {
            tracing::warn!(
                data_set = name,
                run_id,
                replid,
                "Redis was emptied, restarted or promoted: its data is another data set"
            );
        }
        Ok(Found { run_id: run_id.into(), replid, data_set: DataSet(name) })
    }
}

impl Links {
    pub(super) fn new(
        address: &ConnectionInfo,
        channels: &Channels,
        settling_ms: u64,
    ) -> Result<Self, StoreError> {
        let (vnodes, life) = (Arc::<AtomicU32>::default(), Arc::<Life>::default());
        let script = channels.script(&[LIFE, DATA_SET]);
        let way = |lane| Way::new(lane, address.clone(), (script.clone(), settling_ms), &vnodes, &life);
        let [control, writes, reads] = Lane::ALL.map(way);
        Ok(Self { ways: [control?, writes?, reads?], vnodes })
    }

    /// The ring's size once opened; 0 before.
    pub(super) fn vnodes(&self) -> u32 {
        self.vnodes.load(Ordering::Acquire)
    }

    pub(super) fn opened(&self, vnodes: u32) {
        self.vnodes.store(vnodes, Ordering::Release);
    }

    /// The connection of a lane, made now if there is none. Right after a failed attempt this fails at once.
    pub(super) async fn get(&self, lane: Lane) -> Result<Arc<Link>, StoreError> {
        let way = &self.ways[lane as usize];
        if let Some(link) = way.living() {
            return Ok(link);
        }
        let (link, elsewhere) = way.dial().await?;
        if elsewhere {
            // Another life of the data: nobody may go on with what was before it.
            self.ways.iter().for_each(|way| way.leave_all_but(&link.run_id));
        }
        Ok(link)
    }

    /// Gives a connection up if the error says that it, or the way to it, is broken. The next call makes a new one.
    /// After a timeout too: the far end may be gone without a word, and a late answer is of no use to anyone.
    pub(super) fn note_failure(&self, link: &Arc<Link>, error: &RedisError) {
        let demoted = matches!(error.code(), Some("READONLY" | "MASTERDOWN"));
        if error.is_io_error() || error.is_unrecoverable_error() || demoted {
            self.ways[link.lane as usize].leave(link, error);
        }
    }

    /// The ring is gone under a living connection (FLUSHALL), or the history of the data is another: names it anew,
    /// unless another process did, and says how. The empty name if this process has not opened a ring.
    pub(super) async fn repair(&self, link: &Arc<Link>) -> Result<DataSet, StoreError> {
        let check = &self.ways[link.lane as usize].check;
        let found = match check.look(&mut link.connection(), &link.run_id).await {
            Ok(found) => found,
            Err(error) => {
                // Where the data cannot be named, by a primary that became a replica above all, nothing can be done.
                self.ways[link.lane as usize].leave(link, &error);
                return Err(error);
            }
        };
        let mut life = lock(&link.life.0);
        if life.run_id == found.run_id {
            *life = found.clone();
        }
        Ok(found.data_set)
    }
}

/// What Redis answers to the `SELECT` of a database that it does not have. Everything else that it may answer there
/// passes: it is loading, or busy.
fn no_such_database(error: &RedisError) -> bool {
    let text = error.to_string();
    let never = ["DB index is out of range", "invalid DB index", "not allowed in cluster mode"];
    never.iter().any(|said| text.contains(said))
}

impl Way {
    fn new(
        lane: Lane,
        address: ConnectionInfo,
        (script, settling_ms): (Script, u64),
        vnodes: &Arc<AtomicU32>,
        life: &Arc<Life>,
    ) -> Result<Self, StoreError> {
        let config = |e: &dyn std::fmt::Display| StoreError::Config(format!("the Redis pool: {e}"));
        let check =
            Arc::new(Check { script, settling_ms, vnodes: Arc::clone(vnodes), found: Mutex::default() });
        let connections = AsyncConnectionConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_pipeline_buffer_size(PIPELINE_CALLS);
        let manager = Manager::new_with_config(address, connections).map_err(|e| config(&e))?;
        let of_hook = check.clone();
        let hook = Hook::async_fn(move |connection: &mut MultiplexedConnection, _| {
            let check = of_hook.clone();
            Box::pin(async move {
                let found = check.run(connection).await;
                let result = found.as_ref().map(|_| ()).map_err(|e| HookError::message(e.to_string()));
                *lock(&check.found) = Some(found);
                result
            })
        });
        let pool = Pool::builder(manager).max_size(1).post_create(hook).build().map_err(|e| config(&e))?;
        let dial = Dial { failures: 0, not_before: Instant::now(), last_error: String::new() };
        let (dial, current) = (tokio::sync::Mutex::new(dial), Mutex::default());
        Ok(Self { lane, pool, check, life: Arc::clone(life), current, dial })
    }

    /// Makes the connection; true if it leads to another life of the data than the last one that was made.
    async fn dial(&self) -> Result<(Arc<Link>, bool), StoreError> {
        // Bounded: whoever holds the lock dials, and that has timeouts.
        let mut dial = self.dial.lock().await;
        if let Some(link) = self.living() {
            return Ok((link, false));
        }
        if Instant::now() < dial.not_before {
            return Err(StoreError::Unreachable(dial.last_error.clone()));
        }
        match self.connect().await {
            Ok((link, elsewhere)) => {
                dial.failures = 0;
                *lock(&self.current) = Some(link.clone());
                Ok((link, elsewhere))
            }
            Err(error) => {
                dial.not_before =
                    Instant::now() + (BACKOFF_FIRST * (1 << dial.failures.min(8))).min(BACKOFF_LAST);
                dial.failures = dial.failures.saturating_add(1);
                dial.last_error = match &error {
                    StoreError::Unreachable(text) => text.clone(),
                    other => other.to_string(),
                };
                Err(error)
            }
        }
    }

    fn living(&self) -> Option<Arc<Link>> {
        lock(&self.current).clone()
    }

    async fn connect(&self) -> Result<(Arc<Link>, bool), StoreError> {
        lock(&self.check.found).take();
        let object = timeout(DIAL_TIMEOUT, self.pool.get()).await;
        let found = lock(&self.check.found).take();
        let object = object.map_err(|_| StoreError::Timeout(DIAL_TIMEOUT))?;
        match (object, found) {
            (Ok(object), Some(Ok(found))) => {
                let elsewhere = self.life.found(&found);
                let link = Link {
                    connection: MultiplexedConnection::clone(&object),
                    object: Mutex::new(Some(object)),
                    run_id: found.run_id,
                    lane: self.lane,
                    life: Arc::clone(&self.life),
                };
                Ok((Arc::new(link), elsewhere))
            }
            (_, Some(Err(error))) => Err(error),
            (Err(PoolError::Backend(error)), _)
                if error.kind() == ErrorKind::AuthenticationFailed || denies(&error.to_string()) =>
            {
                Err(StoreError::Config(format!("Redis: {error}")))
            }
            (Err(PoolError::Backend(error)), _) if no_such_database(&error) => Err(StoreError::Config(
                format!("the database number in the address is not one of this Redis ({error})"),
            )),
            (Err(error), _) => Err(StoreError::Unreachable(error.to_string())),
            (Ok(object), None) => {
                drop(Connection::take(object));
                Err(StoreError::Unreachable("a connection was not checked".into()))
            }
        }
    }

    fn leave(&self, link: &Arc<Link>, why: &dyn std::fmt::Display) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, link)) {
            *current = None;
        }
        if let Some(object) = lock(&link.object).take() {
            tracing::warn!(%why, lane = ?self.lane, "a connection to Redis is given up");
            drop(Connection::take(object));
        }
    }

    fn leave_all_but(&self, run_id: &str) {
        if let Some(link) = self.living().filter(|link| link.run_id != run_id) {
            self.leave(&link, &"Redis was restarted");
        }
    }
}
