//! Why something is where it is: what this node knows of one user or one message, for people.

use roost_backend::store::Op;
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::*;
use serde::Serialize;

use crate::core::homes::home::{Home, Phase};
use crate::core::homes::work::Work;
use crate::core::keys::Now;
use crate::core::node::NodeCore;
use crate::core::sessions::session::State;

/// What is asked about.
#[derive(Debug, Clone)]
pub enum Query {
    User(UserId),
    Message(MessageId),
}

/// What one node knows. Times in milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Explained {
    /// The vnode of the user, here at home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<HomeShown>,
    pub sessions: Vec<SessionShown>,
    /// What sessions of this node have sent to the vnode and was not confirmed yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelShown>,
    /// Where the message is, at this node.
    pub found: Vec<Found>,
}

#[derive(Debug, Serialize)]
pub struct HomeShown {
    pub vnode: VnodeId,
    pub epoch: Epoch,
    pub generation: Epoch,
    pub phase: &'static str,
    /// 0 when it has run out: the home is suspended.
    pub lease_left_ms: u64,
    /// Work for the next writes.
    pub queued: usize,
    /// Operations in the write under way, and how often it was tried again because no answer came.
    pub writing: usize,
    pub write_retries: u32,
    /// Events that the log has not confirmed.
    pub outbox: usize,
    /// Who waits for that: results, openings, replies.
    pub held: usize,
    /// What the roster says of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ChosenStatus>,
}

#[derive(Debug, Serialize)]
pub struct SessionShown {
    pub session: SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// What its token allows: patterns of rooms, and of users who may be watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<Vec<String>>,
    pub state: &'static str,
    pub generation: Epoch,
    /// The last offset handed to its socket, and the last there is.
    pub sent: Offset,
    pub tail: Offset,
    /// Frames its socket may be handed now: 0 means that it does not read.
    pub credit: usize,
    pub unanswered: usize,
}

#[derive(Debug, Serialize)]
pub struct ChannelShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeId>,
    pub epoch: Epoch,
    pub items: usize,
    /// Of these, handed to the transport.
    pub sent: u64,
    /// Since its home was last heard of.
    pub silent_ms: u64,
}

/// One place of a message, and why it is there.
#[derive(Debug, Serialize)]
pub struct Found {
    pub stream: StreamId,
    pub from: String,
    pub place: &'static str,
    /// Its number in the channel, or in the queue of the home.
    pub number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    pub why: String,
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Activating => "activating",
        Phase::Inheriting => "inheriting",
        Phase::Ready => "ready",
        Phase::Stopping => "stopping",
        Phase::Releasing => "releasing",
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Waiting { .. } => "waiting for its home",
        State::Opening { .. } => "opening",
        State::Locating { .. } => "waiting for the log",
        State::Live => "live",
        State::Moved { .. } => "told to move",
        State::Adrift { .. } => "its home is not known",
    }
}

impl NodeCore {
    /// What this node knows about `query`.
    pub fn explain(&self, query: &Query, now: Now) -> Explained {
        match query {
            Query::User(user) => self.explain_user(user, now),
            Query::Message(id) => Explained { found: self.find(id, now), ..Explained::default() },
        }
    }

