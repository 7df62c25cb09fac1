//! Random activations and writes, right and wrong, against a store and against the model: every answer equal.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{Cursor, DeviceId, Epoch, MessageId, Offset, Seq};
use roost_proto::limits::IDS_KEPT_MS;
use roost_proto::live::Version;

use super::*;
use crate::embedded::EmbeddedStore;
use crate::store::model::VnodeData;

/// A seed that failed is added here and stays.
const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: usize = 400;
const USERS: [&str; 3] = ["bob", "eve", "zoë \"z\""];

/// A window that fills, and an age that is never reached: the model ages by the writer's clock, which jumps here,
/// Redis by its own.
const SETTINGS: StoreConfig = StoreConfig { stream_max_len: 4, stream_max_age_ms: 29 * 86_400_000, ..CONFIG };

struct Run<'a> {
    fixture: &'a dyn Fixture,
    process: Process,
    model: VnodeData,
    random: StdRng,
    now_ms: u64,
    /// Epochs and seqs somebody held once.
    held: Vec<(Epoch, Seq)>,
}

/// Promises 8 to 12, and the model's word on everything between them.
pub async fn any_sequence_of_writes_gets_the_models_answers(fixture: &dyn Fixture) {
    let process = Process::start_with(fixture, SETTINGS).await;
    let (model, random) = (VnodeData::default(), StdRng::seed_from_u64(0));
    let mut run = Run { fixture, process, model, random, now_ms: NOW_MS, held: Vec::new() };
    for (seed, vnode) in SEEDS.into_iter().zip(0..) {
        (run.model, run.random) = (VnodeData::default(), StdRng::seed_from_u64(seed));
        (run.now_ms, run.held) = (NOW_MS, Vec::new());
        for step in 0..STEPS {
            run.step(VnodeId(vnode), &format!("seed {seed}, step {step}")).await;
        }
    }
}

