//! Rooms: to each member the room is a stream like an inbox, with many senders.

use std::collections::{BTreeMap, BTreeSet};

use roost_backend::log::LogRecord;

use super::Case;
use crate::chat::Chat;
use crate::history::{Line, What};
use crate::ledger::{Arrived, Flaw, Ledger, Missed, Sent};

/// In the ledger of a room there is one stream.
const THE_ROOM: usize = 0;

/// Each confirmed publication is in `chat_events`, once in a generation, and no place names two; and each member is shown
/// everything of the room once, in its order, or is told what to read in the history.
pub(super) fn judge(case: &mut Case, lines: &[Line], records: &[LogRecord]) {
    let mut members: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for line in lines {
        if let What::Joined { user, room } = &line.what {
            members.entry(room).or_default().insert(*user);
        }
    }
    for (room, members) in members {
        let stream = format!("room:{room}");
        let records: Vec<LogRecord> =
            records.iter().filter(|record| record.key == stream.as_bytes()).cloned().collect();
        let published = publications(case, room);
        let mut logged = Chat::of_streams(&records, &[stream], &case.names, &published);
        for flaw in std::mem::take(&mut logged.flaws).all() {
            charge(case, &format!("room {room}"), &flaw);
        }
        for member in members {
            let shown = shown_to(case, lines, room, member, &published);
            let flaws = shown.flaws(case.start());
            let other = logged.shown_otherwise(&shown);
            let skipped = logged.skipped(&shown, THE_ROOM..THE_ROOM + 1);
            let all = [flaws.doubled, flaws.disordered, other, skipped].concat();
            all.iter().for_each(|flaw| charge(case, &format!("room {room}, to {member}"), flaw));
        }
    }
}

fn charge(case: &mut Case, whose: &str, flaw: &Flaw) {
    let at = flaw.id.as_ref().and_then(|id| Some(case.ledger.published.get(id)?.at));
    let what = format!("{whose}: {:?}: {}", flaw.id, flaw.what);
    case.flaw_at(at.unwrap_or_else(|| case.start()), "rooms", what, |row| &mut row.rooms);
}

/// What was published there, as what was sent to one receiver.
fn publications(case: &Case, room: &str) -> Ledger {
    let mut ledger = Ledger::default();
    for (id, p) in case.ledger.published.iter().filter(|(_, p)| p.room == room) {
        let sent = Sent {
            from: p.from,
            to: THE_ROOM,
            n: p.n,
            receipt: false,
            at: p.at,
            acked: p.acked,
            arrived: None,
        };
        ledger.sent.insert(id.clone(), sent);
    }
    ledger
}

/// And what one member was shown of it.
fn shown_to(case: &Case, lines: &[Line], room: &str, member: usize, published: &Ledger) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.sent.clone_from(&published.sent);
    for line in lines {
        let at = case.instant(line);
        match &line.what {
            What::ShownInRoom { user, room: of, generation, offset, id } if *user == member && of == room => {
                let (generation, offset, id) = (*generation, *offset, id.clone());
                ledger.arrived.push(Arrived { at, user: THE_ROOM, generation, offset, id });
            }
            What::MissedInRoom { user, room: of, from, to } if *user == member && of == room => {
                ledger.missed.push(Missed { at, user: THE_ROOM, from: *from, to: *to });
            }
            _ => {}
        }
    }
    ledger
}
