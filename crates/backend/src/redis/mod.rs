//! The store on Redis: the control plane under the hash tag `{roost}`, each vnode's data under its own.
//!
//! What the scripts beside this file do is what [`crate::store::model`] does, in Lua; the contract suite holds them
//! to it. `link` has the connection and core rule 19; `control` and `data` put questions into a script's keys and
//! arguments and read its answer; `table` reads all of the control plane at once; `keys` names every key.

mod control;
mod data;
mod due;
mod hints;
mod keys;
mod link;
mod reply;
mod rights;
mod subscriber;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Client, Pipeline, RedisError, ScriptInvocation, Value, cmd};
use roost_proto::ids::{Cursor, Epoch, Offset, StreamId, UserId, VnodeId};
use tokio::sync::{mpsc, watch};

use self::control::ControlScripts;
use self::data::DataScripts;
use self::hints::Hints;
use self::keys::Channels;
use self::link::{Lane, Link, Links};
use self::reply::{Fields, failed};
use self::rights::{Rights, denies};
use self::subscriber::RedisSubscriber;
use self::table::LastAssignment;
use crate::store::*;

/// A store kept in Redis 6.2 or later. See the module's description.
pub struct RedisStore {
    config: StoreConfig,
    client: Client,
    channels: Channels,
    rights: Arc<Rights>,
    links: Links,
    hints: Hints,
    control: ControlScripts,
    data: DataScripts,
    assignment: LastAssignment,
    commands: AtomicU64,
}

impl RedisStore {
    /// Reaches the Redis at `url` (`redis://[user:password@]host[:port][/db]`) and checks that it is set up as it
    /// must be. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Config`] if it would evict keys, this user lacks a right, or the address is not supported; else why
    /// it was not reached.
    pub async fn connect(url: &str, config: StoreConfig) -> Result<Self, StoreError> {
        let address = link::address(url)?;
        let client = Client::open(address.clone()).map_err(|e| StoreError::Config(e.to_string()))?;
        let channels = Channels::of(address.redis_settings().db());
        let rights = Arc::<Rights>::default();
        let store = Self {
            config,
            links: Links::new(&address, &channels, config.lease_ttl_ms)?,
            hints: Hints::spawn(client.clone(), &channels, rights.clone()),
            client,
            control: ControlScripts::new(&channels),
            data: DataScripts::new(&channels),
            rights,
            channels,
            assignment: LastAssignment::default(),
            commands: AtomicU64::new(0),
        };
        store.check_rights().await?;
        store.check_policy().await?;
        Ok(store)
    }

    /// Evicted keys are messages that were acknowledged.
    async fn check_policy(&self) -> Result<(), StoreError> {
        let link = self.links.get(Lane::Control).await?;
        let mut ask = cmd("CONFIG");
        ask.arg("GET").arg("maxmemory-policy");
        let answer = ask.query_async::<Value>(&mut link.connection()).await;
        // The one thing that is not needed.
        if let Some(error) = answer.as_ref().err().map(ToString::to_string).filter(|text| denies(text)) {
            tracing::warn!(error, "CONFIG is not allowed: make sure that maxmemory-policy is noeviction");
            return Ok(());
        }
        let mut fields = Fields::new(self.noted(&link, answer)?)?;
        let policy = if fields.done() { "unknown".into() } else { fields.value().and(fields.text())? };
        if policy == "noeviction" {
            return Ok(());
        }
        let text = "would throw messages away when memory is full; set it to noeviction";
        Err(StoreError::Config(format!("maxmemory-policy of this Redis is '{policy}', which {text}")))
    }

