//! Rooms that sessions of this node are in: who listens, where each is, who is here (rules 25, 28, 29).
//!
//! A node follows a room's channel for all its sessions together, and asks the room's home where the stream ends:
//! what comes after that comes through the channel, what comes before is read from the store. `homes::members` is the
//! home's side: who is in a room of a vnode that lives here.

pub(in crate::core) mod join_position;
pub(in crate::core) mod joining;
pub(in crate::core) mod listening;
pub(in crate::core) mod locals;
pub(in crate::core) mod noting;
pub(in crate::core) mod replica;
pub(in crate::core) mod replicating;

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::LiveChannel;
use roost_proto::frames::{RoomAt, RoomWelcome};
use roost_proto::ids::{Cursor, MessageId, StreamId, VnodeId};

use crate::core::channels::asker::Question;
use crate::core::following::Following;
use crate::core::keys::SessionKey;
use crate::core::rooms::locals::{Locals, Sight};
use crate::core::rooms::replica::MemberReplica;
use crate::core::sessions::reader::Reader;

/// A room with sessions of this node in it.
#[derive(Debug)]
pub(super) struct Room {
    vnode: VnodeId,
    following: Following,
    listeners: BTreeSet<SessionKey>,
    /// Those of them that are members and told of the others.
    presence: BTreeSet<SessionKey>,
    /// The highest place known.
    tail: Cursor,
    /// Those who wait for the home to say where the stream ends.
    waiting: Waiting,
    /// Reads under way, by where they began: who stands at the same place shares one.
    reads: BTreeMap<Cursor, BTreeSet<SessionKey>>,
    locals: Locals,
    copy: Option<MemberReplica>,
    copy_asked: Option<Fetch>,
    /// Who asked for the members.
    asking: Vec<MembersAsked>,
}

/// The list of members is being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetch {
    number: u64,
    /// The channel was followed before, so that what changes afterwards is heard of: the list may be kept.
    followed: bool,
}

/// A `members` that is not answered yet.
#[derive(Debug)]
pub(super) struct MembersAsked {
    key: SessionKey,
    id: MessageId,
    at: u64,
    /// The home was asked after it came: what it says then is an answer to this one, too.
    asked: bool,
}

/// Listeners that share one question. Its answer is for those who were there when it was asked: who came later may
/// know more already, and a question of theirs follows.
#[derive(Debug, Default)]
struct Waiting {
    /// For whom nothing was asked yet.
    unasked: BTreeSet<SessionKey>,
    /// The question that is under way, and whom it is for.
    asked: Option<(u64, BTreeSet<SessionKey>)>,
}

impl Waiting {
    /// A listener begins to wait, maybe not for the first time.
    fn come(&mut self, key: SessionKey) {
        self.go(key);
        self.unasked.insert(key);
    }

    pub(in crate::core) fn go(&mut self, key: SessionKey) {
        self.unasked.remove(&key);
        if let Some((_, asked)) = &mut self.asked {
            asked.remove(&key);
        }
    }

    fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.unasked.iter().chain(self.asked.iter().flat_map(|(_, asked)| asked)).copied()
    }

    fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    fn may_ask(&self) -> bool {
        self.asked.is_none() && !self.unasked.is_empty()
    }

    /// A question is asked now, for all that wait.
    pub(in crate::core) fn ask(&mut self, number: u64) {
        self.asked = Some((number, std::mem::take(&mut self.unasked)));
    }

    /// The question was answered: whom the answer is for.
    fn answered(&mut self) -> BTreeSet<SessionKey> {
        self.asked.take().map(|(_, asked)| asked).unwrap_or_default()
    }

    /// There is no answer, or one that nobody can use: all wait on.
    fn not_answered(&mut self) {
        let asked = self.answered();
        self.unasked.extend(asked);
    }
}

impl Room {
    fn new(vnode: VnodeId) -> Self {
        Self {
            vnode,
            following: Following::default(),
            listeners: BTreeSet::new(),
            presence: BTreeSet::new(),
            tail: Cursor::default(),
            waiting: Waiting::default(),
            reads: BTreeMap::new(),
            locals: Locals::default(),
            copy: None,
            copy_asked: None,
            asking: Vec::new(),
        }
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = SessionKey> {
        self.listeners.iter().copied()
    }

    /// Whether what is answered under this number was asked for this room as it is. Who is here is no question, and
    /// keeps the room.
    fn asked(&self, question: Question, number: u64) -> bool {
        match question {
            Question::Tail => self.waiting.asked.as_ref().is_some_and(|(asked, _)| *asked == number),
            Question::Members => self.copy_asked.is_some_and(|fetch| fetch.number == number),
            Question::MemberUpdate => true,
        }
    }

    /// Nobody here needs anything of it any more, and its home knows.
    pub(in crate::core) fn is_idle(&self) -> bool {
        self.listeners.is_empty() && self.asking.is_empty() && self.locals.is_idle()
    }
}

/// How the session learns where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// By the reply to its `join`.
    Reply(MessageId),
    /// In its `welcome`.
    Welcome,
    /// It was live and must find its place again: only told if that fails.
    Again,
}

