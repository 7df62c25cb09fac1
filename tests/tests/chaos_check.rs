//! The checker of the chaos run finds what it is there to find: a run of two users that went well, and the same
//! run with one thing wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use roost_proto::StreamId;
use roost_proto::events::PARTITIONS;
use roost_tests::chaos::check::{Verdict, check};
use roost_tests::cluster::TempDir;
use roost_tests::history::{Line, Made, What};
use roost_tests::processes::{VNODES, vnode_of};
use serde_json::{Value, json};

const NAMES: [&str; 2] = ["alice", "bob"];
const GENERATION: u64 = 7;

/// What a run leaves behind. Times are in tenths of a second.
struct Left {
    lines: Vec<(u64, What)>,
    chat: Vec<(String, String)>,
    status: Vec<(String, String)>,
}

fn id(n: u64) -> String {
    format!("m{n}")
}

fn message(offset: u64, n: u64) -> (String, String) {
    let data = json!({
        "type": "message", "stream": "user:bob", "generation": GENERATION, "offset": offset, "id": id(n),
        "kind": "message", "from": "alice", "at": "", "data": {"n": n},
    });
    ("user:bob".to_owned(), data.to_string())
}

fn status(user: &str, seq: u64, status: &str) -> (String, String) {
    let last_seen = (status == "offline").then_some("");
    let event = json!({
        "vnode": vnode_of(user), "epoch": 1, "seq": seq, "user": user, "status": status, "cause": "connected",
        "at": "", "since": "", "last_seen": last_seen,
    });
    (user.to_owned(), event.to_string())
}

fn arrived(offset: u64, n: u64) -> What {
    What::Arrived { user: 1, generation: GENERATION, offset, id: id(n) }
}

impl Left {
    /// alice sends bob four messages, the second one into an outage of a second, and the last two after it.
    fn good() -> Self {
        let sent = |n| What::Sent { id: id(n), from: 0, to: 1, n, receipt: false };
        let acked = |n| What::Acked { id: id(n) };
        let began = What::Began {
            round: 1,
            fault: "redis_stopped".to_owned(),
            detail: String::new(),
            affected: vec![1],
        };
        let settled = What::Settled {
            round: 1,
            online: NAMES.map(ToOwned::to_owned).to_vec(),
            offline: vec!["carol".to_owned()],
            wrong: BTreeMap::new(),
            status_ends: vec![100; PARTITIONS as usize],
            chat_ends: vec![100; PARTITIONS as usize],
        };
        let names = NAMES.map(ToOwned::to_owned).to_vec();
        let lines = vec![
            (0, What::Run { seed: 1, settings: String::new(), names, made: Made::default() }),
            (1, sent(1)),
            (2, arrived(1, 1)),
            (3, acked(1)),
            (10, began),
            (10, What::Outage { round: 1 }),
            (11, sent(2)),
            (20, What::Ended { round: 1 }),
            (21, acked(2)),
            (22, arrived(2, 2)),
            (25, sent(3)),
            (26, acked(3)),
            (28, arrived(3, 3)),
            (30, sent(4)),
            (31, arrived(4, 4)),
            (31, acked(4)),
            (40, What::Recovered { round: 1, missing: Vec::new() }),
            (50, settled),
        ];
        Self {
            lines,
            chat: (1..=4).map(|n| message(n, n)).collect(),
            status: vec![
                status("alice", 1, "online"),
                status("bob", 2, "online"),
                status("carol", 3, "online"),
                status("carol", 4, "offline"),
            ],
        }
    }

    fn without(mut self, unwanted: impl Fn(&What) -> bool) -> Self {
        self.lines.retain(|(_, what)| !unwanted(what));
        self
    }

    fn judged(self) -> Verdict {
        self.judged_with([])
    }

