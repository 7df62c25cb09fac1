//! A digest of everything the cores of a run want done: a change of the code that is to change no behaviour leaves it
//! as it was. How things are called is not in it, nor numbers that only tell one request from another.

use std::fmt::Write;

use roost_ws_node::core::{Action, Ask, Ending, LinkOrder};
use xxhash_rust::xxh3::Xxh3;

use super::{Setup, World};

/// What is known of the actions so far.
pub(crate) struct Digest {
    hash: Xxh3,
    text: String,
    /// Every line of it, to compare two builds.
    lines: Option<Vec<String>>,
}

impl Digest {
    fn new(lines: bool) -> Self {
        Self { hash: Xxh3::new(), text: String::new(), lines: lines.then(Vec::new) }
    }

    pub(crate) fn add(&mut self, now: u64, pid: usize, action: &Action) {
        self.text.clear();
        write!(self.text, "{now} p{pid} ").expect("a string takes everything");
        describe(action, &mut self.text).expect("a string takes everything");
        let line = without_names(&self.text);
        self.hash.update(line.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }
}

/// The action without the numbers under which it is answered.
fn describe(action: &Action, text: &mut String) -> std::fmt::Result {
    match action {
        Action::Ask(ask) => describe_ask(ask, text),
        Action::LogEnd { session, partition, .. } => {
            let who = session.map_or(0, |session| session.0);
            write!(text, "log-end {who} {partition}")
        }
        Action::Produce { durability, record } => {
            let (topic, key, payload) = (&record.topic, &record.key, &record.payload);
            write!(text, "produce {durability:?} {topic} {} {key:?} {payload:?}", record.partition)
        }
        Action::Link(LinkOrder::Open { to, .. }) => write!(text, "link {to:?}"),
        Action::Link(LinkOrder::Send { payload, .. }) => write!(text, "by-link {payload:?}"),
        Action::Link(LinkOrder::Close(_)) => write!(text, "unlink"),
        Action::Follow { channel, .. } => write!(text, "follow {channel:?}"),
        Action::ReadResults { partition, .. } => write!(text, "read-results {partition}"),
        Action::ResultsDone { partition, next, .. } => write!(text, "results-done {partition} {next}"),
        Action::RefreshTable => write!(text, "refresh"),
        Action::Unfollow { channel } => write!(text, "unfollow {channel:?}"),
        Action::Publish { channel, payload } => write!(text, "publish {channel:?} {payload:?}"),
        Action::LeaveResults { partition } => write!(text, "leave-results {partition}"),
        Action::Frame { session, frame, queue } => write!(text, "frame {session:?} {queue:?} {frame:?}"),
        Action::Fan { sessions, frame } => write!(text, "fan {sessions:?} {frame:?}"),
        Action::Close { session, code, reason } => write!(text, "close {session:?} {code:?} {reason}"),
        Action::Answer { call, reply } => write!(text, "answer {call:?} {reply:?}"),
        Action::Observe(what, us) => write!(text, "observe {what:?} {us}"),
        Action::End(Ending::Replaced) => write!(text, "replaced"),
        Action::End(Ending::Forgotten) => write!(text, "forgotten"),
    }
}

fn describe_ask(ask: &Ask, text: &mut String) -> std::fmt::Result {
    match ask {
        Ask::Write { write, .. } => write!(text, "write {write:?}"),
        Ask::Read { session, vnode, stream, generation, after, limit, .. } => {
            let who = session.map_or(0, |session| session.0);
            write!(text, "read {who} {vnode} {stream:?} {generation} {after} {limit:?}")
        }
        Ask::Page { session, id, vnode, stream, before, limit, .. } => {
            write!(text, "page {session:?} {id:?} {vnode} {stream:?} {before:?} {limit:?}")
        }
        Ask::Presence { vnode, users, .. } => write!(text, "presence {vnode} {users:?}"),
        Ask::Register(r) => write!(text, "register {r:?}"),
        Ask::Claim { claim: c, .. } => write!(text, "claim {c:?}"),
        Ask::Activate(a) => write!(text, "activate {a:?}"),
        Ask::Ready(r) => write!(text, "ready {r:?}"),
        Ask::Release(r) => write!(text, "release {r:?}"),
        Ask::Renew { renew: r, .. } => write!(text, "renew {r:?}"),
        Ask::Standings(rooms) => write!(text, "standings {rooms:?}"),
        Ask::PresenceStandings(vnodes) => write!(text, "presence-standings {vnodes:?}"),
    }
}

/// What `Debug` writes, without the names of types and fields: a word before a bracket, or before a colon and a blank.
fn without_names(text: &str) -> String {
    let (mut line, mut word) = (String::with_capacity(text.len()), String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        let ends = match c {
            '{' | '(' => true,
            ' ' => chars.peek() == Some(&'{'),
            ':' => chars.peek() == Some(&' '),
            _ => false,
        };
        if !ends || word.starts_with(|c: char| c.is_ascii_digit()) {
            line.push_str(&word);
        }
        word.clear();
        line.push(c);
    }
    line.push_str(&word);
    line
}

/// The digest of one run: of all actions in their order, and of what was counted.
pub fn of(setup: Setup) -> u64 {
    let mut world = World::new(setup);
    world.digest = Some(Digest::new(false));
    let wrong = world.run();
    let cores = world.processes.iter().filter_map(|process| process.core.as_ref());
    let counted: String = cores.map(|core| format!("{:?}", core.counters())).collect();
    let digest = world.digest.as_mut().expect("put there above");
    digest.hash.update(without_names(&format!("{counted} {wrong:?}")).as_bytes());
    digest.hash.digest()
}

/// The lines of which the digest is made.
pub fn lines(setup: Setup) -> Vec<String> {
    let mut world = World::new(setup);
    world.digest = Some(Digest::new(true));
    world.run();
    world.digest.and_then(|digest| digest.lines).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_part_of_it_and_values_are() {
        assert_eq!(without_names("A { b: C(7), d: \"e: f\" }"), " { : (7), : \": f\" }");
        assert_eq!(without_names("x E(3) Online {f: 12:30}"), "x (3)  {: 12:30}");
        let setup = |seed| Setup { faults_until: 3000, settle: 3000, ..Setup::new(seed) };
        assert_eq!(of(setup(1)), of(setup(1)));
        assert_ne!(of(setup(1)), of(setup(2)));
        assert!(lines(setup(1)).len() > 100);
    }
}
