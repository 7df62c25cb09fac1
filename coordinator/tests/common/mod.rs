//! What the tests over loopback share: an embedded store that can be taken away, nodes that do what the control
//! plane asks of them, and requests.

#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use roost_backend::embedded::EmbeddedStore;
use roost_backend::store::*;
use roost_coordinator::{Coordinator, CoordinatorConfig, RequestLimits};
use roost_proto::claims::{Claims, Role};
use roost_proto::{Cursor, Epoch, NodeId, Offset, Sid, StreamId, UserId, VnodeId};
use roost_service::tokens::{KeySource, sign};
use roost_service::{Secret, Verifier};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A deadline for whatever should take a moment: only a failing test waits so long.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The embedded store, which may be cut off.
pub(crate) struct TestStore {
    inner: Arc<EmbeddedStore>,
    down: AtomicBool,
    broken: AtomicBool,
    lead_lag_ms: AtomicU64,
}

const WALL_MS: u64 = 1_700_000_000_000;

impl TestStore {
    /// Its clock stands still: no lease ends by itself.
    pub(crate) fn new(lease_ttl_ms: u64) -> Arc<Self> {
        Self::with_clock(lease_ttl_ms, || WALL_MS)
    }

    /// Its clock follows Tokio's.
    pub(crate) fn ticking(lease_ttl_ms: u64) -> Arc<Self> {
        let start = Instant::now();
        Self::with_clock(lease_ttl_ms, move || WALL_MS + start.elapsed().as_millis() as u64)
    }

    fn with_clock(lease_ttl_ms: u64, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Arc<Self> {
        let config = StoreConfig { lease_ttl_ms, ..StoreConfig::default() };
        let inner = Arc::new(EmbeddedStore::memory(config, Arc::new(clock)));
        let (down, broken) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { inner, down, broken, lead_lag_ms: AtomicU64::new(0) })
    }

