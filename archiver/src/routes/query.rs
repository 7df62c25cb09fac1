//! The parameters of a question, each checked under its name.

use std::str::FromStr;

use roost_backend::archive::{Archive, ArchivePosition};
use roost_proto::events::CHAT_EVENTS;
use roost_proto::history::Through;
use roost_proto::limits::{ARCHIVE_PAGE_MAX, HISTORY_DEFAULT};
use roost_proto::time::parse_rfc3339;
use roost_proto::{ErrorBody, ErrorCode};
use roost_service::query;
use serde::Deserialize;

use super::api::{away, bad};

/// When to come again while the archive is not as far as it was asked to be: it is a fraction of a second behind.
const BEHIND_RETRY_AFTER_MS: u64 = 500;

/// All parameters of all paths, as they came.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Query {
    pub stream: Option<String>,
    #[serde(rename = "userId")]
    pub user_id: Option<String>,
    before: Option<String>,
    after: Option<String>,
    limit: Option<String>,
    through: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub at: Option<String>,
}

/// The value of the parameter `name`, if it is there.
fn optional<T: FromStr>(name: &str, text: Option<&String>) -> Result<Option<T>, ErrorBody>
where
    T::Err: std::fmt::Display,
{
    let parse = |text: &String| text.parse().map_err(|error| bad(format!("{name}: {error}")));
    text.map(parse).transpose()
}

/// The value of the parameter `name`; `example` shows how to ask.
pub(super) fn required<T: FromStr>(name: &str, text: Option<&String>, example: &str) -> Result<T, ErrorBody>
where
    T::Err: std::fmt::Display,
{
    optional(name, text)?.ok_or_else(|| bad(format!("{name} is missing: {example}")))
}

/// A moment in milliseconds since 1970.
pub(super) fn moment(name: &str, text: Option<&String>) -> Result<Option<u64>, ErrorBody> {
    let why = || bad(format!("{name}: must be a time such as 2026-11-21T06:40:00.123Z (a + as %2B)"));
    text.map(|text| parse_rfc3339(text).ok_or_else(why)).transpose()
}

impl Query {
    pub(super) fn parse(raw: &str) -> Result<Self, ErrorBody> {
        query::read(raw)
    }

    pub(super) fn limit(&self) -> Result<usize, ErrorBody> {
        let limit = self.limit.as_deref().map(str::parse);
        match limit {
            None => Ok(HISTORY_DEFAULT),
            Some(Ok(limit)) if (1..=ARCHIVE_PAGE_MAX).contains(&limit) => Ok(limit),
            Some(_) => Err(bad(format!("limit: must be a whole number from 1 to {ARCHIVE_PAGE_MAX}"))),
        }
    }

    /// `before` as the page of dead letters has it.
    pub(super) fn before_id(&self) -> Result<Option<u64>, ErrorBody> {
        optional("before", self.before.as_ref())
    }

    /// Where the page is, by `before` or `after`.
    pub(super) fn place<K: FromStr>(&self) -> Result<ArchivePosition<K>, ErrorBody>
    where
        K::Err: std::fmt::Display,
    {
        match (optional("before", self.before.as_ref())?, optional("after", self.after.as_ref())?) {
            (None, None) => Ok(ArchivePosition::Newest),
            (Some(key), None) => Ok(ArchivePosition::Before(key)),
            (None, Some(key)) => Ok(ArchivePosition::After(key)),
            (Some(_), Some(_)) => Err(bad("after: only one of 'before' and 'after'")),
        }
    }

    /// Refuses until the archive has passed `through`, if that is asked for.
    pub(super) async fn wait_through(&self, archive: &dyn Archive) -> Result<(), ErrorBody> {
        let Some(through) = optional::<Through>("through", self.through.as_ref())? else { return Ok(()) };
        let positions = archive.positions(CHAT_EVENTS).await.map_err(|error| away(&error))?;
        if positions.get(&through.partition).copied().unwrap_or(0) >= through.offset {
            return Ok(());
        }
        let body = ErrorBody::new(ErrorCode::Unavailable, "the archive has not passed 'through' yet");
        Err(body.retry_after(BEHIND_RETRY_AFTER_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_checked_by_name() {
        let query = Query::parse("stream=user%3Ab%20b&limit=7&unknown=1").unwrap();
        assert_eq!((query.stream.as_deref(), query.limit().unwrap()), (Some("user:b b"), 7));
        for (raw, name) in [("limit=0", "limit"), ("limit=501", "limit"), ("limit=x", "limit")] {
            assert!(Query::parse(raw).unwrap().limit().unwrap_err().message.starts_with(name));
        }
        assert!(Query::parse("limit=1&limit=2").is_err(), "twice");
        let both = Query::parse("before=1&after=2").unwrap();
        assert!(both.place::<u64>().is_err());
        assert!(moment("at", Some(&"noon".to_owned())).is_err());
    }
}
