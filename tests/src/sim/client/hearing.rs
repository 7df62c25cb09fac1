//! What a client written by hand hears, and what it makes of it.

use std::collections::BTreeSet;

use rand::RngExt;
use roost_proto::codes::ErrorCode;
use roost_proto::events::Message;
use roost_proto::frames::{Reply, ServerFrame};
use roost_proto::ids::Cursor;
use roost_ws_node::core::{Command, Input, SessionKey};

use super::super::{Happening, World};
use super::{Said, Wake, name};

impl World {
    pub(crate) fn client_gets(
        &mut self,
        user: usize,
        connection: u64,
        frame: Result<bytes::Bytes, Option<u16>>,
    ) {
        if !self.clients[user].all().any(|c| c.key == connection) {
            return;
        }
        let by_hand = self.clients[user].sdk.is_none();
        let frame = match frame {
            Ok(frame) => frame,
            Err(_) if by_hand => return self.lost(user, connection),
            Err(code) => return self.sdk_reads(user, connection, Err(code)),
        };
        let text = String::from_utf8_lossy(&frame).into_owned();
        let label = self.clients[user].label.clone();
        self.note(|| format!("{label} <- #{connection} {text}"));
        let frame = ServerFrame::parse(&text);
        if let Ok(frame) = &frame {
            self.saw_place(user, connection, frame);
        }
        match frame {
            Ok(frame) if !by_hand => self.sdk_reads(user, connection, Ok(frame)),
            Ok(ServerFrame::Welcome(w)) => self.welcomed(user, connection, &w),
            Ok(ServerFrame::Reset(r)) if r.stream.is_room() => {
                self.seat_reset(user, &r.stream, r.cursor, r.through.as_deref());
            }
            Ok(ServerFrame::Message(m)) if m.stream.is_room() => self.seat_got(user, connection, &m),
            Ok(ServerFrame::Member(m)) => self.seat_member(user, connection, &m),
            Ok(ServerFrame::Presence(p)) => self.lookout_told(user, connection, p),
            Ok(ServerFrame::Message(m)) => self.got(user, connection, &m),
            Ok(ServerFrame::Reset(r)) => self.history(user, r.cursor, r.through.as_deref()),
            Ok(ServerFrame::Reply(r)) => self.replied(user, connection, r),
            Ok(ServerFrame::Moved(m)) => self.moved(user, connection, &m),
            Ok(ServerFrame::Ping(_) | ServerFrame::Pong(_) | ServerFrame::TokenExpiring(_)) => {}
            Ok(ServerFrame::Signal(_)) => {}
            Ok(ServerFrame::Read(read)) => self.clients[user].has_read(Some(read.cursor)),
            Err(e) => self.violations.push(format!("a frame nobody can read: {e}: {text}")),
        }
    }

    fn welcomed(&mut self, user: usize, connection: u64, w: &roost_proto::frames::Welcome) {
        let client = &mut self.clients[user];
        let Some(mut opened) = client.opening.filter(|c| c.key == connection) else { return };
        opened.welcomed = true;
        client.has_read(w.read);
        client.opening = None;
        let old = client.current.replace(opened);
        let away = client.away_since.take().map_or(0, |since| self.now - since);
        Self::unsend(client);
        let shown = client.cursor;
        self.saw_gap(away);
        if let Some(old) = old {
            self.tell_core(user, old.pid, self.now + 3, Input::Closed { session: SessionKey(old.key) });
        }
        match (w.recovered, shown) {
            (false, _) => self.history(user, w.cursor, w.through.as_deref()),
            (true, None) => {
                self.clients[user].cursor = Some(Cursor::new(
                    w.cursor.generation,
                    roost_proto::Offset(w.cursor.offset.0 - w.replayed),
                ));
            }
            (true, Some(c)) => {
                self.clients[user].resumed += 1;
                // What came over the old socket in the meantime is not missing from the new one.
                let start = w.cursor.offset.0 - w.replayed;
                if c.generation != w.cursor.generation || start > c.offset.0 {
                    let label = &self.clients[user].label;
                    self.violations.push(format!("{label} showed {c:?} and was 'recovered' at {w:?}"));
                }
            }
        }
        self.seats_welcomed(user, &w.rooms);
        self.look_out(user);
        self.send_waiting(user);
    }

    /// It could not be proved that nothing was missed: the history must have it all.
    pub(in crate::sim) fn history(&mut self, user: usize, cursor: Cursor, through: Option<&str>) {
        let stream = format!("user:{}", name(self.clients[user].user));
        self.read_history(user, &stream, cursor, through);
        let client = &mut self.clients[user];
        client.histories += 1;
        client.cursor = Some(cursor);
    }

