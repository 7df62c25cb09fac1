//! What a token allows to read, by the same rules as on a socket.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use roost_proto::claims::{Role, matches_any};
use roost_proto::{Claims, ErrorBody, ErrorCode, StreamId, UserId};
use roost_service::tokens;
use warp::http::HeaderMap;

use super::shares::Place;
use crate::config::ArchiverConfig;

/// Who asks.
pub(super) struct Reader<'a> {
    claims: Claims,
    config: &'a ArchiverConfig,
    place: Arc<Place>,
}

/// # Errors
/// `unauthorized` without a good token.
pub(super) fn claims(config: &ArchiverConfig, headers: &HeaderMap) -> Result<Claims, ErrorBody> {
    let token = tokens::from_authorization(headers);
    let token = token.ok_or_else(|| ErrorBody::new(ErrorCode::Unauthorized, "a token is needed"))?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    config.verifier.verify(token, now_s).map_err(|error| error.body())
}

fn forbidden(why: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Forbidden, why)
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a ArchiverConfig, claims: Claims, place: Arc<Place>) -> Self {
        Self { claims, config, place }
    }

    /// That of the request.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn is_service(&self) -> Result<(), ErrorBody> {
        let service = self.claims.role == Role::Service;
        service.then_some(()).ok_or_else(|| forbidden("only a service token may do this"))
    }

    /// The own presence.
    pub(super) fn may_see(&self, user: &UserId) -> Result<(), ErrorBody> {
        if self.claims.sub == *user { Ok(()) } else { self.is_service() }
    }

    /// The own inbox, and the rooms of the token.
    pub(super) fn may_read(&self, stream: &StreamId) -> Result<(), ErrorBody> {
        if let Some(user) = stream.user() {
            return self.may_see(&user);
        }
        let room = stream.room().ok_or_else(|| forbidden("no such stream"))?;
        let named = self.claims.rooms.as_ref();
        let allowed = named.map_or(self.config.open_rooms, |patterns| matches_any(patterns, room.as_str()));
        if allowed || self.config.auto_join.contains(&room) || self.is_service().is_ok() {
            return Ok(());
        }
        Err(forbidden("the token does not allow this room"))
    }
}
