//! Pages of `client_results`: decision 14.

use bytes::Bytes;
use roost_backend::log::{LogRecord, Position};
use roost_ws_node::core::Input;

use super::harness::Harness;

fn result(client: &str, event: &str, said: u32) -> String {
    format!("{{\"type\":\"t\",\"client_id\":\"{client}\",\"event_id\":\"{event}\",\"said\":{said}}}")
}

/// Gives a page to whoever reads the partition.
fn give(harness: &mut Harness, partition: u32, from: u64, results: &[String]) {
    let (node, ask) = harness.readings[&partition];
    let record = |(offset, payload): (u64, &String)| LogRecord {
        position: Position { partition, offset },
        key: Bytes::new(),
        payload: payload.clone().into(),
        at_ms: 0,
    };
    let records = (from..).zip(results).map(record).collect();
    harness.give(node, Input::Results { partition, ask, records });
}

fn got(harness: &Harness, client: &str) -> Vec<String> {
    let inbox = format!("user:{client}");
    let all = harness.chat.iter().flatten().filter(|(_, m)| m.stream.as_str() == inbox && m.kind == "result");
    all.map(|(_, m)| m.id.to_string()).collect()
}

/// What one processor says again and again, in other words and in another partition, is answered at once; what is behind it in
/// the page is handed out once, and the page is done with when all of it is kept.
#[test]
fn a_page_with_something_said_before_hands_out_the_rest_once() {
    let mut harness = Harness::with(&[0, 0], None, |cfg| cfg.partitions = 2);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    for user in [&alice, &bob] {
        harness.connect(0, user);
    }
    harness.run(1000);
    harness.no_log.insert(0);
    give(&mut harness, 0, 0, &[result(&alice, "e-1", 1)]);
    let mut page: Vec<String> = (2..=300).map(|n| result(&alice, "e-1", n)).collect();
    page.extend([result(&bob, "x-1", 1), result(&bob, "x-2", 1)]);
    give(&mut harness, 1, 0, &page);
    harness.run(1000);
    assert_eq!(harness.handed_out, [], "nothing is confirmed before the log has it");
    harness.log_again();
    harness.run(1000);
    assert_eq!(
        (got(&harness, &alice), got(&harness, &bob)),
        (vec!["e-1".into()], vec!["x-1".into(), "x-2".into()])
    );
    let mut done = harness.handed_out.clone();
    done.sort_unstable();
    assert_eq!(done, [(0, 1), (1, 301)]);
}
