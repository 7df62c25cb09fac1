//! What was acknowledged and kept is said to the home that is there, here or elsewhere.

use roost_proto::ids::{MessageId, StreamId, VnodeId};
use roost_proto::records::{ItemBody, ItemResult, Said};

use crate::core::channels::asker::Asker;
use crate::core::channels::channel::By;
use crate::core::config::Rule;
use crate::core::homes::home::Phase;
use crate::core::keys::Now;
use crate::core::message::ItemKey;
use crate::core::node::NodeCore;
use crate::core::said::{SaidUpTo, Who};

/// Whose items they are; no user's id begins with `#`.
const ACKS_FROM: &str = "#acks";

impl NodeCore {
    /// Nobody hears it now.
    pub(in crate::core) fn keep_said(
        &mut self,
        vnode: VnodeId,
        said: impl IntoIterator<Item = (Who, SaidUpTo)>,
    ) {
        if self.cfg.on(Rule::AcksKept) {
            let lost = said
                .into_iter()
                .filter(|(who, said)| !self.homes.kept.keep(vnode, who.clone(), *said))
                .count();
            self.fx.count().acks_not_kept += lost as u64;
        }
    }

    /// Says what is kept to the homes that are there.
    pub(in crate::core) fn tick_kept(&mut self, now: Now) {
        for vnode in self.homes.kept.vnodes.keys().copied().collect::<Vec<_>>() {
            self.say_kept(vnode, now);
        }
    }

    pub(in crate::core) fn say_kept(&mut self, vnode: VnodeId, now: Now) {
        match self.homes.map.get(&vnode).map(|home| home.phase) {
            Some(Phase::Ready) => {
                for (who, said) in self.homes.kept.take(vnode) {
                    self.hear_said(vnode, who, said, now);
                }
            }
            Some(_) => {}
            None => self.tell_kept(vnode, now),
        }
    }

    fn tell_kept(&mut self, vnode: VnodeId, now: Now) {
        let ready = self.membership.ready_elsewhere(vnode).map(|row| row.epoch);
        // While the table cannot be read the home it names may be over, and the next one not heard of.
        let fresh = self.membership.view_age_ms(now) <= self.cfg.lease_ttl_ms;
        if self.homes.kept.is_over(vnode, ready, fresh, self.cfg.grace_ms, now) {
            drop(self.homes.kept.take(vnode));
        } else if ready.is_some()
            && self.has_own_place(vnode)
            && let Some((id, said)) = self.homes.kept.tell(vnode)
        {
            self.tell_said(vnode, id, said, now);
        }
    }

    fn tell_said(&mut self, vnode: VnodeId, id: MessageId, said: Vec<(Who, SaidUpTo)>, now: Now) {
        let Some((first, _)) = said.first() else { return };
        let key: ItemKey = (StreamId::inbox(&first.user), ACKS_FROM.to_owned(), id);
        let of = |(Who { user, device, quiet }, SaidUpTo { acked, read }): (Who, SaidUpTo)| Said {
            user,
            device,
            acked,
            read,
            quiet,
        };
        let body = ItemBody::Said(said.into_iter().map(of).collect());
        let item = self.item(By::Own, key, &body, Asker::Acks(vnode), now);
        self.push(vnode, item, now);
    }

    /// What a home elsewhere says to it. One of an earlier version cannot read it.
    pub(in crate::core) fn said_answered(
        &mut self,
        vnode: VnodeId,
        id: &MessageId,
        result: Option<&ItemResult>,
    ) {
        self.homes.kept.told(vnode, id, matches!(result, Some(ItemResult::Noted | ItemResult::Bad)));
    }

    /// A home hears what was kept for it. Of an earlier generation it is about what was due and wanted then, which a
    /// home that finds the data inherits; but it is nobody's place in the present one.
    pub(super) fn hear_said(&mut self, vnode: VnodeId, who: Who, said: SaidUpTo, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let generation = home.generation;
        if let Some(cursor) = said.acked.filter(|cursor| cursor.generation <= generation) {
            let present = cursor.generation == generation;
            home.ack(if present { who.clone() } else { who.clone().on_no_device() }, cursor, now);
        }
        let Some(cursor) = said.read.filter(|cursor| cursor.generation <= generation) else { return };
        let stream = StreamId::inbox(&who.user);
        home.read(who, cursor, now);
        if cursor.generation == generation {
            self.show_read_to(vnode, &stream, cursor);
        }
    }
}
