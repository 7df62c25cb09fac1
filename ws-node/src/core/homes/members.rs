//! The home's side of a room's members (rule 29): who is there at which node, what the store has, when to say so.
//!
//! Nodes tell who is with them; the home writes and publishes the difference to what it listed last. Every change has
//! a version that names the one before, so that a listener notices when it missed one.

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::{MemberEntry, MemberOp, NodeState, RoomRoster, Table};
use roost_proto::Json;
use roost_proto::frames::InfoOf;
use roost_proto::ids::{Epoch, Sid, StreamId, UserId};
use roost_proto::limits::{MEMBERS_BYTES_MAX, MEMBERS_LISTED_MAX};
use roost_proto::live::{MemberChange, Note, Version};
use roost_proto::records::{Came, ItemResult, MemberUpdate};

use crate::core::keys::Now;

/// One user in one room.
#[derive(Debug, Clone, Default)]
struct RoomMember {
    /// What the last write about this user says, if anything.
    listed: Option<MemberEntry>,
    /// The nodes where it is, and what it said of itself last.
    at: BTreeSet<Sid>,
    info: Option<Json>,
    /// The latest home of the user, by its epoch, under which a node told that it shows or hides.
    home: Epoch,
    /// When to list it no more, if it is nowhere.
    due: u64,
}

impl RoomMember {
    /// What should be listed; `None` in the outer: nothing changes yet.
    pub(in crate::core) fn wanted(&self, now: Now) -> Option<Option<MemberEntry>> {
        let here = (!self.at.is_empty()).then(|| MemberEntry { info: self.info.clone() });
        let waits = here.is_none() && now.mono < self.due;
        (!waits && here != self.listed).then_some(here)
    }
}

/// The members of one room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    version: Version,
    users: BTreeMap<UserId, RoomMember>,
}

impl Members {
    fn listed(&self) -> usize {
        self.users.values().filter(|m| m.listed.is_some()).count()
    }
}

/// The rooms of a vnode that lives here.
#[derive(Debug, Clone, Default)]
pub(crate) struct HomeRooms {
    rooms: BTreeMap<StreamId, Members>,
    /// Changes listed under this epoch.
    changes: u64,
    /// The nodes that told, and since when each has not been its node's registered life, if so.
    sids: BTreeMap<Sid, Option<u64>>,
    /// The data was lost: who is there is only known when all nodes have told, by then.
    partial_until: u64,
}

impl HomeRooms {
    /// What a home begins with: everyone in the store has until `until` to be told of. If the data was lost nodes
    /// tell who is with them all the same.
    pub(crate) fn inherited(stored: Vec<(StreamId, RoomRoster)>, begun: bool, until: u64) -> Self {
        let member = |(user, entry): (UserId, MemberEntry)| {
            (
                user,
                RoomMember {
                    info: entry.info.clone(),
                    listed: Some(entry),
                    due: until,
                    ..RoomMember::default()
                },
            )
        };
        let room = |(stream, roster): (StreamId, RoomRoster)| {
            let users = roster.members.into_iter().map(member).collect();
            (stream, Members { version: roster.version, users })
        };
        let partial_until = if begun { until } else { 0 };
        Self { rooms: stored.into_iter().map(room).collect(), partial_until, ..Self::default() }
    }

    /// Only now may those be told of who were there before.
    pub(crate) fn ready(&mut self, until: u64) {
        for member in self.rooms.values_mut().flat_map(|room| room.users.values_mut()) {
            member.due = member.due.max(until);
        }
        if self.partial_until > 0 {
            self.partial_until = until;
        }
    }

    pub(crate) fn list(&self, epoch: Epoch, stream: &StreamId, now: Now) -> ItemResult {
        let as_of = Version { epoch, n: self.changes };
        let partial = now.mono < self.partial_until;
        let Some(room) = self.rooms.get(stream) else {
            return ItemResult::Members {
                version: Version::default(),
                as_of,
                partial,
                count: 0,
                members: Some(vec![]),
            };
        };
        let count = room.listed();
        let listed = room.users.iter().filter_map(|(user, m)| Some((user, m.listed.as_ref()?)));
        let listed = listed.map(|(user, entry)| InfoOf { user: user.clone(), info: entry.info.clone() });
        let members = (count <= MEMBERS_LISTED_MAX).then(|| listed.collect::<Vec<_>>());
        let fits = |all: &Vec<InfoOf>| all.iter().map(InfoOf::size).sum::<usize>() <= MEMBERS_BYTES_MAX;
        let members = members.filter(fits);
        ItemResult::Members { version: room.version, as_of, partial, count, members }
    }

