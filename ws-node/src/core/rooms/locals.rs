//! The members of a room who are at this node, and what the room's home knows of them.
//!
//! Not events are told but what is: after a change of the home, or when an answer is lost for good, everyone who is
//! here is told anew.

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::Json;
use roost_proto::frames::{ChosenStatus, InfoOf};
use roost_proto::ids::{StreamId, UserId, VnodeId};
use roost_proto::limits::INFO_BYTES_MAX;
use roost_proto::records::{Here, ItemBody, Went};

use crate::core::NodeCore;
use crate::core::asker::Question;
use crate::core::events::{Now, SessionKey};

/// Users named in one record: with the largest `info` of each, a fifth of the largest record that Kafka takes.
const NAMED_MAX: usize = 200_000 / (INFO_BYTES_MAX + 256);

#[derive(Debug, Default)]
struct Local {
    info: Option<Json>,
    sessions: BTreeSet<SessionKey>,
    /// The others may see it: it is known that it did not choose to be invisible.
    shown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Locals {
    users: BTreeMap<UserId, Local>,
    /// Who came or went, as the others see it, since it was told, and whether they said that they leave. To hide is to
    /// leave.
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

    /// `shows`: whether the others may see its user, if that is known.
    pub(super) fn come(&mut self, key: SessionKey, user: &UserId, info: Option<Json>, shows: Option<bool>) {
        let local = self.users.entry(user.clone()).or_default();
        local.sessions.insert(key);
        let news = local.info != info;
        local.info = info;
        if local.shown && news {
            self.changed.insert(user.clone(), false);
        }
        if let Some(shows) = shows {
            self.show(user, shows);
        }
    }

    /// The others may see a user who is here, or may not any more.
    pub(super) fn show(&mut self, user: &UserId, shows: bool) {
        let Some(local) = self.users.get_mut(user) else { return };
        if std::mem::replace(&mut local.shown, shows) != shows {
            self.changed.insert(user.clone(), !shows);
        }
    }

    pub(super) fn go(&mut self, key: SessionKey, user: &UserId, left: bool) {
        let Some(local) = self.users.get_mut(user) else { return };
        if local.sessions.remove(&key) && local.sessions.is_empty() {
            let shown = local.shown;
            self.users.remove(user);
            if shown {
                self.changed.insert(user.clone(), left);
            }
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
            let shown = self.users.iter().filter(|(_, local)| local.shown);
            changed.extend(shown.map(|(user, _)| (user.clone(), false)));
        }
        let new = |anew| Here { stream: stream.clone(), anew, came: Vec::new(), went: Vec::new() };
        let mut records = vec![new(anew)];
        for (user, left) in changed {
            if records.last().is_some_and(|here| here.came.len() + here.went.len() >= NAMED_MAX) {
                records.push(new(false));
            }
            let here = records.last_mut().expect("there is one");
            match self.users.get(&user).filter(|local| local.shown) {
                Some(local) => here.came.push(InfoOf { user, info: local.info.clone() }),
                None => {
                    let hides = self.users.contains_key(&user);
                    here.went.push(Went { user, left, hides });
                }
            }
        }
        self.told = true;
        self.under_way = records.len();
        records
    }
}

impl NodeCore {
    /// Whether the others may see the user of a session, as far as that is known: its home says so, here or the last.
    pub(in crate::core) fn shows(&self, key: SessionKey) -> Option<bool> {
        let session = self.sessions.get(&key)?;
        let member = self.homes.get(&session.vnode).and_then(|home| home.members.get(&session.user));
        member.map(|member| member.chosen != ChosenStatus::Invisible).or(session.shows)
    }

    /// What a user chose became known, or is another: in rooms the user shows, or hides.
    pub(in crate::core) fn show_in_rooms(&mut self, vnode: VnodeId, user: &UserId, now: Now) {
        let stream = StreamId::inbox(user);
        for key in self.by_vnode.get(&vnode).and_then(|s| s.get(&stream)).cloned().unwrap_or_default() {
            let shows = self.shows(key);
            let Some(session) = self.sessions.get_mut(&key).filter(|s| s.shows != shows) else { continue };
            session.shows = shows;
            let rooms: Vec<_> =
                session.rooms.iter().filter(|(_, l)| l.presence).map(|(s, _)| s.clone()).collect();
            for room in rooms {
                if let (Some(room), Some(shows)) = (self.rooms.get_mut(&room), shows) {
                    room.locals.show(user, shows);
                }
                self.tell_locals(&room, now);
            }
        }
    }

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
            self.ask_home(Question::Here, stream, vnode, &ItemBody::Here(here), now);
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
