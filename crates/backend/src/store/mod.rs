//! The store: who owns what, and the hot end of every stream.
//!
//! `types` are the questions and answers, [`model`] is what they mean, as plain state: the embedded store is
//! the model behind a lock, the simulation drives the model directly, and the Redis scripts are its twin, held
//! to it by the contract suite.

mod live;
#[allow(missing_docs, reason = "its methods are those of the trait, and it is the store's meaning in code")]
pub mod model;
mod page;
mod shown;
mod types;

use async_trait::async_trait;
use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset, StreamId, UserId, VnodeId};
use tokio::sync::{mpsc, watch};

pub use live::*;
pub use page::Page;
pub use shown::{Shown, shown_of};
pub use types::*;

/// What nobody else has drawn: the name of a data set, the secret of a ring. 128 random bits in hexadecimal.
pub(crate) fn fresh_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The store. Every call is one atomic step or one consistent read; every call is safe to repeat when its answer
/// was lost.
///
/// Control plane:
/// 1. `open_ring` makes the ring under a new random data set if there is none, and refuses another `V`.
/// 2. `register` replaces only an earlier sid of the same node.
/// 3. `claim` follows core rule 16: at most one sid holds a vnode's row; every grant has a larger epoch than any
///    row, any `floor` shown, and any earlier grant of this data set.
/// 4. `renew` extends the rows that are still the caller's and creates none; a row lives `lease_ttl_ms` after its
///    last renewal by the store's clock.
/// 5. Every control write names the data set the caller knows and is refused with `NewData` under another; while
///    settling only a claim that names an epoch held now is served (core rule 19).
/// 6. A leader's writes are refused unless its token leads at that moment.
/// 7. Each change of a row, node or assignment moves the [`Store::hints`] counter of every process, usually;
///    hints may be lost, so readers also read periodically.
///
/// Data plane (per vnode, atomic):
/// 8. `activate` needs a strictly larger epoch than the head's, or the same from the same sid, and that the data
///    set it was claimed under is the present one; it answers generation, seq, outbox, roster and what is due as of then (core
///    rules 17 to 19). Behind where its caller left it, a vnode begins a new generation, whatever the data set.
/// 9. `write` applies all its operations or none, only if epoch, sid and seq equal the head's; otherwise it
///    answers `deposed`, `lost`, `rewound` or `behind` (core rule 18). `behind` raises seq by one.
/// 10. Offsets of a stream within a generation are 1, 2, 3…; the same (stream, sender, id) within
///     [`IDS_KEPT_MS`](roost_proto::limits::IDS_KEPT_MS) is never appended twice: it answers the first offset and
///     time, or `conflict` for another body.
/// 11. The event of every applied operation is in the outbox until a later write trims it; composed to the byte as
///     `roost_proto::events` composes it.
/// 12. An append to a room and a change of its members are published in its [`LiveChannel`] by the step that does
///     them; nobody else publishes there but [`Store::shout`]. So are the changes of presence that others see, in
///     that of the vnode and together: with the version before them, which the vnode keeps
///     ([`presence_note`](roost_proto::live::presence_note)).
/// 13. `read` returns consecutive entries of one generation, or none; it never skips one that is still in the
///     window without saying so through `first`.
/// 14. `page` returns consecutive entries of the present generation too, newest first, and says when the window ends
///     before the stream does.
/// 15. What was appended as due stays so until a write settles or reports it; it is reported once, whatever became of
///     the stream meanwhile. What is wanted and owed in receipts stays until a write removes it.
/// 16. The same (client, id) of an event within [`IDS_KEPT_MS`](roost_proto::limits::IDS_KEPT_MS) goes out once. It
///     waits until one message is taken that [`Closes`] it.
/// 17. `read`, `page` and `activate` hold up other calls for no longer than some 256 KiB take, however much there is:
///     what is more is left, or brought in pieces that are all of one activation.
/// 18. Of a user's devices the [`DEVICES_KEPT`] used last are kept. A device that may have been forgotten is told
///     apart from a new one for as long as anything is kept of its user's devices.
#[async_trait]
pub trait Store: Send + Sync {
    /// Makes the ring, or finds it (promise 1).
    async fn open_ring(&self, vnodes: u32) -> Result<DataSet, StoreError>;
    /// Makes a life of a node known (promise 2).
    async fn register(&self, request: &Register) -> Result<RegisterAnswer, StoreError>;
    /// Removes the node's row if it still is this sid's, or leaves it as a tombstone.
    async fn deregister(&self, request: &Deregister) -> Result<(), StoreError>;
    /// What nodes of this ring prove themselves to each other with: random, made when it is first asked for, the same for
    /// all who ask under one data set. At least 128 bits, printable.
    async fn link_secret(&self) -> Result<String, StoreError>;
    /// All that the control plane says, as of one moment.
    async fn table(&self) -> Result<Table, StoreError>;
    /// Asks for a vnode (promise 3).
    async fn claim(&self, request: &Claim) -> Result<ClaimAnswer, StoreError>;
    /// Extends leases, and says how the node is (promise 4).
    async fn renew(&self, request: &Renew) -> Result<RenewAnswer, StoreError>;
    /// Marks rows ready; the answer says for each whether it was still the caller's.
    async fn set_ready(&self, request: &OwnRows) -> Result<Vec<bool>, StoreError>;
    /// Gives rows up; a row that is no longer the caller's is left alone.
    async fn release(&self, request: &OwnRows) -> Result<Vec<bool>, StoreError>;
    /// Takes the lead, or keeps it: raises the beat of who leads.
    async fn lead(&self, request: &Lead) -> Result<LeadAnswer, StoreError>;
    /// Gives the lead up, so that another need not wait for a lease. False if the token does not lead.
    async fn resign(&self, request: &Resign) -> Result<bool, StoreError>;
    /// Marks a node revoked if its sid and beat are still those seen. True if it was done.
    async fn revoke(&self, request: &Revoke) -> Result<bool, StoreError>;
    /// Of a node that is revoked, if its sid is still the one seen: notes for how long, or removes its row. True if it
    /// was done.
    async fn forget(&self, request: &Forget) -> Result<bool, StoreError>;
    /// Changes targets in the assignment. False if the token does not lead or the version moved on.
    async fn assign(&self, request: &Assign) -> Result<bool, StoreError>;
    /// A counter that moves when the table may have changed.
    fn hints(&self) -> watch::Receiver<u64>;

