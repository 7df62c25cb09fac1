//! Who may stay: the limit of sessions and its policies, a fresh token, and a disconnect by the server API.

use roost_proto::answers::Accepted;
use roost_proto::frames::ServerFrame;
use roost_proto::ids::{MessageId, UserId};
use roost_proto::{ErrorBody, ErrorCode};
use roost_ws_node::core::{Action, ApiCommand, CallKey, Command, Input, Query, Rights, SessionPolicy};

use super::harness::{Harness, Reach, Road};

fn harness(policy: SessionPolicy, max: usize) -> Harness {
    Harness::with(&[0, 1], None, move |cfg| (cfg.session_policy, cfg.sessions_per_user_max) = (policy, max))
}

/// The sessions of one user at home, each by its device: which are closed with 3504 after all have come.
fn closed_of(policy: SessionPolicy, max: usize, devices: &[Option<&str>]) -> Vec<bool> {
    let mut harness = harness(policy, max);
    let bob = harness.user(1, 0);
    let sessions: Vec<_> = devices.iter().map(|device| harness.connect_at(1, &bob, *device, None)).collect();
    harness.run(1000);
    let closed = |session: &u64| match harness.closed(*session)[..] {
        [] => false,
        [3504] => true,
        ref other => panic!("closed with {other:?}"),
    };
    for session in sessions.iter().filter(|s| !closed(s)) {
        assert!(harness.is_welcome(*session));
    }
    sessions.iter().map(closed).collect()
}

#[test]
fn who_is_over_the_limit_is_closed_as_the_policy_says() {
    let (phone, tablet) = (Some("phone"), Some("tablet"));
    for (policy, devices, wanted) in [
        (SessionPolicy::Reject, &[None, None, None][..], &[false, false, true][..]),
        (SessionPolicy::Reject, &[phone, tablet, None], &[false, false, true]),
        (SessionPolicy::DropOldest, &[None, None, None, None], &[true, true, false, false]),
        (SessionPolicy::OnePerDevice, &[phone, tablet, phone], &[true, false, false]),
        (SessionPolicy::OnePerDevice, &[phone, phone, phone], &[true, true, false]),
        (SessionPolicy::OnePerDevice, &[None, phone, None], &[false, false, true]),
    ] {
        assert_eq!(closed_of(policy, 2, devices), wanted, "{policy:?} {devices:?}");
    }
}

/// A device that lost its network comes back before its old socket is known to be dead.
#[test]
fn a_device_that_comes_back_takes_its_own_place_under_every_policy() {
    let (phone, tablet) = (Some("phone"), Some("tablet"));
    for policy in [SessionPolicy::Reject, SessionPolicy::DropOldest, SessionPolicy::OnePerDevice] {
        let wanted = [false, true, false];
        assert_eq!(closed_of(policy, 2, &[tablet, phone, phone]), wanted, "{policy:?}");
    }
}

/// The node that a session is told to go to.
fn sent_to(harness: &mut Harness, session: u64) -> String {
    for _ in 0..50 {
        if let Some(moved) = harness.moved(session) {
            return moved.node.to_string();
        }
        harness.run(100);
    }
    panic!("it is not told to move")
}

/// P8: a session that was told to move is no session too many, and is not closed with a code that stops its client:
/// there and back again, each connection opened before the one before is closed.
#[test]
fn a_move_make_before_break_is_not_two_sessions() {
    for policy in [SessionPolicy::Reject, SessionPolicy::DropOldest, SessionPolicy::OnePerDevice] {
        let mut harness = harness(policy, 1);
        let bob = harness.user(1, 0);
        let mut sessions = vec![harness.connect_at(1, &bob, Some("phone"), None)];
        for home in [0, 1] {
            harness.assign(1, home);
            let last = *sessions.last().unwrap();
            assert_eq!(sent_to(&mut harness, last), format!("n{home}"));
            sessions.push(harness.connect_at(home, &bob, Some("phone"), None));
            harness.run(200);
        }
        for session in &sessions {
            assert!(harness.is_welcome(*session));
            assert!(
                harness.closed(*session).is_empty(),
                "{policy:?} {session}: {:?}",
                harness.closed(*session)
            );
        }
    }
}

