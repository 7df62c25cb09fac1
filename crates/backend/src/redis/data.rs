//! The data plane's calls: activation, the fenced write, reads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use redis::{Pipeline, Script, ScriptInvocation, Value, pipe};
use roost_proto::events::{message_prefix, numbers_prefix};
use roost_proto::ids::{Cursor, Epoch, MessageId, Offset, Seq, Sid, StreamId, UserId, VnodeId};
use roost_proto::limits::IDS_KEPT_MS;
use tokio::sync::Semaphore;

use super::due::{due, owed, tickets, wanted};
use super::keys::Channels;
use super::link::{LIFE, Lane, Link};
use super::reply::{Fields, cursor, from_json, parse, parse_pair, user_id};
use super::{RedisStore, keys};
use crate::store::*;

/// Redis drops a stream's ids this long after the last was added. Turning the slices forgets them in time; this
/// only cleans up behind streams that fell silent, so it may be late, and it must survive a clock of Redis that
/// steps an hour forward (architecture §7): both slices, and that hour.
const IDS_EXPIRE_MS: u64 = 2 * IDS_KEPT_MS + 3_600_000;

/// Pieces of all activations that are brought at once: a megabyte, or what is taken over would lie before the writes,
/// which go over the same connection.
const PIECES_MAX: usize = 4;

pub(super) struct DataScripts {
    pieces: Semaphore,
    activate: Script,
    inherit: Script,
    window: Script,
    write: Script,
}

impl DataScripts {
    pub(super) fn new(channels: &Channels) -> Self {
        Self {
            pieces: Semaphore::new(PIECES_MAX),
            activate: channels.script(&[LIFE, include_str!("activate.lua")]),
            inherit: Script::new(include_str!("inherit.lua")),
            window: Script::new(include_str!("window.lua")),
            write: channels.script(&[LIFE, include_str!("write.lua")]),
        }
    }
}

fn json<T: serde::Serialize>(value: Option<&T>) -> String {
    value.map(|v| serde_json::to_string(v).expect("plain data always encodes")).unwrap_or_default()
}

/// The streams and users a write names, each once, in the order of their keys.
#[derive(Default)]
struct Named {
    streams: Vec<StreamId>,
    stream_at: HashMap<StreamId, usize>,
    users: Vec<UserId>,
    user_at: HashMap<UserId, usize>,
}

impl Named {
    /// Lua counts from 1.
    fn stream(&mut self, stream: &StreamId) -> usize {
        *self.stream_at.entry(stream.clone()).or_insert_with(|| {
            self.streams.push(stream.clone());
            self.streams.len()
        })
    }

    fn user(&mut self, user: &UserId) -> usize {
        *self.user_at.entry(user.clone()).or_insert_with(|| {
            self.users.push(user.clone());
            self.users.len()
        })
    }

    /// One operation's arguments, as `write.lua` reads them.
    fn args(&mut self, op: &Op, out: &mut Vec<Bytes>) {
        let mut push = |arg: &dyn ToString| out.push(Bytes::from(arg.to_string()));
        match op {
            Op::Append(append) => self.append_args(append, out),
            Op::Event(event) => self.event_args(event, out),
            Op::Presence(op) => {
                push(&"presence");
                push(&self.user(&op.user));
                push(&op.user);
                push(&json(op.roster.as_ref()));
                push(&json(op.seen.as_ref()));
                out.push(op.event.clone().unwrap_or_default());
            }
            Op::Open { user, device } => {
                push(&"open");
                push(&self.stream(&StreamId::inbox(user)));
                push(&self.user(user));
                push(user);
                push(&device.as_ref().map_or("", |d| d.as_str()));
                push(&keys::READ);
            }
            Op::Member(op) => {
                push(&"member");
                push(&self.stream(&op.stream));
                push(&op.user);
                push(&json(op.entry.as_ref()));
                push(&json((!op.last).then_some(&op.version)));
                out.push(op.note.clone());
            }
            Op::Tail { stream } => {
                push(&"tail");
                push(&self.stream(stream));
            }
            Op::Ack { user, device, cursor } => {
                push(&"ack");
                push(&self.user(user));
                push(device);
                push(&cursor.generation);
                push(&cursor.offset);
            }
            Op::Read { user, cursor } => {
                push(&"read");
                push(&self.user(user));
                push(&keys::READ);
                push(&cursor.generation);
                push(&cursor.offset);
            }
            Op::Receipts { wanted, owed } => receipts_args(wanted, owed, out),
            Op::Settle { places } => {
                push(&"settle");
                push(&places.len());
                places.iter().for_each(|(user, cursor)| push(&keys::place(user, *cursor)));
            }
            Op::Undelivered { user, cursor, .. } => {
                push(&"undelivered");
                push(user);
                push(&keys::place(user, *cursor));
            }
        }
    }

