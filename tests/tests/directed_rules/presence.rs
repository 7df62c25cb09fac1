//! Who is there: decision 3, linger and grace, what users choose.

use roost_backend::store::model::VnodeData;
use roost_backend::store::{DataSet, Op};
use roost_proto::events::{Status, StatusCause};
use roost_proto::frames::ChosenStatus;
use roost_proto::ids::DeviceId;
use roost_proto::records::Record;
use roost_ws_node::core::Rule;

use super::harness::{Harness, LEASE_TTL_MS, Reach, Road};

/// As by default.
const LINGER_MS: u64 = 10_000;
const GRACE_MS: u64 = 20_000;

const CAME: (Status, StatusCause) = (Status::Online, StatusCause::Connected);
const GONE: (Status, StatusCause) = (Status::Offline, StatusCause::Disconnected);
const LOST: (Status, StatusCause) = (Status::Offline, StatusCause::Lost);

/// The last session of `bob` goes, and before the linger passes his home's data is gone.
fn a_user_goes_and_the_store_forgets_that_he_was_there(off: Option<Rule>) -> Vec<(Status, StatusCause)> {
    let mut harness = Harness::new(&[0, 1], off);
    let bob = harness.user(1, 0);
    let session = harness.connect(1, &bob);
    harness.run(100);
    harness.hang_up(session);
    harness.data[1] = VnodeData::default();
    let (alice, sender) = (harness.user(0, 0), harness.connect(0, &bob));
    harness.say(sender, &alice, "m1");
    harness.hang_up(sender);
    harness.run(LINGER_MS + GRACE_MS + 5000);
    harness.published(&bob)
}

#[test]
fn who_went_as_the_data_was_lost_is_published_as_gone() {
    assert_eq!(a_user_goes_and_the_store_forgets_that_he_was_there(None), [CAME, GONE]);
    let off = a_user_goes_and_the_store_forgets_that_he_was_there(Some(Rule::UsersRemembered));
    assert_eq!(off, [CAME], "others would see him for ever");
}

/// That `bob` came is published, and his home is not told that it is written; he goes, and then the data are gone.
#[test]
fn who_was_shown_by_a_write_without_an_answer_is_published_as_gone() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let mut said = 0;
    harness.writes = Box::new(move |write| {
        let presence = write.ops.iter().any(|op| matches!(op, Op::Presence(_)));
        said += u32::from(presence);
        match said {
            1 if presence => Reach::Untold,
            // It is told that it is behind, and what it wrote.
            0..=2 => Reach::Answered,
            _ => Reach::Underway,
        }
    });
    let session = harness.connect(1, &bob);
    harness.run(2000);
    assert_eq!(harness.published(&bob), [CAME]);
    harness.hang_up(session);
    harness.data[1] = VnodeData::default();
    harness.writes = Box::new(|_| Reach::Answered);
    harness.land();
    harness.run(LINGER_MS + GRACE_MS + 5000);
    assert_eq!(harness.published(&bob), [CAME, GONE]);
}

