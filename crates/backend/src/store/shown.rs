//! Presence as others may see it (core rule 30), read for many users at once.

use std::collections::BTreeMap;

use roost_proto::events::Status;
use roost_proto::frames::Presence;
use roost_proto::ids::{UserId, VnodeId};
use roost_proto::time::rfc3339;
use serde::Serialize;

use super::{PresenceRow, Store, StoreError};

/// One user, for everyone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Whose presence it is.
    pub user_id: UserId,
    /// As others see it.
    pub status: Status,
    /// When the status began (RFC 3339, UTC); `None`: never seen, or longer ago than is kept.
    pub since: Option<String>,
    /// Of who is offline: when last visible (RFC 3339, UTC).
    pub last_seen: Option<String>,
    /// For services alone: how many devices somebody has is nobody else's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Nobody is there who would notice a change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

/// What others may see of `users`, in the order given. `place` says where a user's vnode is.
///
/// # Errors
/// The store's.
pub async fn shown_of(
    store: &dyn Store,
    users: Vec<UserId>,
    place: impl Fn(&UserId) -> VnodeId,
    stale: impl Fn(VnodeId) -> bool,
) -> Result<Vec<Shown>, StoreError> {
    let mut by_vnode: BTreeMap<VnodeId, Vec<usize>> = BTreeMap::new();
    for (i, user) in users.iter().enumerate() {
        by_vnode.entry(place(user)).or_default().push(i);
    }
    let asked: Vec<(VnodeId, Vec<UserId>)> = by_vnode
        .iter()
        .map(|(vnode, indices)| (*vnode, indices.iter().map(|i| users[*i].clone()).collect()))
        .collect();
    let answers = store.presence_rows(&asked).await?;
    let garbled = asked.len() != answers.len()
        || asked.iter().zip(&answers).any(|((_, users), rows)| users.len() != rows.len());
    if garbled {
        return Err(StoreError::Garbled("rows of other users than those asked for".into()));
    }
    let mut shown: Vec<Option<Shown>> = users.iter().map(|_| None).collect();
    for ((vnode, indices), rows) in by_vnode.into_iter().zip(answers) {
        let stale = stale(vnode);
        for (i, row) in indices.into_iter().zip(rows) {
            let (status, since, last_seen, sessions) = row.visible();
            let user_id = users[i].clone();
            shown[i] = Some(Shown { user_id, status, since, last_seen, sessions: Some(sessions), stale });
        }
    }
    Ok(shown.into_iter().flatten().collect())
}

impl PresenceRow {
    /// Status, since when, last seen, and how many sessions. An invisible user looks exactly as one who is away: not
    /// even the sessions are counted.
    fn visible(&self) -> (Status, Option<String>, Option<String>, u32) {
        let offline = |since: Option<u64>, last_seen: Option<u64>| (Status::Offline, since, last_seen, 0);
        let (status, since, last_seen, sessions) = match (&self.roster, self.seen) {
            (Some(entry), _) => match entry.chosen.visible() {
                Status::Offline => offline(Some(entry.since), entry.last_seen),
                status => (status, Some(entry.since), None, entry.sessions),
            },
            (None, Some(seen)) => offline(Some(seen.since), Some(seen.last_seen)),
            // Never here, or longer ago than anything is kept.
            (None, None) => offline(None, None),
        };
        (status, since.map(rfc3339), last_seen.map(rfc3339), sessions)
    }

    /// What `user` shows to those who watch.
    pub fn presence_of(&self, user: UserId) -> Presence {
        let (status, since, last_seen, _) = self.visible();
        Presence { user, status, since, last_seen, stale: false }
    }
}

#[cfg(test)]
mod tests {
    use roost_proto::Epoch;
    use roost_proto::frames::ChosenStatus;

    use super::*;
    use crate::store::{RosterEntry, Seen};

    fn shown(
        roster: Option<(ChosenStatus, Option<u64>)>,
        seen: Option<u64>,
    ) -> (Status, Option<String>, Option<String>, u32) {
        let roster = roster.map(|(chosen, last_seen)| RosterEntry {
            chosen,
            since: 1_000,
            last_seen,
            sessions: 2,
            generation: Epoch(1),
        });
        let seen = seen.map(|at| Seen {
            chosen: ChosenStatus::Online,
            since: at,
            last_seen: at,
            generation: Epoch(1),
        });
        PresenceRow { roster, seen }.visible()
    }

    #[test]
    fn an_invisible_user_cannot_be_told_from_an_absent_one() {
        let at = |ms| Some(rfc3339(ms));
        assert_eq!(shown(Some((ChosenStatus::Online, None)), Some(5)), (Status::Online, at(1_000), None, 2));
        assert_eq!(shown(Some((ChosenStatus::Away, None)), None), (Status::Away, at(1_000), None, 2));
        let invisible = shown(Some((ChosenStatus::Invisible, Some(1_000))), None);
        assert_eq!(invisible, shown(None, Some(1_000)));
        assert_eq!(invisible, (Status::Offline, at(1_000), at(1_000), 0));
        assert_eq!(shown(None, None), (Status::Offline, None, None, 0));
    }
}