    /// With these topics besides.
    fn judged_with<const N: usize>(self, besides: [(&str, Vec<(String, String)>); N]) -> Verdict {
        let dir = TempDir::default();
        let lines = self.lines.into_iter().map(|(at, what)| Line { at_us: at * 100_000, what });
        let lines: Vec<Value> =
            lines.map(|line| serde_json::to_value(line).expect("lines are JSON")).collect();
        write(&dir, "history", lines);
        let topics = [("chat_events", self.chat), ("user_status_events", self.status)];
        for (topic, records) in topics.into_iter().chain(besides) {
            let record = |(offset, (key, value)): (usize, (String, String))| {
                let stream = if key.contains(':') { key.clone() } else { format!("user:{key}") };
                let stream = StreamId::new(&stream).expect("a stream");
                let vnode = roost_ring::vnode_of_stream(&stream, u32::from(VNODES));
                let partition = u32::from(vnode.0) % PARTITIONS;
                json!({"partition": partition, "offset": offset, "key": key, "value": value})
            };
            write(&dir, topic, records.into_iter().enumerate().map(record).collect());
        }
        check(dir.path()).expect("nothing is missing")
    }
}

fn write(dir: &TempDir, name: &str, lines: Vec<Value>) {
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(dir.path().join(format!("{name}.jsonl")), text.join("\n")).expect("a file");
}

/// Lost, doubled, order broken, presence wrong: of the one fault.
fn counts(verdict: &Verdict) -> [usize; 4] {
    let row = &verdict.rows["redis_stopped"];
    [row.lost, row.doubled, row.disordered, row.presence]
}

#[test]
fn a_good_run_has_no_flaws_and_recovery_counts_from_the_end_of_the_outage() {
    let verdict = Left::good().judged();
    assert!(verdict.flaws.is_empty(), "{:?}", verdict.flaws);
    let row = &verdict.rows["redis_stopped"];
    assert_eq!((row.runs, row.acked, counts(&verdict)), (1, 3, [0; 4]));
    assert_eq!(
        row.recovery,
        [Duration::from_millis(800)],
        "the third message: sent after the end, there at 2.8 s"
    );
}

#[test]
fn a_confirmed_message_that_is_in_no_log_is_lost() {
    let mut left = Left::good();
    left.chat.pop();
    assert_eq!(counts(&left.judged())[0], 1);
}

#[test]
fn what_is_in_the_log_is_lost_to_a_reader_who_was_not_told() {
    let last = |what: &What| *what == arrived(4, 4);
    assert_eq!(counts(&Left::good().without(last).judged())[0], 1);
    let mut told = Left::good().without(last);
    let place = |offset| (GENERATION, offset);
    told.lines.push((60, What::Missed { user: 1, from: Some(place(3)), to: place(4) }));
    assert_eq!(counts(&told.judged())[0], 0);
    let mut told_of_less = Left::good().without(last);
    told_of_less.lines.push((60, What::Missed { user: 1, from: Some(place(1)), to: place(3) }));
    assert_eq!(counts(&told_of_less.judged())[0], 1);
}

#[test]
fn a_message_shown_again_is_doubled() {
    let mut left = Left::good();
    left.lines.push((60, arrived(5, 4)));
    left.chat.push(message(5, 4));
    let verdict = left.judged();
    assert_eq!(counts(&verdict)[1], 2, "to the reader, and in the log: {:?}", verdict.flaws);
}

#[test]
fn two_messages_the_other_way_round_break_the_order() {
    let mut left = Left::good();
    for (_, what) in &mut left.lines {
        if let What::Arrived { offset, id, .. } = what {
            match *offset {
                3 => *id = self::id(4),
                4 => *id = self::id(3),
                _ => {}
            }
        }
    }
    left.chat = [(1, 1), (2, 2), (3, 4), (4, 3)].map(|(offset, n)| message(offset, n)).to_vec();
    assert_eq!(counts(&left.judged())[2], 2, "at the reader, and in the log");
}

#[test]
fn a_hole_in_a_stream_breaks_the_order() {
    let mut left = Left::good();
    left.chat[3] = message(5, 4);
    left.lines.iter_mut().for_each(|(_, what)| {
        if *what == arrived(4, 4) {
            *what = arrived(5, 4);
        }
    });
    assert!(counts(&left.judged())[2] > 0);
}

