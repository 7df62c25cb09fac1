//! Publish and subscribe in a [`Harness`], and what sessions say of rooms.

use std::collections::BTreeSet;

use bytes::Bytes;
use roost_backend::store::LiveChannel;
use roost_proto::Json;
use roost_proto::frames::{Change, InRoom, Join, Publish, RoomAt, ServerFrame};
use roost_proto::ids::{Cursor, MessageId, RoomId, StreamId, UserId, VnodeId};
use roost_ws_node::core::{Command, Connecting, Input, Rights, SessionKey};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Harness, ROAD_MS, STORE_MS};

/// The store's publish and subscribe.
#[derive(Default)]
pub(crate) struct Live {
    pub followers: BTreeSet<(LiveChannel, usize)>,
    /// Answers to follows wait in `unanswered`.
    pub hold_follows: bool,
    pub unanswered: Vec<(usize, Input)>,
    /// Nodes that nothing reaches.
    pub deaf: BTreeSet<usize>,
    /// How often it was asked where rooms stand.
    pub compared: usize,
}

impl Harness {
    pub(super) fn follow(&mut self, node: usize, channel: LiveChannel, ask: u64) {
        self.live.followers.insert((channel.clone(), node));
        let followed = Input::Followed { channel, ask, done: true };
        if self.live.hold_follows {
            self.live.unanswered.push((node, followed));
        } else {
            self.later(STORE_MS, node, followed);
        }
    }

    pub(super) fn unfollow(&mut self, node: usize, channel: LiveChannel) {
        self.live.followers.remove(&(channel, node));
    }

    pub(super) fn publish(&mut self, channel: &LiveChannel, payload: &Bytes) {
        let followers =
            self.live.followers.iter().filter(|(c, node)| c == channel && !self.live.deaf.contains(node));
        for node in followers.map(|(_, node)| *node).collect::<Vec<_>>() {
            let live = Input::Live { channel: channel.clone(), payload: payload.clone() };
            self.later(ROAD_MS, node, live);
        }
    }

    /// What writes in this vnode published.
    pub(super) fn publish_written(&mut self, vnode: VnodeId) {
        for (channel, payload) in self.data[vnode.index()].take_published(vnode) {
            self.publish(&channel, &payload);
        }
    }

    pub(super) fn standings(&mut self, node: usize, rooms: Vec<(VnodeId, StreamId)>) {
        self.live.compared += 1;
        let answer = rooms.iter().map(|(vnode, stream)| self.data[vnode.index()].standing(stream)).collect();
        self.later(STORE_MS, node, Input::Standings { rooms, answer: Some(answer) });
    }

    /// The `k`-th room whose home is vnode `v`.
    pub(crate) fn room(&self, v: usize, k: usize) -> RoomId {
        let rooms = (0..).map(|i| RoomId::new(format!("r{i}")).unwrap());
        let vnode =
            |room: &RoomId| roost_ring::vnode_of_stream(&StreamId::of_room(room), self.data.len() as u32);
        rooms.filter(|room| vnode(room).index() == v).nth(k).unwrap()
    }

    pub(crate) fn command(&mut self, session: u64, command: Command) {
        self.give(self.sessions[&session], Input::Command { session: SessionKey(session), command });
    }

    pub(crate) fn join(&mut self, session: u64, room: &RoomId, id: &str) {
        self.join_as(session, room, id, false, None);
    }

    /// Who shows where it is.
    pub(crate) fn join_from(&mut self, session: u64, room: &RoomId, id: &str, cursor: Cursor) {
        let at = RoomAt { room: room.clone(), cursor: Some(cursor), presence: false, info: None };
        self.command(session, Command::Join(Join::new(MessageId::new(id).unwrap(), at)));
    }

    /// Connects with rooms to be in as a member from the beginning.
    pub(crate) fn connect_in(&mut self, node: usize, user: &str, rooms: &[&RoomId]) -> u64 {
        let key = self.sessions.len() as u64 + 1;
        self.sessions.insert(key, node);
        let at = |room: &&RoomId| RoomAt { room: (*room).clone(), cursor: None, presence: true, info: None };
        let connecting = Connecting {
            session: SessionKey(key),
            user: UserId::new(user).unwrap(),
            device: None,
            rights: Rights::default(),
            epoch: None,
            cursor: None,
            rooms: rooms.iter().map(at).collect(),
        };
        self.give(node, Input::Connect(Box::new(connecting)));
        self.run(100);
        key
    }

    /// With presence, and this `info`.
    pub(crate) fn join_as(
        &mut self,
        session: u64,
        room: &RoomId,
        id: &str,
        presence: bool,
        info: Option<&str>,
    ) {
        let info = info.map(|text| Json::from(RawValue::from_string(text.into()).unwrap()));
        let at = RoomAt { room: room.clone(), cursor: None, presence, info };
        self.command(session, Command::Join(Join::new(MessageId::new(id).unwrap(), at)));
    }

    pub(crate) fn leave(&mut self, session: u64, room: &RoomId, id: &str) {
        let command = InRoom { id: MessageId::new(id).unwrap(), room: room.clone() };
        self.command(session, Command::Leave(command));
    }

    pub(crate) fn members(&mut self, session: u64, room: &RoomId, id: &str) {
        let command = InRoom { id: MessageId::new(id).unwrap(), room: room.clone() };
        self.command(session, Command::Members(command));
    }

    pub(crate) fn publish_in(&mut self, session: u64, room: &RoomId, id: &str) {
        let data = RawValue::from_string("{}".into()).unwrap();
        let publish = Publish { id: MessageId::new(id).unwrap(), room: room.clone(), data };
        self.command(session, Command::Publish(publish));
    }

    /// The `ok` of a reply.
    pub(crate) fn done<T: DeserializeOwned>(&self, session: u64, id: &str) -> T {
        let ok = self.frames.iter().find_map(|(key, frame)| match frame {
            ServerFrame::Reply(r) if *key == session && r.id.as_deref() == Some(id) => {
                r.ok.as_ref()?.read().ok()
            }
            _ => None,
        });
        ok.unwrap_or_else(|| panic!("{id} is not done: {:?}", self.told(session, id)))
    }

    /// Who came and went, as a session was told.
    pub(crate) fn told_of(&self, session: u64) -> Vec<(String, Change)> {
        let members = self.frames.iter().filter_map(|(key, frame)| match frame {
            ServerFrame::Member(m) if *key == session => Some((m.user.to_string(), m.change)),
            _ => None,
        });
        members.collect()
    }
}
