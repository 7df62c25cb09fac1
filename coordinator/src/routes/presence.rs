//! `GET /presence?userIds=a,b`: what the store keeps about users, as others may see it (core rule 30).

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use roost_backend::store::{PresenceRow, StoreError};
use roost_proto::events::Status;
use roost_proto::limits::PRESENCE_USERS_MAX;
use roost_proto::time::rfc3339;
use roost_proto::{ErrorBody, ErrorCode, UserId, VnodeId};
use roost_service::reply;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use warp::reply::Response;

use super::{Api, bad_request};

/// Vnodes of one request that are asked at a time: 500 users are in up to 500 vnodes, and a pipelined connection
/// gains little from more than this while others wait behind them.
const VNODES_AT_ONCE: usize = 16;
/// For all of them together: 500 reads, 16 at a time, are 32 round trips.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    #[serde(rename = "userIds")]
    user_ids: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    users: Vec<UserPresence>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct UserPresence {
    user_id: UserId,
    status: Status,
    since: Option<String>,
    last_seen: Option<String>,
    sessions: u32,
    /// Nobody is there who would notice a change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

pub(super) async fn answer(api: &Api, query: Query) -> Response {
    let users = match parse(query.user_ids.as_deref()) {
        Ok(users) => users,
        Err(message) => return bad_request(&message),
    };
    let asked = match timeout(ANSWER_WITHIN, ask(api, users)).await {
        Ok(asked) => asked,
        Err(_) => Err(StoreError::Timeout(ANSWER_WITHIN)),
    };
    api.metrics.presence(asked.is_ok());
    match asked {
        Ok(users) => reply::ok(&Answer { users }),
        Err(error) => {
            tracing::warn!(%error, "presence could not be read");
            reply::error(&ErrorBody::new(ErrorCode::Unavailable, "presence cannot be read at the moment"))
        }
    }
}

fn parse(user_ids: Option<&str>) -> Result<Vec<UserId>, String> {
    let Some(text) = user_ids else { return Err("userIds is missing: /presence?userIds=alice,bob".into()) };
    let users = text.split(',').take(PRESENCE_USERS_MAX + 1).map(UserId::new).collect::<Result<Vec<_>, _>>();
    let users = users.map_err(|error| format!("userIds: {error}"))?;
    if users.len() > PRESENCE_USERS_MAX {
        return Err(format!("userIds: at most {PRESENCE_USERS_MAX} at a time"));
    }
    Ok(users)
}

/// In the order asked.
async fn ask(api: &Api, users: Vec<UserId>) -> Result<Vec<UserPresence>, StoreError> {
    let mut by_vnode: BTreeMap<VnodeId, Vec<usize>> = BTreeMap::new();
    for (i, user) in users.iter().enumerate() {
        by_vnode.entry(roost_ring::vnode_of_user(user, api.vnodes)).or_default().push(i);
    }
    let calls = by_vnode.into_iter().map(|(vnode, indices)| {
        let asked: Vec<UserId> = indices.iter().map(|i| users[*i].clone()).collect();
        async move {
            let rows = api.store.presence(vnode, &asked).await?;
            if rows.len() != asked.len() {
                return Err(StoreError::Garbled(format!("{} rows for {} users", rows.len(), asked.len())));
            }
            Ok((vnode, indices, rows))
        }
    });
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(VNODES_AT_ONCE).try_collect().await?;
    let snapshot = api.view.load();
    let mut shown: Vec<Option<UserPresence>> = users.iter().map(|_| None).collect();
    for (vnode, indices, rows) in answers {
        let stale = snapshot.home(vnode).is_none() || api.is_stale(&snapshot);
        for (i, row) in indices.into_iter().zip(rows) {
            shown[i] = Some(visible(users[i].clone(), row, stale));
        }
    }
    Ok(shown.into_iter().flatten().collect())
}

/// An invisible user looks exactly as one who is away: not even the sessions are counted.
fn visible(user_id: UserId, row: PresenceRow, stale: bool) -> UserPresence {
    let offline = |since: Option<u64>, last_seen: Option<u64>| (Status::Offline, since, last_seen, 0);
    let (status, since, last_seen, sessions) = match (row.roster, row.seen) {
        (Some(entry), _) => match entry.chosen.visible() {
            Status::Offline => offline(Some(entry.since), entry.last_seen),
            status => (status, Some(entry.since), None, entry.sessions),
        },
        (None, Some(seen)) => offline(Some(seen.since), Some(seen.last_seen)),
        // Never here, or longer ago than anything is kept.
        (None, None) => offline(None, None),
    };
    UserPresence {
        user_id,
        status,
        since: since.map(rfc3339),
        last_seen: last_seen.map(rfc3339),
        sessions,
        stale,
    }
}

#[cfg(test)]
mod tests {
    use roost_backend::store::{RosterEntry, Seen};
    use roost_proto::frames::ChosenStatus;

    use super::*;

    fn shown(
        roster: Option<(ChosenStatus, Option<u64>)>,
        seen: Option<u64>,
    ) -> (Status, Option<String>, Option<String>, u32) {
        let roster = roster.map(|(chosen, last_seen)| RosterEntry {
            chosen,
            since: 1_000,
            last_seen,
            sessions: 2,
            generation: roost_proto::Epoch(1),
        });
        let seen = seen.map(|at| Seen {
            chosen: ChosenStatus::Online,
            since: at,
            last_seen: at,
            generation: roost_proto::Epoch(1),
        });
        let shown = visible(UserId::new("bob").unwrap(), PresenceRow { roster, seen }, false);
        (shown.status, shown.since, shown.last_seen, shown.sessions)
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

    #[test]
    fn a_list_of_users_is_checked_one_by_one_and_bounded() {
        let names = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>().join(",");
        assert_eq!(parse(Some("a,b,a")).unwrap().len(), 3);
        assert_eq!(parse(Some(&names(500))).unwrap().len(), 500);
        for bad in
            [None, Some(""), Some("a,"), Some(",a"), Some("a,#b"), Some("a,b\n"), Some(names(501).as_str())]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
