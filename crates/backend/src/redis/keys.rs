//! The names of all keys. A vnode's share the hash tag `{v17}` and the control plane's `{roost}`, so on Redis
//! Cluster each script touches one slot.

use roost_proto::ids::{Cursor, MessageId, StreamId, UserId, VnodeId};

use crate::store::LiveChannel;

/// Hash: `gen`, `run_id`, `replid`, `vnodes`, `hash`, and `granted`, the largest epoch granted.
pub(super) const RING: &str = "{roost}:ring";
/// Hash: node → JSON of [`NodeRow`](crate::store::NodeRow).
pub(super) const NODES: &str = "{roost}:nodes";
/// Hash: vnode → node, and `version`.
pub(super) const ASSIGNMENT: &str = "{roost}:assignment";
/// JSON of [`LeaderRow`](crate::store::LeaderRow).
pub(super) const LEADER: &str = "{roost}:leader";
/// There while settling (core rule 19).
pub(super) const SETTLING: &str = "{roost}:settling";

/// Before the name of every channel, because publish and subscribe know no databases: `db3:` in database 3. Nothing in
/// database 0, whose channels are called as they always were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Channels(String);

impl Channels {
    pub(super) fn of(database: i64) -> Self {
        Self(if database == 0 { String::new() } else { format!("db{database}:") })
    }

    /// A channel that has the name of a key.
    pub(super) fn named(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// Published when the table may have changed.
    pub(super) fn hint(&self) -> String {
        self.named("{roost}:hint")
    }

    /// That of a room has the name of its stream's key, that of presence the name of the roster's.
    pub(super) fn of_live(&self, channel: &LiveChannel) -> String {
        match channel {
            LiveChannel::Room { vnode, stream: name } => self.named(&stream(*vnode, name)),
            LiveChannel::Presence(vnode) => self.named(&presence(*vnode)),
            LiveChannel::Node(node) => self.named(&format!("{{roost}}:node:{node}")),
        }
    }

    /// The code of a script that publishes: put before it.
    pub(super) fn script(&self, code: &[&str]) -> redis::Script {
        redis::Script::new(&format!("local channels = '{}'\n{}", self.0, code.concat()))
    }
}

/// JSON of [`Row`](crate::store::Row); its time to live is the lease.
pub(super) fn row(vnode: VnodeId) -> String {
    format!("{{roost}}:vnode:{vnode}")
}

/// Hash: `epoch`, `sid`, `generation`, `seq`, `data_set`, `clock`, `torn` (`1`: a write failed in the middle), and
/// `presence`: JSON of the [`Version`](roost_proto::live::Version) of the last change of presence that others see.
pub(super) fn head(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:head")
}

/// Stream with ids `<seq>-0`: `topic`, `key`, `event`.
pub(super) fn outbox(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:outbox")
}

/// Hash: user → JSON of [`RosterEntry`](crate::store::RosterEntry).
pub(super) fn presence(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:presence")
}

/// Stream with ids `<offset>-0`: `m`.
pub(super) fn stream(vnode: VnodeId, stream: &StreamId) -> String {
    format!("{{v{vnode}}}:stream:{stream}")
}

/// `<generation>:<offset>`. A key for each stream, because Redis 7.0 cannot expire a hash's fields one by one.
pub(super) fn tail(vnode: VnodeId, stream: &StreamId) -> String {
    format!("{{v{vnode}}}:tail:{stream}")
}

/// Hash: sender, line feed, message id → `<offset> <at> <hash>`; `slice` is the slice's number.
pub(super) fn ids(vnode: VnodeId, stream: &StreamId, slice: u8) -> String {
    format!("{{v{vnode}}}:ids:{stream}:{slice}")
}

/// Hash: stream, line feed, user → JSON of [`MemberEntry`](crate::store::MemberEntry); stream → JSON of the room's
/// [`Version`](roost_proto::live::Version).
pub(super) fn members(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:members")
}

/// Hash: user, line feed, `<generation>:<offset>` → the vnode's clock when it was appended, a blank, the message.
pub(super) fn due(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:due")
}

/// Hash: user, line feed, `<generation>:<offset>` → JSON of [`ReceiptRequest`](crate::store::Wanted).
pub(super) fn wanted(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:wanted")
}

/// Hash: id → JSON of [`PendingReceipt`](crate::store::Owed).
pub(super) fn owed(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:owed")
}

/// Hash: client, line feed, event's id → the vnode's clock when it was taken, a blank, the time its client was told.
pub(super) fn tickets(vnode: VnodeId) -> String {
    format!("{{v{vnode}}}:tickets")
}

/// Field of [`tickets`].
pub(super) fn ticket(client: &UserId, event: &MessageId) -> String {
    format!("{client}\n{event}")
}

/// Field of [`cursors`] for what the user has read: no device is called so.
pub(super) const READ: &str = "\nread";

/// Field of [`cursors`]: devices of the user were forgotten.
pub(super) const FORGOT: &str = "\nforgot";

/// Field of [`cursors`]: how many uses of devices there were.
pub(super) const USES: &str = "\nuses";

/// Before the device in a field of [`cursors`]: the number of its last use.
pub(super) const USED: &str = "\n\n";

/// Field of [`due`] and [`wanted`].
pub(super) fn place(user: &UserId, cursor: Cursor) -> String {
    format!("{user}\n{}:{}", cursor.generation, cursor.offset)
}

/// JSON of [`Seen`](crate::store::Seen).
pub(super) fn seen(vnode: VnodeId, user: &UserId) -> String {
    format!("{{v{vnode}}}:seen:{user}")
}

/// Hash: device, or [`READ`] → `<generation>:<offset>`; [`USED`] and device, or [`USES`] → a number; [`FORGOT`] → `1`.
pub(super) fn cursors(vnode: VnodeId, user: &UserId) -> String {
    format!("{{v{vnode}}}:cursors:{user}")
}

#[cfg(test)]
mod tests {
    use roost_proto::ids::NodeId;

    use super::*;

    #[test]
    fn every_channel_has_its_database_in_its_name_but_those_of_the_first() {
        let room = LiveChannel::Room { vnode: VnodeId(1), stream: StreamId::new("room:hall").unwrap() };
        let all = [room, LiveChannel::Presence(VnodeId(2)), LiveChannel::Node(NodeId::new("a").unwrap())];
        let names = |db| {
            let channels = Channels::of(db);
            all.iter().map(|c| channels.of_live(c)).chain([channels.hint()]).collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["{v1}:stream:room:hall", "{v2}:presence", "{roost}:node:a", "{roost}:hint"]);
        assert!(names(3).iter().zip(names(0)).all(|(three, none)| *three == format!("db3:{none}")));
    }
}