/// The store is away for longer than the lease and comes back empty; `bob` went meanwhile, and his vnode is given
/// to another node, which has never heard of him.
fn an_outage_that_loses_everything(off: Option<Rule>) -> Vec<(Status, StatusCause)> {
    let mut harness = Harness::new(&[0, 1], off);
    let bob = harness.user(1, 0);
    let session = harness.connect(1, &bob);
    harness.run(100);
    harness.no_store.extend([0, 1]);
    harness.hang_up(session);
    harness.run(LEASE_TTL_MS + 1000);
    harness.wipe();
    harness.assign(0, 1);
    harness.assign(1, 0);
    harness.no_store.clear();
    harness.run(LINGER_MS + GRACE_MS + 5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    harness.published(&bob)
}

#[test]
fn an_earlier_home_tells_the_next_one_whom_the_store_lost() {
    assert_eq!(an_outage_that_loses_everything(None), [CAME, LOST]);
    assert_eq!(an_outage_that_loses_everything(Some(Rule::UsersRemembered)), [CAME]);
}

/// The same, and the home that was told dies, its data are lost once more, and what it confirmed arrives then: the one
/// after it is told all the same.
#[test]
fn a_late_confirmation_of_an_earlier_home_is_not_that_of_the_next() {
    let mut harness = Harness::new(&[0, 1, 2, 2], None);
    let bob = harness.user(1, 0);
    let session = harness.connect(1, &bob);
    harness.run(100);
    let outage = |harness: &mut Harness, homes: [usize; 4]| {
        harness.no_store.extend([0, 1, 2]);
        harness.run(LEASE_TTL_MS + 1000);
        harness.wipe();
        homes.into_iter().enumerate().for_each(|(v, home)| harness.assign(v, home));
        harness.no_store.clear();
    };
    harness.road = Box::new(|_, record| match record {
        Record::PresenceTransferred(_) => Road::Held,
        _ => Road::Goes,
    });
    harness.hang_up(session);
    outage(&mut harness, [0, 0, 2, 2]);
    let until = harness.now + GRACE_MS;
    while harness.on_road.is_empty() && harness.now < until {
        harness.run(50);
    }
    assert!(!harness.on_road.is_empty());
    harness.freeze(0);
    let before = harness.sent.len();
    let held = std::mem::take(&mut harness.on_road);
    harness.road = Box::new(|_, record| match record {
        Record::PresenceTransfer(_) | Record::PresenceTransferred(_) => Road::Lost,
        _ => Road::Goes,
    });
    outage(&mut harness, [1, 2, 2, 2]);
    let told = |harness: &Harness| {
        harness.sent[before..]
            .iter()
            .any(|(_, from, _, r)| *from == 1 && matches!(r, Record::PresenceTransfer(_)))
    };
    let until = harness.now + GRACE_MS;
    while !told(&harness) && harness.now < until {
        harness.run(50);
    }
    assert!(told(&harness), "the home that is to know is another one");
    harness.on_road = held;
    harness.clear_road();
    harness.run(LINGER_MS + 2 * GRACE_MS);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n2");
    assert_eq!(harness.published(&bob), [CAME, LOST]);
}

/// The roster is older than what was published, and the home that finds it so ends at once; node 0 is the next.
fn a_roster_of_before() -> (Harness, String) {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let session = harness.connect(1, &bob);
    harness.choose(session, ChosenStatus::Invisible, "s1");
    harness.run(1000);
    let snapshot = (harness.control.clone(), harness.data.clone());
    harness.choose(session, ChosenStatus::Online, "s2");
    harness.run(1000);
    assert_eq!(harness.published(&bob).last(), Some(&(Status::Online, StatusCause::Chosen)));
    harness.hang_up(session);
    (harness.control, harness.data) = snapshot;
    let settles = harness.store_now() + LEASE_TTL_MS;
    harness.control.new_data_set(2, DataSet("d1".into()), settles);
    harness.run(2000);
    let head = harness.data[1].head().unwrap();
    assert_eq!((head.0, head.1.node().as_str()), (head.2, "n1"), "it began a generation");
    harness.freeze(1);
    harness.run(LEASE_TTL_MS);
    harness.revoke(1);
    harness.assign(1, 0);
    (harness, bob)
}

/// Decision 3.
#[test]
fn a_successor_publishes_who_was_published_in_an_earlier_generation_only() {
    let (mut harness, bob) = a_roster_of_before();
    harness.run(GRACE_MS + 5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(
        harness.published(&bob).last(),
        Some(&LOST),
        "the roster says invisible, others saw him online"
    );
}

/// The same, and before it does so the store loses everything once more.
#[test]
fn who_was_published_in_an_earlier_generation_only_is_remembered_over_a_loss_of_the_data() {
    let (mut harness, bob) = a_roster_of_before();
    harness.run(5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    let shown = (Status::Online, StatusCause::Chosen);
    assert_eq!(harness.published(&bob).last(), Some(&shown), "he has time to come back");
    harness.wipe();
    harness.assign(0, 0);
    harness.assign(1, 0);
    harness.run(2 * GRACE_MS + 5000);
    assert_eq!(harness.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(harness.published(&bob).last(), Some(&LOST));
}

/// P6: a new home has counted one of two sessions, which goes, and then the other one goes before it is counted.
#[test]
fn who_goes_before_a_new_home_has_counted_it_lingers_too() {
    let mut harness = Harness::with(&[0, 1], None, |cfg| (cfg.batch_max, cfg.linger_ms) = (1, 1000));
    let bob = harness.user(1, 0);
    let phone = harness.connect_at(1, &bob, Some("phone"), None);
    let laptop = harness.connect_at(1, &bob, Some("laptop"), None);
    harness.run(500);
    assert_eq!(harness.published(&bob), [CAME]);
    harness.writes = Box::new(|write| {
        let is_laptop = |device: &DeviceId| device.as_str() == "laptop";
        let opens = |op: &Op| matches!(op, Op::Open { device: Some(device), .. } if is_laptop(device));
        if write.ops.iter().any(opens) { Reach::Underway } else { Reach::Answered }
    });
    harness.wipe();
    harness.assign(0, 0);
    harness.assign(1, 1);
    harness.run(2000);
    assert_eq!(harness.late_writes.len(), 1, "the phone is counted, the laptop is not");
    harness.hang_up(phone);
    harness.run(800);
    harness.hang_up(laptop);
    harness.run(400);
    harness.land();
    harness.run(300);
    assert_eq!(harness.published(&bob), [CAME, CAME], "the laptop went a moment ago");
    harness.run(1000);
    assert_eq!(harness.published(&bob), [CAME, CAME, GONE]);
}

/// P6: the inherited outbox waits for the log for longer than the grace; who comes as soon as there is a home again
/// has been there all the time.
#[test]
fn the_grace_of_inherited_users_begins_when_their_home_is_ready() {
    let mut harness = Harness::new(&[0, 1], None);
    let (alice, bob) = (harness.user(0, 0), harness.user(1, 0));
    let (sender, _) = (harness.connect(0, &alice), harness.connect(1, &bob));
    harness.run(100);
    harness.no_log.extend([0, 1]);
    harness.say(sender, &bob, "m1");
    harness.run(100);
    harness.freeze(1);
    harness.run(LEASE_TTL_MS);
    harness.revoke(1);
    harness.assign(1, 0);
    harness.run(GRACE_MS + 5000);
    harness.log_again();
    harness.run(GRACE_MS - 1000);
    let back = harness.connect(0, &bob);
    harness.run(GRACE_MS);
    assert!(harness.is_welcome(back));
    assert_eq!(harness.published(&bob), [CAME]);
}

/// What is acknowledged is kept: the answer to `status` waits for the write, and a home that is given up refuses.
#[test]
fn a_status_is_acknowledged_when_the_store_has_it() {
    let mut harness = Harness::new(&[0, 1], None);
    let bob = harness.user(1, 0);
    let session = harness.connect(1, &bob);
    harness.run(1000);
    harness.writes = Box::new(|write| {
        let presence = write.ops.iter().any(|op| matches!(op, Op::Presence(_)));
        if presence { Reach::Underway } else { Reach::Answered }
    });
    harness.choose(session, ChosenStatus::Away, "s1");
    harness.choose(session, ChosenStatus::Invisible, "s2");
    harness.run(1000);
    assert_eq!((harness.told(session, "s1"), harness.told(session, "s2")), (vec![], vec![]));
    harness.assign(1, 0);
    harness.run(1000);
    let told = (harness.told(session, "s1"), harness.told(session, "s2"));
    assert_eq!(told, (vec![], vec!["unavailable"]), "the write under way is the last one here");
    harness.land();
    harness.run(100);
    assert_eq!(harness.told(session, "s1"), ["ok"]);
    harness.writes = Box::new(|_| Reach::Answered);
    harness.run(5000);
    assert_eq!(
        harness.published(&bob),
        [CAME, (Status::Away, StatusCause::Chosen)],
        "and only what was told is shown"
    );
}
