//! What must be true of a history (promises P1–P6, as far as they concern one stream and one user).

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::store::Limit;
use roost_proto::events::{Message, Status, StatusEvent};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::{Cursor, Epoch, Offset, StreamId, UserId};

use super::process::CANARY_MS;
use super::{World, client};

const ALL: Limit = Limit { entries: usize::MAX, bytes: usize::MAX };

type Where = (Epoch, u64);

/// What the canonical log says, read as a consumer reads it.
struct Canon {
    /// Messages by stream, in the order of their first appearance.
    first: BTreeMap<String, Vec<(Where, String)>>,
}

/// Fills in `world.violations`.
pub(super) fn at_the_end(world: &mut World) {
    let mut wrong = Vec::new();
    let canon = read_chat(world, &mut wrong);
    acked_is_kept(world, &canon, &mut wrong);
    order_holds(world, &canon, &mut wrong);
    everything_settled(world, &mut wrong);
    presence_is_true(world, &mut wrong);
    canaries_get_through(world, &mut wrong);
    world.check_undelivered(&mut wrong);
    world.check_receipts(&mut wrong);
    world.check_heard(&mut wrong);
    world.check_read(&mut wrong);
    world.check_results(&mut wrong);
    let streams = canon.first.iter();
    let places =
        streams.flat_map(|(s, all)| all.iter().map(move |((g, o), id)| ((s.clone(), *g, *o), id.clone())));
    world.check_rooms(&places.collect(), &mut wrong);
    world.check_watchers(&mut wrong);
    world.violations.extend(wrong);
}

/// P2, P3 and P4 on the log: a place names one message, places come in order and without holes, and a generation has
/// an id once, acknowledged or not.
fn read_chat(world: &World, wrong: &mut Vec<String>) -> Canon {
    let mut bytes: BTreeMap<(String, Where), &bytes::Bytes> = BTreeMap::new();
    let mut first: BTreeMap<String, Vec<(Where, String)>> = BTreeMap::new();
    let mut last: BTreeMap<(String, Epoch), u64> = BTreeMap::new();
    let mut ids: BTreeMap<(String, Epoch, String), u64> = BTreeMap::new();
    for payload in world.log.chat.iter().flatten() {
        let m: Message = match serde_json::from_slice(payload) {
            Ok(m) => m,
            Err(e) => return Canon { first: lament(wrong, format!("an unreadable chat event: {e}")) },
        };
        let place = (m.generation, m.offset.0);
        let stream = m.stream.to_string();
        match bytes.insert((stream.clone(), place), payload) {
            Some(other) if other != payload => {
                wrong.push(format!("P2: {stream} {place:?} names two messages: {other:?} and {payload:?}"));
            }
            Some(_) => {}
            None => {
                let last = last.entry((stream.clone(), m.generation)).or_insert(0);
                if m.offset.0 != *last + 1 {
                    wrong.push(format!("P3: {stream} {place:?} follows offset {last} in the log"));
                }
                *last = m.offset.0;
                let id = format!("{} {}", m.from, m.id);
                if let Some(other) = ids.insert((stream.clone(), m.generation, id.clone()), m.offset.0) {
                    wrong.push(format!(
                        "P4: {id} is in {stream} {} at {other} and {}",
                        m.generation, m.offset.0
                    ));
                }
                first.entry(stream).or_default().push((place, m.id.to_string()));
            }
        }
    }
    for event in world.client_events(wrong) {
        let place = (event.epoch, event.seq.0);
        first
            .entry(events_of(event.client_id.as_str()))
            .or_default()
            .push((place, event.event_id.to_string()));
    }
    Canon { first }
}

/// What an event's place is in, beside the streams.
fn events_of(client: &str) -> String {
    format!("events of {client}")
}

/// Where what a client said to `to` must be.
fn said_to(world: &World, client: &client::Client, to: usize) -> String {
    if world.is_event(to) { events_of(&client::name(client.user)) } else { world.stream_to(to).to_string() }
}

fn lament<T: Default>(wrong: &mut Vec<String>, text: String) -> T {
    wrong.push(text);
    T::default()
}

/// P2: an acknowledged message is in the log.
fn acked_is_kept(world: &World, canon: &Canon, wrong: &mut Vec<String>) {
    for client in &world.clients {
        for (id, to) in &client.acked {
            let stream = said_to(world, client, *to);
            let places: Vec<_> = canon
                .first
                .get(&stream)
                .into_iter()
                .flatten()
                .filter(|(_, i)| i == id)
                .map(|(p, _)| *p)
                .collect();
            if places.is_empty() {
                wrong.push(format!("P2: {id} to {stream} was acknowledged and is not in the log"));
            }
        }
    }
}

