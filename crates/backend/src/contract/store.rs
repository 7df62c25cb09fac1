//! The contract of [`Store`]: one function per promise, named as a sentence.
//!
//! A back end gives a [`Fixture`] and runs the lists at the end of this file (`store_contract!`,
//! `store_loss_contract!`). The random runs compare a store with the model, step by step, from a seed.

pub mod claims;
pub mod devices;
pub mod due;
pub mod inherited;
pub mod live;
pub mod loss;
pub mod nodes;
pub mod pages;
pub mod presence;
pub mod random_control;
pub mod random_data;
pub mod streams;
pub mod tickets;
pub mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::ids::{Epoch, MessageId, NodeId, Seq, Sid, StreamId, UserId, VnodeId};

use crate::store::*;

/// How long a condition may take to come true on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A store to be tested, empty at first. One fixture serves one contract function.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// One more process's handle on this store. One fixture is always given the same `config`.
    async fn open(&self, config: StoreConfig) -> Arc<dyn Store>;

    /// Lets `ms` pass on the store's clock.
    async fn pass(&self, ms: u64);

    /// Removes everything under the living handles, as FLUSHALL does.
    async fn lose_everything(&self) {
        panic!("this back end loses nothing")
    }

    /// Keeps the present for [`Fixture::crash`].
    async fn save(&self) {
        panic!("this back end has no snapshots")
    }

    /// Kills the store's process and starts it again with what was last saved.
    async fn crash(&self) {
        panic!("this back end has no process of its own")
    }

    /// Gives the data another history under the living handles, as a primary has that followed another and leads again.
    async fn follow_and_lead(&self) {
        panic!("this back end follows nobody")
    }

    /// Ends the process that the embedded store is in and starts another on the same file. `last` is the last
    /// handle; other back ends give it back.
    async fn reopen(&self, last: Arc<dyn Store>) -> Arc<dyn Store> {
        last
    }

    /// Makes the store's data another data set without changing the data. False if this back end cannot.
    async fn change_data_set(&self) -> bool {
        false
    }
}

/// Leases long enough that none ends unless a test means it to.
pub const CONFIG: StoreConfig =
    StoreConfig { lease_ttl_ms: 120_000, stream_max_len: 1000, stream_max_age_ms: 86_400_000 };

/// The size of every ring here.
pub const VNODES: u32 = 64;

/// Where the clocks of writers stand; the number matters to nobody.
pub const NOW_MS: u64 = 1_795_240_800_000;

/// The vnode most tests use.
pub const V: VnodeId = VnodeId(17);

pub fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a valid node id")
}

pub fn sid(name: &str, born: u64) -> Sid {
    Sid::new(&node(name), born, 0xabc)
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).expect("a valid user id")
}

pub fn inbox(name: &str) -> StreamId {
    StreamId::inbox(&user(name))
}

pub fn node_row(sid: &Sid) -> NodeRow {
    NodeRow {
        sid: sid.clone(),
        url: "wss://ws-1.example/socket".into(),
        admin: "127.0.0.1:9100".into(),
        state: NodeState::Up,
        beat: 0,
        weight: 100,
        pins: "0-341,500".into(),
        load: Load { sessions: 3, messages_per_s: 1.5, accepts_per_s: 9, at_home: 2, lag: 1 },
        gone: Default::default(),
        reads: 0,
    }
}

/// A message; its body is its hash.
pub fn message(stream: &StreamId, id: &str, hash: u64) -> AppendOp {
    AppendOp {
        stream: stream.clone(),
        from: "alice".into(),
        id: MessageId::new(id).expect("a valid message id"),
        hash,
        at: NOW_MS,
        rest: Bytes::from(format!(
            "\"id\":\"{id}\",\"from\":\"alice\",\"at\":0,\"data\":{{\"text\":\"größe {hash} %d \\u0000\"}}}}"
        )),
        due: false,
        wanted: None,
        closes: None,
    }
}

pub fn append(stream: &StreamId, id: &str) -> Op {
    Op::Append(message(stream, id, 1))
}

/// Calls `f` until it gives something.
///
/// # Panics
/// After [`DEADLINE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut f: impl FnMut() -> F) -> T {
    let poll = async {
        loop {
            if let Some(found) = f().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("{what} within {DEADLINE:?}"))
}

/// A process: its handle, and the data set it knows.
#[derive(Clone)]
pub struct Process {
    pub store: Arc<dyn Store>,
    pub data_set: DataSet,
}