    fn append_args(&mut self, append: &AppendOp, out: &mut Vec<Bytes>) {
        let mut push = |arg: &dyn ToString| out.push(Bytes::from(arg.to_string()));
        push(&"append");
        push(&self.stream(&append.stream));
        push(&format_args!("{}\n{}", append.from, append.id));
        push(&append.hash);
        push(&append.at);
        let inbox = !append.stream.is_room();
        push(&u8::from(append.due && inbox));
        push(&json(append.wanted.as_ref().filter(|_| inbox)));
        match append.closes.as_ref().zip(append.stream.user()) {
            None => push(&""),
            Some((closes, client)) => {
                let (answers, event) = match closes {
                    Closes::Answered(event) => (1, event),
                    Closes::TimedOut(event) => (0, event),
                };
                push(&answers);
                push(&self.user(&client));
                push(&client);
                push(&keys::ticket(&client, event));
            }
        }
        out.push(append.rest.clone());
    }

    fn event_args(&mut self, event: &EventOp, out: &mut Vec<Bytes>) {
        let mut push = |arg: &dyn ToString| out.push(Bytes::from(arg.to_string()));
        push(&"event");
        push(&self.stream(&StreamId::inbox(&event.client)));
        push(&format_args!("{}\n{}", EventOp::BY, event.id));
        push(&event.hash);
        push(&event.at);
        push(&event.client);
        push(&keys::ticket(&event.client, &event.id));
        out.push(event.rest.clone());
    }
}

fn receipts_args(
    wanted: &[(InboxPosition, Option<ReceiptRequest>)],
    owed: &[(MessageId, Option<PendingReceipt>)],
    out: &mut Vec<Bytes>,
) {
    let mut push = |arg: &dyn ToString| out.push(Bytes::from(arg.to_string()));
    push(&"receipts");
    push(&owed.len());
    for (id, owed) in owed {
        push(id);
        push(&json(owed.as_ref()));
    }
    push(&wanted.len());
    for ((user, cursor), wanted) in wanted {
        push(&keys::place(user, *cursor));
        push(&json(wanted.as_ref()));
    }
}

impl RedisStore {
    pub(super) async fn do_activate(&self, request: &Activate) -> Result<ActivateAnswer, StoreError> {
        let link = self.links.get(Lane::Writes).await?;
        self.may(&link).await?;
        if request.data_set != link.data_set() {
            // Claimed under data that this connection may not lead to. The script below sees one vnode's slot and
            // cannot tell that it went back.
            let present = self.links.repair(&link).await?;
            if request.data_set != present {
                return Ok(ActivateAnswer::NewData(present));
            }
        }
        let mut fields = self.invoke(&link, &self.activation(request, &link.replid())).await?;
        match fields.text()?.as_str() {
            "refused" => Ok(ActivateAnswer::Refused(Epoch(fields.number()?))),
            "activated" => self.inherited(&link, request, fields).await.map(ActivateAnswer::Activated),
            // Another history of the data, which may have its name already.
            "elsewhere" => match self.links.repair(&link).await? {
                present if present != request.data_set => Ok(ActivateAnswer::NewData(present)),
                _ => Err(StoreError::Unreachable("Redis has just been given another history".into())),
            },
            other => Err(StoreError::Garbled(format!("an activation answered '{other}'"))),
        }
    }

