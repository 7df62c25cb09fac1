//! The embedded store: the model behind locks, its data plane kept in an SQLite file if one is named.
//!
//! Leases, nodes, assignment and leader live in memory and are shared by every node of the process through one
//! `Arc` (core rule 33). The file holds the data plane, the ring's size and the name of the data set, so that
//! after a restart the streams go on under the same generation.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, StreamId, UserId, VnodeId};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{mpsc, watch};

use super::file;
use super::subscribers::Subscribers;
use crate::store::model::{Change, Control, VnodeData};
use crate::store::*;

/// Wall-clock milliseconds since 1970; a test or a simulation gives its own.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Another connection to the same file (the embedded log may keep its tables there) holds the write lock for one
/// transaction, a few milliseconds; a checkpoint on a slow disk takes longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store inside the process. See the module's description.
pub struct EmbeddedStore {
    config: StoreConfig,
    clock: Clock,
    control: Mutex<Control>,
    data: Mutex<Data>,
    hints: watch::Sender<u64>,
    subscribers: Arc<Mutex<Subscribers>>,
    commands: AtomicU64,
    /// Nodes that share this store share a process, and it ends with that.
    link_secret: String,
}

impl EmbeddedStore {
    /// One that forgets everything with the process.
    pub fn memory(config: StoreConfig, clock: Clock) -> Self {
        Self::new(config, clock, Data::default())
    }

    /// One whose data plane is kept in the file at `path`, which is made if there is none.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the file cannot be used or another process has it open,
    /// [`StoreError::Garbled`] if it holds what cannot be understood.
    pub fn open(path: &Path, config: StoreConfig, clock: Clock) -> Result<Self, StoreError> {
        let disk = Disk::open(path)?;
        let mut data = Data { vnodes: HashMap::new(), disk: None };
        for vnode in disk.vnodes()? {
            data.vnodes.insert(vnode, disk.load(vnode)?);
        }
        data.disk = Some(disk);
        Ok(Self::new(config, clock, data))
    }

    fn new(config: StoreConfig, clock: Clock, data: Data) -> Self {
        Self {
            config,
            clock,
            control: Mutex::default(),
            data: Mutex::new(data),
            hints: watch::Sender::new(0),
            subscribers: Arc::default(),
            commands: AtomicU64::new(0),
            link_secret: fresh_name(),
        }
    }

    fn now(&self) -> u64 {
        (self.clock)()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        lock(&self.control)
    }

    /// One step of a vnode's data, on disk before it is answered.
    fn step<T>(&self, vnode: VnodeId, f: impl FnOnce(&mut VnodeData) -> T) -> Result<T, StoreError> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        lock(&self.data).step(vnode, f)
    }

    fn hint_if<T>(&self, changed: bool, answer: T) -> T {
        if changed {
            self.hints.send_modify(|n| *n += 1);
        }
        answer
    }
}

