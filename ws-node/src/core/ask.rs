//! Every question to the store, with what its answer becomes.

use roost_backend::store::*;
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, StreamId, UserId, VnodeId};

use crate::core::events::Event;
use crate::core::keys::SessionKey;

/// One question. `sent` is when it leaves, on the monotonic clock in milliseconds.
#[derive(Debug)]
pub enum Ask {
    Register(Box<Register>),
    Claim {
        claim: Claim,
        sent: u64,
    },
    Activate(Activate),
    /// Of one row.
    Ready(OwnRows),
    Release(OwnRows),
    Renew {
        renew: Renew,
        sent: u64,
    },
    Write {
        call: u64,
        write: Box<Write>,
    },
    /// For a session, or for all that share a read in a room.
    Read {
        ask: u64,
        session: Option<SessionKey>,
        vnode: VnodeId,
        stream: StreamId,
        generation: Epoch,
        after: Offset,
        limit: Limit,
    },
    Page {
        ask: u64,
        session: SessionKey,
        id: MessageId,
        vnode: VnodeId,
        stream: StreamId,
        before: Option<Cursor>,
        limit: Limit,
    },
    /// Where do these rooms stand?
    Standings(Vec<(VnodeId, StreamId)>),
    /// What do these users of a vnode show?
    Presence {
        vnode: VnodeId,
        users: Vec<UserId>,
        ask: u64,
    },
    /// Where does the presence of these vnodes stand?
    PresenceStandings(Vec<VnodeId>),
}

impl Ask {
    /// What the core is told if there is no answer: the question may take effect all the same, even later.
    pub fn unanswered(&self) -> Event {
        match self {
            Self::Register(_) => Event::Registered(None),
            Self::Claim { claim, sent } => Event::Claimed { vnode: claim.vnode, sent: *sent, answer: None },
            Self::Activate(a) => Event::Activated { vnode: a.vnode, epoch: a.epoch, answer: None },
            Self::Ready(own) => {
                let (vnode, epoch) = own.rows[0];
                Event::Readied { vnode, epoch, answer: None }
            }
            Self::Release(own) => {
                let (vnode, epoch) = own.rows[0];
                Event::Released { vnode, epoch }
            }
            Self::Renew { renew, sent } => {
                Event::Renewed { sent: *sent, rows: renew.rows.clone(), answer: None }
            }
            Self::Write { call, write } => {
                Event::Written { vnode: write.fence.vnode, call: *call, answer: None }
            }
            Self::Read { ask, session, stream, generation, after, .. } => {
                let (stream, generation, after) = (stream.clone(), *generation, *after);
                Event::Read { ask: *ask, session: *session, stream, generation, after, answer: None }
            }
            Self::Page { ask, session, id, stream, before, .. } => {
                let (id, stream, before) = (id.clone(), stream.clone(), *before);
                Event::Paged { ask: *ask, session: *session, id, stream, before, answer: None }
            }
            Self::Standings(rooms) => Event::Standings { rooms: rooms.clone(), answer: None },
            Self::Presence { vnode, users, ask } => {
                Event::PresenceRead { vnode: *vnode, users: users.clone(), ask: *ask, answer: None }
            }
            Self::PresenceStandings(vnodes) => {
                Event::PresenceStandings { vnodes: vnodes.clone(), answer: None }
            }
        }
    }

    /// Puts the question.
    ///
    /// # Errors
    /// There is no answer: [`Ask::unanswered`].
    pub async fn put(self, store: &dyn Store) -> Result<Event, StoreError> {
        let event = match self {
            Self::Register(register) => Event::Registered(Some(store.register(&register).await?)),
            Self::Claim { claim, sent } => {
                let answer = Some(store.claim(&claim).await?);
                Event::Claimed { vnode: claim.vnode, sent, answer }
            }
            Self::Activate(activate) => {
                let answer = Some(store.activate(&activate).await?);
                Event::Activated { vnode: activate.vnode, epoch: activate.epoch, answer }
            }
            Self::Ready(own) => {
                let (vnode, epoch) = own.rows[0];
                let answer = store.set_ready(&own).await?.first().copied();
                Event::Readied { vnode, epoch, answer }
            }
            Self::Release(own) => {
                let (vnode, epoch) = own.rows[0];
                store.release(&own).await?;
                Event::Released { vnode, epoch }
            }
            Self::Renew { renew, sent } => {
                let answer = Some(store.renew(&renew).await?);
                Event::Renewed { sent, rows: renew.rows, answer }
            }
            Self::Write { call, write } => {
                let answer = Some(answer_to_write(&write, store).await?);
                Event::Written { vnode: write.fence.vnode, call, answer }
            }
            Self::Read { ask, session, vnode, stream, generation, after, limit } => {
                let answer = Some(store.read(vnode, &stream, generation, after, limit).await?);
                Event::Read { ask, session, stream, generation, after, answer }
            }
            Self::Page { ask, session, id, vnode, stream, before, limit } => {
                let answer = Some(store.page(vnode, &stream, before, limit).await?);
                Event::Paged { ask, session, id, stream, before, answer }
            }
            Self::Standings(rooms) => {
                let answer = Some(store.standings(&rooms).await?);
                Event::Standings { rooms, answer }
            }
            Self::Presence { vnode, users, ask } => {
                let answer = Some(store.presence(vnode, &users).await?);
                Event::PresenceRead { vnode, users, ask, answer }
            }
            Self::PresenceStandings(vnodes) => {
                let answer = Some(store.presence_standings(&vnodes).await?);
                Event::PresenceStandings { vnodes, answer }
            }
        };
        Ok(event)
    }
}

/// That the store takes no write is an answer: nothing of it took effect.
async fn answer_to_write(write: &Write, store: &dyn Store) -> Result<WriteAnswer, StoreError> {
    match store.write(write).await {
        Err(StoreError::Refused(why)) => {
            tracing::warn!(why, vnode = %write.fence.vnode, "the store takes no write");
            Ok(WriteAnswer::Refused)
        }
        answer => answer,
    }
}
