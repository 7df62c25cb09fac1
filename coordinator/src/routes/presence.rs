//! `GET /presence?userIds=a,b`: what the store keeps about users, as others may see it (core rule 30).
//!
//! For whom a socket may `watch`, by the same claim; how many sessions somebody has is for services.

use std::time::Duration;

use roost_backend::store::{Shown, StoreError, shown_of};
use roost_proto::claims::Role;
use roost_proto::limits::PRESENCE_USERS_MAX;
use roost_proto::{ErrorBody, ErrorCode, UserId};
use roost_service::{query, reply};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use warp::reply::Response;

use super::{Api, bad_request_body};
use crate::gate::Asker;

/// For all of them together: 500 users are two commands for each of their vnodes, in one round trip.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// So many users cost as much as a request: 100 commands of Redis'.
const USERS_PER_TOKEN: usize = 50;

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    #[serde(rename = "userIds")]
    user_ids: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    users: Vec<Shown>,
}

pub(super) async fn answer(api: &Api, asker: &Asker, query: &str) -> Response {
    match shown(api, asker, query).await {
        Ok(users) => reply::ok(&Answer { users }),
        Err(error) => reply::error(&error),
    }
}

async fn shown(api: &Api, asker: &Asker, query: &str) -> Result<Vec<Shown>, ErrorBody> {
    let claims = asker.claims()?;
    if claims.is_none() && !api.open_presence {
        return Err(ErrorBody::new(ErrorCode::Unauthorized, "a token is needed"));
    }
    let query: Query = query::read(query)?;
    let users = parse(query.user_ids.as_deref()).map_err(|why| bad_request_body(&why))?;
    let forbidden =
        claims.and_then(|claims| users.iter().find(|user| !claims.may_see(user, api.watch_needs_claim)));
    if let Some(user) = forbidden {
        let why = format!("the token does not allow to see '{user}'");
        return Err(ErrorBody::new(ErrorCode::Forbidden, why));
    }
    api.gate.charge(asker, u32::try_from(users.len() / USERS_PER_TOKEN).unwrap_or(u32::MAX))?;
    let mut shown = read(api, users).await?;
    if claims.is_none_or(|claims| claims.role != Role::Service) {
        shown.iter_mut().for_each(|shown| shown.sessions = None);
    }
    Ok(shown)
}

async fn read(api: &Api, users: Vec<UserId>) -> Result<Vec<Shown>, ErrorBody> {
    let snapshot = api.view.load();
    let stale = |vnode| snapshot.home(vnode).is_none() || api.is_stale(&snapshot);
    let place = |user: &UserId| roost_ring::vnode_of_user(user, api.vnodes);
    let asked = match timeout(ANSWER_WITHIN, shown_of(&*api.store, users, place, stale)).await {
        Ok(asked) => asked,
        Err(_) => Err(StoreError::Timeout(ANSWER_WITHIN)),
    };
    api.metrics.presence(asked.is_ok());
    asked.map_err(|error| {
        tracing::warn!(%error, "presence could not be read");
        ErrorBody::new(ErrorCode::Unavailable, "presence cannot be read at the moment")
    })
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
