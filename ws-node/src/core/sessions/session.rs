//! One connection: a cursor into its user's inbox, and what it still owes or is owed (rule 25).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use roost_proto::frames::RoomAt;
use roost_proto::ids::{Cursor, DeviceId, Epoch, Offset, SessionId, StreamId, UserId, VnodeId};
use roost_service::ratelimit::Bucket;

use crate::core::command::Command;
use crate::core::rights::Rights;
use crate::core::rooms::{Arrival, Listener};
use crate::core::said::{SaidUpTo, Who};
use crate::core::sessions::blocked::Blocked;
use crate::core::sessions::credit::Credit;
use crate::core::sessions::reader::Reader;
use crate::core::sessions::reads::Wants;
use crate::core::sessions::signals::Signals;
use crate::core::watching::Watches;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
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
pub enum Verdict {
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
pub struct Session {
    pub user: UserId,
    pub stream: StreamId,
    pub vnode: VnodeId,
    pub id: SessionId,
    pub device: Option<DeviceId>,
    /// Of the token it showed last.
    pub rights: Rights,
    /// What `connect` showed.
    pub cursor: Option<Cursor>,
    pub epoch: Option<Epoch>,
    pub state: State,
    pub welcomed: bool,
    /// When its home last began to open it.
    pub opening_since: u64,
    /// Commands that came before `welcome`: done after it, in order.
    pub early: VecDeque<Command>,
    /// Taken when the place was read, with the tail as of then.
    pub verdict: (Verdict, Offset),
    /// Counted among the sessions of its user at home.
    pub counted: bool,
    /// Whether others may see in rooms that its user is there, as a home here said last; none before it is known.
    pub shows: Option<bool>,
    pub inbox: Reader,
    /// Up to where its user has read, as far as it was told or said so.
    pub read: Option<Cursor>,
    /// What it acknowledged, and said was read, over this connection: a home that is claimed anew hears it again.
    pub said: SaidUpTo,
    /// Messages that may be handed to the socket.
    pub credit: Credit,
    /// What is to be read for it.
    pub wants: Wants,
    pub signals: Signals,
    pub rooms: BTreeMap<StreamId, Listener>,
    pub watches: Watches,
    /// Rooms of `connect`, until they are joined, and what became of them.
    pub wanted: Vec<RoomAt>,
    pub arrival: Arrival,
    /// Rooms with more for it than it has credit.
    pub starved: BTreeSet<StreamId>,
    /// Commands that wait for their reply.
    pub unanswered: usize,
    /// What was refused or told `unknown`: later sends wait for its repeat (rule 1).
    pub blocked: Blocked,
    pub bucket: Bucket,
}

impl Session {
    /// Who says what it says.
    pub fn who(&self, quiet: bool) -> Who {
        Who { user: self.user.clone(), device: self.device.clone(), quiet }
    }

    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }
}