impl Run<'_> {
    async fn step(&mut self, vnode: VnodeId, at: &str) {
        match self.random.random_range(0..100) {
            0..12 => self.activate(vnode, at).await,
            12..14 => self.change_data_set().await,
            14 => self.reopen().await,
            15..80 => self.write(vnode, at).await,
            80..90 => self.read(vnode, at).await,
            90..94 => self.page(vnode, at).await,
            94..96 => self.standing(vnode, at).await,
            _ => self.presence(vnode, at).await,
        }
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).expect("not empty").clone()
    }

    fn often(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn sid(&mut self) -> Sid {
        self.one(&[sid("ws-1", 1), sid("ws-2", 1), sid("ws-1", 2)])
    }

    fn user(&mut self) -> UserId {
        user(self.one(&USERS))
    }

    fn stream(&mut self) -> StreamId {
        let room = StreamId::new("room:lobby").expect("a valid stream");
        let inboxes = USERS.map(inbox);
        self.one(&[room, inboxes[0].clone(), inboxes[1].clone(), inboxes[2].clone()])
    }

    fn device(&mut self) -> DeviceId {
        let made_up = format!("d{}", self.random.random_range(0..2 * DEVICES_KEPT));
        let name = if self.often(80) { self.one(&["phone", "laptop"]).to_owned() } else { made_up };
        DeviceId::new(name).expect("a valid device id")
    }

    /// Of more devices than are kept.
    fn ack_of_many(&mut self) -> Op {
        let device = format!("d{}", self.random.random_range(0..2 * DEVICES_KEPT));
        let device = DeviceId::new(device).expect("a valid device id");
        Op::Ack { user: user("bob"), device, cursor: self.place() }
    }

    async fn change_data_set(&mut self) {
        if self.fixture.change_data_set().await {
            let store = &self.process.store;
            let known = &self.process.data_set;
            let found = eventually("another data set", || async {
                // Each way to the data finds by itself that its connection is gone.
                store.ping().await.ok()?;
                store.table().await.ok().map(|table| table.data_set).filter(|found| found != known)
            });
            let found = found.await;
            self.process.data_set = found;
        }
    }

    async fn reopen(&mut self) {
        let nothing = Arc::new(EmbeddedStore::memory(SETTINGS, Arc::new(|| 0)));
        let last = std::mem::replace(&mut self.process.store, nothing);
        self.process.store = self.fixture.reopen(last).await;
        let data_set = self.process.store.open_ring(VNODES).await.expect("the ring opens");
        assert_eq!(data_set, self.process.data_set);
    }

    async fn activate(&mut self, vnode: VnodeId, at: &str) {
        let (epoch, seq) = self.model.head().map_or((100, Seq(0)), |(epoch, _, _, seq)| (epoch.0, seq));
        let step = self.one(&[1, 1, 1, 5, 0, -1]);
        let held = match self.random.random_range(0..4) {
            0 => None,
            1 => Some((Epoch(epoch), Seq(seq.0 + 1))),
            2 if !self.held.is_empty() => Some(self.one(&self.held.clone())),
            _ => Some((Epoch(epoch), seq)),
        };
        let generation = self.model.head().map_or(Epoch(100), |(_, _, generation, _)| generation);
        let left = match self.random.random_range(0..10) {
            0 => Some((generation, Seq(seq.0 + 1))),
            1 => Some((Epoch(generation.0 + 1), Seq(0))),
            2 => Some((Epoch(generation.0 - 1), Seq(seq.0 + 9))),
            3 => Some((generation, seq)),
            _ => None,
        };
        let request = Activate {
            data_set: self.process.data_set.clone(),
            vnode,
            epoch: Epoch(epoch.saturating_add_signed(step)),
            sid: self.sid(),
            prove: self.often(30),
            held,
            left,
        };
        let wanted = self.model.activate(&request);
        assert_eq!(self.process.activate(&request).await, wanted, "{at}: {request:?}");
        if let ActivateAnswer::Activated(activated) = wanted {
            self.held.push((request.epoch, activated.seq));
        }
    }

    fn fence(&mut self, vnode: VnodeId) -> Fence {
        let head = self.model.head().map(|(epoch, sid, _, seq)| (epoch, sid.clone(), seq));
        let (epoch, holder, seq) = head.unwrap_or((Epoch(100), sid("ws-1", 1), Seq(0)));
        let mut fence = Fence { vnode, epoch, sid: holder, seq };
        match self.random.random_range(0..40) {
            0 => fence.epoch.0 += 1,
            1 => fence.epoch.0 -= 1,
            2 => fence.sid = self.sid(),
            3 => fence.seq.0 += 1,
            4 | 5 => fence.seq.0 = fence.seq.0.saturating_sub(1),
            _ => {}
        }
        fence
    }

    async fn write(&mut self, vnode: VnodeId, at: &str) {
        let fence = self.fence(vnode);
        self.now_ms = match self.random.random_range(0..50) {
            0 | 1 => self.now_ms + IDS_KEPT_MS,
            2 => self.now_ms + 5 * IDS_KEPT_MS / 2,
            3 => self.now_ms - 60_000,
            _ => self.now_ms + self.random.random_range(0..1000),
        };
        let count = self.random.random_range(0..8);
        let mut ops: Vec<_> = (0..count).map(|_| self.op()).collect();
        if self.often(5) {
            ops.extend((0..DEVICES_KEPT).map(|_| self.ack_of_many()));
        }
        let trim = Seq(fence.seq.0.saturating_sub(self.random.random_range(0..6)));
        let write = Write { fence, now_ms: self.now_ms, trim, ops };
        let wanted = self.model.write(&write, &SETTINGS);
        let answer = self.process.store.write(&write).await.expect("the store answers");
        assert_eq!(answer, wanted, "{at}: {write:?}");
    }

    fn op(&mut self) -> Op {
        match self.random.random_range(0..18) {
            16 | 17 => self.event(),
            14 => Op::Read { user: self.user(), cursor: self.place() },
            15 => self.receipts(),
            12 => Op::Settle { places: (0..3).map(|_| (self.user(), self.place())).collect() },
            13 => Op::Undelivered { user: self.user(), cursor: self.place(), bytes: 0 },
            10 => Op::Member(self.member_op()),
            11 => Op::Tail { stream: self.stream() },
            0..6 => {
                let (stream, id) = (self.stream(), self.random.random_range(0..12));
                let hash = self.one(&[u64::MAX, u64::MAX, u64::MAX, 1 << 53]);
                let from = self.one(&["alice", "carl"]).to_string();
                let (due, wanted) = (self.often(50), self.often(30).then(|| self.wanted()));
                let closes = self.often(30).then(|| self.closes());
                Op::Append(AppendOp {
                    from,
                    at: self.now_ms,
                    due,
                    wanted,
                    closes,
                    ..message(&stream, &format!("m{id}"), hash)
                })
            }
            6 | 7 => Op::Presence(self.presence_op()),
            8 => {
                let device = self.often(80).then(|| self.device());
                Op::Open { user: self.user(), device }
            }
            _ => {
                let cursor = Cursor::new(
                    Epoch(self.random.random_range(98..102)),
                    Offset(self.random.random_range(0..12)),
                );
                Op::Ack { user: self.user(), device: self.device(), cursor }
            }
        }
    }

    fn event_id(&mut self) -> MessageId {
        MessageId::new(format!("e{}", self.random.random_range(0..6))).expect("a valid message id")
    }

    fn event(&mut self) -> Op {
        let rest = Bytes::from("\"type\":\"event\"}");
        Op::Event(EventOp {
            client: self.user(),
            id: self.event_id(),
            hash: self.one(&[1, 1, 2]),
            at: self.now_ms,
            rest,
        })
    }

    fn closes(&mut self) -> Closes {
        let event = self.event_id();
        if self.often(50) { Closes::Answered(event) } else { Closes::TimedOut(event) }
    }

    fn wanted(&mut self) -> ReceiptRequest {
        let id = MessageId::new(format!("m{}", self.random.random_range(0..12))).expect("a valid message id");
        ReceiptRequest { from: self.user(), id, since_ms: self.now_ms, delivered: self.often(50) }
    }

    fn receipts(&mut self) -> Op {
        let set = |run: &mut Self| ((run.user(), run.place()), run.often(50).then(|| run.wanted()));
        let wanted = (0..3).map(|_| set(self)).collect();
        let data = serde_json::value::RawValue::from_string("[1]".into()).expect("JSON");
        let owed = PendingReceipt { from: self.user(), to: self.user(), data: data.into() };
        let owed = vec![(self.wanted().id, self.often(60).then_some(owed))];
        Op::Receipts { wanted, owed }
    }

    /// A place that something may have been appended at.
    fn place(&mut self) -> Cursor {
        let generation = self.model.head().map_or(Epoch(100), |(_, _, generation, _)| generation);
        Cursor::new(generation, Offset(self.random.random_range(1..12)))
    }

    fn member_op(&mut self) -> MemberOp {
        let info = serde_json::value::RawValue::from_string("{\"a\": \"größe\"}".into()).expect("JSON");
        let info = self.often(50).then(|| info.into());
        let version = Version { epoch: Epoch(100), n: self.random.random_range(0..1 << 53) };
        MemberOp {
            stream: StreamId::new(self.one(&["room:lobby", "room:\"q\""])).expect("a valid stream"),
            user: self.user(),
            entry: self.often(60).then_some(MemberEntry { info }),
            version,
            last: self.often(20),
            note: Bytes::from_static(b"{}"),
        }
    }

    async fn standing(&mut self, vnode: VnodeId, at: &str) {
        let rooms = [(vnode, StreamId::new("room:lobby").expect("a valid stream"))];
        let found = self.process.store.standings(&rooms).await.expect("the store answers");
        assert_eq!(found, [self.model.standing(&rooms[0].1)], "{at}");
    }

    fn presence_op(&mut self) -> PresenceOp {
        let chosen = self.one(&[ChosenStatus::Online, ChosenStatus::Away, ChosenStatus::Invisible]);
        let last_seen = self.often(50).then_some(NOW_MS);
        let roster = self.often(60).then_some(RosterEntry {
            chosen,
            since: NOW_MS,
            last_seen,
            sessions: 1,
            generation: Epoch(1),
        });
        let seen = self.often(30).then_some(Seen {
            chosen,
            since: NOW_MS,
            last_seen: self.now_ms,
            generation: Epoch(1),
        });
        let event = self.often(60).then(|| Bytes::from_static(b"\"user\":\"x\",\"status\":\"away\"}"));
        PresenceOp { user: self.user(), roster, seen, event }
    }

    /// Often with bytes for a few entries only.
    fn limit(&mut self, least: usize) -> Limit {
        let bytes = if self.often(50) { 1 << 20 } else { self.random.random_range(0..600) };
        Limit { entries: self.random.random_range(least..6), bytes }
    }

    async fn read(&mut self, vnode: VnodeId, at: &str) {
        let now = self.model.head().map_or(Epoch(1), |(_, _, generation, _)| generation);
        let older = self.held.first().map_or(Epoch(1), |(epoch, _)| *epoch);
        let (stream, generation) = (self.stream(), self.one(&[now, now, now, older]));
        let (after, limit) = (Offset(self.random.random_range(0..20)), self.limit(0));
        let wanted = self.model.read(&stream, generation, after, limit);
        let found = self.process.store.read(vnode, &stream, generation, after, limit).await;
        assert_eq!(found.expect("the store answers"), wanted, "{at}: {stream} {generation} after {after}");
    }

    async fn page(&mut self, vnode: VnodeId, at: &str) {
        let now = self.model.head().map_or(Epoch(1), |(_, _, generation, _)| generation);
        let (stream, limit) = (self.stream(), self.limit(1));
        let before = Cursor::new(now, Offset(self.random.random_range(0..20)));
        let before = self.often(70).then_some(before);
        let wanted = self.model.page(&stream, before, limit);
        let found = self.process.store.page(vnode, &stream, before, limit).await;
        assert_eq!(found.expect("the store answers"), wanted, "{at}: {stream} before {before:?}");
    }

    async fn presence(&mut self, vnode: VnodeId, at: &str) {
        let users = USERS.map(user);
        let found = self.process.store.presence(vnode, &users).await.expect("the store answers");
        assert_eq!(found, self.model.presences(&users), "{at}");
        let found = self.process.store.presence_standings(&[vnode]).await.expect("the store answers");
        assert_eq!(found, [self.model.presence_standing()], "{at}");
    }
}