    fn activation(&self, request: &Activate, replid: &str) -> ScriptInvocation<'_> {
        let vnode = request.vnode;
        let mut script = self.data.activate.key(keys::head(vnode));
        script
            .key(keys::outbox(vnode))
            .key(keys::presence(vnode))
            .key(keys::members(vnode))
            .key(keys::due(vnode))
            .key(keys::wanted(vnode))
            .key(keys::owed(vnode))
            .key(keys::tickets(vnode))
            .arg(request.epoch.0)
            .arg(request.sid.as_str())
            .arg(&request.data_set.0)
            .arg(u8::from(request.prove));
        for pair in [request.held, request.left] {
            match pair {
                Some((epoch, seq)) => script.arg(epoch.0).arg(seq.0),
                None => script.arg("").arg(""),
            };
        }
        script.arg(replid);
        script
    }

    /// What an activation answered, and what it left to be brought in pieces.
    async fn inherited(
        &self,
        link: &Arc<Link>,
        request: &Activate,
        mut fields: Fields,
    ) -> Result<Activated, StoreError> {
        let (generation, seq) = (Epoch(fields.number()?), Seq(fields.number()?));
        let previous = match fields.text()?.as_str() {
            "" => None,
            sid => Some(Sid::parse(sid).map_err(|e| StoreError::Garbled(format!("sid '{sid}': {e}")))?),
        };
        let clock_ms = fields.number()?;
        let (vnode, mut collections) = (request.vnode, fields.array()?);
        let mut next = async |kind: &str, key: String| match collections.value()? {
            all @ Value::Array(_) => Fields::new(all),
            _ => self.pieces(link, request, seq, kind, &key).await,
        };
        let outbox = outbox(next("outbox", keys::outbox(vnode)).await?)?;
        let roster = roster(next("hash", keys::presence(vnode)).await?)?;
        let rooms = rooms(next("hash", keys::members(vnode)).await?)?;
        let due = due(next("due", keys::due(vnode)).await?)?;
        let wanted = wanted(next("hash", keys::wanted(vnode)).await?)?;
        let owed = owed(next("hash", keys::owed(vnode)).await?)?;
        let tickets = tickets(next("hash", keys::tickets(vnode)).await?)?;
        Ok(Activated {
            generation,
            seq,
            outbox,
            roster,
            rooms,
            due,
            wanted,
            owed,
            tickets,
            previous,
            clock_ms,
        })
    }

    /// All of one collection, over the connection of the activation: another may lead to another life of the data.
    async fn pieces(
        &self,
        link: &Arc<Link>,
        request: &Activate,
        seq: Seq,
        kind: &str,
        key: &str,
    ) -> Result<Fields, StoreError> {
        let mut from = if kind == "outbox" { "-" } else { "0" }.to_owned();
        let (mut all, mut told) = (Vec::new(), HashSet::new());
        loop {
            let mut script = self.data.inherit.key(keys::head(request.vnode));
            script.key(key).arg(request.epoch.0).arg(request.sid.as_str()).arg(seq.0);
            script.arg(&request.data_set.0).arg(kind).arg(&from);
            let turn = self.data.pieces.acquire().await;
            let mut answer = self.invoke(link, &script).await?;
            drop(turn);
            if answer.text()? != "piece" {
                return Err(StoreError::Unreachable("the vnode changed while it was taken over".into()));
            }
            from = answer.text()?;
            let mut piece = answer.array()?;
            if kind == "outbox" {
                all.extend(piece.rest());
            } else {
                while !piece.done() {
                    let (field, value) = (piece.bytes()?, piece.value()?);
                    // Redis may tell one more than once.
                    if told.insert(field.clone()) {
                        all.extend([Value::BulkString(field.into()), value]);
                    }
                }
            }
            if from.is_empty() {
                return Ok(Fields::of(all));
            }
        }
    }

    pub(super) async fn do_write(&self, request: &Write) -> Result<WriteAnswer, StoreError> {
        let link = self.links.get(Lane::Writes).await?;
        self.may(&link).await?;
        let fence = &request.fence;
        let vnode = fence.vnode;
        let mut named = Named::default();
        let mut ops = Vec::with_capacity(6 * request.ops.len());
        for op in &request.ops {
            named.args(op, &mut ops);
        }
        let mut script = self.data.write.key(keys::head(vnode));
        script.key(keys::outbox(vnode)).key(keys::presence(vnode));
        script.key(keys::members(vnode)).key(keys::due(vnode));
        script.key(keys::wanted(vnode)).key(keys::owed(vnode)).key(keys::tickets(vnode));
        script.arg(link.replid()).arg(fence.epoch.0).arg(fence.sid.as_str()).arg(fence.seq.0);
        script.arg(request.trim.0).arg(request.now_ms);
        script.arg(self.config.stream_max_len).arg(self.config.stream_max_age_ms).arg(TAILS_KEPT_MS);
        script.arg(IDS_KEPT_MS).arg(IDS_EXPIRE_MS).arg(numbers_prefix(vnode, fence.epoch));
        script.arg(DEVICES_KEPT).arg(keys::USES).arg(keys::USED).arg(keys::FORGOT);
        script.arg(named.streams.len());
        for stream in &named.streams {
            script.key(keys::stream(vnode, stream)).key(keys::tail(vnode, stream));
            script.key(keys::ids(vnode, stream, 0)).key(keys::ids(vnode, stream, 1));
            script.arg(stream.as_str()).arg(u8::from(stream.is_room())).arg(message_prefix(stream));
        }
        script.arg(named.users.len());
        for user in &named.users {
            script.key(keys::seen(vnode, user)).key(keys::cursors(vnode, user));
        }
        for arg in &ops {
            script.arg(&arg[..]);
        }
        let (answer, refused) = written(self.invoke(&link, &script).await?)?;
        let Some(answer) = answer else {
            self.links.repair(&link).await?;
            return Err(StoreError::Unreachable("Redis has just been given another history".into()));
        };
        if !refused.is_empty() {
            self.rights.note_channel(&refused);
        }
        Ok(answer)
    }

    pub(super) async fn do_read(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        generation: Epoch,
        after: Offset,
        limit: Limit,
    ) -> Result<Window, StoreError> {
        let from = format!("{}-0", after.0.saturating_add(1));
        let (_, tail, first, entries) = self.window(vnode, stream, ["XRANGE", &from, "+"], limit).await?;
        match (tail.filter(|tail| tail.generation == generation), first) {
            (Some(_), Some(first)) => Ok(Window { first, entries }),
            _ => Ok(Window::default()),
        }
    }

    /// Generation of the vnode, tail of the stream, first offset in the window, and what fits of a range.
    async fn window(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        range: [&str; 3],
        limit: Limit,
    ) -> Result<(Epoch, Option<Cursor>, Option<Offset>, Vec<(Offset, Bytes)>), StoreError> {
        let link = self.links.get(Lane::Reads).await?;
        let mut script = self.data.window.key(keys::head(vnode));
        script.key(keys::tail(vnode, stream)).key(keys::stream(vnode, stream));
        script.arg(&range).arg(limit.entries).arg(limit.bytes);
        let mut answer = self.invoke(&link, &script).await?;
        let some = |text: Bytes| Some(text).filter(|text| !text.is_empty());
        let generation = some(answer.bytes()?).map_or(Ok(0), |text| parse(&text))?;
        let tail = some(answer.bytes()?).map(|text| cursor(&text)).transpose()?;
        let first = some(answer.bytes()?).map(|text| parse_pair(&text, b'-')).transpose()?;
        let entries = entries(answer.array()?)?;
        Ok((Epoch(generation), tail, first.map(|(offset, _)| Offset(offset)), entries))
    }

    pub(super) async fn do_standings(
        &self,
        rooms: &[(VnodeId, StreamId)],
    ) -> Result<Vec<Option<Standing>>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.links.get(Lane::Reads).await?;
        let mut pipe = pipe();
        for (vnode, stream) in rooms {
            pipe.cmd("HGET").arg(keys::head(*vnode)).arg("generation");
            pipe.cmd("GET").arg(keys::tail(*vnode, stream));
            pipe.cmd("HGET").arg(keys::members(*vnode)).arg(stream.as_str());
        }
        let mut answers = self.together(&link, &pipe).await?;
        let standing = |_| {
            let (head, tail) = (answers.bytes_if_any()?, answers.bytes_if_any()?);
            let version = answers.json_if_any()?.unwrap_or_default();
            let Some(head) = head else { return Ok(None) };
            let generation = parse(&head)?;
            let tail = tail.map(|text| parse_pair(&text, b':')).transpose()?;
            let offset = tail.filter(|(of, _)| *of == generation).map_or(0, |(_, offset)| offset);
            Ok(Some(Standing { tail: Cursor::new(Epoch(generation), Offset(offset)), version }))
        };
        rooms.iter().map(standing).collect()
    }

    pub(super) async fn do_page(
        &self,
        vnode: VnodeId,
        stream: &StreamId,
        before: Option<Cursor>,
        limit: Limit,
    ) -> Result<Page, StoreError> {
        let from = before.map_or("+".to_owned(), |b| format!("{}-0", b.offset.0.saturating_sub(1)));
        let range = ["XREVRANGE", &from, "-"];
        let (generation, tail, first, entries) = self.window(vnode, stream, range, limit).await?;
        Ok(Page::of(generation, tail, first, before, entries))
    }

    pub(super) async fn do_presence(
        &self,
        vnode: VnodeId,
        users: &[UserId],
    ) -> Result<Presences, StoreError> {
        let link = self.links.get(Lane::Reads).await?;
        let mut pipe = pipe();
        ask_presence_standing(pipe.atomic(), vnode);
        ask_presence(&mut pipe, vnode, users);
        let mut answers = self.together(&link, &pipe).await?;
        let standing = presence_standing(answers.array()?)?;
        Ok(Presences { standing, rows: presence_rows(&mut answers, users)? })
    }

    /// No transaction: who comes or goes between the two commands of a vnode is shown as before or as after. A roster
    /// says all of who is in it; and what `seen` says stays when a user comes, and is written with what leaves.
    pub(super) async fn do_presence_rows(
        &self,
        asked: &[(VnodeId, Vec<UserId>)],
    ) -> Result<Vec<Vec<PresenceRow>>, StoreError> {
        let mut pipe = pipe();
        asked.iter().for_each(|(vnode, users)| ask_presence(&mut pipe, *vnode, users));
        if pipe.is_empty() {
            return Ok(asked.iter().map(|_| Vec::new()).collect());
        }
        let link = self.links.get(Lane::Reads).await?;
        let mut answers = self.together(&link, &pipe).await?;
        asked.iter().map(|(_, users)| presence_rows(&mut answers, users)).collect()
    }

    pub(super) async fn do_presence_standings(
        &self,
        vnodes: &[VnodeId],
    ) -> Result<Vec<PresenceStanding>, StoreError> {
        if vnodes.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.links.get(Lane::Reads).await?;
        let mut pipe = pipe();
        for vnode in vnodes {
            ask_presence_standing(&mut pipe, *vnode);
        }
        let mut answers = self.together(&link, &pipe).await?;
        vnodes.iter().map(|_| presence_standing(answers.array()?)).collect()
    }
}

