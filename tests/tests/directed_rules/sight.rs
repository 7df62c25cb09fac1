//! What a test sees of a [`Harness`].

use std::collections::BTreeMap;

use roost_proto::answers::Watched;
use roost_proto::events::{Message, Status, StatusCause};
use roost_proto::frames::{Moved, Reset, ServerFrame, Welcome};
use roost_proto::ids::Cursor;

use super::Harness;

impl Harness {
    fn seen<'a, T: 'a>(
        &'a self,
        session: u64,
        pick: impl Fn(&'a ServerFrame) -> Option<T> + 'a,
    ) -> impl Iterator<Item = T> {
        self.frames.iter().filter(move |(s, _)| *s == session).filter_map(move |(_, f)| pick(f))
    }

    /// What was published of a user, as a consumer reads it: in the order of epoch and seq.
    pub(crate) fn published(&self, user: &str) -> Vec<(Status, StatusCause)> {
        let mut events: Vec<_> = self.statuses.iter().filter(|e| e.user.as_str() == user).collect();
        events.sort_by_key(|e| (e.epoch, e.seq));
        events.into_iter().map(|e| (e.status, e.cause)).collect()
    }

    /// Ids of the messages that a session was handed.
    pub(crate) fn inbox(&self, session: u64) -> Vec<String> {
        self.seen(session, |f| if let ServerFrame::Message(m) = f { Some(m.id.to_string()) } else { None })
            .collect()
    }

    /// Every answer to a command: `ok` or the code.
    pub(crate) fn told(&self, session: u64, id: &str) -> Vec<&'static str> {
        let answer = |f: &ServerFrame| match f {
            ServerFrame::Reply(r) if r.id.as_deref() == Some(id) => {
                Some(r.error.as_ref().map_or("ok", |e| e.code.as_str()))
            }
            _ => None,
        };
        self.seen(session, answer).collect()
    }

    /// What a session was told of a user it watches, in answers and frames.
    pub(crate) fn seen_of(&self, session: u64, user: &str) -> Vec<Status> {
        let shown = |frame: &ServerFrame| match frame {
            ServerFrame::Presence(presence) => vec![presence.clone()],
            ServerFrame::Reply(reply) => {
                reply.ok.as_ref().and_then(|ok| ok.read::<Watched>().ok()).unwrap_or_default().users
            }
            _ => Vec::new(),
        };
        let told = self.seen(session, |frame| Some(shown(frame))).flatten();
        told.filter(|presence| presence.user.as_str() == user).map(|presence| presence.status).collect()
    }

    pub(crate) fn is_welcome(&self, session: u64) -> bool {
        self.seen(session, |f| matches!(f, ServerFrame::Welcome(_)).then_some(())).count() == 1
    }

    pub(crate) fn welcome(&self, session: u64) -> &Welcome {
        self.seen(session, |f| if let ServerFrame::Welcome(w) = f { Some(w) } else { None }).last().unwrap()
    }

    /// Where a session that reads everything is.
    pub(crate) fn cursor(&self, session: u64) -> Cursor {
        let last =
            self.seen(session, |f| if let ServerFrame::Message(m) = f { Some(m) } else { None }).last();
        last.map_or(self.welcome(session).cursor, Message::cursor)
    }

    pub(crate) fn moved(&self, session: u64) -> Option<&Moved> {
        self.seen(session, |f| if let ServerFrame::Moved(m) = f { Some(m) } else { None }).last()
    }

    pub(crate) fn resets(&self, session: u64) -> Vec<&Reset> {
        self.seen(session, |f| if let ServerFrame::Reset(r) = f { Some(r) } else { None }).collect()
    }

    pub(crate) fn closed(&self, session: u64) -> Vec<u16> {
        self.closes.iter().filter(|(s, _)| *s == session).map(|(_, c)| c.code()).collect()
    }

    /// What a client knows that was told to read the history, and read it: that, and what it was handed.
    pub(crate) fn history_and_inbox(&self, session: u64, user: &str) -> Vec<String> {
        let through = self.welcome(session).through.as_ref().expect("only if not recovered");
        let (partition, end) = through.split_once(':').unwrap();
        let (partition, end): (usize, usize) = (partition.parse().unwrap(), end.parse().unwrap());
        let stream = format!("user:{user}");
        let history = self.chat[partition][..end].iter().filter(|(_, m)| m.stream.as_str() == stream);
        history.map(|(_, m)| m.id.to_string()).chain(self.inbox(session)).collect()
    }

    /// What the log has of a user's inbox, read as consumers do: once per place.
    pub(crate) fn logged(&self, user: &str) -> Vec<String> {
        let stream = format!("user:{user}");
        let mut places = BTreeMap::new();
        for (_, m) in self.chat.iter().flatten().filter(|(_, m)| m.stream.as_str() == stream) {
            let id = places.entry(m.cursor()).or_insert_with(|| m.id.to_string());
            assert_eq!(id, m.id.as_str(), "a place names one message");
        }
        places.into_values().collect()
    }

    /// The `k`-th user whose home is vnode `v`.
    pub(crate) fn user(&self, v: usize, k: usize) -> String {
        let names = (0..).map(|i| format!("u{i}"));
        names.filter(|n| roost_ring::vnode(n, self.data.len() as u32).index() == v).nth(k).unwrap()
    }
}