impl Process {
    pub async fn start(fixture: &dyn Fixture) -> Self {
        Self::start_with(fixture, CONFIG).await
    }

    pub async fn start_with(fixture: &dyn Fixture, config: StoreConfig) -> Self {
        let store = fixture.open(config).await;
        let data_set = store.open_ring(VNODES).await.expect("the ring opens");
        Self { store, data_set }
    }

    pub async fn register(&self, sid: &Sid) -> RegisterAnswer {
        let request = Register { data_set: self.data_set.clone(), node: sid.node(), row: node_row(sid) };
        self.store.register(&request).await.expect("the store answers")
    }

    /// A sid that is registered.
    pub async fn join(&self, name: &str, born: u64) -> Sid {
        let sid = sid(name, born);
        assert_eq!(self.register(&sid).await, RegisterAnswer::Registered);
        sid
    }

    /// A claim of a pinned vnode by one who holds nothing.
    pub fn claim_of(&self, vnode: VnodeId, sid: &Sid) -> Claim {
        let (data_set, sid) = (self.data_set.clone(), sid.clone());
        Claim { data_set, vnode, sid, held: None, floor: Epoch(0), pinned: true }
    }

    pub async fn claim(&self, vnode: VnodeId, sid: &Sid) -> ClaimAnswer {
        self.put_claim(&self.claim_of(vnode, sid)).await
    }

    pub async fn put_claim(&self, claim: &Claim) -> ClaimAnswer {
        self.store.claim(claim).await.expect("the store answers")
    }

    pub async fn granted(&self, vnode: VnodeId, sid: &Sid) -> Epoch {
        match self.claim(vnode, sid).await {
            ClaimAnswer::Granted(epoch) => epoch,
            other => panic!("wanted a grant, got {other:?}"),
        }
    }

    pub async fn table(&self) -> Table {
        self.store.table().await.expect("the store answers")
    }

    pub fn rows(&self, sid: &Sid, rows: &[(VnodeId, Epoch)]) -> OwnRows {
        OwnRows { data_set: self.data_set.clone(), sid: sid.clone(), rows: rows.to_vec() }
    }

    pub fn renewal(&self, sid: &Sid, rows: &[(VnodeId, Epoch)]) -> Renew {
        let (data_set, sid, rows) = (self.data_set.clone(), sid.clone(), rows.to_vec());
        let load = Load { sessions: 7, messages_per_s: 0.25, accepts_per_s: 11, at_home: 2, lag: 3 };
        Renew { data_set, sid, state: NodeState::Up, load, rows }
    }

    pub async fn renew(&self, sid: &Sid, rows: &[(VnodeId, Epoch)]) -> RenewAnswer {
        self.store.renew(&self.renewal(sid, rows)).await.expect("the store answers")
    }

    pub async fn lead(&self, token: &str, frozen: Option<LeaderRow>) -> LeadAnswer {
        let request = Lead { data_set: self.data_set.clone(), token: token.into(), frozen };
        self.store.lead(&request).await.expect("the store answers")
    }

    pub async fn resign(&self, token: &str) -> bool {
        let request = Resign { data_set: self.data_set.clone(), token: token.into() };
        self.store.resign(&request).await.expect("the store answers")
    }

    pub async fn assign(&self, token: &str, from_version: u64, targets: &[(VnodeId, NodeId)]) -> bool {
        let (data_set, token) = (self.data_set.clone(), token.into());
        let request = Assign { data_set, token, from_version, targets: targets.to_vec() };
        self.store.assign(&request).await.expect("the store answers")
    }

    pub async fn revoke(&self, token: &str, sid: &Sid, beat: u64) -> bool {
        let request = Revoke { data_set: self.data_set.clone(), token: token.into(), sid: sid.clone(), beat };
        self.store.revoke(&request).await.expect("the store answers")
    }

    pub fn activation(&self, vnode: VnodeId, sid: &Sid, epoch: Epoch) -> Activate {
        let (data_set, sid) = (self.data_set.clone(), sid.clone());
        Activate { data_set, vnode, epoch, sid, prove: false, held: None, left: None }
    }

    pub async fn activate(&self, request: &Activate) -> ActivateAnswer {
        self.store.activate(request).await.expect("the store answers")
    }

