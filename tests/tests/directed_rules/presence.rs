//! Who is there: decision 3, linger and grace, what users choose.

use roost_backend::store::model::VnodeData;
use roost_backend::store::{DataSet, Op};
use roost_proto::events::{Status, StatusCause};
use roost_proto::frames::ChosenStatus;
use roost_proto::records::Record;
use roost_ws_node::core::Rule;

use super::rig::{LEASE_TTL_MS, Reach, Rig, Road};

/// As by default.
const LINGER_MS: u64 = 10_000;
const GRACE_MS: u64 = 20_000;

const CAME: (Status, StatusCause) = (Status::Online, StatusCause::Connected);
const GONE: (Status, StatusCause) = (Status::Offline, StatusCause::Disconnected);
const LOST: (Status, StatusCause) = (Status::Offline, StatusCause::Lost);

/// The last session of `bob` goes, and before the linger passes his home's data is gone.
fn a_user_goes_and_the_store_forgets_that_he_was_there(off: Option<Rule>) -> Vec<(Status, StatusCause)> {
    let mut rig = Rig::new(&[0, 1], off);
    let bob = rig.user(1, 0);
    let session = rig.connect(1, &bob);
    rig.run(100);
    rig.hang_up(session);
    rig.data[1] = VnodeData::default();
    let (alice, sender) = (rig.user(0, 0), rig.connect(0, &bob));
    rig.say(sender, &alice, "m1");
    rig.hang_up(sender);
    rig.run(LINGER_MS + GRACE_MS + 5000);
    rig.published(&bob)
}

#[test]
fn who_went_as_the_data_was_lost_is_published_as_gone() {
    assert_eq!(a_user_goes_and_the_store_forgets_that_he_was_there(None), [CAME, GONE]);
    let off = a_user_goes_and_the_store_forgets_that_he_was_there(Some(Rule::UsersRemembered));
    assert_eq!(off, [CAME], "others would see him for ever");
}

/// The store is away for longer than the lease and comes back empty; `bob` went meanwhile, and his vnode is given
/// to another node, which has never heard of him.
fn an_outage_that_loses_everything(off: Option<Rule>) -> Vec<(Status, StatusCause)> {
    let mut rig = Rig::new(&[0, 1], off);
    let bob = rig.user(1, 0);
    let session = rig.connect(1, &bob);
    rig.run(100);
    rig.no_store.extend([0, 1]);
    rig.hang_up(session);
    rig.run(LEASE_TTL_MS + 1000);
    rig.wipe();
    rig.assign(0, 1);
    rig.assign(1, 0);
    rig.no_store.clear();
    rig.run(LINGER_MS + GRACE_MS + 5000);
    assert_eq!(rig.data[1].head().unwrap().1.node().as_str(), "n0");
    rig.published(&bob)
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
    let mut rig = Rig::new(&[0, 1, 2, 2], None);
    let bob = rig.user(1, 0);
    let session = rig.connect(1, &bob);
    rig.run(100);
    let outage = |rig: &mut Rig, homes: [usize; 4]| {
        rig.no_store.extend([0, 1, 2]);
        rig.run(LEASE_TTL_MS + 1000);
        rig.wipe();
        homes.into_iter().enumerate().for_each(|(v, home)| rig.assign(v, home));
        rig.no_store.clear();
    };
    rig.road = Box::new(|_, record| match record {
        Record::PresenceTransferred(_) => Road::Held,
        _ => Road::Goes,
    });
    rig.hang_up(session);
    outage(&mut rig, [0, 0, 2, 2]);
    let until = rig.now + GRACE_MS;
    while rig.on_road.is_empty() && rig.now < until {
        rig.run(50);
    }
    assert!(!rig.on_road.is_empty());
    rig.freeze(0);
    let before = rig.sent.len();
    let held = std::mem::take(&mut rig.on_road);
    rig.road = Box::new(|_, record| match record {
        Record::PresenceTransfer(_) | Record::PresenceTransferred(_) => Road::Lost,
        _ => Road::Goes,
    });
    outage(&mut rig, [1, 2, 2, 2]);
    let told = |rig: &Rig| {
        rig.sent[before..]
            .iter()
            .any(|(_, from, _, r)| *from == 1 && matches!(r, Record::PresenceTransfer(_)))
    };
    let until = rig.now + GRACE_MS;
    while !told(&rig) && rig.now < until {
        rig.run(50);
    }
    assert!(told(&rig), "the home that is to know is another one");
    rig.on_road = held;
    rig.clear_road();
    rig.run(LINGER_MS + 2 * GRACE_MS);
    assert_eq!(rig.data[1].head().unwrap().1.node().as_str(), "n2");
    assert_eq!(rig.published(&bob), [CAME, LOST]);
}