/// One session in one room.
#[derive(Debug)]
pub(super) struct Listener {
    reader: Reader,
    /// Until it has its place: what the client showed, how it is told, and until when it waits.
    opening: Option<Opening>,
    /// Is a member, and is told of the others.
    presence: bool,
}

impl Listener {
    /// It was given the list of members, and is told of changes since.
    fn follows_members(&self) -> bool {
        self.presence && self.opening.as_ref().is_none_or(|opening| opening.how == How::Again)
    }
}

#[derive(Debug)]
pub(super) struct Opening {
    how: How,
    shown: Option<Cursor>,
    until: u64,
}

/// What `welcome` says of the rooms of `connect`.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// Not yet known.
    pending: BTreeSet<StreamId>,
    told: Vec<RoomWelcome>,
    /// When those that are still pending are given up; none before the session's home is here.
    until: Option<u64>,
}

impl Arrival {
    fn take_back(&mut self, stream: &StreamId) {
        self.told.retain(|told| StreamId::of_room(&told.room) != *stream);
        self.pending.insert(stream.clone());
    }
}

/// A session's places in rooms.
#[derive(Debug, Default)]
pub(super) struct Seats {
    rooms: BTreeMap<StreamId, Listener>,
    /// Rooms of `connect`, until they are joined, and what became of them.
    wanted: Vec<RoomAt>,
    arrival: Arrival,
    /// Whether others may see that its user is there, as a home here said last; none before it is known.
    sight: Option<Sight>,
}

impl Seats {
    /// For a `connect` with these rooms.
    pub(super) fn of(wanted: Vec<RoomAt>) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub(super) fn has(&self, stream: &StreamId) -> bool {
        self.rooms.contains_key(stream)
    }

    pub(super) fn listener_mut(&mut self, stream: &StreamId) -> Option<&mut Listener> {
        self.rooms.get_mut(stream)
    }

    /// What became of the rooms of `connect` is known of all of them.
    pub(super) fn is_complete(&self) -> bool {
        self.arrival.pending.is_empty()
    }
}

/// Sessions that are told of a gap as soon as the log said where it ends.
#[derive(Debug)]
pub(super) struct Locating {
    stream: StreamId,
    tail: Cursor,
    sessions: BTreeSet<SessionKey>,
}

/// All rooms of a node.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    by_stream: BTreeMap<StreamId, Room>,
    by_vnode: BTreeMap<VnodeId, BTreeSet<StreamId>>,
    locating: BTreeMap<u64, Locating>,
    /// Reads to be tried again.
    look: BTreeSet<(StreamId, SessionKey)>,
    /// When tails are compared next.
    compare_at: u64,
    next_ask: u64,
}

impl Rooms {
    pub(super) fn get(&self, stream: &StreamId) -> Option<&Room> {
        self.by_stream.get(stream)
    }

    fn get_mut(&mut self, stream: &StreamId) -> Option<&mut Room> {
        self.by_stream.get_mut(stream)
    }

    fn open(&mut self, stream: &StreamId, vnode: VnodeId) -> &mut Room {
        self.by_vnode.entry(vnode).or_default().insert(stream.clone());
        self.by_stream.entry(stream.clone()).or_insert_with(|| Room::new(vnode))
    }

    fn close(&mut self, stream: &StreamId) -> Option<LiveChannel> {
        let room = self.by_stream.remove(stream)?;
        if let Some(streams) = self.by_vnode.get_mut(&room.vnode) {
            streams.remove(stream);
            if streams.is_empty() {
                self.by_vnode.remove(&room.vnode);
            }
        }
        room.following.was_asked().then(|| LiveChannel::Room { vnode: room.vnode, stream: stream.clone() })
    }

    /// What the log is asked for this session in this room does not concern it any more.
    fn not_located(&mut self, key: SessionKey, stream: &StreamId) {
        for locating in self.locating.values_mut().filter(|l| l.stream == *stream) {
            locating.sessions.remove(&key);
        }
    }

    /// Rooms whose home is at this vnode.
    pub(in crate::core) fn of(&self, vnode: VnodeId) -> Vec<StreamId> {
        self.by_vnode.get(&vnode).into_iter().flatten().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.by_stream.len()
    }

    pub(super) fn listeners(&self) -> usize {
        self.by_stream.values().map(|room| room.listeners.len()).sum()
    }
}

/// How often tails are compared, in milliseconds: how long the loss of a last publication may go unnoticed.
pub(in crate::core) const COMPARE_MS: u64 = 5000;