#[test]
fn a_copy_that_is_equal_to_the_byte_is_only_counted() {
    let mut left = Left::good();
    left.chat.push(message(2, 2));
    let verdict = left.judged();
    assert_eq!((counts(&verdict), verdict.rows["redis_stopped"].copies), ([0; 4], 1));
    assert!(verdict.flaws.is_empty());
}

#[test]
fn presence_is_wrong_if_the_last_event_or_the_answer_says_something_else() {
    let mut left = Left::good();
    left.status.pop();
    assert_eq!(counts(&left.judged())[3], 1, "carol is still online to who reads the topic");
    let mut left = Left::good();
    for (_, what) in &mut left.lines {
        if let What::Settled { wrong, .. } = what {
            wrong.insert("bob".to_owned(), "offline".to_owned());
        }
    }
    assert_eq!(counts(&left.judged())[3], 1, "bob is shown as somebody who left");
}

#[test]
fn an_unfinished_round_and_one_without_recovery_are_flaws() {
    let unfinished = Left::good().without(|what| matches!(what, What::Settled { .. }));
    assert_eq!(unfinished.judged().flaws.len(), 1);
    let mut stuck = Left::good();
    for (_, what) in &mut stuck.lines {
        if let What::Recovered { missing, .. } = what {
            missing.push(1);
        }
    }
    assert_eq!(stuck.judged().flaws.len(), 1);
}

/// What else a run leaves: a room, a watcher, receipts, events, and somebody who never comes.
struct Beside {
    run: Left,
    undelivered: Vec<(String, String)>,
    client_events: Vec<(String, String)>,
}

const ABSENT: usize = 2;
const ROOM: &str = "lobby";

fn in_chat(stream: &str, offset: u64, id: &str, kind: &str, from: &str, data: Value) -> (String, String) {
    let m = json!({
        "type": "message", "stream": stream, "generation": GENERATION, "offset": offset, "id": id, "kind": kind,
        "from": from, "at": "", "data": data,
    });
    (stream.to_owned(), m.to_string())
}

fn published(n: u64) -> What {
    What::Published { id: format!("p{n}"), user: 0, room: ROOM.to_owned(), n }
}

fn in_room(user: usize, n: u64) -> What {
    What::ShownInRoom { user, room: ROOM.to_owned(), generation: GENERATION, offset: n, id: format!("p{n}") }
}

fn publication(offset: u64, n: u64) -> (String, String) {
    in_chat(&format!("room:{ROOM}"), offset, &format!("p{n}"), "message", "alice", json!({"n": n}))
}

fn receipt(kind: &str, offset: u64, id: &str) -> (String, String) {
    in_chat(
        "user:alice",
        offset,
        &format!("{kind}-{offset}"),
        "receipt",
        "bob",
        json!({"type": kind, "ids": [id], "at": ""}),
    )
}

fn result(kind: &str, offset: u64) -> (String, String) {
    let from = if kind == "event_timeout" { "#timer" } else { "#processor" };
    in_chat(
        "user:bob",
        offset,
        "e1",
        "result",
        from,
        json!({"type": kind, "client_id": "bob", "event_id": "e1"}),
    )
}

fn given(seq: u64) -> (String, String) {
    let event = json!({
        "vnode": vnode_of("bob"), "epoch": 1, "seq": seq, "type": "event", "client_id": "bob", "event_id": "e1",
        "created_at": "", "data": 1,
    });
    ("bob".to_owned(), event.to_string())
}

fn shown_to(user: usize, stream_offset: u64, name: &str) -> What {
    What::Arrived { user, generation: GENERATION, offset: stream_offset, id: name.to_owned() }
}

fn carol_shown(status: &str) -> What {
    let statuses = [("carol".to_owned(), status.to_owned())].into();
    What::Shown { user: 1, statuses }
}