fn ask_presence(pipe: &mut Pipeline, vnode: VnodeId, users: &[UserId]) {
    if users.is_empty() {
        return;
    }
    pipe.cmd("HMGET").arg(keys::presence(vnode));
    for user in users {
        pipe.arg(user.as_str());
    }
    pipe.cmd("MGET");
    for user in users {
        pipe.arg(keys::seen(vnode, user));
    }
}

/// The answers to [`ask_presence`].
fn presence_rows(answers: &mut Fields, users: &[UserId]) -> Result<Vec<PresenceRow>, StoreError> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let (mut rosters, mut seen) = (answers.array()?, answers.array()?);
    let row = |_| Ok(PresenceRow { roster: rosters.json_if_any()?, seen: seen.json_if_any()? });
    users.iter().map(row).collect()
}

fn ask_presence_standing(pipe: &mut Pipeline, vnode: VnodeId) {
    pipe.cmd("HMGET").arg(keys::head(vnode)).arg("generation").arg("presence");
}

fn presence_standing(mut fields: Fields) -> Result<PresenceStanding, StoreError> {
    let generation = fields.bytes_if_any()?.map_or(Ok(0), |text| parse(&text))?;
    let version = fields.json_if_any()?.unwrap_or_default();
    Ok(PresenceStanding { generation: Epoch(generation), version })
}

