//! What this node knows of a room's members: a copy of what the home lists, kept up by its notes and fetched anew
//! when one is missing.

use std::collections::BTreeMap;

use roost_proto::Json;
use roost_proto::answers::Listed;
use roost_proto::frames::InfoOf;
use roost_proto::ids::UserId;
use roost_proto::live::Version;

#[derive(Debug)]
pub(super) struct MemberReplica {
    pub(super) version: Version,
    /// Some may be missing: the home has just begun and not heard of all nodes yet.
    pub(super) partial: bool,
    /// What the store had when it was last looked at.
    pub(super) older: Option<Version>,
    pub(super) count: usize,
    /// None if they are too many to be listed.
    pub(super) members: Option<BTreeMap<UserId, Option<Json>>>,
}

impl MemberReplica {
    /// What is said of the members, within so many bytes, which are used up.
    pub(super) fn reply(&self, room: &mut usize) -> Listed {
        let list = |all: &BTreeMap<UserId, Option<Json>>| -> Vec<InfoOf> {
            all.iter().map(|(user, info)| InfoOf { user: user.clone(), info: info.clone() }).collect()
        };
        let members = self.members.as_ref().map(list);
        let bytes = members.iter().flatten().map(InfoOf::size).sum();
        let members = members.filter(|_| *room >= bytes);
        *room -= members.as_ref().map_or(0, |_| bytes);
        Listed { member_count: members.is_none().then_some(self.count), members }
    }
}
