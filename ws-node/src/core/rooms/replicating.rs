//! The copy of a room's members is fetched, kept up by notes, and told (rule 29).

use roost_proto::Json;
use roost_proto::answers::Listed;
use roost_proto::frames::{Change, InfoOf, Member, RoomWelcome, ServerFrame};
use roost_proto::ids::{MessageId, StreamId, UserId};
use roost_proto::limits::MEMBERS_BYTES_MAX;
use roost_proto::live::{MemberChange, Version};
use roost_proto::records::ItemBody;

use crate::core::channels::asker::Question;
use crate::core::config::Rule;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::rooms::replica::MemberReplica;
use crate::core::rooms::{Fetch, Listener, MembersAsked, Room};
use crate::core::sessions::signals::Latest;

impl NodeCore {
    pub(super) fn wants_copy(&self, stream: &StreamId) -> bool {
        let wants = |room: &Room| room.copy.is_none() && !room.presence.is_empty();
        self.rooms.get(stream).is_some_and(|room| wants(room) && room.following.is_on())
    }

    /// What `welcome` says of the rooms, with their members as of now.
    pub(in crate::core) fn take_arrival(&mut self, key: SessionKey) -> Vec<RoomWelcome> {
        let Some(session) = self.sessions.get_mut(&key) else { return Vec::new() };
        let mut told = std::mem::take(&mut session.seats_mut().arrival.told);
        let mut bytes = MEMBERS_BYTES_MAX;
        for room in &mut told {
            let stream = StreamId::of_room(&room.room);
            let presence = session.seats().rooms.get(&stream).is_some_and(|l| l.presence);
            if let Some(copy) = self.rooms.get(&stream).and_then(|r| r.copy.as_ref()).filter(|_| presence) {
                let Listed { members, member_count } = copy.reply(&mut bytes);
                (room.members, room.member_count) = (members, member_count);
            }
        }
        told
    }

    pub(super) fn ask_members(&mut self, stream: &StreamId, now: Now) {
        let Some(vnode) = self.rooms.get(stream).map(|room| room.vnode) else { return };
        let asked = self.rooms.get(stream).is_some_and(|room| room.copy_asked.is_some());
        if asked || self.channel_is_full(vnode) {
            return;
        }
        let body = ItemBody::Members { stream: stream.clone() };
        let number = self.ask_home(Question::Members, stream, vnode, &body, now);
        if let Some(room) = self.rooms.get_mut(stream) {
            room.copy_asked = Some(Fetch { number, followed: room.following.is_on() });
            room.asking.iter_mut().for_each(|asking| asking.asked = true);
        }
    }

