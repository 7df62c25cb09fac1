//! What one user may have of what all users share: rates, and bytes without an answer. It is looked at where the user
//! sends, before anything gets a number: a refusal at the home would let a later message pass while an earlier one is
//! refused (promise P3). All sessions of a user are at one node, so sixteen of them are one user.

use std::collections::BTreeMap;

use roost_proto::ids::{StreamId, UserId};
use roost_service::ratelimit::Bucket;

use crate::core::channels::channel::{By, Load};

/// Bytes of one user that wait for an answer: sixteen of the largest messages.
const USER_BYTES_MAX: usize = 1024 * 1024;

/// Whom a user wrote to, or heard from while it was here, is remembered for an hour, in milliseconds.
const KNOWN_MS: u64 = 3_600_000;

/// How many are remembered of one user, some 150 bytes each.
const KNOWN_MAX: usize = 4096;

/// How often what says nothing any more is forgotten, in milliseconds.
const FORGET_MS: u64 = 10_000;

/// Rates, each with its burst; a rate of 0 is no limit. Services are exempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareConfig {
    /// Messages of one user to one inbox, a second.
    pub to_one: (u32, u32),
    /// Messages, publications and events of one user, a second.
    pub to_all: (u32, u32),
    /// Their bytes, a second: 64 KiB take half of one.
    pub bytes: (u32, u32),
    /// Messages to one inbox of all users at this node together who have not heard from its owner in the last hour, a
    /// second. A name costs nothing, so who was never answered has no rate of its own there.
    pub from_new: (u32, u32),
    /// Streams that one user begins to write to, an hour.
    pub new_streams: (u32, u32),
    /// Signals of one user, a second, and their bytes.
    pub signals: (u32, u32),
    pub signal_bytes: (u32, u32),
    /// Users that one user begins to watch, a second: each may be one to look up in the store.
    pub watched: (u32, u32),
}

impl Default for ShareConfig {
    fn default() -> Self {
        Self {
            to_one: (10, 100),
            to_all: (100, 400),
            bytes: (128 * 1024, 4 * 1024 * 1024),
            from_new: (10, 100),
            new_streams: (1000, 1000),
            signals: (120, 240),
            signal_bytes: (128 * 1024, 512 * 1024),
            // Sixteen sessions that come back, with a thousand each.
            watched: (1000, 16_000),
        }
    }
}

impl ShareConfig {
    /// No rates at all: for a benchmark.
    pub fn unlimited() -> Self {
        let no = (0, 1);
        Self {
            to_one: no,
            to_all: no,
            bytes: no,
            from_new: no,
            new_streams: no,
            signals: no,
            signal_bytes: no,
            watched: no,
        }
    }
}

#[derive(Debug)]
struct Known {
    bucket: Bucket,
    used_at: u64,
    /// It wrote to this user.
    answered: bool,
}

impl Known {
    fn new(cfg: &ShareConfig, stream: &StreamId, now: u64) -> Self {
        // A room's window is shared by those who may publish there: its own rule says how much.
        let to_one = if stream.is_room() { 0 } else { cfg.to_one.0 };
        Self { bucket: Bucket::new(to_one, cfg.to_one.1), used_at: now, answered: false }
    }
}

#[derive(Debug)]
struct UserShare {
    to_all: Bucket,
    bytes: Bucket,
    new_streams: Bucket,
    signals: Bucket,
    signal_bytes: Bucket,
    watched: Bucket,
    known: BTreeMap<StreamId, Known>,
    /// Without an answer.
    load: Load,
}

impl UserShare {
    fn new(cfg: &ShareConfig) -> Self {
        Self {
            to_all: Bucket::new(cfg.to_all.0, cfg.to_all.1),
            bytes: Bucket::new(cfg.bytes.0, cfg.bytes.1),
            new_streams: Bucket::hourly(cfg.new_streams.0, cfg.new_streams.1),
            signals: Bucket::new(cfg.signals.0, cfg.signals.1),
            signal_bytes: Bucket::new(cfg.signal_bytes.0, cfg.signal_bytes.1),
            watched: Bucket::new(cfg.watched.0, cfg.watched.1),
            known: BTreeMap::new(),
            load: Load::default(),
        }
    }

    /// Forgets a quarter of those it had to do with, longest ago first: their buckets are the fullest.
    fn forget_a_quarter(&mut self) {
        let mut left = KNOWN_MAX / 4;
        let mut used: Vec<u64> = self.known.values().map(|known| known.used_at).collect();
        let (_, until, _) = used.select_nth_unstable(left);
        self.known.retain(|_, known| {
            let goes = left > 0 && known.used_at <= *until;
            left -= usize::from(goes);
            !goes
        });
    }