/// Decision 3: the roster is older than what was published, and the home that finds it so ends at once.
#[test]
fn a_successor_publishes_who_was_published_in_an_earlier_generation_only() {
    let mut rig = Rig::new(&[0, 1], None);
    let bob = rig.user(1, 0);
    let session = rig.connect(1, &bob);
    rig.choose(session, ChosenStatus::Invisible, "s1");
    rig.run(1000);
    let snapshot = (rig.control.clone(), rig.data.clone());
    rig.choose(session, ChosenStatus::Online, "s2");
    rig.run(1000);
    assert_eq!(rig.published(&bob).last(), Some(&(Status::Online, StatusCause::Chosen)));
    rig.hang_up(session);
    (rig.control, rig.data) = snapshot;
    let settles = rig.store_now() + LEASE_TTL_MS;
    rig.control.new_data_set(2, DataSet("d1".into()), settles);
    rig.run(2000);
    let head = rig.data[1].head().unwrap();
    assert_eq!((head.0, head.1.node().as_str()), (head.2, "n1"), "it began a generation");
    rig.freeze(1);
    rig.run(LEASE_TTL_MS);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.run(GRACE_MS + 5000);
    assert_eq!(rig.data[1].head().unwrap().1.node().as_str(), "n0");
    assert_eq!(rig.published(&bob).last(), Some(&LOST), "the roster says invisible, others saw him online");
}

/// P6: the inherited outbox waits for the log for longer than the grace; who comes as soon as there is a home again
/// has been there all the time.
#[test]
fn the_grace_of_inherited_users_begins_when_their_home_is_ready() {
    let mut rig = Rig::new(&[0, 1], None);
    let (alice, bob) = (rig.user(0, 0), rig.user(1, 0));
    let (sender, _) = (rig.connect(0, &alice), rig.connect(1, &bob));
    rig.run(100);
    rig.no_log.extend([0, 1]);
    rig.say(sender, &bob, "m1");
    rig.run(100);
    rig.freeze(1);
    rig.run(LEASE_TTL_MS);
    rig.revoke(1);
    rig.assign(1, 0);
    rig.run(GRACE_MS + 5000);
    rig.log_again();
    rig.run(GRACE_MS - 1000);
    let back = rig.connect(0, &bob);
    rig.run(GRACE_MS);
    assert!(rig.is_welcome(back));
    assert_eq!(rig.published(&bob), [CAME]);
}

/// What is acknowledged is kept: the answer to `status` waits for the write, and a home that is given up refuses.
#[test]
fn a_status_is_acknowledged_when_the_store_has_it() {
    let mut rig = Rig::new(&[0, 1], None);
    let bob = rig.user(1, 0);
    let session = rig.connect(1, &bob);
    rig.run(1000);
    rig.writes = Box::new(|write| {
        let presence = write.ops.iter().any(|op| matches!(op, Op::Presence(_)));
        if presence { Reach::Underway } else { Reach::Answered }
    });
    rig.choose(session, ChosenStatus::Away, "s1");
    rig.choose(session, ChosenStatus::Invisible, "s2");
    rig.run(1000);
    assert_eq!((rig.told(session, "s1"), rig.told(session, "s2")), (vec![], vec![]));
    rig.assign(1, 0);
    rig.run(1000);
    let told = (rig.told(session, "s1"), rig.told(session, "s2"));
    assert_eq!(told, (vec![], vec!["unavailable"]), "the write under way is the last one here");
    rig.land();
    rig.run(100);
    assert_eq!(rig.told(session, "s1"), ["ok"]);
    rig.writes = Box::new(|_| Reach::Answered);
    rig.run(5000);
    assert_eq!(
        rig.published(&bob),
        [CAME, (Status::Away, StatusCause::Chosen)],
        "and only what was told is shown"
    );
}
