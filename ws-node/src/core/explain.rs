//! Why something is where it is: what this node knows of one user or one message, for people.

use roost_proto::frames::ChosenStatus;
use roost_proto::ids::*;
use serde::Serialize;

use crate::core::keys::Now;
use crate::core::node::NodeCore;
use crate::core::sessions::session::Session;

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
        let home = self.homes.get(&vnode).map(|home| home.explained(user, now));
        let keys = self.sessions.of(vnode, &stream).iter();
        let sessions = keys.filter_map(|key| self.sessions.get(key)).map(Session::explained);
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
            found.extend(home.find(id, &self.cfg, now));
        }
        found
    }
}