    /// Makes its caller the one who writes to a vnode (promise 8).
    async fn activate(&self, request: &Activate) -> Result<ActivateAnswer, StoreError>;
    /// Changes a vnode's data (promise 9).
    async fn write(&self, request: &Write) -> Result<WriteAnswer, StoreError>;
    /// What fits `limit` of `stream` after `after`, of `generation`.
    async fn read(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        generation: Epoch,
        after: Offset,
        limit: Limit,
    ) -> Result<Window, StoreError>;
    /// What fits `limit` of `stream` before `before`, or of the newest, of the vnode's present generation.
    async fn page(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        before: Option<Cursor>,
        limit: Limit,
    ) -> Result<Page, StoreError>;
    /// What is kept about the presence of users of one vnode, and where that stands.
    async fn presence(&self, vnode: VnodeId, users: &[UserId]) -> Result<Presences, StoreError>;
    /// What is kept about the presence of users of many vnodes, in the order asked: one read of each vnode, and all of
    /// them on their way at once. The rows of one user are of one moment, or as good as that.
    async fn presence_rows(
        &self,
        asked: &[(VnodeId, Vec<UserId>)],
    ) -> Result<Vec<Vec<PresenceRow>>, StoreError>;
    /// Where the presence of vnodes stands, in the order asked.
    async fn presence_standings(&self, vnodes: &[VnodeId]) -> Result<Vec<PresenceStanding>, StoreError>;
    /// Where rooms stand, in the order asked; `None` where no home was ever activated.
    async fn standings(&self, rooms: &[(VnodeId, StreamId)]) -> Result<Vec<Option<Standing>>, StoreError>;
    /// An ear of its own, which tells `queue`. Must be called within a Tokio runtime.
    fn subscribe(&self, queue: mpsc::Sender<LiveEvent>) -> Box<dyn Subscriber>;
    /// Publishes something that is kept nowhere.
    async fn publish(&self, channel: &LiveChannel, payload: Bytes) -> Result<(), StoreError>;
    /// Whether the store answers now.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Commands sent to the store so far, for the metrics.
    fn commands(&self) -> u64;
}