#[test]
fn who_gives_way_is_not_seen_to_go() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| {
        (cfg.session_policy, cfg.sessions_per_user_max) = (SessionPolicy::DropOldest, 1);
        cfg.linger_ms = 0;
    });
    let bob = harness.user(1, 0);
    harness.connect(1, &bob);
    harness.run(1000);
    let events = harness.nodes[1].counters().status_events;
    // Its opening takes longer than it takes to find out who is gone.
    harness.writes = Box::new(|_| Reach::Underway);
    harness.connect(1, &bob);
    harness.run(1000);
    harness.writes = Box::new(|_| Reach::Answered);
    harness.land();
    harness.run(1000);
    assert_eq!(harness.nodes[1].counters().status_events, events, "online all the time");
}

fn disconnect(harness: &mut Harness, node: usize, n: u64, user: &str) {
    let call = ApiCommand::Disconnect { user: UserId::new(user).unwrap(), reason: "by hand".into() };
    harness.give(node, Input::Calls(vec![(CallKey(n), call)]));
}

fn answer(harness: &Harness, n: u64) -> Vec<&'static str> {
    let mine = harness.answers.iter().filter(|(call, _)| *call == CallKey(n));
    mine.map(|(_, reply)| reply.error.as_ref().map_or("ok", |e| e.code.as_str())).collect()
}

/// Whoever is on the way from one home to the next is closed at both, asked of a third node.
#[test]
fn a_disconnect_closes_a_user_wherever_it_is() {
    let mut harness = Harness::new(&[0, 1, 2, 0], None);
    let (bob, carol) = (harness.user(1, 0), harness.user(1, 1));
    let moving = harness.connect_at(1, &bob, Some("phone"), None);
    let other = harness.connect(1, &carol);
    harness.assign(1, 0);
    assert_eq!(sent_to(&mut harness, moving), "n0");
    let arrived = harness.connect_at(0, &bob, Some("phone"), None);
    disconnect(&mut harness, 2, 1, &bob);
    harness.run(100);
    assert_eq!(answer(&harness, 1), ["ok"]);
    assert_eq!((harness.closed(moving), harness.closed(arrived)), (vec![3503], vec![3503]));
    assert!(harness.closed(other).is_empty(), "nobody else");
    let back = harness.connect_at(0, &bob, Some("phone"), None);
    harness.run(500);
    assert!(harness.is_welcome(back) && harness.closed(back).is_empty(), "it is no ban");
}

/// P9: who cannot know all nodes does not say that all were told; who gets no report says that it does not know.
#[test]
fn a_disconnect_is_confirmed_only_when_every_node_was_told() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    harness.no_store.insert(0);
    harness.run(7000);
    disconnect(&mut harness, 0, 1, &bob);
    assert_eq!(answer(&harness, 1), ["unavailable"]);
    harness.no_store.clear();
    harness.run(3000);
    // Its reports are kept from the node for longer than a client waits.
    disconnect(&mut harness, 0, 2, &bob);
    assert!(answer(&harness, 2).is_empty());
    harness.freeze(0);
    harness.run(20_100);
    harness.give_first(0, Input::Tick);
    harness.thaw(0);
    assert_eq!(answer(&harness, 2), ["unknown"], "once");
}

/// P9: a record that the log did not take told nobody.
#[test]
fn a_disconnect_that_the_log_did_not_take_is_not_confirmed() {
    let mut harness = Harness::new(&[0, 1], None);
    let call =
        ApiCommand::Disconnect { user: UserId::new(harness.user(1, 0)).unwrap(), reason: "by hand".into() };
    let now = harness.clock();
    let asked = harness.nodes[0].step(Input::Calls(vec![(CallKey(1), call)]), now);
    let [Action::Produce { record, .. }] = &asked[..] else { panic!("one other node is told: {asked:?}") };
    let told = harness.nodes[0].step(Input::Reported { token: record.token, ok: false }, now);
    let [Action::Answer { reply, .. }] = &told[..] else { panic!("an answer: {told:?}") };
    assert_eq!(reply.error.as_ref().map(|error| error.code), Some(ErrorCode::Unavailable));
}

