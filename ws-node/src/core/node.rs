//! The core of one node: what happens goes to its owners, and what they want done comes back.

use roost_backend::store::LiveChannel;
use roost_proto::ids::{Sid, StreamId, VnodeId};
use roost_proto::records::Record;

use crate::core::actions::Action;
use crate::core::calls::Calls;
use crate::core::canary::Canary;
use crate::core::channels::Channels;
use crate::core::channels::channel::Channel;
use crate::core::config::CoreConfig;
use crate::core::counters::{Counters, Gauges};
use crate::core::effects::Effects;
use crate::core::homes::Homes;
use crate::core::homes::home::Home;
use crate::core::input::Input;
use crate::core::keys::Now;
use crate::core::membership::Membership;
use crate::core::outbound::Outbound;
use crate::core::results::Results;
use crate::core::rooms::Rooms;
use crate::core::sessions::Sessions;
use crate::core::watching::Watching;

/// The state of one node. See the module's text.
pub struct NodeCore {
    pub(super) cfg: CoreConfig,
    pub(super) fx: Effects,
    pub(super) membership: Membership,
    pub(super) homes: Homes,
    pub(super) channels: Channels,
    pub(super) outbound: Outbound,
    pub(super) sessions: Sessions,
    pub(super) rooms: Rooms,
    pub(super) watching: Watching,
    pub(super) results: Results,
    pub(super) canary: Canary,
    pub(super) calls: Calls,
}

impl NodeCore {
    // Whatever is iterated is ordered, so that the same events give the same actions.
    /// A node that knows nothing yet; it registers when it has seen the table.
    pub fn new(cfg: CoreConfig, now: Now) -> Self {
        Self {
            fx: Effects::default(),
            membership: Membership::new(&cfg, now),
            homes: Homes::default(),
            channels: Channels::new(cfg.shares),
            outbound: Outbound::default(),
            sessions: Sessions::new(&cfg),
            rooms: Rooms::default(),
            watching: Watching::default(),
            results: Results::default(),
            canary: Canary::default(),
            calls: Calls::default(),
            cfg,
        }
    }

    /// Takes what happened, in order, and returns what to do about all of it, in order. What follows is settled once:
    /// one write of a vnode has what gathered, one confirm all that a channel is to hear, and a node gets one bundle.
    /// The clock is read for each input, and again to settle: a long turn may have passed a deadline.
    pub fn turn(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        mut clock: impl FnMut() -> Now,
    ) -> Vec<Action> {
        for input in inputs {
            self.handle(input, clock());
        }
        self.settle(clock());
        self.fx.take()
    }