    /// Forgetting it changes nothing.
    pub(in crate::core) fn is_idle(&self, now: u64) -> bool {
        let of_messages = [&self.to_all, &self.bytes, &self.new_streams];
        let mut all = of_messages.into_iter().chain([&self.signals, &self.signal_bytes, &self.watched]);
        self.known.is_empty() && self.load.bytes == 0 && all.all(|bucket| bucket.is_full(now))
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Shares {
    cfg: ShareConfig,
    users: BTreeMap<UserId, UserShare>,
    /// Of each inbox: messages of those whom its owner has not written to.
    from_new: BTreeMap<StreamId, Bucket>,
    forget_at: u64,
}

/// Why a message is refused, and when to try again, in milliseconds.
pub(crate) type Refusal = (&'static str, u64);

impl Shares {
    pub(crate) fn new(cfg: ShareConfig) -> Self {
        Self { cfg, users: BTreeMap::new(), from_new: BTreeMap::new(), forget_at: 0 }
    }

    /// Takes a message's part of the rates, of all or of none.
    ///
    /// # Errors
    /// The rate that is used up, and when all of them allow one again.
    pub(crate) fn take(
        &mut self,
        user: &UserId,
        stream: &StreamId,
        bytes: usize,
        now: u64,
    ) -> Result<(), Refusal> {
        let (cfg, bytes) = (self.cfg, u32::try_from(bytes).unwrap_or(u32::MAX));
        let share = self.users.entry(user.clone()).or_insert_with(|| UserShare::new(&cfg));
        let known = share.known.get(stream).filter(|known| now < known.used_at + KNOWN_MS);
        let is_new = known.is_none();
        let owner = stream.user();
        let strange = owner.is_some_and(|owner| owner != *user) && known.is_none_or(|known| !known.answered);
        let fresh = Known::new(&cfg, stream, now);
        let own = known.map_or(&fresh.bucket, |known| &known.bucket);
        let from_new = Bucket::new(cfg.from_new.0, cfg.from_new.1);
        let strangers = self.from_new.get(stream).unwrap_or(&from_new);
        let waits = [
            ("too many messages to this receiver", own.wait_ms(1, now)),
            ("too many messages", share.to_all.wait_ms(1, now)),
            ("too many bytes", share.bytes.wait_ms(bytes, now)),
            ("too many new receivers", if is_new { share.new_streams.wait_ms(1, now) } else { 0 }),
            (
                "too many messages to this receiver from those it has not written to",
                if strange { strangers.wait_beside(own, now) } else { 0 },
            ),
        ];
        if let Some((why, _)) = waits.iter().find(|(_, wait)| *wait > 0) {
            return Err((why, waits.iter().map(|(_, wait)| *wait).max().unwrap_or_default()));
        }
        if is_new {
            share.known.insert(stream.clone(), fresh);
        }
        let known = share.known.get_mut(stream).expect("put there if it was not");
        known.used_at = now;
        let mut taken = known.bucket.take(now).and(share.to_all.take(now));
        taken = taken.and(share.bytes.take_many(bytes, now));
        if is_new {
            taken = taken.and(share.new_streams.take(now));
        }
        if strange {
            taken = taken.and(self.from_new.entry(stream.clone()).or_insert(from_new).take(now));
        }
        if share.known.len() > KNOWN_MAX {
            share.forget_a_quarter();
        }
        taken.map_err(|wait| ("too many messages", wait))
    }

    /// A user who is here was written to: what it says to that one is an answer.
    pub(in crate::core) fn heard(&mut self, user: &UserId, from: &UserId, now: u64) {
        let cfg = self.cfg;
        let share = self.users.entry(user.clone()).or_insert_with(|| UserShare::new(&cfg));
        let (stream, full) = (StreamId::inbox(from), share.known.len() >= KNOWN_MAX);
        match share.known.get_mut(&stream) {
            Some(known) => (known.used_at, known.answered) = (now, true),
            // Whom it wrote to itself must not be forgotten for who wrote to it.
            None if full => {}
            None => {
                let known = Known { answered: true, ..Known::new(&cfg, &stream, now) };
                share.known.insert(stream, known);
            }
        }
    }

    /// Takes a signal's part; false if it is to be dropped.
    pub(crate) fn signals(&mut self, user: &UserId, bytes: usize, now: u64) -> bool {
        let cfg = self.cfg;
        let share = self.users.entry(user.clone()).or_insert_with(|| UserShare::new(&cfg));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        share.signal_bytes.wait_ms(bytes, now) == 0
            && share.signals.take(now).is_ok()
            && share.signal_bytes.take_many(bytes, now).is_ok()
    }

    /// Takes the part of so many users that somebody begins to watch.
    ///
    /// # Errors
    /// How long to wait, in milliseconds.
    pub(in crate::core) fn watch(&mut self, user: &UserId, users: usize, now: u64) -> Result<(), u64> {
        let cfg = self.cfg;
        let share = self.users.entry(user.clone()).or_insert_with(|| UserShare::new(&cfg));
        share.watched.take_many(u32::try_from(users).unwrap_or(u32::MAX), now)
    }

    /// What of a user's waits for an answer.
    pub(crate) fn load(&self, user: &UserId) -> Load {
        self.users.get(user).map(|share| share.load).unwrap_or_default()
    }

    /// Whether that much more may wait.
    pub(crate) fn has_room(&self, user: &UserId, bytes: usize) -> bool {
        let waiting = self.load(user).bytes;
        waiting == 0 || waiting + bytes <= USER_BYTES_MAX
    }

    pub(crate) fn begin(&mut self, by: &By, load: Load) {
        let By::User(user) = by else { return };
        let cfg = self.cfg;
        self.users.entry(user.clone()).or_insert_with(|| UserShare::new(&cfg)).load.add(load);
    }

    /// It left its channel.
    pub(crate) fn end(&mut self, by: &By, load: Load) {
        let By::User(user) = by else { return };
        if let Some(share) = self.users.get_mut(user) {
            share.load.remove(load);
        }
    }

    pub(super) fn forget(&mut self, now: u64) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_MS;
        for share in self.users.values_mut() {
            share.known.retain(|_, known| now < known.used_at + KNOWN_MS);
        }
        self.users.retain(|_, share| !share.is_idle(now));
        self.from_new.retain(|_, bucket| !bucket.is_full(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn inbox(name: &str) -> StreamId {
        StreamId::inbox(&user(name))
    }

    fn passed(shares: &mut Shares, n: usize, of: impl Fn(usize) -> (String, String), now: u64) -> usize {
        (0..n)
            .filter(|n| {
                let (from, to) = of(*n);
                shares.take(&user(&from), &inbox(&to), 10, now).is_ok()
            })
            .count()
    }

    #[test]
    fn one_sender_writes_to_one_receiver_at_a_rate_and_to_others_all_the_same() {
        let mut shares = Shares::new(ShareConfig::default());
        shares.heard(&user("eve"), &user("bob"), 0);
        let to_bob = |_| ("eve".to_owned(), "bob".to_owned());
        assert_eq!(passed(&mut shares, 1000, to_bob, 0), 100);
        assert_eq!(passed(&mut shares, 1000, to_bob, 1000), 10);
        assert_eq!(
            shares.take(&user("eve"), &inbox("bob"), 10, 1000),
            Err(("too many messages to this receiver", 100))
        );
        assert!(shares.take(&user("eve"), &inbox("carol"), 10, 1000).is_ok());
        assert!(shares.take(&user("alice"), &inbox("bob"), 10, 1000).is_ok());
    }

    #[test]
    fn one_sender_has_a_rate_over_all_receivers_and_a_quota_of_new_ones() {
        let cfg = ShareConfig { to_all: (50, 60), new_streams: (100, 80), ..ShareConfig::default() };
        let mut shares = Shares::new(cfg);
        let to = |n: usize| ("eve".to_owned(), format!("u{n}"));
        assert_eq!(passed(&mut shares, 1000, to, 0), 60);
        assert_eq!(passed(&mut shares, 1000, |n| to(1000 + n), 1000), 20, "eighty new ones in all");
        assert_eq!(passed(&mut shares, 60, to, 1000), 30, "and old ones at the rate");
        let wait = shares.take(&user("eve"), &inbox("new"), 10, 3000);
        assert_eq!(wait, Err(("too many new receivers", 33_000)));
    }

    fn ten_names(n: usize) -> (String, String) {
        (format!("eve{}", n % 10), "bob".to_owned())
    }

    #[test]
    fn many_made_up_senders_do_to_one_receiver_what_one_may() {
        let mut shares = Shares::new(ShareConfig::default());
        let burst = passed(&mut shares, 1000, ten_names, 0);
        assert!((90..=100).contains(&burst), "ten names with a hundred each: {burst}");
        let rest = (1..=60).map(|s| passed(&mut shares, 1000, ten_names, s * 1000)).sum::<usize>();
        assert!(burst + rest <= 100 + 600, "{burst}, {rest}");
        let later = KNOWN_MS * 2;
        assert!(passed(&mut shares, 1000, ten_names, later) <= 100, "and patience helps nobody");
        let many = |n: usize| (format!("adam{n}"), "bob".to_owned());
        assert!(passed(&mut shares, 1000, many, 2 * later) <= 100, "one message of each");
    }

    #[test]
    fn whom_the_receiver_wrote_to_is_not_held_up_by_those_it_did_not() {
        let mut shares = Shares::new(ShareConfig::default());
        let to_bob = |_| ("alice".to_owned(), "bob".to_owned());
        assert_eq!(passed(&mut shares, 1000, to_bob, 0), 50, "half of what all have who are new");
        assert!(passed(&mut shares, 1000, ten_names, 0) > 40);
        shares.heard(&user("alice"), &user("bob"), 0);
        assert_eq!(passed(&mut shares, 1000, to_bob, 0), 50, "the rest of a hundred");
        shares.heard(&user("carol"), &user("bob"), 0);
        let carol = |_| ("carol".to_owned(), "bob".to_owned());
        assert_eq!(passed(&mut shares, 1000, carol, 0), 100, "who only answers");
        let own = |_| ("bob".to_owned(), "bob".to_owned());
        assert_eq!(passed(&mut shares, 1000, own, 0), 100, "nobody is new to itself");
    }

    #[test]
    fn who_is_new_and_has_sent_nothing_gets_through_beside_one_who_sends_all_the_time() {
        let mut shares = Shares::new(ShareConfig::default());
        for now in 0..20_000 {
            let _ = shares.take(&user("eve"), &inbox("bob"), 10, now);
            if now % 1000 == 999 {
                assert!(shares.take(&user("alice"), &inbox("bob"), 10, now).is_ok(), "after {now} ms");
            }
        }
    }

    #[test]
    fn whom_a_user_wrote_to_last_is_remembered_longest() {
        let no = (0, 1);
        let cfg =
            ShareConfig { to_all: no, bytes: no, new_streams: no, from_new: no, ..ShareConfig::default() };
        let mut shares = Shares::new(cfg);
        for n in 0..=KNOWN_MAX {
            assert!(shares.take(&user("eve"), &inbox(&format!("u{n}")), 10, n as u64 / 10).is_ok());
            if n % 60 == 0 {
                let _ = shares.take(&user("eve"), &inbox("a"), 10, n as u64 / 10);
            }
        }
        let known = &shares.users[&user("eve")].known;
        assert!(
            known.len() <= KNOWN_MAX && known.contains_key(&inbox("a")) && !known.contains_key(&inbox("u0"))
        );
    }

    #[test]
    fn large_messages_weigh_more() {
        let mut shares = Shares::new(ShareConfig::default());
        let mut sent = |now| {
            (0..300)
                .filter(|n| shares.take(&user("eve"), &inbox(&format!("u{n}")), 65_536, now).is_ok())
                .count()
        };
        assert_eq!((sent(0), sent(1000)), (64, 2));
        assert!(shares.take(&user("bob"), &inbox("u1"), 65_536, 0).is_ok());
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let cfg = ShareConfig { to_one: (1, 1), to_all: (1, 2), ..ShareConfig::default() };
        let mut shares = Shares::new(cfg);
        assert!(shares.take(&user("eve"), &inbox("bob"), 10, 0).is_ok());
        for _ in 0..9 {
            assert!(shares.take(&user("eve"), &inbox("bob"), 10, 0).is_err());
        }
        assert!(shares.take(&user("eve"), &inbox("carol"), 10, 0).is_ok());
    }

    #[test]
    fn what_says_nothing_any_more_is_forgotten() {
        let mut shares = Shares::new(ShareConfig::default());
        passed(&mut shares, 50, |n| ("eve".to_owned(), format!("u{n}")), 0);
        let load = Load { items: 1, bytes: 10, events: 0 };
        shares.begin(&By::User(user("bob")), load);
        shares.forget(KNOWN_MS - 1);
        assert_eq!(shares.users.len(), 2);
        shares.forget(2 * KNOWN_MS);
        assert_eq!(shares.users.keys().collect::<Vec<_>>(), [&user("bob")], "whose message waits");
        shares.end(&By::User(user("bob")), load);
        shares.forget(3 * KNOWN_MS);
        assert!(shares.users.is_empty() && shares.from_new.is_empty());
    }

    #[test]
    fn one_user_begins_to_watch_at_a_rate() {
        let mut shares = Shares::new(ShareConfig::default());
        let watched = (0..400).filter(|_| shares.watch(&user("eve"), 1000, 0).is_ok()).count();
        assert_eq!((watched, shares.watch(&user("eve"), 1000, 0)), (16, Err(1000)));
        assert!(
            shares.watch(&user("bob"), 1000, 0).is_ok() && shares.watch(&user("eve"), 1000, 1000).is_ok()
        );
    }

    #[test]
    fn signals_are_weighed() {
        let mut shares = Shares::new(ShareConfig::default());
        let sent = (0..100).filter(|_| shares.signals(&user("eve"), 60_000, 0)).count();
        assert_eq!(sent, 8);
        assert!(shares.signals(&user("bob"), 60_000, 0));
        let sent = (0..1000).filter(|_| shares.signals(&user("carol"), 10, 0)).count();
        assert_eq!(sent, 240);
    }
}