/// P3: what one sender said to one stream is there in the order it was said. (A message may come again in a new
/// generation after a loss of data; its first appearance counts.)
fn order_holds(world: &World, canon: &Canon, wrong: &mut Vec<String>) {
    for client in &world.clients {
        for (to, said) in &client.order {
            let rank: BTreeMap<_, _> = said.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
            let stream = said_to(world, client, *to);
            let mut seen = BTreeSet::new();
            let mut last: BTreeMap<Epoch, (usize, &str)> = BTreeMap::new();
            let mut places = canon.first.get(&stream).cloned().unwrap_or_default();
            places.sort();
            for ((generation, offset), id) in &places {
                let Some(i) = rank.get(id.as_str()) else { continue };
                if !seen.insert(id.clone()) {
                    continue;
                }
                if let Some((before, other)) = last.get(generation)
                    && before > i
                {
                    wrong.push(format!("P3: in {stream} {generation}/{offset} {id} comes after {other}"));
                }
                last.insert(*generation, (*i, rank.get_key_value(id.as_str()).map_or("", |(k, _)| k)));
            }
        }
    }
}

/// Liveness, and P5 at the end: everyone connected has everything.
fn everything_settled(world: &World, wrong: &mut Vec<String>) {
    for client in &world.clients {
        let name = client.label.clone();
        if client.wants_online() && !client.is_online() {
            wrong.push(format!("{name} wants to be online and is not"));
        }
        if client.is_online() && client.unanswered() > 0 {
            wrong.push(format!("{name} still waits for {} answers", client.unanswered()));
        }
        let stream = StreamId::new(format!("user:{}", client::name(client.user))).expect("a plain name");
        let data = &world.data[world.vnode_of(client.user).index()];
        let Some((_, _, generation, _)) = data.head() else { continue };
        let window = data.read(&stream, generation, Offset(0), ALL);
        if let (Some((tail, _)), true) = (window.entries.last(), client.is_online())
            && client.cursor != Some(Cursor::new(generation, *tail))
        {
            wrong.push(format!("P5: {name} is at {:?}, its stream at {generation}/{tail}", client.cursor));
        }
    }
}

/// Every node gets a message of its own through the whole path.
fn canaries_get_through(world: &World, wrong: &mut Vec<String>) {
    for process in &world.processes {
        let Some(age) = process.canary_age_ms(world.now).filter(|age| *age > 3 * CANARY_MS) else { continue };
        wrong.push(format!("the last canary of {} that got through is {age} ms old", process.node));
    }
}

/// P6: the last word about each user is the truth, in the log and in the roster.
fn presence_is_true(world: &World, wrong: &mut Vec<String>) {
    let mut last: BTreeMap<UserId, StatusEvent> = BTreeMap::new();
    let mut places: BTreeMap<(u16, Epoch, u64), &bytes::Bytes> = BTreeMap::new();
    for payload in world.log.status.iter().flatten() {
        let e: StatusEvent = match serde_json::from_slice(payload) {
            Ok(e) => e,
            Err(e) => return lament(wrong, format!("an unreadable status event: {e}")),
        };
        let place = (e.vnode.0, e.epoch, e.seq.0);
        if let Some(other) = places.insert(place, payload)
            && other != payload
        {
            wrong.push(format!("P6: {place:?} names {other:?} and {payload:?}"));
        }
        let newer = last.get(&e.user).is_none_or(|l| (l.epoch, l.seq) < (e.epoch, e.seq));
        if newer {
            last.insert(e.user.clone(), e);
        }
    }
    for client in &world.clients {
        let user = UserId::new(client::name(client.user)).expect("a plain name");
        let online = world.clients.iter().any(|c| c.user == client.user && c.is_online());
        let data = &world.data[world.vnode_of(client.user).index()];
        let published = last.get(&user).map_or(Status::Offline, |e| e.status);
        let roster = data.presence(&user).roster;
        let listed = roster.is_some();
        let chosen = roster.map(|entry| entry.chosen);
        let visible = chosen.map_or(Status::Offline, ChosenStatus::visible);
        // Shown in an earlier generation, gone, and with the store's data went all who remember it: nobody is left
        // to publish the end (docs/decisions/0003).
        let earlier = data
            .head()
            .is_some_and(|(_, _, generation, _)| last.get(&user).is_some_and(|e| e.epoch < generation));
        let forgotten = earlier && !listed && !world.is_remembered(world.vnode_of(client.user), &user);
        if (published != visible && !forgotten) || listed != online {
            wrong.push(format!(
                "P6: {user} is online: {online}; published: {published:?}; in the roster: {chosen:?}"
            ));
        }
        // Whose device is the only one; a store that went back has what was chosen before.
        let alone = world.clients.iter().filter(|c| c.user == client.user).count() == 1;
        if let (Some(kept), true, true, true) = (client.choice.kept, alone, online, world.run == 0)
            && chosen != Some(kept)
        {
            wrong.push(format!("P6: {user} chose {kept:?}, which was acknowledged, and shows {chosen:?}"));
        }
    }
}