impl Beside {
    /// Long after the outage of a good run: alice asks for a receipt and gets two, publishes twice to a room of both,
    /// sends to dora, who never comes; bob watches carol and has an event answered. Two minutes later it is over.
    fn good() -> Self {
        let mut run = Left::good();
        run.lines.retain(|(_, what)| !matches!(what, What::Run { .. }));
        let names = ["alice", "bob", "dora"].map(ToOwned::to_owned).to_vec();
        let made = Made { absent: 1, grace_ms: 1_000, undelivered_after_ms: 2_000, event_timeout_ms: 2_000 };
        run.lines.insert(0, (0, What::Run { seed: 1, settings: String::new(), names, made }));
        let place = |user, room: &str| What::Joined { user, room: room.to_owned() };
        let sent = |id: &str, to, receipt| What::Sent { id: id.to_owned(), from: 0, to, n: 1, receipt };
        let acked = |id: &str| What::Acked { id: id.to_owned() };
        let asked = What::Sent { id: id(5), from: 0, to: 1, n: 5, receipt: true };
        let watching = What::Watching { user: 1, whom: vec!["carol".to_owned()] };
        let before = [place(0, ROOM), place(1, ROOM), watching, carol_shown("offline")];
        let before: Vec<_> = before.into_iter().map(|what| (0, what)).collect();
        run.lines.splice(1..1, before);
        let after = [
            asked,
            acked("m5"),
            arrived(5, 5),
            What::Read { user: 1, generation: GENERATION, offset: 5 },
            shown_to(0, 1, "receipt/bob/delivered-1"),
            shown_to(0, 2, "receipt/bob/read-2"),
            published(1),
            acked("p1"),
            in_room(0, 1),
            in_room(1, 1),
            published(2),
            acked("p2"),
            in_room(0, 2),
            in_room(1, 2),
            sent("d1", ABSENT, false),
            acked("d1"),
            What::Asked { id: "e1".to_owned(), user: 1 },
            shown_to(1, 6, "result/#processor/e1"),
            What::Answered { id: "e1".to_owned(), timed_out: false },
        ];
        run.lines.extend((100..).zip(after));
        run.lines.push((1_200, What::State { user: 0, node: None }));
        run.chat.push(message(5, 5));
        run.chat.extend([receipt("delivered", 1, "m5"), receipt("read", 2, "m5")]);
        run.chat.extend([publication(1, 1), publication(2, 2), result("event_accepted", 6)]);
        let to_dora = in_chat("user:dora", 1, "d1", "message", "alice", json!({"n": 1}));
        run.chat.push(to_dora.clone());
        Self { run, undelivered: vec![("dora".to_owned(), to_dora.1)], client_events: vec![given(1)] }
    }

    fn without_record(mut self, id: &str) -> Self {
        let named = format!("\"id\":\"{id}\"");
        self.run.chat.retain(|(_, value)| !value.contains(&named));
        self
    }

    fn with(mut self, at: u64, what: What) -> Self {
        self.run.lines.push((at, what));
        self.run.lines.sort_by_key(|(at, _)| *at);
        self
    }

    fn without(mut self, unwanted: impl Fn(&What) -> bool) -> Self {
        self.run = self.run.without(unwanted);
        self
    }

    /// Redis lost what it had while all this happened.
    fn excused(self) -> Self {
        let round = 2;
        let (fault, detail) = ("redis_flushed".to_owned(), String::new());
        let began = What::Began { round, fault, detail, affected: Vec::new() };
        let settled = self.run.lines.iter().find_map(|(_, what)| match what {
            What::Settled { .. } => Some(what.clone()),
            _ => None,
        });
        let Some(What::Settled { online, offline, wrong, status_ends, chat_ends, .. }) = settled else {
            panic!("a good run settles")
        };
        let settled = What::Settled { round, online, offline, wrong, status_ends, chat_ends };
        self.with(95, began)
            .with(95, What::DataLost { round, back_ms: 100 })
            .with(95, What::Ended { round })
            .with(130, What::Recovered { round, missing: Vec::new() })
            .with(140, settled)
    }

    fn judged(self) -> Verdict {
        self.run
            .judged_with([("undelivered_events", self.undelivered), ("client_events", self.client_events)])
    }