/// The offset or seq in front of a stream entry's id, and the entry's fields.
fn entry(mut fields: Fields) -> Result<(u64, Fields), StoreError> {
    let id = fields.bytes()?;
    Ok((parse_pair(&id, b'-')?.0, fields.array()?))
}

fn entries(mut fields: Fields) -> Result<Vec<(Offset, Bytes)>, StoreError> {
    let mut entries = Vec::new();
    while !fields.done() {
        let (offset, mut message) = entry(fields.array()?)?;
        message.value()?;
        entries.push((Offset(offset), message.bytes()?));
    }
    Ok(entries)
}

fn outbox(mut fields: Fields) -> Result<Vec<OutboxEvent>, StoreError> {
    let mut outbox = Vec::new();
    while !fields.done() {
        let (seq, mut event) = entry(fields.array()?)?;
        event.value()?;
        let topic = match event.text()?.as_str() {
            "chat" => EventTopic::Chat,
            "status" => EventTopic::Status,
            "undelivered" => EventTopic::Undelivered,
            "client" => EventTopic::Client,
            other => return Err(StoreError::Garbled(format!("the topic '{other}' in an outbox"))),
        };
        event.value()?;
        let key = event.text()?;
        event.value()?;
        outbox.push(OutboxEvent { seq: Seq(seq), topic, key, payload: event.bytes()? });
    }
    Ok(outbox)
}