    /// The history through that point must have everything of the generation up to the cursor.
    pub(in crate::sim) fn read_history(
        &mut self,
        user: usize,
        stream: &str,
        cursor: Cursor,
        through: Option<&str>,
    ) {
        let Some((partition, end)) = through.and_then(|t| t.split_once(':')) else {
            let label = &self.clients[user].label;
            return self.violations.push(format!("{label}: {stream} not recovered, without 'through'"));
        };
        let (partition, end): (usize, usize) = (partition.parse().unwrap_or(0), end.parse().unwrap_or(0));
        let mut offsets = BTreeSet::new();
        for payload in &self.log.chat[partition][..end] {
            let m: Message = serde_json::from_slice(payload).expect("checked elsewhere");
            if m.stream.as_str() == stream && m.generation == cursor.generation {
                offsets.insert(m.offset.0);
            }
        }
        let lacking: Vec<_> = (1..=cursor.offset.0).filter(|o| !offsets.contains(o)).collect();
        if !lacking.is_empty() {
            self.violations.push(format!(
                "{}: history of {stream} through {partition}:{end} lacks offsets {lacking:?} of generation {}",
                self.clients[user].label, cursor.generation
            ));
        }
    }

    fn got(&mut self, user: usize, connection: u64, m: &Message) {
        let client = &mut self.clients[user];
        let at = m.cursor();
        let Some(cursor) = client.cursor else { return };
        if at <= cursor {
            // Above the cursor or dropped: two sockets may show the same for a moment.
            return;
        }
        // On a socket not yet welcomed nothing may come; on the others exactly the next.
        if at.generation != cursor.generation || at.offset.0 != cursor.offset.0 + 1 {
            let what = format!("{} had {cursor:?} and got {at:?} on #{connection}", client.label);
            self.violations.push(what);
            return;
        }
        client.cursor = Some(at);
        let id = m.id.to_string();
        self.saw_message(&id);
        let client = &mut self.clients[user];
        if let Some(other) = client.seen.insert((at.generation, at.offset.0), id.clone())
            && other != id
        {
            self.violations.push(format!("{at:?} of {} names {other} and {id}", client.label));
        }
        if self.rng.random_bool(0.3)
            && let Some(c) = self.clients[user].current
        {
            let read = self.rng.random_bool(0.3);
            if read {
                self.clients[user].has_read(Some(at));
            }
            let command = if read { Command::Read(at) } else { Command::Ack(at) };
            let event = Input::Command { session: SessionKey(c.key), command };
            self.tell_core(user, c.pid, self.now + 2, event);
        }
    }

    fn replied(&mut self, user: usize, connection: u64, reply: Reply) {
        if self.seat_answered(user, connection, &reply) || self.watcher_answered(user, connection, &reply) {
            return;
        }
        let client = &mut self.clients[user];
        let id = reply.id.clone().unwrap_or_default();
        if client.choice.is_about(&id) {
            return client.choice.answered(reply.ok.is_some());
        }
        let Some(i) = client.outgoing.iter().position(|o| o.id == id) else { return };
        let to = client.outgoing[i].to;
        // All was said again over the connection in use, and only that one answers it: what it refused it waits for,
        // whatever an earlier one says.
        if client.current.is_some_and(|c| c.key != connection) {
            return;
        }
        match (reply.ok, reply.error) {
            (Some(_), _) => {
                client.outgoing.remove(i);
                client.acked.insert(id.clone(), to);
                if client.hold.get(&to) == Some(&id) {
                    client.hold.remove(&to);
                }
                self.send_waiting(user);
            }
            (None, Some(e)) if e.code.retryable() => {
                if client.current.is_none() {
                    return;
                }
                client.outgoing[i].state = Said::Waiting;
                let first = client
                    .outgoing
                    .iter()
                    .find(|o| o.to == to && o.state == Said::Waiting)
                    .map(|o| o.id.clone())
                    .expect("at least the one just refused");
                client.hold.insert(to, first.clone());
                let wait = if e.code == ErrorCode::Unknown { 1 } else { self.rng.random_range(50..200) };
                self.at(self.now + wait, Happening::Client { user, what: Wake::Repeat { id: first } });
            }
            (_, error) => {
                self.violations.push(format!("{}: {id} was refused for good: {error:?}", client.label))
            }
        }
    }

    fn moved(&mut self, user: usize, connection: u64, m: &roost_proto::frames::Moved) {
        let client = &mut self.clients[user];
        if let Some(opening) = client.opening.filter(|c| c.key == connection) {
            client.opening = None;
            let closed = Input::Closed { session: SessionKey(connection) };
            self.tell_core(user, opening.pid, self.now + 1, closed);
        }
        let epoch = m.epoch;
        let node = m.node.clone();
        let target = self.alive().into_iter().rfind(|p| self.processes[*p].node == node);
        let at = self.now + m.after_ms + self.rng.random_range(1..20);
        let direct = target.map(|pid| (pid, epoch));
        self.at(at, Happening::Client { user, what: Wake::Connect { direct } });
    }
}
