//! The checker of the chaos run finds what it is there to find: a run of two users that went well, and the same
//! run with one thing wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use roost_proto::events::PARTITIONS;
use roost_tests::chaos::check::{Verdict, check};
use roost_tests::cluster::TempDir;
use roost_tests::history::{Line, What};
use roost_tests::processes::vnode_of;
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
        let sent = |n| What::Sent { id: id(n), from: 0, to: 1, n };
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
            (0, What::Run { seed: 1, settings: String::new(), names }),
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
        let dir = TempDir::default();
        let lines = self.lines.into_iter().map(|(at, what)| Line { at_us: at * 100_000, what });
        let lines: Vec<Value> =
            lines.map(|line| serde_json::to_value(line).expect("lines are JSON")).collect();
        write(&dir, "history", lines);
        for (topic, records) in [("chat_events", self.chat), ("user_status_events", self.status)] {
            let record = |(offset, (key, value)): (usize, (String, String))| {
                let user = key.strip_prefix("user:").unwrap_or(&key);
                let partition = u32::from(vnode_of(user)) % PARTITIONS;
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
