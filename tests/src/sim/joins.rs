//! P5 where a session comes into a room: it is not answered below what its client showed, nor below what this very
//! connection was shown. Clients would go on from there, and take what comes again for a gap in the past.

use std::collections::BTreeMap;

use roost_proto::frames::{Joined, RoomAt, ServerFrame};
use roost_proto::ids::{Cursor, StreamId};
use roost_ws_node::core::{Command, Input};

use super::World;

/// What was asked and shown, by connection.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    /// What the client showed: by the id of the `join`, of `connect` without one.
    asked: BTreeMap<(u64, Option<String>, StreamId), Option<Cursor>>,
    /// The highest place of each room, and of the inbox.
    shown: BTreeMap<(u64, StreamId), Cursor>,
}

impl Joins {
    fn ask(&mut self, connection: u64, id: Option<String>, at: &RoomAt) {
        self.asked.insert((connection, id, StreamId::of_room(&at.room)), at.cursor);
    }

    fn show(&mut self, connection: u64, stream: &StreamId, at: Cursor) {
        let shown = self.shown.entry((connection, stream.clone())).or_default();
        *shown = (*shown).max(at);
    }

    /// What a connection was shown of a stream.
    pub(super) fn shown(&self, connection: u64, stream: &StreamId) -> Option<Cursor> {
        self.shown.get(&(connection, stream.clone())).copied()
    }

    /// The room that was asked for under this id, and what was shown with it.
    fn asked(&mut self, connection: u64, id: Option<String>) -> Option<(StreamId, Option<Cursor>)> {
        let of = |key: &&(u64, Option<String>, StreamId)| (key.0, &key.1) == (connection, &id);
        let key = self.asked.keys().find(of)?.clone();
        let shown = self.asked.remove(&key)?;
        Some((key.2, shown))
    }

    /// An answer; what is wrong with it, if anything.
    fn answered(
        &mut self,
        connection: u64,
        stream: &StreamId,
        shown: Option<Cursor>,
        at: Cursor,
    ) -> Option<String> {
        let before = self.shown.get(&(connection, stream.clone())).copied().max(shown);
        self.show(connection, stream, at);
        (Some(at) < before).then(|| format!("is answered {at:?} of {stream}, and was shown {before:?}"))
    }

    /// What is wrong with a frame, if anything.
    fn saw(&mut self, connection: u64, frame: &ServerFrame) -> Vec<String> {
        match frame {
            ServerFrame::Message(m) => self.show(connection, &m.stream, m.cursor()),
            ServerFrame::Reset(r) if r.stream.is_room() => {
                return self.answered(connection, &r.stream, None, r.cursor).into_iter().collect();
            }
            ServerFrame::Reply(reply) => {
                let Some(asked) = self.asked(connection, reply.id.clone()) else { return Vec::new() };
                let Some(at) = reply.ok.as_ref().and_then(|ok| ok.read::<Joined>().ok()) else {
                    return Vec::new();
                };
                return self.answered(connection, &asked.0, asked.1, at.cursor).into_iter().collect();
            }
            ServerFrame::Welcome(w) => {
                let mut wrong = Vec::new();
                for told in &w.rooms {
                    let stream = StreamId::of_room(&told.room);
                    let asked = self.asked.remove(&(connection, None, stream.clone())).flatten();
                    wrong.extend(told.cursor.and_then(|at| self.answered(connection, &stream, asked, at)));
                }
                return wrong;
            }
            _ => {}
        }
        Vec::new()
    }
}

impl World {
    pub(super) fn saw_asked(&mut self, event: &Input) {
        match event {
            Input::Connect(connect) => {
                for at in &connect.rooms {
                    self.joins.ask(connect.session.0, None, at);
                }
            }
            Input::Command { session, command: Command::Join(join) } => {
                let (id, at) = join.clone().into_parts();
                self.joins.ask(session.0, Some(id.to_string()), &at);
            }
            _ => {}
        }
    }

    pub(super) fn saw_place(&mut self, client: usize, connection: u64, frame: &ServerFrame) {
        for wrong in self.joins.saw(connection, frame) {
            self.violations.push(format!("P5: #{connection} of {} {wrong}", self.clients[client].label));
        }
    }
}
