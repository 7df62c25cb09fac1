//! The members of a room who are at this node, and what the room's home knows of them.
//!
//! Not events are told but what is: after a change of the home, or when an answer is lost for good, everyone who is
//! here is told anew.

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::Json;
use roost_proto::frames::InfoOf;
use roost_proto::ids::{StreamId, UserId, VnodeId};
use roost_proto::limits::INFO_BYTES_MAX;
use roost_proto::records::{Here, ItemBody, Went};

use super::placing::Ask;
use crate::core::NodeCore;
use crate::core::events::{Now, SessionKey};

/// Users named in one record: with the largest `info` of each, a fifth of the largest record that Kafka takes.
const NAMED_MAX: usize = 200_000 / (INFO_BYTES_MAX + 256);

#[derive(Debug, Default)]
struct Local {
    info: Option<Json>,
    sessions: BTreeSet<SessionKey>,
}

#[derive(Debug, Default)]
pub(super) struct Locals {
    users: BTreeMap<UserId, Local>,
    /// Who came or went since it was told, and whether they said that they leave.
    changed: BTreeMap<UserId, bool>,
    /// Everyone must be told anew.
    anew: bool,
    /// The home was told of somebody once, so it must be told when they are gone.
    told: bool,
    /// Records on their way.
    under_way: usize,
}

impl Locals {
    pub(super) fn is_idle(&self) -> bool {
        self.users.is_empty() && self.changed.is_empty() && self.under_way == 0 && !(self.anew && self.told)
    }

    pub(super) fn come(&mut self, key: SessionKey, user: &UserId, info: Option<Json>) {
        let first = !self.users.contains_key(user);
        let local = self.users.entry(user.clone()).or_default();
        local.sessions.insert(key);
        if first || local.info != info {
            local.info = info;
            self.changed.insert(user.clone(), false);
        }
    }

    pub(super) fn go(&mut self, key: SessionKey, user: &UserId, left: bool) {
        let Some(local) = self.users.get_mut(user) else { return };
        if local.sessions.remove(&key) && local.sessions.is_empty() {
            self.users.remove(user);
            self.changed.insert(user.clone(), left);
        }
    }

    /// What to tell the home now, in records of bounded size; nothing while earlier ones are on their way.
    fn records(&mut self, stream: &StreamId) -> Vec<Here> {
        if self.under_way > 0
            || !(self.anew && (self.told || !self.users.is_empty()) || !self.changed.is_empty())
        {
            return Vec::new();
        }
        let anew = std::mem::take(&mut self.anew);
        let mut changed = std::mem::take(&mut self.changed);
        if anew {
            changed.retain(|_, left| *left);
            changed.extend(self.users.keys().map(|user| (user.clone(), false)));
        }
        let new = |anew| Here { stream: stream.clone(), anew, came: Vec::new(), went: Vec::new() };
        let mut records = vec![new(anew)];
        for (user, left) in changed {
            if records.last().is_some_and(|here| here.came.len() + here.went.len() >= NAMED_MAX) {
                records.push(new(false));
            }
            let here = records.last_mut().expect("there is one");
            match self.users.get(&user) {
                Some(local) => here.came.push(InfoOf { user, info: local.info.clone() }),
                None => here.went.push(Went { user, left }),
            }
        }
        self.told = true;
        self.under_way = records.len();
        records
    }
}

impl NodeCore {
    /// Tells a room's home who came and went here.
    pub(super) fn tell_locals(&mut self, stream: &StreamId, now: Now) {
        let Some(vnode) = self.rooms.get(stream).map(|room| room.vnode) else { return };
        // Too much is queued for this home already: on a later tick.
        let full = self.channel_is_full(vnode);
        let Some(room) = self.rooms.get_mut(stream) else { return };
        if full {
            room.locals.anew |= !room.locals.changed.is_empty();
            return;
        }
        for here in room.locals.records(stream) {
            self.ask_home(Ask::Here, stream, vnode, &ItemBody::Here(here), now);
        }
    }

    pub(super) fn on_noted(&mut self, stream: &StreamId, now: Now) {
        if let Some(room) = self.rooms.get_mut(stream) {
            room.locals.under_way = room.locals.under_way.saturating_sub(1);
        }
        self.tell_locals(stream, now);
        self.close_room(stream);
    }

    /// What was said may be lost.
    pub(super) fn not_noted(&mut self, stream: &StreamId) {
        if let Some(room) = self.rooms.get_mut(stream) {
            room.locals.under_way = room.locals.under_way.saturating_sub(1);
            room.locals.anew = true;
        }
    }

    /// The vnode has another home, or this node another life: it is told everything anew.
    pub(in crate::core) fn tell_anew(&mut self, vnode: VnodeId, now: Now) {
        for stream in self.rooms.of(vnode) {
            if let Some(room) = self.rooms.get_mut(&stream) {
                room.locals.anew = true;
            }
            self.tell_locals(&stream, now);
        }
    }

    /// This node has another life: nobody knows of it who is here.
    pub(in crate::core) fn tell_all_anew(&mut self) {
        for room in self.rooms.by_stream.values_mut() {
            room.locals.anew = true;
        }
    }

    pub(super) fn tell_all_locals(&mut self, now: Now) {
        let silent = |room: &super::Room| room.locals.under_way == 0 && room.locals.anew;
        let streams: Vec<_> =
            self.rooms.by_stream.iter().filter(|(_, r)| silent(r)).map(|(s, _)| s.clone()).collect();
        for stream in streams {
            self.tell_locals(&stream, now);
            self.close_room(&stream);
        }
    }
}