    /// How many flaws there are of each of: rooms, watchers, receipts, events, reports.
    fn counts(self) -> [usize; 5] {
        let verdict = self.judged();
        let mut sum = [0; 5];
        for row in verdict.rows.values() {
            let of = [row.rooms, row.watchers, row.receipts, row.events, row.undelivered];
            sum.iter_mut().zip(of).for_each(|(sum, n)| *sum += n);
        }
        assert_eq!(sum.iter().sum::<usize>() == 0, verdict.flaws.is_empty(), "{:?}", verdict.flaws);
        sum
    }
}

#[test]
fn a_good_run_with_rooms_watchers_receipts_events_and_reports_has_no_flaws() {
    let verdict = Beside::good().judged();
    assert!(verdict.flaws.is_empty(), "{:?}", verdict.flaws);
    let row = &verdict.rows["redis_stopped"];
    assert_eq!((row.published, row.receipts_asked, row.events_asked, row.reports_due), (2, 1, 1, 1));
    assert_eq!(Beside::good().excused().counts(), [0; 5]);
}

#[test]
fn a_publication_that_is_lost_is_found() {
    // In the log, and to each of the two who were shown what is nowhere.
    assert_eq!(Beside::good().without_record("p2").counts()[0], 3);
    let unseen = |what: &What| *what == in_room(1, 2);
    assert_eq!(Beside::good().without(unseen).counts()[0], 1);
    let told = What::MissedInRoom {
        user: 1,
        room: ROOM.to_owned(),
        from: Some((GENERATION, 1)),
        to: (GENERATION, 2),
    };
    assert_eq!(Beside::good().without(unseen).with(130, told).counts()[0], 0, "who is told may read it");
}

#[test]
fn a_publication_shown_twice_or_out_of_its_place_is_found() {
    assert!(Beside::good().with(130, in_room(1, 2)).counts()[0] > 0);
    let mut swapped = Beside::good();
    swapped.run.chat.retain(|(key, _)| !key.starts_with("room:"));
    swapped.run.chat.extend([publication(1, 2), publication(2, 1)]);
    assert!(swapped.counts()[0] > 0);
}

#[test]
fn a_place_of_a_room_or_of_an_inbox_that_names_two_messages_is_found() {
    let mut room = Beside::good().with(130, published(3));
    room.run.chat.push(publication(2, 3));
    assert_eq!(room.counts()[0], 1);
    let mut inbox = Left::good();
    inbox.chat.push(message(4, 3));
    assert_eq!(counts(&inbox.judged())[2], 1);
}

#[test]
fn who_is_shut_out_of_a_room_is_found() {
    let out = What::Excluded { user: 1, from: ROOM.to_owned(), why: "forbidden".to_owned() };
    assert_eq!(Beside::good().with(130, out).judged().flaws.len(), 1);
}

#[test]
fn a_watcher_with_a_picture_that_is_not_true_is_found() {
    assert_eq!(Beside::good().with(30, carol_shown("online")).counts()[1], 1);
    let blind = |what: &What| matches!(what, What::Shown { .. });
    assert_eq!(Beside::good().without(blind).counts()[1], 1, "who was told nothing, too");
    assert_eq!(Beside::good().with(60, carol_shown("online")).counts()[1], 0, "it is looked at in the end");
}

/// As if it had not been made; what its reader was shown goes with it.
fn without_receipt(kind: &str, offset: u64) -> Beside {
    let id = format!("{kind}-{offset}");
    let shown = shown_to(0, offset, &format!("receipt/bob/{id}"));
    let mut left = Beside::good().without(|what| *what == shown).without_record(&id);
    // The inbox has no hole.
    if offset == 1 {
        left.run.chat.retain(|(_, value)| !value.contains("\"kind\":\"receipt\""));
        left.run.chat.push(receipt("read", 1, "m5"));
        left = left.without(|what| matches!(what, What::Arrived { user: 0, .. }));
        left = left.with(105, shown_to(0, 1, "receipt/bob/read-1"));
    }
    left
}

#[test]
fn a_receipt_that_does_not_come_is_found_unless_redis_lost_it() {
    assert_eq!(without_receipt("delivered", 1).counts()[2], 1);
    assert_eq!(without_receipt("read", 2).counts()[2], 1);
    assert_eq!(without_receipt("read", 2).excused().counts()[2], 0);
    let unread = without_receipt("read", 2).without(|what| matches!(what, What::Read { .. }));
    assert_eq!(unread.counts()[2], 0, "what nobody read");
}