    fn explain_user(&self, user: &UserId, now: Now) -> Explained {
        let stream = StreamId::inbox(user);
        let vnode = self.vnode_of(&stream);
        let home = self.homes.get(&vnode).map(|home| {
            let member = home.members.get(user).and_then(|member| member.stored.as_ref());
            HomeShown {
                vnode,
                epoch: home.epoch,
                generation: home.generation,
                phase: phase(home.phase),
                lease_left_ms: home.lease_until.saturating_sub(now.mono),
                queued: home.queue.len(),
                writing: home.call.as_ref().map_or(0, |call| call.write.ops.len()),
                write_retries: home.call.as_ref().map_or(0, |call| call.tries),
                outbox: home.outbox.len(),
                held: home.held.len(),
                status: member.map(|entry| entry.chosen),
            }
        });
        let keys = self.sessions.by_vnode.get(&vnode).and_then(|streams| streams.get(&stream));
        let sessions =
            keys.into_iter().flatten().filter_map(|key| self.sessions.get(key)).map(|s| SessionShown {
                session: s.id.clone(),
                device: s.device.clone(),
                rooms: s.rights.rooms.clone(),
                watch: s.rights.watch.clone(),
                state: state(s.state),
                generation: s.inbox.generation,
                sent: s.inbox.sent,
                tail: s.inbox.tail.offset,
                credit: s.credit.frames(),
                unanswered: s.unanswered,
            });
        let channel = self.channels.get(&vnode).filter(|c| !c.is_empty()).map(|c| ChannelShown {
            to: c.home().cloned(),
            epoch: c.epoch(),
            items: c.len(),
            sent: c.handed_out(),
            silent_ms: c.silent_ms(now.mono),
        });
        Explained { home, sessions: sessions.collect(), channel, found: Vec::new() }
    }

    pub(super) fn find(&self, id: &MessageId, now: Now) -> Vec<Found> {
        let mut found = Vec::new();
        for (vnode, channel) in self.channels.iter() {
            for (key, number, sent, since) in channel.find(id) {
                let why = match (channel.home(), sent) {
                    (None, _) => format!("vnode {vnode} has no owner that this node knows of"),
                    (Some(home), false) => format!("waits for its turn to {home}"),
                    (Some(home), true) => format!(
                        "sent to {home} under epoch {}, which has not confirmed it; last heard of {} ms ago",
                        channel.epoch(),
                        channel.silent_ms(now.mono)
                    ),
                };
                let age_ms = Some(now.mono.saturating_sub(since));
                let (stream, from) = (key.0.clone(), key.1.clone());
                found.push(Found { stream, from, place: "in the sender's channel", number, age_ms, why });
            }
        }
        for home in self.homes.values() {
            found.extend(self.find_at(home, id, now));
        }
        found
    }

    fn find_at(&self, home: &Home, id: &MessageId, now: Now) -> Vec<Found> {
        let is_it = |work: &Work| match work {
            Work::Item { op: Op::Append(append), .. } if append.id == *id => {
                Some((append.stream.clone(), append.from.clone()))
            }
            _ => None,
        };
        let lease = if home.leased(now) { "" } else { "; its lease has run out, so nothing is written" };
        let mut found = Vec::new();
        let numbered = |(n, work): (usize, &Work)| is_it(work).map(|found| (n, found));
        for (n, (stream, from)) in home.queue.iter().enumerate().filter_map(numbered) {
            let outbox = home.outbox.len();
            let why = if outbox >= self.cfg.outbox_max {
                format!("the outbox is full ({outbox} events): the log does not take them{lease}")
            } else if home.call.is_some() {
                format!("a write is under way, this one comes with the next{lease}")
            } else {
                format!("its home is {}{lease}", phase(home.phase))
            };
            let (place, number, age_ms) = ("in the queue of its home", n as u64, None);
            found.push(Found { stream, from, place, number, age_ms, why });
        }
        if let Some(call) = &home.call {
            for (n, (stream, from)) in call.work.iter().enumerate().filter_map(numbered) {
                let why = format!("the store has not answered yet, tried {} times again{lease}", call.tries);
                let (place, number) = ("in the write under way", n as u64);
                let age_ms = Some(now.us.saturating_sub(call.sent_us) / 1000);
                found.push(Found { stream, from, place, number, age_ms, why });
            }
        }
        if let Some((event, emitted)) = home.outbox.find(id) {
            let (place, number, age_ms) = ("appended, in the outbox", event.seq.0, None);
            let why = match emitted {
                true => "the log has not confirmed it yet: only then is the sender told",
                false => "events before it go to the log first",
            };
            let (stream, from) = (event.stream, event.from);
            found.push(Found { stream, from, place, number, age_ms, why: why.into() });
        }
        found
    }
}