/// Sorted, since Redis keeps them in no order.
fn roster(mut users: Fields) -> Result<Vec<(UserId, RosterEntry)>, StoreError> {
    let mut roster = Vec::new();
    while !users.done() {
        roster.push((user_id(&users.text()?)?, from_json(&users.bytes()?)?));
    }
    roster.sort_by(|a: &(UserId, RosterEntry), b| a.0.cmp(&b.0));
    Ok(roster)
}

fn rooms(mut fields: Fields) -> Result<Vec<(StreamId, RoomRoster)>, StoreError> {
    let mut rooms: BTreeMap<StreamId, RoomRoster> = BTreeMap::new();
    while !fields.done() {
        let name = fields.text()?;
        let (stream, user) = name.split_once('\n').map_or((&name[..], None), |(s, u)| (s, Some(u)));
        let stream =
            StreamId::new(stream).map_err(|e| StoreError::Garbled(format!("stream '{stream}': {e}")))?;
        let room = rooms.entry(stream).or_default();
        match user {
            Some(user) => room.members.push((user_id(user)?, from_json(&fields.bytes()?)?)),
            None => room.version = from_json(&fields.bytes()?)?,
        }
    }
    for room in rooms.values_mut() {
        room.members.sort_by(|a, b| a.0.cmp(&b.0));
    }
    Ok(rooms.into_iter().collect())
}

/// Nothing if the data have another history; and what became of the publications: the empty text, or why one was
/// refused.
fn written(mut fields: Fields) -> Result<(Option<WriteAnswer>, String), StoreError> {
    let answer = match fields.text()?.as_str() {
        "done" => {
            let seq = Seq(fields.number()?);
            let mut answers = fields.array()?;
            let mut results = Vec::new();
            while !answers.done() {
                results.push(result(answers.array()?)?);
            }
            return Ok((Some(WriteAnswer::Done { seq, results }), fields.text()?));
        }
        "elsewhere" => return Ok((None, String::new())),
        "deposed" => WriteAnswer::Deposed,
        "lost" => WriteAnswer::Lost,
        "rewound" => WriteAnswer::Rewound,
        "behind" => WriteAnswer::Behind { seq: Seq(fields.number()?), outbox: outbox(fields.array()?)? },
        other => return Err(StoreError::Garbled(format!("a write answered '{other}'"))),
    };
    Ok((Some(answer), String::new()))
}

fn cursor_if_any(text: &[u8]) -> Result<Option<Cursor>, StoreError> {
    if text.is_empty() { Ok(None) } else { cursor(text).map(Some) }
}

fn result(mut fields: Fields) -> Result<OpResult, StoreError> {
    match fields.text()?.as_str() {
        "appended" => Ok(OpResult::Appended { offset: Offset(fields.number()?) }),
        "duplicate" => Ok(OpResult::Duplicate { offset: Offset(fields.number()?), at: fields.number()? }),
        "conflict" => Ok(OpResult::Conflict),
        "accepted" => Ok(OpResult::Accepted),
        "nobody" => Ok(OpResult::Nobody),
        "presence" => Ok(OpResult::Presence { changed: fields.number()? != 0 }),
        "acked" => Ok(OpResult::Acked),
        "settled" => Ok(OpResult::Settled),
        "receipts" => Ok(OpResult::Receipts),
        "undelivered" => {
            let message = Some(fields.bytes()?).filter(|message| !message.is_empty());
            Ok(OpResult::Undelivered { message })
        }
        "member" => Ok(OpResult::Member),
        "tail" => Ok(OpResult::Tail { tail: Offset(fields.number()?), first: Offset(fields.number()?) }),
        "opened" => Ok(OpResult::Opened(Opened {
            tail: Offset(fields.number()?),
            first: Offset(fields.number()?),
            acked: cursor_if_any(&fields.bytes()?)?,
            forgotten: fields.number()? != 0,
            read: cursor_if_any(&fields.bytes()?)?,
            presence: PresenceRow { roster: fields.json_if_any()?, seen: fields.json_if_any()? },
        })),
        other => Err(StoreError::Garbled(format!("an operation answered '{other}'"))),
    }
}