    /// A turn with one input.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        self.turn([input], || now)
    }

    fn settle(&mut self, now: Now) {
        loop {
            while let Some(record) = self.fx.next_local() {
                self.on_record(record, now);
            }
            for vnode in self.fx.take_touched() {
                self.settle_home(vnode, now);
            }
            self.write_in_turn(now);
            self.refuse_records(now);
            if self.fx.is_done() {
                break;
            }
        }
        self.begin_reads(now);
        self.send_out(now);
    }

    fn handle(&mut self, event: Input, now: Now) {
        match event {
            Input::Tick => self.on_tick(now),
            Input::View(table) => self.on_view(&table, now),
            Input::Registered(answer) => self.on_registered(answer, now),
            Input::Renewed { sent, rows, answer } => self.on_renewed(sent, &rows, answer, now),
            Input::Claimed { vnode, sent, answer } => self.on_claimed(vnode, sent, answer, now),
            Input::Activated { vnode, epoch, answer } => self.on_activated(vnode, epoch, answer, now),
            Input::Readied { vnode, epoch, answer } => self.on_readied(vnode, epoch, answer, now),
            Input::Released { vnode, epoch } => self.on_released(vnode, epoch, now),
            Input::Written { vnode, call, answer } => self.on_written(vnode, call, answer, now),
            Input::Read { ask, session, stream, generation, after, answer } => {
                self.read_ended(ask, answer.is_some());
                self.on_read(session, &stream, generation, after, answer, now);
            }
            Input::LogEnd { session, ask, partition, answer } => {
                self.on_log_end(session, ask, partition, answer, now);
            }
            Input::LogAnswers(answers) => self.homes.log_answers(answers, now),
            Input::Reported { token, ok } => self.on_reported(token, ok, now),
            Input::Record(record) => self.on_record(record, now),
            Input::Copies { to, records } => self.on_copies(&to, records, now),
            Input::Link(input) => self.on_link(input, now),
            Input::Undecodable => self.on_undecodable(),
            Input::Connect(connect) => self.on_connect(*connect, now),
            Input::Command { session, command } => self.on_command(session, command, now),
            Input::Results { partition, ask, records } => self.on_results(partition, ask, records, now),
            Input::Followed { channel: LiveChannel::Presence(vnode), ask, done } => {
                self.on_presence_followed(vnode, ask, done, now);
            }
            Input::Followed { channel, ask, done } => self.on_followed(&channel, ask, done, now),
            Input::Live { channel, payload } => self.on_live(&channel, &payload, now),
            Input::Missed => self.compare_soon(now),
            Input::Standings { rooms, answer } => self.on_standings(&rooms, answer, now),
            Input::PresenceRead { vnode, users, ask, answer } => {
                self.on_presence_read(vnode, users, ask, answer, now);
            }
            Input::PresenceStandings { vnodes, answer } => self.on_presence_standings(&vnodes, answer, now),
            Input::Drained { session, messages, signals } => {
                if messages.0 > 0 {
                    self.on_drained(session, messages, now);
                }
                if signals.0 > 0 {
                    self.signals_drained(session, signals, now);
                }
            }
            Input::Paged { ask, session, id, stream, before, answer } => {
                self.read_ended(ask, answer.is_some());
                self.on_paged(session, &id, &stream, before, answer, now);
            }
            Input::Calls(calls) => self.on_calls(calls, now),
            Input::Closed { session } => self.on_closed(session, now),
            Input::Drain => self.on_drain(now),
            Input::Undrain => self.on_undrain(now),
            Input::ReleaseAll => self.release_all(now),
        }
    }

    fn on_record(&mut self, record: Record, now: Now) {
        match record {
            Record::Item(item) => self.on_item(item, false, now),
            Record::Confirm(confirm) => self.on_confirm(confirm, now),
            Record::Probe(probe) => self.on_probe(&probe, now),
            Record::OwnerChanged(took) => self.on_owner_changed(&took, now),
            Record::PresenceTransfer(recall) => self.on_presence_transfer(recall, now),
            Record::PresenceTransferred(recalled) => self.on_presence_transferred(&recalled),
            Record::Disconnect(disconnect) => self.on_disconnect(&disconnect, now),
        }
    }

    /// What came by a link that another node opened to the life `to` of this one. Whatever else nodes say to each other
    /// is for those who may be cut off, and goes by the topic.
    fn on_copies(&mut self, to: &Sid, records: Vec<Record>, now: Now) {
        for record in records {
            match record {
                Record::Item(item) if to == self.membership.sid() => {
                    self.fx.count().copies += 1;
                    self.on_item(item, true, now);
                }
                Record::Confirm(confirm) if to == self.membership.sid() => self.on_confirm(confirm, now),
                _ => self.fx.count().void_records += 1,
            }
        }
    }

    pub(super) fn vnode_of(&self, stream: &StreamId) -> VnodeId {
        roost_ring::vnode_of_stream(stream, self.cfg.vnodes)
    }

    fn on_tick(&mut self, now: Now) {
        self.tick_ownership(now);
        self.tick_homes(now);
        self.tick_kept(now);
        self.tick_channels(now);
        self.tick_outbound(now);
        self.tick_shares(now);
        self.tick_canary(now);
        self.tick_telling(now);
        self.tick_sessions(now);
        self.tick_rooms(now);
        self.tick_watching(now);
        self.tick_results(now);
    }

    pub fn sid(&self) -> &Sid {
        self.membership.sid()
    }

    pub fn counters(&self) -> Counters {
        self.fx.counters()
    }

    /// What the gauges show.
    pub fn gauges(&self, now: Now) -> Gauges {
        let leases = self.homes.values().map(|h| h.lease_left_ms(now));
        Gauges {
            sessions: self.sessions.len(),
            rooms: self.rooms.count(),
            listeners: self.rooms.listeners(),
            watched: self.watching.users(),
            watchers: self.watching.watchers(),
            owned: self.homes.len(),
            ready: self.homes.values().filter(|h| h.serving(now)).count(),
            lease_left_ms: leases.min(),
            outbox: self.homes.values().map(Home::outbox_len).sum(),
            channel_items: self.channels.values().map(Channel::len).sum(),
            view_age_ms: self.membership.view_age_ms(now),
            assigned: !self.membership.view().assignment.targets.is_empty()
                || !self.cfg.pinned.is_empty()
                || !self.homes.is_empty(),
            registered: self.membership.is_registered(),
            canary_age_ms: self.canary.age_ms(now.mono),
            canary_took_ms: self.canary.took_ms(),
            accepts_per_s: self.sessions.accepts_per_s(),
            write_bytes: self.homes.write_bytes(),
            read_bytes: self.sessions.read_bytes(),
            socket_bytes: self.sessions.socket_bytes(),
            draining: self.membership.is_draining(),
            links: self.outbound.links(),
        }
    }

    /// Whether the node stops and has handed everything over.
    pub fn is_empty_handed(&self) -> bool {
        self.membership.is_draining()
            && self.homes.is_empty()
            && !self.membership.is_claiming()
            && !self.homes.has_draining_outboxes()
    }

    /// Whether any item still waits for its confirm, or what was acknowledged for a home that hears it.
    pub fn has_unconfirmed(&self) -> bool {
        self.channels.values().any(|c| !c.is_empty())
            || self.homes.has_unheard()
            || self.outbound.has_waiting()
    }
}