#[test]
fn a_receipt_that_comes_twice_or_that_nobody_wanted_is_found() {
    let twice = |id: &str| {
        let mut left = Beside::good().with(130, shown_to(0, 3, "receipt/bob/delivered-3"));
        left.run.chat.push(receipt("delivered", 3, id));
        left
    };
    assert_eq!(twice("m5").counts()[2], 1);
    assert_eq!(twice("m5").excused().counts()[2], 0);
    assert_eq!(twice("m4").counts()[2], 1, "m4 was sent without a wish for one");
}

#[test]
fn an_event_without_a_result_is_found_and_so_is_one_with_two() {
    let unshown = |what: &What| matches!(what, What::Arrived { id, .. } if id.starts_with("result/"));
    let none = || Beside::good().without(unshown).without_record("e1");
    assert_eq!(none().counts()[3], 1);
    assert_eq!(none().excused().counts()[3], 0);
    let second = |kind| {
        let name = if kind == "event_timeout" { "result/#timer/e1" } else { "result/#processor/e1" };
        let mut left = Beside::good().with(131, shown_to(1, 7, name));
        left.run.chat.push(result(kind, 7));
        left
    };
    assert_eq!(second("event_timeout").counts()[3], 1, "a timeout after the result");
    assert!(second("event_accepted").counts()[3] > 0);
    let untold = |what: &What| matches!(what, What::Answered { .. });
    assert_eq!(Beside::good().without(untold).counts()[3], 1);
}

#[test]
fn a_late_result_after_a_timeout_is_right() {
    let unshown = |what: &What| matches!(what, What::Arrived { id, .. } if id.starts_with("result/"));
    let mut left = Beside::good().without(unshown).without_record("e1");
    left.run.chat.extend([result("event_timeout", 6), result("event_accepted", 7)]);
    left = left.with(130, shown_to(1, 6, "result/#timer/e1"));
    left = left.with(131, shown_to(1, 7, "result/#processor/e1"));
    assert_eq!(left.counts(), [0; 5]);
}

#[test]
fn an_event_that_processors_get_twice_is_found() {
    let mut left = Beside::good();
    left.client_events.push(given(1));
    assert_eq!(left.counts()[3], 0, "a copy");
    let mut left = Beside::good();
    left.client_events.push(given(2));
    assert_eq!(left.counts()[3], 1);
}

#[test]
fn what_nobody_acknowledged_is_reported_and_what_somebody_did_is_not() {
    let mut silent = Beside::good();
    silent.undelivered.clear();
    assert_eq!(silent.counts()[4], 1);
    let mut silent = Beside::good().excused();
    silent.undelivered.clear();
    assert_eq!(silent.counts()[4], 0);
    let mut wrong = Beside::good();
    wrong.undelivered.push(("bob".to_owned(), message(5, 5).1));
    assert_eq!(wrong.counts()[4], 1, "bob took it at once");
    let mut in_an_outage = Beside::good();
    in_an_outage.undelivered.push(("bob".to_owned(), message(2, 2).1));
    assert_eq!(in_an_outage.counts()[4], 0, "the home may not have heard of it in time");
}

#[test]
fn a_report_of_something_else_or_of_a_receipt_is_found() {
    let mut other = Beside::good();
    let (_, value) = in_chat("user:dora", 1, "d1", "message", "alice", json!({"n": 2}));
    other.undelivered.push(("dora".to_owned(), value));
    assert_eq!(other.counts()[4], 1);
    let mut of_receipt = Beside::good();
    of_receipt.undelivered.push(("alice".to_owned(), receipt("delivered", 1, "m5").1));
    assert_eq!(of_receipt.counts()[4], 1);
}

#[test]
fn two_status_events_with_one_number_are_found() {
    let mut left = Left::good();
    left.status.push(status("carol", 4, "online"));
    left.status.push(status("carol", 5, "offline"));
    assert_eq!(counts(&left.judged())[3], 1);
}