#[test]
fn a_refresh_changes_the_rights_or_says_why_not() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let session = harness.connect(1, &bob);
    let refresh = |id: &str, token| Command::Refresh(MessageId::new(id).unwrap(), token);
    harness.command(session, refresh("r1", Err(ErrorBody::new(ErrorCode::Unauthorized, "no"))));
    harness.command(
        session,
        refresh("r2", Ok(Rights { rooms: Some(vec!["team-*".into()]), ..Rights::default() })),
    );
    assert_eq!(
        (harness.told(session, "r1"), harness.told(session, "r2")),
        (vec!["unauthorized"], vec!["ok"])
    );
    assert_eq!(harness.nodes[1].counters().refreshed, 1);
    let query = Query::User(UserId::new(&bob).unwrap());
    let shown = harness.nodes[1].explain(&query, harness.clock()).sessions.remove(0);
    assert_eq!((shown.rooms, shown.watch), (Some(vec!["team-*".into()]), None), "what the token allows now");
    // Before `welcome` nothing else is said; then it is, in order.
    let early = harness.user(1, 1);
    harness.writes = Box::new(|_| Reach::Underway);
    let early = harness.connect(1, &early);
    assert!(!harness.is_welcome(early));
    harness.command(early, refresh("r3", Ok(Rights::default())));
    assert!(harness.told(early, "r3").is_empty());
    harness.writes = Box::new(|_| Reach::Answered);
    harness.land();
    harness.run(500);
    assert!(harness.is_welcome(early));
    let first = harness.frames.iter().find(|(key, _)| *key == early);
    assert!(matches!(first, Some((_, ServerFrame::Welcome(_)))));
    assert_eq!(harness.told(early, "r3"), ["ok"]);
}

fn append(n: u64, from: &str, to: &str, id: &str, data: &str) -> (CallKey, ApiCommand) {
    let call = ApiCommand::Append {
        stream: roost_proto::StreamId::inbox(&UserId::new(to).unwrap()),
        from: UserId::new(from).unwrap(),
        id: MessageId::new(id).unwrap(),
        data: serde_json::value::RawValue::from_string(data.into()).unwrap(),
        receipt: false,
    };
    (CallKey(n), call)
}

/// P2, P4: the same path, the same answers, one message, whoever of session and server API sends it first.
#[test]
fn a_command_of_the_server_api_is_answered_like_a_send() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let reader = harness.connect(1, &bob);
    let sender = harness.connect(0, &alice);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.give(
        0,
        Input::Calls(vec![
            append(1, &alice, &bob, "m1", "{}"),
            append(2, &alice, &bob, "m1", "{\"other\":1}"),
            append(3, &alice, &bob, "m2", "{}"),
            append(4, &alice, &bob, "m2", "{}"),
            append(5, "somebody", &bob, "m2", "{}"),
        ]),
    );
    assert_eq!(harness.answers.len(), 1, "the conflict alone, before the log has anything");
    harness.run(100);
    let answers: Vec<_> = (1..=5).map(|n| answer(&harness, n)).collect();
    assert_eq!(answers, [["ok"], ["conflict"], ["ok"], ["ok"], ["ok"]]);
    let at = |n| {
        let found = harness.answers.iter().find(|(call, _)| *call == CallKey(n));
        found.and_then(|(_, reply)| reply.ok.as_ref()?.read::<Accepted>().ok()).map(|ok| ok.at)
    };
    assert!(at(3).is_some() && at(3) == at(4));
    assert_eq!(harness.inbox(reader), ["m1", "m2", "m2"], "one of alice, one of somebody");
    assert_eq!(harness.logged(&bob), ["m1", "m2", "m2"]);
}

/// P3 and the bound: what follows a refused command of a batch is refused too; what nobody confirms is `unknown`.
#[test]
fn a_full_channel_refuses_the_rest_of_a_batch_and_silence_is_unknown() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| cfg.channel_items_max = 2);
    let bob = harness.user(1, 0);
    let reader = harness.connect(1, &bob);
    harness.road = Box::new(|_, _| Road::Held);
    let batch = (1..=4).map(|n| append(n, "backend", &bob, &format!("m{n}"), "{}"));
    harness.give(0, Input::Calls(batch.collect()));
    assert_eq!((answer(&harness, 3), answer(&harness, 4)), (vec!["rate_limited"], vec!["rate_limited"]));
    let wait = harness.answers[0].1.error.as_ref().and_then(|e| e.retry_after_ms);
    assert!(wait.is_some_and(|ms| ms > 0));
    harness.run(19_900);
    assert!(answer(&harness, 1).is_empty());
    harness.run(200);
    assert_eq!((answer(&harness, 1), answer(&harness, 2)), (vec!["unknown"], vec!["unknown"]));
    // A repeat waits for the same item, and both arrive once, in order.
    harness.give(0, Input::Calls(vec![append(5, "backend", &bob, "m1", "{}")]));
    harness.clear_road();
    harness.run(9_000);
    assert_eq!(answer(&harness, 5), ["ok"]);
    assert_eq!(harness.inbox(reader), ["m1", "m2"]);
}