    pub(crate) fn cut(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// From now on whoever reads the table panics.
    pub(crate) fn break_table(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// A lead takes so long on its way, even if nobody waits for it any more.
    pub(crate) fn leads_take(&self, lag: Duration) {
        self.lead_lag_ms.store(lag.as_millis() as u64, Ordering::Relaxed);
    }

    fn up(&self) -> Result<&EmbeddedStore, StoreError> {
        if self.down.load(Ordering::Relaxed) {
            return Err(StoreError::Unreachable("cut off by the test".into()));
        }
        Ok(&self.inner)
    }
}

macro_rules! delegate {
    ($($name:ident: $request:ty => $answer:ty;)*) => {
        #[async_trait]
        impl Store for TestStore {
            $(async fn $name(&self, request: &$request) -> Result<$answer, StoreError> {
                self.up()?.$name(request).await
            })*
            async fn open_ring(&self, vnodes: u32) -> Result<DataSet, StoreError> {
                self.up()?.open_ring(vnodes).await
            }
            async fn link_secret(&self) -> Result<String, StoreError> {
                self.up()?.link_secret().await
            }
            async fn lead(&self, request: &Lead) -> Result<LeadAnswer, StoreError> {
                self.up()?;
                let (inner, request) = (Arc::clone(&self.inner), request.clone());
                let lag = Duration::from_millis(self.lead_lag_ms.load(Ordering::Relaxed));
                let arrives = tokio::spawn(async move {
                    tokio::time::sleep(lag).await;
                    inner.lead(&request).await
                });
                arrives.await.expect("the embedded store does not panic")
            }
            async fn table(&self) -> Result<Table, StoreError> {
                assert!(!self.broken.load(Ordering::Relaxed), "broken on purpose");
                self.up()?.table().await
            }
            fn hints(&self) -> watch::Receiver<u64> {
                self.inner.hints()
            }
            async fn read(
                &self,
                vnode: VnodeId,
                stream: &StreamId,
                generation: Epoch,
                after: Offset,
                limit: Limit,
            ) -> Result<Window, StoreError> {
                self.up()?.read(vnode, stream, generation, after, limit).await
            }
            async fn page(
                &self,
                vnode: VnodeId,
                stream: &StreamId,
                before: Option<Cursor>,
                limit: Limit,
            ) -> Result<Page, StoreError> {
                self.up()?.page(vnode, stream, before, limit).await
            }
            async fn presence(&self, vnode: VnodeId, users: &[UserId]) -> Result<Presences, StoreError> {
                self.up()?.presence(vnode, users).await
            }
            async fn presence_rows(
                &self,
                asked: &[(VnodeId, Vec<UserId>)],
            ) -> Result<Vec<Vec<PresenceRow>>, StoreError> {
                self.up()?.presence_rows(asked).await
            }
            async fn presence_standings(
                &self,
                vnodes: &[VnodeId],
            ) -> Result<Vec<PresenceStanding>, StoreError> {
                self.up()?.presence_standings(vnodes).await
            }
            async fn standings(
                &self,
                rooms: &[(VnodeId, StreamId)],
            ) -> Result<Vec<Option<Standing>>, StoreError> {
                self.up()?.standings(rooms).await
            }
            fn subscribe(&self, queue: mpsc::Sender<LiveEvent>) -> Box<dyn Subscriber> {
                self.inner.subscribe(queue)
            }
            async fn publish(&self, channel: &LiveChannel, payload: bytes::Bytes) -> Result<(), StoreError> {
                self.up()?.publish(channel, payload).await
            }
            async fn ping(&self) -> Result<(), StoreError> {
                self.up()?.ping().await
            }
            fn commands(&self) -> u64 {
                self.inner.commands()
            }
        }
    };
}

delegate! {
    register: Register => RegisterAnswer;
    deregister: Deregister => ();
    claim: Claim => ClaimAnswer;
    renew: Renew => RenewAnswer;
    set_ready: OwnRows => Vec<bool>;
    release: OwnRows => Vec<bool>;
    resign: Resign => bool;
    revoke: Revoke => bool;
    forget: Forget => bool;
    assign: Assign => bool;
    activate: Activate => ActivateAnswer;
    write: Write => WriteAnswer;
}

const SECRET: &str = "a secret of the tests, of more than 32 bytes";

/// Of a coordinator that may be asked as often as a test likes.
pub(crate) fn config(vnodes: u32, lease_ttl_ms: u64) -> CoordinatorConfig {
    let keys = KeySource::from_secret(&Secret::new(SECRET)).unwrap();
    let verifier = Verifier::new(keys, None, None);
    let config = CoordinatorConfig::new(vnodes, lease_ttl_ms, verifier);
    CoordinatorConfig { requests: RequestLimits::NONE, ..config }
}

/// A token, perhaps with the claim `watch`.
pub(crate) fn token(user: &str, role: Role, watch: Option<&[&str]>) -> String {
    let watch = watch.map(|patterns| patterns.iter().map(ToString::to_string).collect());
    // The year 2100.
    sign(
        &Secret::new(SECRET),
        &Claims { sub: UserId::new(user).unwrap(), exp: 4_102_444_800, role, rooms: None, watch },
    )
}

pub(crate) fn service() -> String {
    token("the-service", Role::Service, None)
}

/// A coordinator on ports of its own.
pub(crate) async fn coordinator(store: &Arc<TestStore>, config: CoordinatorConfig) -> Coordinator {
    let (public, admin) = (listener().await, listener().await);
    Coordinator::bind(config, Arc::clone(store) as Arc<dyn Store>, public, admin).await.unwrap()
}

pub(crate) async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn get(coordinator: &Coordinator, path: &str) -> Reply {
    fetch(format!("http://{}{path}", coordinator.addr())).await
}

/// The same with a token.
pub(crate) async fn get_as(coordinator: &Coordinator, path: &str, token: &str) -> Reply {
    let url = format!("http://{}{path}", coordinator.addr());
    Reply::of(reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap()).await
}

pub(crate) async fn get_admin(coordinator: &Coordinator, path: &str) -> Reply {
    fetch(format!("http://{}{path}", coordinator.admin_addr())).await
}

async fn fetch(url: String) -> Reply {
    Reply::of(reqwest::get(&url).await.unwrap()).await
}

/// Waits until `done`, looking often, and says how long it took; a panic says what did not come.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) -> Duration {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

/// A row for `name`, up and beating.
pub(crate) fn node_row(name: &str) -> NodeRow {
    let node = NodeId::new(name).unwrap();
    NodeRow {
        sid: Sid::new(&node, 1, 7),
        url: format!("ws://{name}.example:7301/socket"),
        admin: "192.0.2.1:7401".into(),
        state: NodeState::Up,
        beat: 0,
        weight: 1,
        pins: "auto".into(),
        load: Load { sessions: 12, messages_per_s: 1.5, accepts_per_s: 500, at_home: 2, lag: 3 },
        gone: Default::default(),
        reads: 0,
    }
}

/// Registers `row` and lets it claim `vnodes` as if pinned; those of `ready` are set ready.
pub(crate) async fn own(store: &TestStore, row: &NodeRow, vnodes: &[u16], ready: bool) -> Vec<Epoch> {
    let data_set = store.table().await.unwrap().data_set;
    let register = Register { data_set: data_set.clone(), node: row.sid.node(), row: row.clone() };
    assert_eq!(store.register(&register).await.unwrap(), RegisterAnswer::Registered);
    let mut epochs = Vec::new();
    for vnode in vnodes.iter().copied().map(VnodeId) {
        let (sid, floor) = (row.sid.clone(), Epoch(0));
        let claim = Claim { data_set: data_set.clone(), vnode, sid, held: None, floor, pinned: true };
        match store.claim(&claim).await.unwrap() {
            ClaimAnswer::Granted(epoch) => epochs.push(epoch),
            other => panic!("{vnode}: {other:?}"),
        }
    }
    if ready {
        let rows = vnodes.iter().copied().map(VnodeId).zip(epochs.iter().copied()).collect();
        store.set_ready(&OwnRows { data_set, sid: row.sid.clone(), rows }).await.unwrap();
    }
    epochs
}

/// A node that renews, and claims whatever it is given, until dropped: then it is silent.
pub(crate) struct LiveNode(JoinHandle<()>);

impl Drop for LiveNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LiveNode {
    pub(crate) fn start(store: Arc<TestStore>, row: NodeRow, every: Duration) -> Self {
        Self(tokio::spawn(async move {
            loop {
                // A store that is cut off now is there again later.
                let _ = live(&store, &row).await;
                tokio::time::sleep(every).await;
            }
        }))
    }
}

async fn live(store: &TestStore, row: &NodeRow) -> Result<(), StoreError> {
    let table = store.table().await?;
    let (sid, data_set) = (row.sid.clone(), table.data_set.clone());
    if table.nodes.get(&sid.node()).is_none_or(|known| known.sid != sid) {
        let register = Register { data_set: data_set.clone(), node: sid.node(), row: row.clone() };
        store.register(&register).await?;
    }
    let mine: Vec<_> =
        table.rows.iter().filter(|(_, row)| row.sid == sid).map(|(vnode, row)| (*vnode, row.epoch)).collect();
    let (state, load) = (row.state, row.load);
    store
        .renew(&Renew { data_set: data_set.clone(), sid: sid.clone(), state, load, rows: mine.clone() })
        .await?;
    let elsewhere =
        |vnode: &VnodeId| table.assignment.targets.get(vnode).is_some_and(|target| *target != sid.node());
    let leaving = mine.into_iter().filter(|(vnode, _)| elsewhere(vnode)).collect();
    store.release(&OwnRows { data_set: data_set.clone(), sid: sid.clone(), rows: leaving }).await?;
    let mut rows = Vec::new();
    for (vnode, _) in table.assignment.targets.iter().filter(|(_, target)| **target == sid.node()) {
        if table.rows.get(vnode).is_some_and(|row| row.sid == sid) {
            continue;
        }
        let (vnode, floor) = (*vnode, Epoch(0));
        let claim =
            Claim { data_set: data_set.clone(), vnode, sid: sid.clone(), held: None, floor, pinned: false };
        if let ClaimAnswer::Granted(epoch) = store.claim(&claim).await? {
            rows.push((vnode, epoch));
        }
    }
    store.set_ready(&OwnRows { data_set, sid, rows }).await.map(drop)
}
