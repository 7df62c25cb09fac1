//! Nodes tell who is in the rooms of a home, and changes of the lists are written (rule 29).

use roost_proto::ids::{Sid, StreamId, UserId, VnodeId};
use roost_proto::records::MemberUpdate;

use crate::core::homes::home::{Home, Phase};
use crate::core::homes::work::Work;
use crate::core::keys::Now;
use crate::core::node::NodeCore;

impl NodeCore {
    /// A node told who is in a room.
    pub(super) fn on_member_update(&mut self, vnode: VnodeId, sid: &Sid, here: MemberUpdate, now: Now) {
        let linger = self.cfg.linger_ms;
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        let stream = here.stream.clone();
        for user in home.rooms.told(sid, here, linger, now) {
            self.list_member(vnode, &stream, &user, now);
        }
    }

    fn list_member(&mut self, vnode: VnodeId, stream: &StreamId, user: &UserId, now: Now) {
        let room = self.cfg.queue_max;
        let ready = |h: &&mut Home| h.phase == Phase::Ready && h.queue.len() < room;
        let Some(home) = self.homes.map.get_mut(&vnode).filter(ready) else { return };
        if let Some(op) = home.rooms.write(home.epoch, stream, user, now) {
            home.queue.push_back(Work::Member(op));
            self.fx.touch(vnode);
        }
    }

    pub(super) fn sweep_members(&mut self, vnode: VnodeId, now: Now) {
        let Some(home) = self.homes.map.get_mut(&vnode) else { return };
        home.rooms.forget(self.membership.view(), self.cfg.grace_ms, now);
        for (stream, user) in home.rooms.overdue(now) {
            self.list_member(vnode, &stream, &user, now);
        }
    }
}