    /// The home's list. What differs from what was known is told.
    pub(super) fn on_members_told(
        &mut self,
        stream: &StreamId,
        (version, as_of): (Version, Version),
        partial: bool,
        count: usize,
        members: Option<&[InfoOf]>,
        now: Now,
    ) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        let kept = room.copy_asked.take().is_some_and(|fetch| fetch.followed);
        // A note overtook the list: what is known is newer.
        if room.copy.as_ref().is_some_and(|copy| as_of < copy.version) {
            self.answer_asking(stream, now);
            return self.place_listeners(stream, now);
        }
        let listed = |all: &[InfoOf]| all.iter().map(|m| (m.user.clone(), m.info.clone())).collect();
        let mut copy = MemberReplica { version, partial, older: None, count, members: members.map(listed) };
        let mut told = Vec::new();
        if let Some(MemberReplica { members: Some(before), .. }) = &room.copy
            && let Some(after) = &mut copy.members
        {
            for (user, info) in before {
                if partial {
                    after.entry(user.clone()).or_insert_with(|| info.clone());
                } else if !after.contains_key(user) {
                    told.push((user.clone(), Change::Leave, None));
                }
            }
            for (user, info) in after {
                if before.get(user) != Some(info) {
                    told.push((user.clone(), Change::Join, info.clone()));
                }
            }
        }
        room.copy = Some(copy);
        self.answer_asking(stream, now);
        for (user, change, info) in told {
            self.tell_member(stream, user, change, info);
        }
        self.drop_copy(stream, kept);
        if self.wants_copy(stream) {
            self.ask_members(stream, now);
        }
        self.place_listeners(stream, now);
        self.close_room(stream);
    }

    /// Answers those who were there when the home was asked; it is asked again for who came later.
    fn answer_asking(&mut self, stream: &StreamId, now: Now) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        let (asked, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut room.asking).into_iter().partition(|asking| asking.asked);
        let again = !later.is_empty();
        room.asking = later;
        for MembersAsked { key, id, .. } in asked {
            self.reply_members(key, stream, &id);
        }
        if again {
            self.ask_members(stream, now);
        }
    }

    /// What is known of the members, if it is not being asked for anew.
    pub(super) fn has_copy(&self, stream: &StreamId) -> bool {
        self.rooms.get(stream).is_some_and(|room| room.copy.is_some() && room.copy_asked.is_none())
    }

    /// What is known of the members, to who asked.
    pub(super) fn reply_members(&mut self, key: SessionKey, stream: &StreamId, id: &MessageId) {
        let Some(copy) = self.rooms.get(stream).and_then(|room| room.copy.as_ref()) else { return };
        let listed = copy.reply(&mut { MEMBERS_BYTES_MAX });
        self.reply_on_credit(key, id.as_str(), &listed);
    }

    /// Those who have waited too long for the list, or will get none.
    pub(super) fn give_up_asking(&mut self, stream: &StreamId, since: u64) {
        let Some(room) = self.rooms.get_mut(stream) else { return };
        let (late, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut room.asking).into_iter().partition(|asking| asking.at <= since);
        room.asking = stay;
        for MembersAsked { key, id, .. } in late {
            self.reply_unavailable(key, id.as_str());
        }
        self.close_room(stream);
    }

    /// Nobody here follows the members, or what changed before they were followed is missing.
    fn drop_copy(&mut self, stream: &StreamId, kept: bool) {
        if let Some(room) = self.rooms.get_mut(stream).filter(|room| !kept || room.presence.is_empty()) {
            room.copy = None;
        }
    }

    pub(super) fn on_member_note(
        &mut self,
        stream: &StreamId,
        (before, version): (Version, Version),
        count: usize,
        user: UserId,
        change: MemberChange,
        now: Now,
    ) {
        let Some(copy) = self.rooms.get_mut(stream).and_then(|room| room.copy.as_mut()) else { return };
        let known = version.epoch == copy.version.epoch && version.n <= copy.version.n;
        if known && !copy.partial {
            return;
        }
        if copy.version != before || copy.partial {
            return self.ask_members(stream, now);
        }
        (copy.version, copy.count) = (version, count);
        let (change, info) = match change {
            MemberChange::Join { info } => (Change::Join, info),
            MemberChange::Leave => (Change::Leave, None),
        };
        if let Some(members) = &mut copy.members {
            match change {
                Change::Join => drop(members.insert(user.clone(), info.clone())),
                Change::Leave => drop(members.remove(&user)),
            }
        }
        self.tell_member(stream, user, change, info);
    }

    /// What the store has of the room's members is another version: a note was lost.
    pub(super) fn compare_copy(&mut self, stream: &StreamId, version: Version, now: Now) {
        if !self.cfg.on(Rule::CompareTails) {
            return;
        }
        let Some(copy) = self.rooms.get_mut(stream).and_then(|room| room.copy.as_mut()) else { return };
        // It may have been read before the last notes; seen twice, the store went back.
        let older = version.epoch == copy.version.epoch && version.n < copy.version.n;
        let again = copy.older.replace(version) == Some(version);
        let differs = copy.version != version && (!older || again);
        if differs || copy.partial {
            self.ask_members(stream, now);
        }
    }

    /// Tells those who follow the members of a room of one who came or went.
    fn tell_member(&mut self, stream: &StreamId, user: UserId, change: Change, info: Option<Json>) {
        let (Some(room), Some(name)) = (self.rooms.get(stream), stream.room()) else { return };
        let frame: bytes::Bytes =
            ServerFrame::Member(Member { room: name, user: user.clone(), change, info }).to_json().into();
        let latest = Latest::Member(stream.clone(), user);
        for key in room.presence.iter().copied().collect::<Vec<_>>() {
            // Who is not welcomed yet gets the list as of then.
            let session = self.sessions.get(&key).filter(|s| s.is_welcomed());
            let listener = session.and_then(|s| s.seats().rooms.get(stream));
            if listener.is_some_and(Listener::follows_members) {
                self.hand_latest(key, &latest, &frame);
            }
        }
    }
}