    /// An owner of `vnode` under `epoch`, without the control plane's blessing, which the data plane never asks.
    pub async fn own(&self, vnode: VnodeId, sid: &Sid, epoch: Epoch) -> Owner {
        match self.activate(&self.activation(vnode, sid, epoch)).await {
            ActivateAnswer::Activated(activated) => self.owner(vnode, sid, epoch, &activated),
            other => panic!("wanted to own {vnode}, got {other:?}"),
        }
    }

    pub fn owner(&self, vnode: VnodeId, sid: &Sid, epoch: Epoch, activated: &Activated) -> Owner {
        let fence = Fence { vnode, epoch, sid: sid.clone(), seq: activated.seq };
        Owner { store: self.store.clone(), fence, generation: activated.generation, now_ms: NOW_MS }
    }
}

/// Who writes to a vnode.
pub struct Owner {
    pub store: Arc<dyn Store>,
    pub fence: Fence,
    pub generation: Epoch,
    pub now_ms: u64,
}

impl Owner {
    pub fn write_of(&self, ops: Vec<Op>) -> Write {
        Write { fence: self.fence.clone(), now_ms: self.now_ms, trim: Seq(0), ops }
    }

    pub async fn put(&self, write: &Write) -> WriteAnswer {
        self.store.write(write).await.expect("the store answers")
    }

    /// A write that must apply.
    pub async fn write(&mut self, ops: Vec<Op>) -> Vec<OpResult> {
        let write = self.write_of(ops);
        self.apply(&write).await
    }

    pub async fn apply(&mut self, write: &Write) -> Vec<OpResult> {
        match self.put(write).await {
            WriteAnswer::Done { seq, results } => {
                assert!(seq > self.fence.seq, "every write raises seq");
                self.fence.seq = seq;
                results
            }
            other => panic!("wanted the write done, got {other:?}"),
        }
    }

    pub async fn open(&mut self, name: &str) -> Opened {
        self.open_as(name, Some(roost_proto::DeviceId::new("phone").expect("a valid device id"))).await
    }

    pub async fn open_as(&mut self, name: &str, device: Option<roost_proto::DeviceId>) -> Opened {
        match self.write(vec![Op::Open { user: user(name), device }]).await.pop() {
            Some(OpResult::Opened(opened)) => opened,
            other => panic!("wanted where the device stands, got {other:?}"),
        }
    }

    pub async fn read(&self, stream: &StreamId, after: u64, limit: usize) -> Window {
        let after = roost_proto::Offset(after);
        let limit = Limit { entries: limit, bytes: usize::MAX >> 12 };
        let window = self.store.read(self.fence.vnode, stream, self.generation, after, limit).await;
        window.expect("the store answers")
    }
}