/// A panic while a lock was held is a bug that was reported; the state behind these locks is changed in single
/// steps, so going on is better than failing every later call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn open_ring(&self, vnodes: u32) -> Result<DataSet, StoreError> {
        let mut control = self.control();
        let fresh = DataSet(fresh_name());
        match &mut lock(&self.data).disk {
            Some(disk) => {
                let (kept, name) = disk.ring(vnodes, fresh)?;
                control.open_ring(kept, name)?;
                control.open_ring(vnodes, DataSet::default())
            }
            None => control.open_ring(vnodes, fresh),
        }
    }

    async fn link_secret(&self) -> Result<String, StoreError> {
        Ok(self.link_secret.clone())
    }

    async fn register(&self, request: &Register) -> Result<RegisterAnswer, StoreError> {
        let answer = self.control().register(request);
        Ok(self.hint_if(answer == RegisterAnswer::Registered, answer))
    }

    async fn deregister(&self, request: &Deregister) -> Result<(), StoreError> {
        let mut control = self.control();
        let there = control.state_of(&request.sid).is_some();
        control.deregister(request);
        self.hint_if(there, ());
        Ok(())
    }

    async fn table(&self) -> Result<Table, StoreError> {
        let now = self.now();
        Ok(self.control().table(now))
    }

    async fn claim(&self, request: &Claim) -> Result<ClaimAnswer, StoreError> {
        let now = self.now();
        let answer = self.control().claim(request, now, self.config.lease_ttl_ms);
        Ok(self.hint_if(matches!(answer, ClaimAnswer::Granted(_)), answer))
    }

    async fn renew(&self, request: &Renew) -> Result<RenewAnswer, StoreError> {
        let now = self.now();
        let mut control = self.control();
        let before = control.state_of(&request.sid);
        let answer = control.renew(request, now, self.config.lease_ttl_ms);
        // A beat is not worth a hint: every node would read the table at every beat of every other.
        Ok(self.hint_if(control.state_of(&request.sid) != before, answer))
    }

    async fn set_ready(&self, request: &OwnRows) -> Result<Vec<bool>, StoreError> {
        let now = self.now();
        let done = self.control().set_ready(request, now);
        Ok(self.hint_if(done.contains(&true), done))
    }

    async fn release(&self, request: &OwnRows) -> Result<Vec<bool>, StoreError> {
        let now = self.now();
        let done = self.control().release(request, now);
        Ok(self.hint_if(done.contains(&true), done))
    }

    async fn lead(&self, request: &Lead) -> Result<LeadAnswer, StoreError> {
        let mut control = self.control();
        let led = control.leads(&request.data_set, &request.token);
        let answer = control.lead(request);
        Ok(self.hint_if(!led && answer == LeadAnswer::Leading, answer))
    }

    async fn resign(&self, request: &Resign) -> Result<bool, StoreError> {
        let done = self.control().resign(request);
        Ok(self.hint_if(done, done))
    }

    async fn revoke(&self, request: &Revoke) -> Result<bool, StoreError> {
        let done = self.control().revoke(request);
        Ok(self.hint_if(done, done))
    }

    async fn forget(&self, request: &Forget) -> Result<bool, StoreError> {
        let done = self.control().forget(request);
        Ok(self.hint_if(done && request.gone_for_s.is_none(), done))
    }

    async fn assign(&self, request: &Assign) -> Result<bool, StoreError> {
        let done = self.control().assign(request);
        Ok(self.hint_if(done, done))
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    async fn activate(&self, request: &Activate) -> Result<ActivateAnswer, StoreError> {
        let known = lock(&self.control).data_set.clone();
        if request.data_set != known {
            return Ok(ActivateAnswer::NewData(known));
        }
        self.step(request.vnode, |data| data.activate(request))
    }

    async fn write(&self, request: &Write) -> Result<WriteAnswer, StoreError> {
        let vnode = request.fence.vnode;
        let mut data = lock(&self.data);
        self.commands.fetch_add(1, Ordering::Relaxed);
        let (answer, published) =
            data.step(vnode, |data| (data.write(request, &self.config), data.take_published(vnode)))?;
        // Still locked: what is published in one channel keeps its order.
        let mut subscribers = lock(&self.subscribers);
        for (channel, payload) in published {
            subscribers.tell(&channel, &payload);
        }
        Ok(answer)
    }

    async fn read(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        generation: Epoch,
        after: Offset,
        limit: Limit,
    ) -> Result<Window, StoreError> {
        self.step(vnode, |data| data.read(stream, generation, after, limit))
    }

    async fn page(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        before: Option<Cursor>,
        limit: Limit,
    ) -> Result<Page, StoreError> {
        self.step(vnode, |data| data.page(stream, before, limit))
    }

    async fn presence(&self, vnode: VnodeId, users: &[UserId]) -> Result<Presences, StoreError> {
        self.step(vnode, |data| data.presences(users))
    }

    async fn presence_rows(
        &self,
        asked: &[(VnodeId, Vec<UserId>)],
    ) -> Result<Vec<Vec<PresenceRow>>, StoreError> {
        asked.iter().map(|(vnode, users)| self.step(*vnode, |data| data.presences(users).rows)).collect()
    }

    async fn presence_standings(&self, vnodes: &[VnodeId]) -> Result<Vec<PresenceStanding>, StoreError> {
        vnodes.iter().map(|vnode| self.step(*vnode, |data| data.presence_standing())).collect()
    }

    async fn standings(&self, rooms: &[(VnodeId, StreamId)]) -> Result<Vec<Option<Standing>>, StoreError> {
        rooms.iter().map(|(vnode, stream)| self.step(*vnode, |data| data.standing(stream))).collect()
    }

    fn subscribe(&self, queue: mpsc::Sender<LiveEvent>) -> Box<dyn Subscriber> {
        Box::new(Subscribers::add(&self.subscribers, queue))
    }

    async fn publish(&self, channel: &LiveChannel, payload: Bytes) -> Result<(), StoreError> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        lock(&self.subscribers).tell(channel, &payload);
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        lock(&self.data).disk.as_ref().map_or(Ok(()), Disk::ping)
    }

    fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

/// The data plane: what is in memory, and the file it is kept in.
#[derive(Default)]
struct Data {
    vnodes: HashMap<VnodeId, VnodeData>,
    disk: Option<Disk>,
}

