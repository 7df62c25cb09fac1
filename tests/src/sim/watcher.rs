//! Watchers of a simulated cluster: clients written by hand watch users, cease to, come back, and write down what
//! they are told. Those with the SDK watch as long as they run.

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::{Op, Write};
use roost_proto::answers::Watched;
use roost_proto::frames::{OfUsers, Presence, Reply};
use roost_proto::ids::{MessageId, UserId};
use roost_ws_node::core::{Command, Input, SessionKey};

use super::client::{Wake, name};
use super::{Happening, World};

/// What one client watches.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    wanted: BTreeSet<UserId>,
    /// What is known over the connection in use, and its place in the history of the user.
    shown: BTreeMap<UserId, (Presence, usize)>,
    /// The command that waits for its answer.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    id: String,
    users: Vec<UserId>,
    watch: bool,
}

impl Watcher {
    /// Client `i` watches half of the users.
    pub(super) fn new(i: usize, users: usize) -> Self {
        let wanted = (0..users).filter(|user| (i / 2 + user).is_multiple_of(2)).map(id_of).collect();
        Self { wanted, ..Self::default() }
    }

    pub(super) fn wanted(&self) -> Vec<UserId> {
        self.wanted.iter().cloned().collect()
    }

    /// The connection is gone, and what was watched over it.
    pub(super) fn cut(&mut self) {
        (self.shown, self.asked) = (BTreeMap::new(), None);
    }
}

fn id_of(user: usize) -> UserId {
    UserId::new(name(user)).expect("a plain name")
}

impl World {
    /// What the store shows of a user.
    fn shows(&self, user: &UserId) -> Presence {
        let vnode = roost_ring::vnode_of_user(user, self.setup.vnodes);
        self.data[vnode.index()].presence(user).presence_of(user.clone())
    }

    fn saw_shown(&mut self, user: &UserId) {
        let shows = self.shows(user);
        let history = self.watch.shown.entry(user.clone()).or_insert_with(|| vec![nothing(user)]);
        if history.last() != Some(&shows) {
            history.push(shows);
        }
    }

    pub(super) fn saw_rosters(&mut self) {
        for user in 0..self.setup.users {
            self.saw_shown(&id_of(user));
        }
    }

    pub(super) fn saw_presence_kept_by(&mut self, write: &Write) {
        for op in &write.ops {
            if let Op::Presence(op) = op {
                self.saw_shown(&op.user);
            }
        }
    }

    pub(super) fn wake_lookout(&mut self, i: usize) {
        if self.clients[i].sdk.is_some() {
            return;
        }
        self.look_out(i);
        let pause = if self.busy() { self.between(200, 2500) } else { 1000 };
        self.at(self.now + pause, Happening::Client { user: i, what: Wake::Watch });
    }

    /// Watches whom it should, or changes its mind about somebody.
    pub(super) fn look_out(&mut self, i: usize) {
        let Some(c) = self.clients[i].current().filter(|c| c.welcomed) else { return };
        let some = id_of(self.between(0, self.setup.users as u64) as usize);
        let faulty = self.faulty();
        self.next_connection += 1;
        let id = format!("watch-{}", self.next_connection);
        let watcher = &mut self.clients[i].watcher;
        if watcher.asked.is_some() {
            return;
        }
        let lacking: Vec<_> =
            watcher.wanted.iter().filter(|user| !watcher.shown.contains_key(*user)).cloned().collect();
        let (users, watch) = match lacking.is_empty() {
            false => (lacking, true),
            true if !faulty => return,
            true if watcher.wanted.remove(&some) => (vec![some], false),
            true => {
                watcher.wanted.insert(some.clone());
                (vec![some], true)
            }
        };
        if !watch {
            // What is under way is not looked at.
            watcher.shown.retain(|user, _| !users.contains(user));
        }
        watcher.asked = Some(Asked { id: id.clone(), users: users.clone(), watch });
        let command = OfUsers { id: MessageId::new(id).expect("a plain id"), users };
        let session = SessionKey(c.key);
        let command = if watch { Command::Watch(command) } else { Command::Unwatch(command) };
        let event = Input::Command { session, command };
        self.tell_core(i, c.pid, self.now + 2, event);
    }

