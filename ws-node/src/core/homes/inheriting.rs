//! What a home begins with: what the store has of its vnode, and what this process itself knows of its users (rules 17, 18).

use roost_backend::store::{Activated, DataSet, RosterEntry};
use roost_proto::events::StatusCause;
use roost_proto::ids::{Sid, UserId};

use crate::core::config::{CoreConfig, Rule};
use crate::core::homes::home::{Home, Phase};
use crate::core::homes::members::HomeRooms;
use crate::core::homes::outbox::Outbox;
use crate::core::homes::presence::UserPresence;
use crate::core::homes::receipts::HomeReceipts;
use crate::core::homes::remembered::Remembered;
use crate::core::homes::tickets::HomeTickets;
use crate::core::homes::unacked::Unacked;
use crate::core::keys::Now;

/// Who takes a vnode over.
#[derive(Debug)]
pub(crate) struct Heir<'a> {
    pub sid: &'a Sid,
    /// Whose row was there before, as far as that is known.
    pub before: Option<Sid>,
    pub data_set: DataSet,
    /// What an earlier home here knew of its users.
    pub remembered: Option<Remembered>,
}

impl Home {
    pub(crate) fn inherit(&mut self, activated: Activated, heir: Heir<'_>, cfg: &CoreConfig, now: Now) {
        let Heir { sid, before, data_set, remembered } = heir;
        self.phase = Phase::Inheriting;
        (self.generation, self.seq, self.data_set) = (activated.generation, activated.seq, data_set);
        self.set_clock(activated.clock_ms, now);
        let inherited = if cfg.on(Rule::InheritFirst) { activated.outbox } else { Vec::new() };
        self.outbox = Outbox::inherited(activated.seq, inherited);
        if cfg.on(Rule::UnackedInherited) {
            self.unacked = Unacked::inherited(activated.due);
            self.receipts = HomeReceipts::inherited(activated.wanted, activated.owed);
            self.tickets = HomeTickets::inherited(activated.tickets);
        }
        // A repeated activation finds this sid in the head: then the row tells who was before.
        let alone = activated.previous.as_ref() == Some(sid);
        self.previous = activated.previous.filter(|previous| previous != sid).or(before);
        let grace = now.mono + cfg.grace_ms;
        let begun = self.generation == self.epoch;
        self.rooms = HomeRooms::inherited(activated.rooms, begun, grace);
        self.inherit_users(activated.roster, remembered, alone, grace);
        // What came while the head was not raised yet was not taken: ask for it.
        for sender in self.senders.values_mut() {
            sender.ask = sender.seen > sender.last;
        }
    }

    /// What this node itself knows about its users goes before what the roster says: after a loss of data the roster is
    /// written again from here (rule 18).
    fn inherit_users(
        &mut self,
        roster: Vec<(UserId, RosterEntry)>,
        remembered: Option<Remembered>,
        alone: bool,
        grace: u64,
    ) {
        let begun = self.generation == self.epoch;
        // Another had it in between, and may have ended before it was told whom the store lost.
        let between = !begun && !alone;
        let (mut members, known_in) = remembered
            .map(|mut r| {
                if between {
                    r.keep_untold(&self.data_set);
                }
                (r.members, r.generation)
            })
            .unwrap_or_default();
        for member in members.values_mut() {
            if begun || between {
                member.lost = member.shown(known_in).cloned();
            }
            // Its sessions are counted again as they are opened again.
            let due = member.due.filter(|_| member.sessions == 0).unwrap_or((grace, StatusCause::Lost));
            (member.stored, member.said, member.pending) = (None, None, false);
            (member.sessions, member.due) = (0, Some(due));
        }
        for (user, entry) in roster {
            match members.get_mut(&user) {
                Some(member) if !between => member.stored = Some(entry),
                _ => drop(members.insert(user, UserPresence::inherited(entry, grace))),
            }
        }
        self.members = members;
    }
}
