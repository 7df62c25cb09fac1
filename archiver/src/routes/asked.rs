//! Questions about what happened to one user, page by page.

use std::fmt;
use std::str::FromStr;

use roost_backend::archive::{AT_MAX_MS, ArchivePosition, Asked, Moment};
use roost_proto::ids::{Epoch, Seq};
use roost_proto::{ErrorBody, UserId};

use super::api::bad;
use super::query::{Query, moment, required};
use super::rights::Reader;

/// A [`Moment`] as a cursor. For clients it is an opaque text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(Moment);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0.at_ms, self.0.epoch, self.0.seq)
    }
}

impl FromStr for Mark {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "not what a page said";
        let numbers: Vec<u64> =
            text.split(':').map(|digits| digits.parse().map_err(|_| WHY)).collect::<Result<_, _>>()?;
        let [at_ms, epoch, seq] = numbers[..] else { return Err(WHY) };
        Ok(Self(Moment { at_ms, epoch: Epoch(epoch), seq: Seq(seq) }))
    }
}

/// The cursor of a page.
pub(super) fn mark(moment: Moment) -> String {
    Mark(moment).to_string()
}

/// Whom the question is about, if the reader may know.
pub(super) fn user(reader: &Reader<'_>, query: &Query, example: &str) -> Result<UserId, ErrorBody> {
    let user = required("userId", query.user_id.as_ref(), example)?;
    reader.may_see(&user)?;
    Ok(user)
}

/// The whole question, with one more than is shown: it says whether there is more.
pub(super) fn asked(reader: &Reader<'_>, query: &Query, example: &str) -> Result<Asked, ErrorBody> {
    let user = user(reader, query, example)?;
    let limit = query.limit()? + 1;
    let place = match query.place::<Mark>()? {
        ArchivePosition::Newest => ArchivePosition::Newest,
        ArchivePosition::Before(key) => ArchivePosition::Before(key.0),
        ArchivePosition::After(key) => ArchivePosition::After(key.0),
    };
    let from_ms = moment("from", query.from.as_ref())?.unwrap_or(0);
    let to_ms = moment("to", query.to.as_ref())?.unwrap_or(AT_MAX_MS);
    if from_ms > to_ms {
        return Err(bad("to: is before 'from'"));
    }
    Ok(Asked { user, from_ms, to_ms, place, limit })
}
