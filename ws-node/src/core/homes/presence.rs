//! Who is there: what the roster should say of each user of a home, and when (rules 29, 30).
//!
//! Presence is kept by comparing what the store has with what is true and writing the difference; a change that
//! got lost is found by the next comparison.

use roost_backend::store::{PresenceOp, RosterEntry, Seen};
use roost_proto::events::{Status, StatusCause, status_rest};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{Epoch, MessageId, UserId};

use crate::core::keys::{Now, SessionKey};

/// One user of a home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UserPresence {
    /// What the store has.
    pub(super) stored: Option<RosterEntry>,
    pub(super) chosen: ChosenStatus,
    /// What the store kept of the user while offline: who comes back invisible still looks like that.
    pub(super) seen: Option<Seen>,
    pub(super) sessions: u32,
    /// When to publish offline if nobody comes back, and why.
    pub(super) due: Option<(u64, StatusCause)>,
    /// A write about this user is queued or in flight.
    pub(super) pending: bool,
    /// What a write says that was sent and is not answered: others may be shown that already.
    pub(super) said: Option<RosterEntry>,
    /// Who is told when what was chosen is kept: by the next write about this user, or now if it is so already.
    pub(super) waiting: Vec<(SessionKey, MessageId)>,
    /// What the store had before it lost its data, of somebody whom others were shown. It is put back, so that it
    /// can end: the store publishes no end of what it does not have.
    pub(super) lost: Option<RosterEntry>,
}

impl UserPresence {
    /// Known from the roster only: the sessions were somewhere else.
    pub(crate) fn inherited(entry: RosterEntry, until: u64) -> Self {
        let chosen = entry.chosen;
        Self { stored: Some(entry), chosen, due: Some((until, StatusCause::Lost)), ..Self::default() }
    }

    /// What the store had of the user, or has for all that is known, if others may be shown one who is there: what a home
    /// of this generation knows.
    pub(crate) fn shown(&self, generation: Epoch) -> Option<&RosterEntry> {
        // What was published in an earlier generation may be newer than what is kept of it.
        let seen = |entry: &&RosterEntry| {
            entry.chosen.visible() != Status::Offline || entry.generation != generation
        };
        [&self.said, &self.stored, &self.lost].into_iter().flatten().find(seen)
    }

    fn visible(entry: Option<&RosterEntry>) -> Status {
        entry.map_or(Status::Offline, |e| e.chosen.visible())
    }

    /// The generation in which it was last published what others see of this user, if that is known.
    fn published_in(&self) -> Option<Epoch> {
        self.stored.as_ref().map(|entry| entry.generation).or(self.seen.map(|seen| seen.generation))
    }

    /// The write that makes the store say what is true, if it does not. What was published in an earlier generation
    /// may be newer than what the store kept of it: then what is true is published once more.
    pub(crate) fn difference(&self, user: &UserId, generation: Epoch, now: Now) -> Option<PresenceOp> {
        let gone = self.sessions == 0;
        if gone && self.stored.is_none() {
            let roster = self.lost.clone()?;
            return Some(PresenceOp { user: user.clone(), roster: Some(roster), seen: None, event: None });
        }
        if gone && self.due.is_some_and(|(at, _)| now.mono < at) {
            return None;
        }
        let before = Self::visible(self.stored.as_ref());
        let after = if gone { Status::Offline } else { self.chosen.visible() };
        let since = match &self.stored {
            Some(stored) if before == after => stored.since,
            None if after == Status::Offline => self.seen.map_or(now.wall, |s| s.since),
            _ => now.wall,
        };
        let last_seen = match &self.stored {
            Some(stored) if after == Status::Offline && before == after => stored.last_seen,
            None if after == Status::Offline => Some(self.seen.map_or(now.wall, |s| s.last_seen)),
            _ => (after == Status::Offline).then_some(now.wall),
        };
        let (chosen, sessions) = (self.chosen, self.sessions);
        let roster = (!gone).then_some(RosterEntry { chosen, since, last_seen, sessions, generation });
        if roster == self.stored {
            return None;
        }
        let cause = match &self.stored {
            _ if gone => self.due.map_or(StatusCause::Disconnected, |(_, cause)| cause),
            Some(stored) if stored.chosen != chosen => StatusCause::Chosen,
            _ if after == Status::Offline => StatusCause::Chosen,
            _ => StatusCause::Connected,
        };
        let news = before != after || self.published_in() != Some(generation);
        let event = news.then(|| status_rest(user, after, cause, now.wall, since, last_seen));
        let last_seen = last_seen.unwrap_or(now.wall);
        let seen = gone.then_some(Seen { chosen, since, last_seen, generation });
        Some(PresenceOp { user: user.clone(), roster, seen, event })
    }
}

