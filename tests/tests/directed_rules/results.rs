//! Pages of `client_results`: decision 14.

use bytes::Bytes;
use roost_backend::log::{LogRecord, Position};
use roost_ws_node::core::Input;

use super::rig::Rig;

fn result(client: &str, event: &str, said: u32) -> String {
    format!("{{\"type\":\"t\",\"client_id\":\"{client}\",\"event_id\":\"{event}\",\"said\":{said}}}")
}

/// Gives a page to whoever reads the partition.
fn give(rig: &mut Rig, partition: u32, from: u64, results: &[String]) {
    let (node, ask) = rig.readings[&partition];
    let record = |(offset, payload): (u64, &String)| LogRecord {
        position: Position { partition, offset },
        key: Bytes::new(),
        payload: payload.clone().into(),
        at_ms: 0,
    };
    let records = (from..).zip(results).map(record).collect();
    rig.give(node, Input::Results { partition, ask, records });
}

fn got(rig: &Rig, client: &str) -> Vec<String> {
    let inbox = format!("user:{client}");
    let all = rig.chat.iter().flatten().filter(|(_, m)| m.stream.as_str() == inbox && m.kind == "result");
    all.map(|(_, m)| m.id.to_string()).collect()
}

/// What one processor says again and again, in other words and in another partition, is answered at once; what is behind it in
/// the page is handed out once, and the page is done with when all of it is kept.
#[test]
fn a_page_with_something_said_before_hands_out_the_rest_once() {
    let mut rig = Rig::with(&[0, 0], None, |cfg| cfg.partitions = 2);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    for user in [&alice, &bob] {
        rig.connect(0, user);
    }
    rig.run(1000);
    rig.no_log.insert(0);
    give(&mut rig, 0, 0, &[result(&alice, "e-1", 1)]);
    let mut page: Vec<String> = (2..=300).map(|n| result(&alice, "e-1", n)).collect();
    page.extend([result(&bob, "x-1", 1), result(&bob, "x-2", 1)]);
    give(&mut rig, 1, 0, &page);
    rig.run(1000);
    assert_eq!(rig.handed_out, [], "nothing is confirmed before the log has it");
    rig.log_again();
    rig.run(1000);
    assert_eq!((got(&rig, &alice), got(&rig, &bob)), (vec!["e-1".into()], vec!["x-1".into(), "x-2".into()]));
    let mut done = rig.handed_out.clone();
    done.sort_unstable();
    assert_eq!(done, [(0, 1), (1, 301)]);
}
