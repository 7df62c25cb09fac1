//! What is counted where: the crates of the product, and what one command and one question to the store is called in
//! each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::Crate;
use super::spelled;
use super::{circles, imports, shape};

const NODE: &str = "ws-node/src";
const CORE: &str = "ws-node/src/core/";
const PROTO: &str = "crates/proto/src";

/// The sources of what is released.
pub(crate) const PRODUCT: &[&str] = &[
    "coordinator/src",
    NODE,
    "archiver/src",
    "cli/src",
    PROTO,
    "crates/ring/src",
    "crates/backend/src",
    "crates/service/src",
    "client-sdk/rust/src",
];

/// As CONTRIBUTING.md has it.
const FUNCTION_LINES_MAX: usize = 70;

/// Where a command of a client is spelled, from its frame to where it is applied; what happens to the core is `Event`
/// or `Input`.
const COMMAND_ENUMS: &[&str] = &["ClientFrame", "Command", "Early", "RoomCommand", "Event", "Input"];
/// These begin a connection or keep it up, and are no commands.
const NO_COMMANDS: &[&str] = &["Connect", "Ping", "Pong"];
/// In this enum this command has this name: `Event::Read` is what the store answers.
const OTHER_NAMES: &[(&str, &str, &str)] = &[
    ("Event", "Event", "Client"),
    ("Input", "Event", "Client"),
    ("Event", "Read", "Ack"),
    ("Input", "Read", "Ack"),
];

/// What is asked of the store.
const QUESTION_ENUMS: &[&str] = &["Ask"];
const ANSWER_ENUMS: &[&str] = &["Event", "Input"];
/// The name of each question, and that of its answer.
const QUESTIONS: &[(&str, &str)] = &[
    ("Register", "Registered"),
    ("Claim", "Claimed"),
    ("Activate", "Activated"),
    ("Ready", "Readied"),
    ("Release", "Released"),
    ("Renew", "Renewed"),
    ("Write", "Written"),
    ("Read", "Read"),
    ("Page", "Paged"),
    ("Standings", "Standings"),
    ("Presence", "PresenceRead"),
    ("PresenceStandings", "PresenceStandings"),
];

/// A number, and what somebody looks at who wants it smaller.
pub(crate) struct Count {
    pub number: usize,
    pub places: Vec<String>,
}

impl Count {
    fn of(places: Vec<String>) -> Self {
        Self { number: places.len(), places }
    }
}

/// The sources of the product.
pub(crate) struct House(BTreeMap<&'static str, Crate>);

impl House {
    pub(crate) fn read() -> Self {
        let root = root();
        Self(PRODUCT.iter().map(|source| (*source, Crate::read(&root, source))).collect())
    }

    pub(crate) fn fields(&self) -> Count {
        Count::of(shape::fields(&self.0[NODE], CORE, "NodeCore"))
    }

    pub(crate) fn inputs(&self) -> Count {
        Count::of(shape::variants(&self.0[NODE], CORE, &["Input", "Event"]))
    }

    pub(crate) fn actions(&self) -> Count {
        Count::of(shape::variants(&self.0[NODE], CORE, &["Action"]))
    }

    /// The settings are not the core's own: who starts a node fills them in.
    pub(crate) fn open_owners(&self) -> Count {
        Count::of(shape::open_owners(&self.0[NODE], CORE, "NodeCore", &["CoreConfig"]))
    }

    /// The largest circle that has a file below `under`.
    pub(crate) fn circle(&self, source: &str, under: &str) -> Count {
        self.largest(source, |circle| circle.iter().any(|file| file.starts_with(under)))
    }

    /// The largest circle that has no file below `under`.
    pub(crate) fn circle_without(&self, source: &str, under: &str) -> Count {
        self.largest(source, |circle| !circle.iter().any(|file| file.starts_with(under)))
    }

    fn largest(&self, source: &str, meant: impl Fn(&BTreeSet<String>) -> bool) -> Count {
        let graph = imports::graph(&self.0[source]);
        let largest = circles::circles(&graph).into_iter().find(meant);
        let Some(largest) = largest else { return Count::of(Vec::new()) };
        Count { number: largest.len(), places: circles::ties(&graph, &largest) }
    }

    pub(crate) fn long_functions(&self) -> Count {
        self.everywhere(|of| shape::long_functions(of, FUNCTION_LINES_MAX))
    }

    pub(crate) fn unreachable(&self) -> Count {
        self.everywhere(|of| spelled::calls(of, "unreachable"))
    }

    fn everywhere(&self, places: impl Fn(&Crate) -> Vec<String>) -> Count {
        Count::of(PRODUCT.iter().flat_map(|source| places(&self.0[source])).collect())
    }

    /// Where each command of a client is spelled in the node.
    pub(crate) fn commands(&self) -> Spelled {
        let mentions = spelled::mentions(&self.0[NODE], COMMAND_ENUMS);
        let commands = spelled::made_variants(&self.0[PROTO], "ClientFrame");
        let commands = commands.into_iter().filter(|command| !NO_COMMANDS.contains(&command.as_str()));
        let spelled = commands.map(|command| {
            let names: Vec<_> = COMMAND_ENUMS.iter().map(|of| (*of, name_in(of, &command))).collect();
            let places = spelled::places(&mentions, &names);
            (command, places)
        });
        Spelled::new(spelled.collect())
    }

    /// Where each question to the store and its answer is spelled in the node: defined, put, and asked.
    pub(crate) fn questions(&self) -> Spelled {
        let enums: Vec<_> = QUESTION_ENUMS.iter().chain(ANSWER_ENUMS).copied().collect();
        let mentions = spelled::mentions(&self.0[NODE], &enums);
        let spelled = QUESTIONS.iter().map(|(name, answer)| {
            let asked = QUESTION_ENUMS.iter().map(|of| (*of, *name));
            let answered = ANSWER_ENUMS.iter().map(|of| (*of, *answer));
            let names_of_both: Vec<_> = asked.chain(answered).collect();
            ((*name).to_owned(), spelled::places(&mentions, &names_of_both))
        });
        Spelled::new(spelled.collect())
    }

    /// Every file that was read.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.0.values().flat_map(|of| of.modules.iter().map(|module| module.file.as_str())).collect()
    }
}

pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests are in the workspace").to_owned()
}

fn name_in<'a>(of: &str, command: &'a str) -> &'a str {
    let other = OTHER_NAMES.iter().find(|(place, name, _)| *place == of && *name == command);
    other.map_or(command, |(_, _, name)| name)
}

/// Things, each with where it is spelled, the most spelled first.
pub(crate) struct Spelled(Vec<(String, BTreeSet<String>)>);

impl Spelled {
    fn new(mut things: Vec<(String, BTreeSet<String>)>) -> Self {
        let unknown: Vec<_> =
            things.iter().filter(|(_, places)| places.is_empty()).map(|(name, _)| name).collect();
        assert!(
            unknown.is_empty(),
            "{unknown:?} are spelled nowhere: mend the names in tests/tests/walls/house.rs"
        );
        assert!(!things.is_empty(), "nothing of it was found: mend the names in tests/tests/walls/house.rs");
        things.sort_by_key(|(_, places)| std::cmp::Reverse(places.len()));
        Self(things)
    }

    pub(crate) fn most(self) -> Count {
        self.at(0)
    }

    fn at(self, index: usize) -> Count {
        let number = self.0[index].1.len();
        let shown = self.0.into_iter().map(|(name, places)| {
            let count = places.len();
            let places: Vec<_> = places.into_iter().collect();
            format!("{name}, {count} places: {}", places.join(" "))
        });
        Count { number, places: shown.collect() }
    }
}
