//! Links between the processes: in order, each by itself, and broken in every way that a connection breaks.

use std::collections::BTreeMap;

use bytes::Bytes;
use roost_proto::ids::Sid;
use roost_proto::records::{self, BUNDLES};
use roost_ws_node::core::{Input, LinkInput, LinkKey, LinkOrder};

use super::{Happening, World};

/// How long a process that hears nothing keeps a link.
const SILENT_MS: u64 = 3000;

/// One link, by the process that opened it and its number there.
pub(crate) type Ends = (usize, LinkKey);

#[derive(Debug)]
struct Link {
    /// The process at its other end, and which life of its node was meant.
    pid: usize,
    to: Sid,
    /// When what was sent last arrives.
    last: u64,
    /// What is sent from now on arrives nowhere.
    deaf: bool,
}

#[derive(Default)]
pub(crate) struct Links {
    open: BTreeMap<Ends, Link>,
    /// No link can be opened until then, as where there is no way between nodes.
    pub refused_until: u64,
    /// What is sent takes long until then.
    pub slow_until: u64,
}

impl World {
    pub(crate) fn link_order(&mut self, pid: usize, order: LinkOrder) {
        match order {
            LinkOrder::Open { link, to, .. } => self.open_link(pid, link, to),
            LinkOrder::Send { link, payload } => self.send_by_link((pid, link), payload),
            LinkOrder::Close(link) => drop(self.links.open.remove(&(pid, link))),
        }
    }

    fn tell_link(&mut self, pid: usize, at: u64, input: LinkInput) {
        self.at(at, Happening::ToCore { pid, event: Box::new(Input::Link(input)) });
    }

    fn open_link(&mut self, pid: usize, link: LinkKey, to: Sid) {
        let is_it = |p: &usize| self.processes[*p].core.as_ref().is_some_and(|core| *core.sid() == to);
        let found = self.alive().into_iter().find(is_it);
        let refused = self.now < self.links.refused_until || (self.faulty() && self.chance(5.0));
        let cut = |w: &Self, p: usize| w.now < w.processes[p].isolated_until.max(w.processes[p].paused_until);
        match found.filter(|other| !refused && !cut(self, pid) && !cut(self, *other)) {
            Some(other) => {
                self.links.open.insert((pid, link), Link { pid: other, to, last: 0, deaf: false });
                let at = self.now + self.between(1, 6);
                self.tell_link(pid, at, LinkInput::Opened(link));
            }
            None => self.tell_link(pid, self.now + 1000, LinkInput::Closed(link)),
        }
    }

    fn send_by_link(&mut self, ends: Ends, payload: Bytes) {
        let slow = if self.now < self.links.slow_until { self.between(50, 900) } else { self.between(0, 4) };
        let now = self.now;
        let Some(link) = self.links.open.get_mut(&ends) else { return };
        let gone = now < self.processes[link.pid].isolated_until.max(self.processes[ends.0].isolated_until);
        if link.deaf {
            return;
        }
        if gone {
            return self.deafen(ends);
        }
        let at = (now + slow).max(link.last);
        link.last = at;
        self.at(at, Happening::LinkArrives { ends, payload });
    }

    /// Both ends notice.
    fn close_link(&mut self, ends: Ends, at: u64) {
        self.tell_link(ends.0, at, LinkInput::Closed(ends.1));
    }

    pub(crate) fn link_arrives(&mut self, ends: Ends, payload: &Bytes) {
        let Some(link) = self.links.open.get(&ends) else { return };
        let (pid, to) = (link.pid, link.to.clone());
        self.tell_link(ends.0, self.now + 1, LinkInput::Written(ends.1, payload.len()));
        assert_eq!(self.processes[pid].reads, BUNDLES, "who knows no links is not dialled");
        let records = records::read(payload).into_iter().filter_map(Result::ok).collect();
        self.core_gets(pid, Input::Copies { to, records });
    }

    /// The links that a process has: those it opened, and those to it.
    fn links_of(&self, pid: usize) -> Vec<Ends> {
        let of = |(ends, link): &(&Ends, &Link)| ends.0 == pid || link.pid == pid;
        self.links.open.iter().filter(of).map(|(ends, _)| *ends).collect()
    }

    /// Ends them; what is under way is lost.
    pub(crate) fn cut_links(&mut self, pid: usize) {
        for ends in self.links_of(pid) {
            self.links.open.remove(&ends);
            let at = self.now + self.between(1, 20);
            self.close_link(ends, at);
        }
    }

    /// Half open: nothing arrives any more, and that is noticed by silence alone.
    pub(crate) fn deafen_links(&mut self, pid: usize) {
        for ends in self.links_of(pid) {
            self.deafen(ends);
        }
    }

    fn deafen(&mut self, ends: Ends) {
        let Some(link) = self.links.open.get_mut(&ends) else { return };
        link.deaf = true;
        self.close_link(ends, self.now + SILENT_MS);
    }
}
