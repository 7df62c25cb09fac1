//! What a home tells people who ask why something is where it is.

use roost_backend::store::Op;
use roost_proto::ids::{MessageId, UserId};

use crate::core::config::CoreConfig;
use crate::core::explain::{Found, HomeShown};
use crate::core::homes::home::{Home, Phase};
use crate::core::homes::work::Work;
use crate::core::keys::Now;

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Activating => "activating",
        Phase::Inheriting => "inheriting",
        Phase::Ready => "ready",
        Phase::Stopping => "stopping",
        Phase::Releasing => "releasing",
    }
}

impl Home {
    /// How it is, and what its roster says of a user.
    pub(crate) fn explained(&self, user: &UserId, now: Now) -> HomeShown {
        let member = self.members.get(user).and_then(|member| member.stored.as_ref());
        HomeShown {
            vnode: self.vnode,
            epoch: self.epoch,
            generation: self.generation,
            phase: phase(self.phase),
            lease_left_ms: self.lease_left_ms(now),
            queued: self.queue.len(),
            writing: self.call.as_ref().map_or(0, |call| call.write.ops.len()),
            write_retries: self.call.as_ref().map_or(0, |call| call.tries),
            outbox: self.outbox.len(),
            held: self.held.len(),
            status: member.map(|entry| entry.chosen),
        }
    }

    /// Where a message is here, and why.
    pub(crate) fn find(&self, id: &MessageId, cfg: &CoreConfig, now: Now) -> Vec<Found> {
        let is_it = |work: &Work| match work {
            Work::Item { op: Op::Append(append), .. } if append.id == *id => {
                Some((append.stream.clone(), append.from.clone()))
            }
            _ => None,
        };
        let lease = if self.leased(now) { "" } else { "; its lease has run out, so nothing is written" };
        let mut found = Vec::new();
        let numbered = |(n, work): (usize, &Work)| is_it(work).map(|found| (n, found));
        for (n, (stream, from)) in self.queue.iter().enumerate().filter_map(numbered) {
            let outbox = self.outbox.len();
            let why = if outbox >= cfg.outbox_max {
                format!("the outbox is full ({outbox} events): the log does not take them{lease}")
            } else if self.call.is_some() {
                format!("a write is under way, this one comes with the next{lease}")
            } else {
                format!("its home is {}{lease}", phase(self.phase))
            };
            let (place, number, age_ms) = ("in the queue of its home", n as u64, None);
            found.push(Found { stream, from, place, number, age_ms, why });
        }
        if let Some(call) = &self.call {
            for (n, (stream, from)) in call.work.iter().enumerate().filter_map(numbered) {
                let why = format!("the store has not answered yet, tried {} times again{lease}", call.tries);
                let (place, number) = ("in the write under way", n as u64);
                let age_ms = Some(now.us.saturating_sub(call.sent_us) / 1000);
                found.push(Found { stream, from, place, number, age_ms, why });
            }
        }
        if let Some((event, emitted)) = self.outbox.find(id) {
            let (place, number, age_ms) = ("appended, in the outbox", event.seq.0, None);
            let why = match emitted {
                true => "the log has not confirmed it yet: only then is the sender told",
                false => "events before it go to the log first",
            };
            let (stream, from) = (event.stream, event.from);
            found.push(Found { stream, from, place, number, age_ms, why: why.into() });
        }
        found
    }
}