    /// An answer to a `watch` or `unwatch`; false if it is about something else.
    pub(super) fn watcher_answered(&mut self, i: usize, connection: u64, reply: &Reply) -> bool {
        let id = reply.id.as_deref().unwrap_or_default();
        if !id.starts_with("watch-") {
            return false;
        }
        let current = self.clients[i].current().is_some_and(|c| c.key == connection);
        let watcher = &mut self.clients[i].watcher;
        let Some(asked) = watcher.asked.take_if(|asked| current && asked.id == id) else { return true };
        match (&reply.ok, &reply.error) {
            (Some(ok), _) if asked.watch => {
                let shown = ok.read::<Watched>().unwrap_or_default().users;
                let named: Vec<_> = shown.iter().map(|presence| presence.user.clone()).collect();
                if named != asked.users {
                    let text = format!("P6: {id} of {:?} was answered about {named:?}", asked.users);
                    self.violations.push(text);
                }
                for presence in shown {
                    self.lookout_learns(i, Presence { stale: false, ..presence });
                }
            }
            (Some(_), _) => {}
            (None, Some(error)) if error.retryable => {}
            (None, error) => {
                let text = format!("{}: {id} was refused for good: {error:?}", self.clients[i].label);
                self.violations.push(text);
            }
        }
        true
    }

    pub(super) fn lookout_told(&mut self, i: usize, connection: u64, presence: Presence) {
        if self.clients[i].current().is_none_or(|c| c.key != connection) {
            return;
        }
        let (label, watcher) = (&self.clients[i].label, &self.clients[i].watcher);
        let dropped = watcher.asked.as_ref().is_some_and(|a| !a.watch && a.users.contains(&presence.user));
        match watcher.shown.get(&presence.user) {
            _ if dropped => {}
            Some((before, _)) if *before == presence => {
                self.violations.push(format!("P6: {label} is told {presence:?} twice"));
            }
            Some(_) => self.lookout_learns(i, presence),
            None => self.violations.push(format!("P6: {label} is told {presence:?} and does not watch")),
        }
    }

    /// What the SDK tells. Another connection may know less than the last one, for a while.
    pub(super) fn lookout_is_shown(&mut self, i: usize, told: Vec<Presence>) {
        for presence in told {
            self.clients[i].watcher.shown.remove(&presence.user);
            self.lookout_learns(i, Presence { stale: false, ..presence });
        }
    }

    /// What is told was in the store, and not before what was told already.
    fn lookout_learns(&mut self, i: usize, presence: Presence) {
        let user = presence.user.clone();
        let history = self.watch.shown.entry(user.clone()).or_insert_with(|| vec![nothing(&user)]);
        let client = &mut self.clients[i];
        let from = client.watcher.shown.get(&user).map_or(0, |(_, place)| *place);
        match history.iter().skip(from).position(|shown| *shown == presence) {
            Some(further) => drop(client.watcher.shown.insert(user, (presence, from + further))),
            None => {
                let text = format!("P6: {} is told {presence:?}, after {from} of {history:?}", client.label);
                self.violations.push(text);
            }
        }
    }

    /// P6 at the end: watchers see what is.
    pub(super) fn check_watchers(&self, wrong: &mut Vec<String>) {
        for client in self.clients.iter().filter(|client| client.is_online()) {
            for user in &client.watcher.wanted {
                let (seen, is) = (client.watcher.shown.get(user).map(|(shown, _)| shown), self.shows(user));
                if seen != Some(&is) {
                    wrong.push(format!("P6: {} sees {seen:?}; the store has {is:?}", client.label));
                }
            }
        }
    }
}

/// Of whom the store has nothing.
fn nothing(user: &UserId) -> Presence {
    roost_backend::store::PresenceRow::default().presence_of(user.clone())
}