/// Makes a test of each promise that every store keeps. `$make` gives a fresh [`Fixture`].
#[macro_export]
macro_rules! store_contract {
    ($make:expr) => {
        $crate::contract_tests! { $make;
            nodes::the_first_to_open_the_ring_names_the_data_set_and_its_size_stays,
            nodes::a_later_sid_replaces_and_an_earlier_does_not,
            nodes::only_a_nodes_own_sid_removes_its_row,
            nodes::a_node_that_left_may_leave_a_tombstone_of_its_sid,
            nodes::only_the_leader_forgets_and_only_who_is_gone,
            nodes::a_renewal_shows_that_the_node_lives,
            nodes::a_sid_that_is_over_is_told_so_by_its_renewal,
            nodes::a_leader_stays_until_its_beat_is_seen_frozen,
            nodes::a_leader_that_resigns_is_followed_at_once,
            nodes::only_the_leader_revokes_and_only_what_it_saw,
            nodes::only_the_leader_assigns_and_only_what_it_planned_from,
            nodes::the_table_shows_everything_at_once,
            nodes::changes_move_the_hints_of_every_process,
            nodes::another_data_set_is_refused_everywhere,
            claims::an_absent_row_goes_to_whom_the_assignment_names,
            claims::without_an_assignment_a_pin_suffices,
            claims::a_row_of_another_living_sid_is_held,
            claims::a_row_of_ones_own_or_of_an_ended_sid_is_taken,
            claims::a_row_of_a_revoked_or_removed_sid_is_taken,
            claims::a_row_of_a_later_sid_than_the_registered_is_held,
            claims::who_is_not_registered_or_revoked_claims_nothing,
            claims::every_grant_is_above_all_that_was_seen_or_granted,
            claims::rows_become_ready_or_free_only_by_their_owner,
            claims::a_renewal_extends_what_is_the_callers_and_creates_nothing,
            claims::a_row_that_is_not_renewed_ends,
            claims::a_thousand_rows_are_renewed_in_one_call,
            writes::activation_needs_a_larger_epoch_or_the_same_of_the_same_sid,
            writes::activation_returns_what_the_predecessor_left,
            writes::activation_under_a_data_set_nobody_named_is_refused,
            writes::a_deposed_owner_changes_nothing,
            writes::a_write_without_its_head_is_lost,
            writes::a_write_that_saw_more_than_the_store_is_rewound,
            writes::a_write_that_lands_late_changes_nothing,
            writes::a_write_without_events_cannot_be_applied_twice,
            writes::events_stay_in_the_outbox_until_they_are_trimmed,
            writes::a_generation_that_is_not_proved_ends,
            writes::who_left_more_than_it_finds_begins_a_generation,
            writes::a_generation_that_is_proved_goes_on,
            writes::vnodes_do_not_touch_each_other,
            writes::numbers_keep_every_digit,
            streams::offsets_are_gapless_and_entries_are_composed_to_the_byte,
            streams::the_same_id_gets_the_same_answer_and_another_body_conflicts,
            streams::an_id_is_known_through_one_turn_of_the_slices,
            streams::a_vnodes_clock_is_handed_over_and_never_goes_back,
            streams::the_window_keeps_the_newest_and_says_where_it_begins,
            streams::an_untouched_window_is_dropped_and_its_tail_stays,
            streams::reading_starts_anywhere_and_another_generation_is_empty,
            streams::operations_of_one_write_see_each_other,
            streams::an_acked_cursor_only_grows,
            streams::how_far_a_user_has_read_only_grows_and_is_no_devices,
            devices::the_devices_used_last_are_kept,
            devices::a_device_that_may_be_a_forgotten_one_is_told_apart_from_a_new_one,
            due::what_is_due_is_settled_or_reported_once,
            tickets::an_event_waits_until_a_result_or_the_end_of_its_time,
            tickets::a_result_for_somebody_unknown_is_not_taken,
            due::what_is_due_outlives_its_window_and_its_generation,
            due::what_is_known_of_receipts_stays_until_it_is_removed,
            pages::pages_go_back_from_the_newest_to_where_the_stream_began,
            pages::a_page_says_when_the_window_ends_before_the_stream,
            pages::a_page_shows_nothing_of_an_earlier_generation,
            pages::what_is_read_ends_where_its_bytes_are_full,
            inherited::much_is_taken_over_whole,
            presence::setting_the_same_presence_again_yields_no_event,
            presence::who_leaves_keeps_a_last_seen,
            presence::presence_is_read_in_the_order_asked,
            presence::presence_of_many_vnodes_is_read_as_that_of_each,
            live::what_is_published_in_a_room_reaches_those_who_follow_it_in_order,
            live::changes_of_presence_are_published_together_and_their_version_is_kept,
            live::a_shout_reaches_those_who_follow_its_channel_and_nobody_else,
            live::a_full_queue_is_told_that_something_was_missed,
            random_data::any_sequence_of_writes_gets_the_models_answers,
            random_control::any_sequence_of_claims_gets_the_models_answers,
        }
    };
}

/// Makes a test of each promise about data that went away or back, for stores that are another process.
#[macro_export]
macro_rules! store_loss_contract {
    ($make:expr) => {
        $crate::contract_tests! { $make;
            loss::losing_everything_under_a_connection_is_a_new_data_set,
            loss::the_table_alone_finds_that_the_ring_is_gone,
            loss::while_settling_only_what_is_held_is_granted,
            loss::settling_ends_with_the_lease_time,
            loss::a_held_epoch_takes_the_row_back_while_settling,
            loss::every_process_finds_the_same_new_data_set,
            loss::a_new_data_set_moves_the_hints_of_every_process,
            loss::after_a_restart_with_its_data_the_holder_goes_on,
            loss::after_a_restart_with_older_data_the_holder_is_rewound,
            loss::after_a_restart_from_before_its_activation_the_holder_is_lost,
            loss::a_claim_from_before_a_restart_activates_nothing,
            loss::another_history_under_living_connections_is_a_new_data_set,
            loss::a_claim_from_before_another_history_activates_nothing,
            loss::a_new_owner_after_a_restart_begins_a_new_generation,
            loss::a_store_that_is_away_says_so_and_comes_back_by_itself,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! contract_tests {
    ($make:expr; $($group:ident::$name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(fixture) = $make.await else { return };
                $crate::contract::store::$group::$name(&fixture).await;
            }
        )*
    };
}