    /// Counts a call, and gives the connection up if the call found it broken.
    fn noted<T>(&self, link: &Arc<Link>, result: Result<T, RedisError>) -> Result<T, StoreError> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        result.map_err(|error| {
            self.links.note_failure(link, &error);
            self.rights.note(&error);
            failed(&error)
        })
    }

    async fn invoke(&self, link: &Arc<Link>, script: &ScriptInvocation<'_>) -> Result<Fields, StoreError> {
        let answer = script.invoke_async::<Value>(&mut link.connection()).await;
        Fields::new(self.noted(link, answer)?)
    }

    /// Several commands as one step and one round trip.
    async fn together(&self, link: &Arc<Link>, pipe: &Pipeline) -> Result<Fields, StoreError> {
        // One is counted by `noted`.
        self.commands.fetch_add(pipe.len().saturating_sub(1) as u64, Ordering::Relaxed);
        let answer = pipe.query_async::<Value>(&mut link.connection()).await;
        Fields::new(self.noted(link, answer)?)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn open_ring(&self, vnodes: u32) -> Result<DataSet, StoreError> {
        self.do_open_ring(vnodes).await
    }

    async fn link_secret(&self) -> Result<String, StoreError> {
        self.do_link_secret().await
    }

    async fn register(&self, request: &Register) -> Result<RegisterAnswer, StoreError> {
        self.do_register(request).await
    }

    async fn deregister(&self, request: &Deregister) -> Result<(), StoreError> {
        self.do_deregister(request).await
    }

    async fn table(&self) -> Result<Table, StoreError> {
        self.table_over(&self.links.get(Lane::Control).await?).await
    }

    async fn claim(&self, request: &Claim) -> Result<ClaimAnswer, StoreError> {
        self.do_claim(request).await
    }

    async fn renew(&self, request: &Renew) -> Result<RenewAnswer, StoreError> {
        self.do_renew(request).await
    }

    async fn set_ready(&self, request: &OwnRows) -> Result<Vec<bool>, StoreError> {
        self.do_own_rows("ready", request).await
    }

    async fn release(&self, request: &OwnRows) -> Result<Vec<bool>, StoreError> {
        self.do_own_rows("release", request).await
    }

    async fn lead(&self, request: &Lead) -> Result<LeadAnswer, StoreError> {
        self.do_lead(request).await
    }

    async fn resign(&self, request: &Resign) -> Result<bool, StoreError> {
        self.do_resign(request).await
    }

    async fn revoke(&self, request: &Revoke) -> Result<bool, StoreError> {
        self.do_revoke(request).await
    }

    async fn forget(&self, request: &Forget) -> Result<bool, StoreError> {
        self.do_forget(request).await
    }

    async fn assign(&self, request: &Assign) -> Result<bool, StoreError> {
        self.do_assign(request).await
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    async fn activate(&self, request: &Activate) -> Result<ActivateAnswer, StoreError> {
        self.do_activate(request).await
    }

    async fn write(&self, request: &Write) -> Result<WriteAnswer, StoreError> {
        self.do_write(request).await
    }

    async fn read(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        generation: Epoch,
        after: Offset,
        limit: Limit,
    ) -> Result<Window, StoreError> {
        self.do_read(vnode, stream, generation, after, limit).await
    }

    async fn page(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        before: Option<Cursor>,
        limit: Limit,
    ) -> Result<Page, StoreError> {
        self.do_page(vnode, stream, before, limit).await
    }

    async fn presence(&self, vnode: VnodeId, users: &[UserId]) -> Result<Presences, StoreError> {
        self.do_presence(vnode, users).await
    }

    async fn presence_rows(
        &self,
        asked: &[(VnodeId, Vec<UserId>)],
    ) -> Result<Vec<Vec<PresenceRow>>, StoreError> {
        self.do_presence_rows(asked).await
    }

    async fn presence_standings(&self, vnodes: &[VnodeId]) -> Result<Vec<PresenceStanding>, StoreError> {
        self.do_presence_standings(vnodes).await
    }

    async fn standings(&self, rooms: &[(VnodeId, StreamId)]) -> Result<Vec<Option<Standing>>, StoreError> {
        self.do_standings(rooms).await
    }

    fn subscribe(&self, queue: mpsc::Sender<LiveEvent>) -> Box<dyn Subscriber> {
        Box::new(RedisSubscriber::spawn(
            self.client.clone(),
            self.channels.clone(),
            self.rights.clone(),
            queue,
        ))
    }

    async fn publish(&self, channel: &LiveChannel, payload: Bytes) -> Result<(), StoreError> {
        let link = self.links.get(Lane::Writes).await?;
        let mut publish = cmd("PUBLISH");
        publish.arg(self.channels.of_live(channel)).arg(&payload[..]);
        let answer = publish.query_async::<Value>(&mut link.connection()).await;
        self.noted(&link, answer).map(drop)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        for lane in Lane::ALL {
            let link = self.links.get(lane).await?;
            let answer = cmd("PING").query_async::<Value>(&mut link.connection()).await;
            self.noted(&link, answer)?;
        }
        self.permitted(&self.links.get(Lane::Control).await?).await
    }

    fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}