impl Data {
    fn step<T>(&mut self, vnode: VnodeId, f: impl FnOnce(&mut VnodeData) -> T) -> Result<T, StoreError> {
        if !self.vnodes.contains_key(&vnode) {
            let data =
                self.disk.as_ref().map_or_else(|| Ok(VnodeData::default()), |disk| disk.load(vnode))?;
            self.vnodes.insert(vnode, data);
        }
        let data = self.vnodes.get_mut(&vnode).expect("put there just now");
        let answer = f(data);
        let changes = data.take_changes();
        if let Some(disk) = &mut self.disk
            && !changes.is_empty()
            && let Err(error) = disk.commit(vnode, &changes)
        {
            // Memory is ahead of the file: forget it, the next step reads what was really kept.
            self.vnodes.remove(&vnode);
            return Err(error);
        }
        Ok(answer)
    }
}

/// The file: one row for each thing a vnode keeps, as [`VnodeData::load`] takes it back.
struct Disk {
    db: Connection,
    /// Locked while this is open. Leases are in memory, so a second process on the same file would be a second
    /// owner of every vnode.
    _lock: File,
}

/// `n` before `k`: windows and outbox are cut by number, and rows of one stream load in ascending order.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS kv (
        t TEXT NOT NULL, v INTEGER NOT NULL, s TEXT NOT NULL, k TEXT NOT NULL, n INTEGER NOT NULL,
        val BLOB NOT NULL, PRIMARY KEY (v, t, s, n, k)
    ) WITHOUT ROWID;";

/// Rows about the whole file rather than a vnode.
const RING: i64 = -1;

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        StoreError::Refused(format!("SQLite: {e}"))
    }
}

impl Disk {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = file::claim(path, ".store-lock").map_err(StoreError::Refused)?;
        let db = Connection::open(path)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.execute_batch(SCHEMA)?;
        Ok(Self { db, _lock: lock })
    }

    fn ping(&self) -> Result<(), StoreError> {
        Ok(self.db.query_row("SELECT 1", [], |_| Ok(()))?)
    }

    /// The ring's size and data set as kept, or else these, kept from now on.
    fn ring(&mut self, vnodes: u32, fresh: DataSet) -> Result<(u32, DataSet), StoreError> {
        let kept = "SELECT n, val FROM kv WHERE v = ?1 AND t = 'ring'";
        let kept = self.db.query_row(kept, [RING], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)));
        if let Some((vnodes, name)) = kept.optional()? {
            let name =
                String::from_utf8(name).map_err(|e| StoreError::Garbled(format!("the data set: {e}")))?;
            return Ok((vnodes, DataSet(name)));
        }
        let put = "INSERT INTO kv (t, v, s, k, n, val) VALUES ('ring', ?1, '', '', ?2, ?3)";
        self.db.execute(put, params![RING, vnodes, fresh.0.as_bytes()])?;
        Ok((vnodes, fresh))
    }

    fn vnodes(&self) -> Result<Vec<VnodeId>, StoreError> {
        let mut query = self.db.prepare("SELECT DISTINCT v FROM kv WHERE v >= 0")?;
        let vnodes = query.query_map([], |row| Ok(VnodeId(row.get(0)?)))?.collect::<Result<_, _>>()?;
        Ok(vnodes)
    }

    fn load(&self, vnode: VnodeId) -> Result<VnodeData, StoreError> {
        let mut data = VnodeData::journaled();
        let query = "SELECT t, s, k, n, val FROM kv WHERE v = ?1 ORDER BY t, s, n, k";
        let mut query = self.db.prepare_cached(query)?;
        let mut rows = query.query([vnode.0])?;
        while let Some(row) = rows.next()? {
            let text = |i| row.get_ref(i)?.as_str().map_err(rusqlite::Error::from);
            let value = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            let n: i64 = row.get(3)?;
            data.load(text(0)?, text(1)?, text(2)?, n.unsigned_abs(), value)?;
        }
        Ok(data)
    }

    /// All of `changes` or none.
    fn commit(&mut self, vnode: VnodeId, changes: &[Change]) -> Result<(), StoreError> {
        let tx = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for change in changes {
            match change {
                Change::Put { table, stream, key, n, value } => {
                    let put =
                        "INSERT OR REPLACE INTO kv (v, t, s, k, n, val) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                    tx.prepare_cached(put)?.execute(params![
                        vnode.0,
                        table,
                        stream,
                        key,
                        number(*n),
                        value
                    ])?;
                }
                Change::Remove { table, stream, key } => {
                    let remove = "DELETE FROM kv WHERE v = ?1 AND t = ?2 AND s = ?3 AND n = 0 AND k = ?4";
                    tx.prepare_cached(remove)?.execute(params![vnode.0, table, stream, key])?;
                }
                Change::RemoveBelow { table, stream, n } => {
                    let remove = "DELETE FROM kv WHERE v = ?1 AND t = ?2 AND s = ?3 AND n < ?4";
                    tx.prepare_cached(remove)?.execute(params![vnode.0, table, stream, number(*n)])?;
                }
            }
        }
        Ok(tx.commit()?)
    }
}

/// SQLite's integers end at 2^63 - 1; only "all of them" is larger.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
