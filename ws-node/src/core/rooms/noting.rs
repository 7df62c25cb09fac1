//! A room's home is told who is here.

use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{StreamId, UserId, VnodeId};
use roost_proto::records::ItemBody;

use crate::core::channels::asker::Question;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rooms::Room;
use crate::core::rooms::locals::Sight;

impl NodeCore {
    /// Whether the others may see the user of a session, as far as that is known.
    pub(in crate::core) fn shows(&self, key: SessionKey) -> Option<bool> {
        self.sight(key).map(|sight| sight.shows)
    }

    /// What the home of a session's user says of that, here or the last.
    pub(super) fn sight(&self, key: SessionKey) -> Option<Sight> {
        let session = self.sessions.get(&key)?;
        let said = self.homes.get(&session.vnode()).and_then(|home| {
            let shows = home.chosen(session.user())? != ChosenStatus::Invisible;
            Some(Sight { shows, epoch: home.epoch() })
        });
        said.or(session.seats().sight)
    }

    /// What a user chose became known, or is another: in rooms the user shows, or hides.
    pub(in crate::core) fn show_in_rooms(&mut self, vnode: VnodeId, user: &UserId, now: Now) {
        let stream = StreamId::inbox(user);
        for key in self.sessions.of(vnode, &stream).to_vec() {
            let sight = self.sight(key);
            let Some(session) = self.sessions.get_mut(&key).filter(|s| s.seats().sight != sight) else {
                continue;
            };
            session.seats_mut().sight = sight;
            let rooms: Vec<_> =
                session.seats().rooms.iter().filter(|(_, l)| l.presence).map(|(s, _)| s.clone()).collect();
            for room in rooms {
                if let (Some(room), Some(sight)) = (self.rooms.get_mut(&room), sight) {
                    room.locals.show(user, sight);
                }
                self.tell_locals(&room, now);
            }
        }
    }

    /// Tells a room's home who came and went here.
    pub(super) fn tell_locals(&mut self, stream: &StreamId, now: Now) {
        let Some(vnode) = self.rooms.get(stream).map(|room| room.vnode) else { return };
        // Too much is queued for this home already: on a later tick.
        let full = self.channel_is_full(vnode);
        let Some(room) = self.rooms.get_mut(stream) else { return };
        if full {
            room.locals.anew |= !room.locals.changed.is_empty();
            return;
        }
        for here in room.locals.records(stream) {
            self.ask_home(Question::MemberUpdate, stream, vnode, &ItemBody::MemberUpdate(here), now);
        }
    }

    pub(super) fn on_noted(&mut self, stream: &StreamId, now: Now) {
        if let Some(room) = self.rooms.get_mut(stream) {
            room.locals.under_way = room.locals.under_way.saturating_sub(1);
        }
        self.tell_locals(stream, now);
        self.close_room(stream);
    }

    /// What was said may be lost.
    pub(super) fn not_noted(&mut self, stream: &StreamId) {
        if let Some(room) = self.rooms.get_mut(stream) {
            room.locals.under_way = room.locals.under_way.saturating_sub(1);
            room.locals.anew = true;
        }
    }

    /// The vnode has another home, or this node another life: it is told everything anew.
    pub(in crate::core) fn tell_anew(&mut self, vnode: VnodeId, now: Now) {
        for stream in self.rooms.of(vnode) {
            if let Some(room) = self.rooms.get_mut(&stream) {
                room.locals.anew = true;
            }
            self.tell_locals(&stream, now);
        }
    }

    /// This node has another life: nobody knows of it who is here.
    pub(in crate::core) fn tell_all_anew(&mut self) {
        for room in self.rooms.by_stream.values_mut() {
            room.locals.anew = true;
        }
    }

    pub(super) fn tell_all_locals(&mut self, now: Now) {
        let silent = |room: &Room| room.locals.under_way == 0 && room.locals.anew;
        let streams: Vec<_> =
            self.rooms.by_stream.iter().filter(|(_, r)| silent(r)).map(|(s, _)| s.clone()).collect();
        for stream in streams {
            self.tell_locals(&stream, now);
            self.close_room(&stream);
        }
    }
}
