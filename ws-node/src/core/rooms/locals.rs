//! The members of a room who are at this node, and what the room's home knows of them.
//!
//! Not events are told but what is: after a change of the home, or when an answer is lost for good, everyone who is
//! here is told anew.

use std::collections::{BTreeMap, BTreeSet};

use roost_proto::Json;
use roost_proto::ids::{Epoch, StreamId, UserId};
use roost_proto::limits::INFO_BYTES_MAX;
use roost_proto::records::{Came, MemberUpdate, Went};

use crate::core::keys::SessionKey;

/// Users named in one record: with the largest `info` of each, a fifth of the largest record that Kafka takes.
const NAMED_MAX: usize = 200_000 / (INFO_BYTES_MAX + 256);

/// Whether the others may see a user, and which home of the user says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) shows: bool,
    pub(super) epoch: Epoch,
}

#[derive(Debug, Default)]
struct Local {
    info: Option<Json>,
    sessions: BTreeSet<SessionKey>,
    /// The others may see it when it is known that it did not choose to be invisible.
    sight: Sight,
}

#[derive(Debug, Default)]
pub(super) struct Locals {
    users: BTreeMap<UserId, Local>,
    /// Who came or went, as the others see it, since it was told, and whether they said that they leave. To hide is to
    /// leave.
    pub(super) changed: BTreeMap<UserId, bool>,
    /// Everyone must be told anew.
    pub(super) anew: bool,
    /// The home was told of somebody once, so it must be told when they are gone.
    told: bool,
    /// Records on their way.
    pub(super) under_way: usize,
}

impl Locals {
    pub(in crate::core) fn is_idle(&self) -> bool {
        self.users.is_empty() && self.changed.is_empty() && self.under_way == 0 && !(self.anew && self.told)
    }

    /// `sight`: whether the others may see its user, if that is known.
    pub(super) fn come(&mut self, key: SessionKey, user: &UserId, info: Option<Json>, sight: Option<Sight>) {
        let local = self.users.entry(user.clone()).or_default();
        local.sessions.insert(key);
        let news = local.info != info;
        local.info = info;
        if local.sight.shows && news {
            self.changed.insert(user.clone(), false);
        }
        if let Some(sight) = sight {
            self.show(user, sight);
        }
    }

    /// The others may see a user who is here, or may not any more. Who is seen is told of under each home of the user:
    /// what an earlier one hid may be on its way still.
    pub(super) fn show(&mut self, user: &UserId, sight: Sight) {
        let Some(local) = self.users.get_mut(user) else { return };
        let before = std::mem::replace(&mut local.sight, sight);
        if before != sight && (before.shows || sight.shows) {
            self.changed.insert(user.clone(), !sight.shows);
        }
    }

    pub(in crate::core) fn go(&mut self, key: SessionKey, user: &UserId, left: bool) {
        let Some(local) = self.users.get_mut(user) else { return };
        if local.sessions.remove(&key) && local.sessions.is_empty() {
            let shown = local.sight.shows;
            self.users.remove(user);
            if shown {
                self.changed.insert(user.clone(), left);
            }
        }
    }

    /// What to tell the home now, in records of bounded size; nothing while earlier ones are on their way.
    pub(super) fn records(&mut self, stream: &StreamId) -> Vec<MemberUpdate> {
        if self.under_way > 0
            || !(self.anew && (self.told || !self.users.is_empty()) || !self.changed.is_empty())
        {
            return Vec::new();
        }
        let anew = std::mem::take(&mut self.anew);
        let mut changed = std::mem::take(&mut self.changed);
        if anew {
            changed.retain(|_, left| *left);
            let shown = self.users.iter().filter(|(_, local)| local.sight.shows);
            changed.extend(shown.map(|(user, _)| (user.clone(), false)));
        }
        let new = |full| MemberUpdate { stream: stream.clone(), full, came: Vec::new(), went: Vec::new() };
        let mut records = vec![new(anew)];
        for (user, left) in changed {
            if records.last().is_some_and(|here| here.came.len() + here.went.len() >= NAMED_MAX) {
                records.push(new(false));
            }
            let here = records.last_mut().expect("there is one");
            match self.users.get(&user) {
                Some(Local { info, sight: Sight { shows: true, epoch }, .. }) => {
                    here.came.push(Came { user, info: info.clone(), epoch: *epoch });
                }
                hidden => {
                    let epoch = hidden.map(|local| local.sight.epoch);
                    here.went.push(Went { user, left, hides: epoch.is_some(), epoch });
                }
            }
        }
        self.told = true;
        self.under_way = records.len();
        records
    }
}
