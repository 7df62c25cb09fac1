//! The command `history` on a socket: pages of the session's own inbox, or of a room it may read, as far as the hot
//! window goes.

use roost_backend::store::{Limit, Page};
use roost_proto::Json;
use roost_proto::answers::Paged;
use roost_proto::codes::{ErrorBody, ErrorCode};
use roost_proto::history::{Before, History, archive_url};
use roost_proto::ids::{Cursor, MessageId, StreamId};
use roost_proto::limits::{FRAME_BYTES_MAX, HISTORY_DEFAULT, HISTORY_MAX};

use crate::core::actions::Action;
use crate::core::ask::Ask;
use crate::core::input::Maybe;
use crate::core::keys::{Now, SessionKey};
use crate::core::node::NodeCore;
use crate::core::sessions::reads::{Begun, Want};

/// Of a page on a socket, in bytes: a frame, less what is around the messages.
const PAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;

/// How many messages a page may have.
///
/// # Errors
/// `bad_request` for none and for too many.
pub fn limit(asked: Option<usize>) -> Result<usize, ErrorBody> {
    let limit = asked.unwrap_or(HISTORY_DEFAULT);
    let fits = (1..=HISTORY_MAX).contains(&limit);
    let why = || ErrorBody::new(ErrorCode::BadRequest, format!("'limit' is 1 to {HISTORY_MAX}"));
    fits.then_some(limit).ok_or_else(why)
}

/// What is asked for, and where the archive has what is not in the window.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub stream: &'a StreamId,
    pub before: Option<Cursor>,
    pub archive_url: Option<&'a str>,
}

/// A page as it is answered.
pub fn answer(page: Page, asked: Asked<'_>) -> Paged {
    let (before, older) = (page.before().map(Before), page.older);
    let last = page.entries.last().map(|(offset, _)| Cursor::new(page.generation, *offset));
    let place = last.or(asked.before).map(Before);
    let next = asked.archive_url.filter(|_| older).map(|url| archive_url(url, asked.stream, place));
    let messages = page.entries.into_iter().map(|(_, frame)| Json::of_frame(frame)).collect();
    Paged { messages, before, older, next }
}

impl NodeCore {
    pub(super) fn on_history(&mut self, key: SessionKey, history: History) -> Result<(), ErrorBody> {
        let Some(session) = self.sessions.map.get(&key) else { return Ok(()) };
        let own = history.stream == session.stream;
        let allowed = own || history.stream.room().is_some_and(|room| self.may(key, &room).is_ok());
        limit(history.limit)?;
        if !allowed {
            let why = "neither the own inbox nor a room that the token allows";
            return Err(ErrorBody::new(ErrorCode::Forbidden, why));
        }
        self.sessions.want(key, Want::Page(Box::new(history)));
        Ok(())
    }

    /// Asks for a page, if the session's socket can take it: what it takes is kept free for the answer.
    pub(super) fn read_page(&mut self, key: SessionKey, history: Box<History>) -> Begun {
        let vnode = self.vnode_of(&history.stream);
        let Some(session) = self.sessions.map.get_mut(&key) else { return Begun::Not };
        if self.sessions.budget.room(key, &session.user, &session.credit).is_none() {
            return Begun::Later(Want::Page(history));
        }
        self.sessions.budget.take(&session.user, &mut session.credit, PAGE_BYTES_MAX);
        let entries = history.limit.unwrap_or(HISTORY_DEFAULT);
        let History { id, stream, before, .. } = *history;
        self.fx.push(Action::Ask(Ask::Page {
            ask: self.sessions.reads.begin(key, &session.user, PAGE_BYTES_MAX),
            session: key,
            id,
            vnode,
            stream,
            before: before.map(|before| before.0),
            limit: Limit { entries, bytes: PAGE_BYTES_MAX },
        }));
        Begun::Yes
    }

    pub(in crate::core) fn on_paged(
        &mut self,
        key: SessionKey,
        id: &MessageId,
        stream: &StreamId,
        before: Option<Cursor>,
        answer_of: Maybe<Page>,
        now: Now,
    ) {
        let Some(session) = self.sessions.map.get_mut(&key) else { return };
        self.sessions.budget.give_back(&session.user, &mut session.credit, (1, PAGE_BYTES_MAX));
        let user = session.user.clone();
        match answer_of {
            None => self.reply_unavailable(key, id.as_str()),
            Some(page) => self.show_page(key, id, page, stream, before),
        }
        // What was kept free for the page is free again.
        self.feed_all(key, now);
        self.wake(Some(&user), now);
    }

    fn show_page(
        &mut self,
        key: SessionKey,
        id: &MessageId,
        page: Page,
        stream: &StreamId,
        before: Option<Cursor>,
    ) {
        let asked = Asked { stream, before, archive_url: self.cfg.archive_url.as_deref() };
        let page = answer(page, asked);
        self.reply_on_credit(key, id.as_str(), &page);
    }
}
