//! Ten thousand users who come and go, and a thousand watchers of fifty of them each: changes a second, and whether
//! any watcher is wrong at the end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::seq::index::sample;
use roost_backend::store::shown_of;
use roost_proto::UserId;
use roost_proto::answers::Watched;
use roost_proto::events::Status;
use roost_proto::frames::ServerFrame;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, Socket};
use crate::cluster::{Cluster, VNODES};
use crate::quantile;

const USERS: usize = 10_000;
const WATCHERS: usize = 1_000;
const WATCHED: usize = 50;
/// Users connected at once. A session is two sockets of this process, and 20,000 open files are common.
const AT_ONCE: usize = 2_500;
/// Sockets opened at once.
const OPENING: usize = 100;
/// Everybody has come and gone within this, if the machine is fast enough.
const WITHIN: Duration = Duration::from_secs(10);
/// The linger, and what a loss may cost, twice.
const SETTLE: Duration = Duration::from_secs(30);

/// What the watchers count together.
struct Tally {
    start: Instant,
    frames: AtomicU64,
    /// When the last frame came, and when each user said `connect`: in microseconds since the start.
    last: AtomicU64,
    came: Vec<AtomicU64>,
    /// From there to being shown as online.
    delays: Mutex<Vec<u64>>,
}

impl Tally {
    fn us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn told(&self, user: &UserId, status: Status) {
        let now = self.us();
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
        if status == Status::Online
            && let Some(came) = number_of(user).and_then(|i| self.came.get(i))
        {
            let delay = now.saturating_sub(came.load(Ordering::Relaxed));
            self.delays.lock().unwrap_or_else(PoisonError::into_inner).push(delay);
        }
    }
}

fn number_of(user: &UserId) -> Option<usize> {
    user.as_str().rsplit_once('-')?.1.parse().ok()
}

/// What one watcher was told last of each user.
type Picture = Arc<Mutex<HashMap<UserId, Status>>>;

struct Watcher {
    picture: Picture,
    reading: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Watcher {
    async fn start(cluster: &Cluster, name: String, users: Vec<UserId>, tally: Arc<Tally>) -> Result<Self> {
        let mut client = Client::connect(cluster, &name).await?;
        let frame = serde_json::json!({"type": "watch", "id": "watch", "users": users});
        let ServerFrame::Reply(reply) = client.ask(frame.to_string()).await? else { unreachable!("a reply") };
        let shown = reply.ok.and_then(|ok| ok.read::<Watched>().ok()).context("not watched")?.users;
        let picture: Picture =
            Arc::new(Mutex::new(shown.into_iter().map(|shown| (shown.user, shown.status)).collect()));
        let (mut socket, known) = (client.into_socket(), Arc::clone(&picture));
        let reading = tokio::spawn(async move {
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                if let Ok(ServerFrame::Presence(shown)) = ServerFrame::parse(&text) {
                    tally.told(&shown.user, shown.status);
                    known.lock().unwrap_or_else(PoisonError::into_inner).insert(shown.user, shown.status);
                }
            }
        });
        Ok(Self { picture, reading })
    }

    fn wrong(&self, truth: &HashMap<UserId, Status>) -> usize {
        let picture = self.picture.lock().unwrap_or_else(PoisonError::into_inner);
        picture.iter().filter(|(user, status)| truth.get(*user) != Some(*status)).count()
    }
}

pub(crate) async fn run(cluster: &Cluster) -> Result<()> {
    let run = format!("watch-{:08x}", rand::random::<u32>());
    let users: Vec<UserId> =
        (0..USERS).map(|i| UserId::new(format!("{run}-{i}"))).collect::<Result<_, _>>()?;
    let tally = Arc::new(Tally {
        start: Instant::now(),
        frames: AtomicU64::new(0),
        last: AtomicU64::new(0),
        came: (0..USERS).map(|_| AtomicU64::new(0)).collect(),
        delays: Mutex::default(),
    });
    let watchers = (0..WATCHERS).map(|i| {
        let some = sample(&mut rand::rng(), USERS, WATCHED).iter().map(|i| users[i].clone()).collect();
        Watcher::start(cluster, format!("{run}-watcher-{i}"), some, Arc::clone(&tally))
    });
    let watchers: Vec<_> = stream::iter(watchers).buffer_unordered(OPENING).try_collect().await?;
    let homes = stream::iter(users.iter().map(|user| cluster.route(user.as_str()))).buffered(OPENING);
    let homes: Vec<_> = homes.try_collect().await?;

    let began = tally.us();
    let waves = USERS.div_ceil(AT_ONCE);
    for wave in 0..waves {
        let some = (wave * AT_ONCE)..((wave + 1) * AT_ONCE).min(USERS);
        let coming = some.map(|i| {
            tally.came[i].store(tally.us(), Ordering::Relaxed);
            Client::connect_to(&homes[i], cluster.token(users[i].as_str()))
        });
        let there: Vec<Socket> =
            stream::iter(coming).buffer_unordered(OPENING).map_ok(Client::into_socket).try_collect().await?;
        let part = WITHIN * (wave as u32 + 1) / waves as u32;
        tokio::time::sleep(part.saturating_sub(Duration::from_micros(tally.us() - began))).await;
        drop(there);
    }
    let took = Duration::from_micros(tally.us() - began);

    let deadline = Instant::now() + SETTLE;
    let wrong = loop {
        let truth = truth(cluster, &users).await?;
        let wrong: usize = watchers.iter().map(|watcher| watcher.wrong(&truth)).sum();
        let gone = truth.values().all(|status| *status == Status::Offline);
        if (gone && wrong == 0) || Instant::now() >= deadline {
            ensure!(gone, "somebody is still there");
            break wrong;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let all_told = Duration::from_micros(tally.last.load(Ordering::Relaxed).saturating_sub(began));
    let frames = tally.frames.load(Ordering::Relaxed);
    let mut delays = tally.delays.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "presence      {} changes in {:.1} s: {:.0}/s; {frames} frames to {WATCHERS} watchers of {WATCHED} ({:.0}/s); \
         shown p50 {} ms, p99 {} ms after connect; all told after {:.1} s; {wrong} wrong",
        2 * USERS,
        took.as_secs_f64(),
        2.0 * USERS as f64 / took.as_secs_f64(),
        frames as f64 / all_told.as_secs_f64(),
        quantile(&mut delays, 0.5) / 1000,
        quantile(&mut delays, 0.99) / 1000,
        all_told.as_secs_f64(),
    );
    ensure!(wrong == 0, "{wrong} users are shown wrong to somebody");
    Ok(())
}

/// What the store says of them.
async fn truth(cluster: &Cluster, users: &[UserId]) -> Result<HashMap<UserId, Status>> {
    let place = |user: &UserId| roost_ring::vnode_of_user(user, VNODES);
    let shown = shown_of(&*cluster.backends.store, users.to_vec(), place, |_| false).await?;
    Ok(shown.into_iter().map(|shown| (shown.user_id, shown.status)).collect())
}