    /// A node told who is there; returns whom to look at.
    pub(crate) fn told(&mut self, sid: &Sid, here: MemberUpdate, linger_ms: u64, now: Now) -> Vec<UserId> {
        self.sids.insert(sid.clone(), None);
        let room = self.rooms.entry(here.stream).or_default();
        let mut touched = Vec::new();
        if here.full {
            for (user, member) in &mut room.users {
                if member.at.remove(sid) && member.at.is_empty() {
                    member.due = now.mono + linger_ms;
                    touched.push(user.clone());
                }
            }
        }
        for Came { user, info, epoch } in here.came {
            let member = room.users.entry(user.clone()).or_default();
            member.at.insert(sid.clone());
            (member.info, member.home) = (info, member.home.max(epoch));
            touched.push(user);
        }
        for went in here.went {
            let Some(member) = room.users.get_mut(&went.user) else { continue };
            let home = went.epoch.unwrap_or_default();
            if went.hides && home >= member.home {
                // Also where its last home was, which may be dead and have its grace. Not where a later one is: what it
                // says was said after this, which may have waited on its way.
                member.at.clear();
                member.home = home;
            }
            member.at.remove(sid);
            if member.at.is_empty() {
                member.due = if went.left { now.mono } else { now.mono + linger_ms };
                touched.push(went.user);
            }
        }
        touched
    }

    /// Lives that are over have nobody any more; their users have `grace_ms` to come back elsewhere. A life is over
    /// when another took its place, and when nobody has had its name for that long: a planned stop removes it, and its
    /// successor's clock may be behind (rule 21).
    pub(crate) fn forget(&mut self, table: &Table, grace_ms: u64, now: Now) {
        let mut over = Vec::new();
        for (sid, absent) in &mut self.sids {
            let row = table.nodes.get(&sid.node());
            if row.is_some_and(|row| row.sid == *sid && row.state != NodeState::Revoked) {
                *absent = None;
            } else if now.mono >= *absent.get_or_insert(now.mono) + grace_ms || table.ended(sid) {
                over.push((sid.clone(), absent.unwrap_or(now.mono) + grace_ms));
            }
        }
        for (sid, until) in over {
            self.sids.remove(&sid);
            for member in self.rooms.values_mut().flat_map(|room| room.users.values_mut()) {
                if member.at.remove(&sid) && member.at.is_empty() {
                    member.due = until;
                }
            }
        }
    }

    /// Whose listing is not what it should be.
    pub(super) fn overdue(&self, now: Now) -> Vec<(StreamId, UserId)> {
        let all =
            self.rooms.iter().flat_map(|(stream, room)| room.users.iter().map(move |(u, m)| (stream, u, m)));
        let late = all.filter(|(_, _, m)| m.wanted(now).is_some() || m.is_gone(now));
        late.map(|(stream, user, _)| (stream.clone(), user.clone())).collect()
    }

    /// The write that lists what is true of a user, if it is not listed so.
    pub(super) fn write(
        &mut self,
        epoch: Epoch,
        stream: &StreamId,
        user: &UserId,
        now: Now,
    ) -> Option<MemberOp> {
        let room = self.rooms.get_mut(stream)?;
        let member = room.users.get_mut(user)?;
        let op = match member.wanted(now) {
            None => None,
            Some(entry) => {
                member.listed.clone_from(&entry);
                self.changes += 1;
                let version = Version { epoch, n: self.changes };
                let before = std::mem::replace(&mut room.version, version);
                let change = match &entry {
                    Some(entry) => MemberChange::Join { info: entry.info.clone() },
                    None => MemberChange::Leave,
                };
                let count = room.listed();
                let note = Note::Member { before, version, count, user: user.clone(), change };
                Some(MemberOp {
                    stream: stream.clone(),
                    user: user.clone(),
                    entry,
                    version,
                    last: count == 0,
                    note: note.to_json().into(),
                })
            }
        };
        if room.users.get(user).is_some_and(|m| m.is_gone(now)) {
            room.users.remove(user);
        }
        if room.users.is_empty() {
            self.rooms.remove(stream);
        }
        op
    }
}

impl RoomMember {
    fn is_gone(&self, now: Now) -> bool {
        self.listed.is_none() && self.at.is_empty() && now.mono >= self.due
    }
}