impl UserPresence {
    /// Nothing about this user needs to be remembered here.
    pub(super) fn is_idle(&self, now: Now) -> bool {
        self.stored.is_none()
            && self.lost.is_none()
            && self.sessions == 0
            && self.due.is_none_or(|(at, _)| now.mono >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "bob";
    const G: Epoch = Epoch(3);

    fn now(mono: u64) -> Now {
        Now { mono, wall: 1_000_000 + mono, us: 0 }
    }

    fn event_of(op: &PresenceOp) -> Option<(String, String)> {
        let json = format!("{{{}", std::str::from_utf8(op.event.as_deref()?).unwrap());
        let v: serde_json::Value = serde_json::from_str(&json).unwrap();
        Some((v["status"].as_str().unwrap().into(), v["cause"].as_str().unwrap().into()))
    }

    fn step(member: &mut UserPresence, at: u64) -> Option<(String, String)> {
        let op = member.difference(&UserId::new(USER).unwrap(), G, now(at))?;
        (member.stored, member.seen) = (op.roster.clone(), op.seen.or(member.seen));
        event_of(&op)
    }

    #[test]
    fn a_user_comes_lingers_and_goes() {
        let mut m = UserPresence { sessions: 1, ..UserPresence::default() };
        assert_eq!(step(&mut m, 0), Some(("online".into(), "connected".into())));
        m.sessions = 2;
        assert_eq!(step(&mut m, 1), None, "a second device is no news to others");
        assert_eq!(m.stored.as_ref().unwrap().sessions, 2);
        (m.sessions, m.due) = (0, Some((50, StatusCause::Disconnected)));
        assert!(m.difference(&UserId::new(USER).unwrap(), G, now(49)).is_none());
        assert_eq!(step(&mut m, 50), Some(("offline".into(), "disconnected".into())));
        assert_eq!(m.stored, None);
    }

    #[test]
    fn who_was_shown_and_is_in_no_roster_any_more_is_published_as_gone() {
        let entry = RosterEntry {
            chosen: ChosenStatus::Online,
            since: 7,
            last_seen: None,
            sessions: 1,
            generation: G,
        };
        let due = Some((50, StatusCause::Disconnected));
        for back_at in [40, 60] {
            let mut m = UserPresence { due, lost: Some(entry.clone()), ..UserPresence::default() };
            assert!(!m.is_idle(now(back_at)), "it must not be forgotten before");
            assert_eq!(step(&mut m, back_at), None, "others see no change yet");
            assert_eq!(m.stored, m.lost.take(), "but the store has it again");
            assert_eq!(step(&mut m, 60), Some(("offline".into(), "disconnected".into())));
        }
    }

    #[test]
    fn an_invisible_user_looks_offline_and_stays_so() {
        let mut m = UserPresence { sessions: 1, ..UserPresence::default() };
        step(&mut m, 0);
        m.chosen = ChosenStatus::Invisible;
        assert_eq!(step(&mut m, 5), Some(("offline".into(), "chosen".into())));
        m.sessions = 0;
        let op = m.difference(&UserId::new(USER).unwrap(), G, now(9)).unwrap();
        assert_eq!(event_of(&op), None, "going while invisible shows nothing");
        assert_eq!(op.seen.unwrap().last_seen, 1_000_005, "last seen when last visible");
    }

    #[test]
    fn who_comes_back_invisible_looks_as_after_going() {
        let seen = Seen { chosen: ChosenStatus::Invisible, since: 5, last_seen: 4, generation: G };
        let m =
            UserPresence { sessions: 1, chosen: seen.chosen, seen: Some(seen), ..UserPresence::default() };
        let op = m.difference(&UserId::new(USER).unwrap(), G, now(9)).unwrap();
        assert_eq!(event_of(&op), None);
        let entry = op.roster.unwrap();
        assert_eq!((entry.since, entry.last_seen), (5, Some(4)));
    }

    #[test]
    fn an_inherited_user_has_the_grace_and_then_is_lost() {
        let entry =
            RosterEntry { chosen: ChosenStatus::Away, since: 7, last_seen: None, sessions: 1, generation: G };
        let mut m = UserPresence::inherited(entry.clone(), 100);
        assert_eq!(step(&mut m, 99), None);
        let mut back = m.clone();
        (back.sessions, back.due) = (1, None);
        assert_eq!(step(&mut back, 99), None, "who comes back within the grace never flaps");
        assert_eq!(back.stored, Some(entry));
        assert_eq!(step(&mut m, 100), Some(("offline".into(), "lost".into())));
    }
    #[test]
    fn what_was_published_in_an_earlier_generation_is_published_once_more() {
        for (chosen, published) in
            [(ChosenStatus::Away, ("away", "connected")), (ChosenStatus::Invisible, ("offline", "chosen"))]
        {
            let entry = RosterEntry { chosen, since: 7, last_seen: None, sessions: 1, generation: Epoch(2) };
            let published = Some((published.0.to_owned(), published.1.to_owned()));
            let mut back =
                UserPresence { sessions: 1, chosen, stored: Some(entry.clone()), ..UserPresence::default() };
            assert_eq!(step(&mut back, 9), published, "the store may have gone back");
            assert_eq!(back.stored.as_ref().unwrap().since, 7, "it has been so since then");
            assert_eq!(step(&mut back, 9), None, "once");
            let mut gone = UserPresence::inherited(entry, 100);
            assert_eq!(step(&mut gone, 99), None, "there is time to come back");
            assert_eq!(step(&mut gone, 100), Some(("offline".into(), "lost".into())));
            let seen = Some(Seen { chosen, since: 5, last_seen: 4, generation: Epoch(2) });
            let mut came = UserPresence { sessions: 1, chosen, seen, ..UserPresence::default() };
            assert_eq!(step(&mut came, 9), published, "the store may not know that they were here since");
        }
    }
}
