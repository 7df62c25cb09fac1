//! `GET /presence?userIds=a,b`: what the store keeps about users, as others may see it (core rule 30).

use std::time::Duration;

use roost_backend::store::{Shown, StoreError, shown_of};
use roost_proto::limits::PRESENCE_USERS_MAX;
use roost_proto::{ErrorBody, ErrorCode, UserId};
use roost_service::reply;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use warp::reply::Response;

use super::{Api, bad_request};

/// For all of them together: 500 reads, 16 at a time, are 32 round trips.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    #[serde(rename = "userIds")]
    user_ids: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    users: Vec<Shown>,
}

pub(super) async fn answer(api: &Api, query: Query) -> Response {
    let users = match parse(query.user_ids.as_deref()) {
        Ok(users) => users,
        Err(message) => return bad_request(&message),
    };
    let snapshot = api.view.load();
    let stale = |vnode| snapshot.home(vnode).is_none() || api.is_stale(&snapshot);
    let place = |user: &UserId| roost_ring::vnode_of_user(user, api.vnodes);
    let asked = match timeout(ANSWER_WITHIN, shown_of(&*api.store, users, place, stale)).await {
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

#[cfg(test)]
mod tests {
    use super::*;

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
