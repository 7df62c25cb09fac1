//! One connection: a cursor into its user's inbox, and what it still owes or is owed (rule 25).

use std::collections::BTreeSet;

use roost_proto::ids::{Cursor, DeviceId, Epoch, Offset, SessionId, StreamId, UserId, VnodeId};
use roost_service::ratelimit::Bucket;

use crate::core::keys::{Now, SessionKey};
use crate::core::message::ItemKey;
use crate::core::rights::Rights;
use crate::core::rooms::Seats;
use crate::core::said::{SaidUpTo, Who};
use crate::core::sessions::blocked::{Blocked, Cause};
use crate::core::sessions::budget::Budget;
use crate::core::sessions::credit::Credit;
use crate::core::sessions::early::Early;
use crate::core::sessions::reader::Reader;
use crate::core::sessions::reads::Wants;
use crate::core::sessions::signals::{Latest, Signals};
use crate::core::sessions::socket::Socket;
use crate::core::watching::Watches;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Waits for a ready home, here or elsewhere, until then.
    Waiting {
        until: u64,
    },
    /// Its place in the stream is being read, and the log awaited; a newcomer waits until then.
    Opening {
        until: u64,
    },
    /// Not recovered, or reset: asks the log how far it goes (rule 26).
    Locating {
        ask: u64,
        again_at: u64,
    },
    Live,
    /// Told to go elsewhere, or left without a home: gets no messages; closed at the given time.
    Moved {
        close_at: u64,
    },
    /// Home is no longer here and the new one is not known yet.
    Adrift {
        since: u64,
    },
}

/// What a session's place in the stream allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything after this offset follows.
    Resume(Offset),
    /// It cannot be proved that what follows is all: the history has the rest.
    NotRecovered,
    /// A live session's stream began a new life.
    Reset,
    /// A live session fell behind the hot window.
    TooSlow,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(super) user: UserId,
    pub(super) stream: StreamId,
    pub(super) vnode: VnodeId,
    pub(super) id: SessionId,
    pub(super) device: Option<DeviceId>,
    /// Of the token it showed last.
    pub(super) rights: Rights,
    /// What `connect` showed.
    pub(super) cursor: Option<Cursor>,
    pub(super) epoch: Option<Epoch>,
    pub(super) state: State,
    pub(super) welcomed: bool,
    /// When its home last began to open it.
    pub(super) opening_since: u64,
    /// Commands that came before `welcome`: done after it, in order.
    pub(super) early: Early,
    /// What it says now was shed before `welcome`, and is refused.
    pub(super) refuses: bool,
    /// Taken when the place was read, with the tail as of then.
    pub(super) verdict: (Verdict, Offset),
    /// Counted among the sessions of its user at home.
    pub(super) counted: bool,
    pub(super) inbox: Reader,
    /// Up to where its user has read, as far as it was told or said so.
    pub(super) read: Option<Cursor>,
    /// What it acknowledged, and said was read, over this connection: a home that is claimed anew hears it again.
    pub(super) said: SaidUpTo,
    /// Messages that may be handed to the socket.
    pub(super) credit: Credit,
    /// What is to be read for it.
    pub(super) wants: Wants,
    pub(super) signals: Signals,
    pub(super) seats: Seats,
    pub(super) watches: Watches,
    /// Rooms with more for it than it has credit.
    pub(super) starved: BTreeSet<StreamId>,
    /// Commands that wait for their reply.
    pub(super) unanswered: usize,
    /// What was refused or told `unknown`: later sends wait for its repeat (rule 1).
    pub(super) blocked: Blocked,
    pub(super) bucket: Bucket,
}

impl Session {
    /// Who says what it says.
    pub(crate) fn who(&self, quiet: bool) -> Who {
        Who { user: self.user.clone(), device: self.device.clone(), quiet }
    }

    /// Where it is in its inbox, and what may go to its socket.
    pub(super) fn inbox_and_socket<'a>(
        &'a mut self,
        key: SessionKey,
        budget: &'a mut Budget,
    ) -> (&'a mut Reader, Socket<'a>) {
        (&mut self.inbox, Socket { key, user: &self.user, credit: &mut self.credit, budget })
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    /// Where its user is at home.
    pub(crate) fn vnode(&self) -> VnodeId {
        self.vnode
    }

    pub(crate) fn rights(&self) -> &Rights {
        &self.rights
    }

    pub(crate) fn seats(&self) -> &Seats {
        &self.seats
    }

    pub(crate) fn seats_mut(&mut self) -> &mut Seats {
        &mut self.seats
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.watches
    }

    pub(crate) fn watches_mut(&mut self) -> &mut Watches {
        &mut self.watches
    }

    /// The first frame was said: it may be told of anything else.
    pub(crate) fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Among the sessions of its user at home.
    pub(crate) fn is_counted(&self) -> bool {
        self.counted
    }

    /// It will be counted, unless it goes before.
    pub(crate) fn is_coming(&self) -> bool {
        !self.counted && !matches!(self.state, State::Moved { .. })
    }

    pub(crate) fn is_adrift(&self) -> bool {
        matches!(self.state, State::Adrift { .. })
    }

    /// Whether an answer on credit may go whose size is not known yet.
    pub(crate) fn takes_answers(&self) -> bool {
        self.credit.is_open()
    }

    /// A newcomer is not given up before.
    pub(crate) fn wait_until(&mut self, at: u64) {
        if let State::Waiting { until } = &mut self.state {
            *until = (*until).max(at);
        }
    }

    /// One command less waits for its reply.
    pub(crate) fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// What it sends later to the same stream waits for the repeat of this.
    pub(crate) fn block(&mut self, item: &ItemKey, arrival: u64, cause: Cause) {
        self.blocked.insert(item, arrival, cause);
    }

    /// Takes one of the commands that it may say; otherwise how long to wait, in milliseconds.
    pub(crate) fn take_turn(&mut self, now: Now) -> Result<(), u64> {
        self.bucket.take(now.mono)
    }

    /// What waits of this is not told any more.
    pub(crate) fn drop_one(&mut self, latest: &Latest) {
        self.signals.drop_one(latest);
    }

    /// The same of many.
    pub(crate) fn drop_latest(&mut self, of: impl Fn(&Latest) -> bool) {
        self.signals.drop_waiting(of);
    }

    /// It lacks nothing of a room any more.
    pub(crate) fn forget_starved(&mut self, stream: &StreamId) {
        self.starved.remove(stream);
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }
}
