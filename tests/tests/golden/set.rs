//! The sets, and how their lines are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One release's set: its directory.
#[derive(Debug, Clone)]
pub(crate) struct Set(PathBuf);

/// Every set that was laid down.
pub(crate) fn all() -> Vec<Set> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let entries =
        std::fs::read_dir(&dir).expect("tests/golden is there").map(|entry| entry.expect("an entry"));
    let sets: Vec<_> =
        entries.map(|e| e.path()).filter(|path| path.join("about.json").is_file()).map(Set).collect();
    assert!(!sets.is_empty(), "no set in {}", dir.display());
    sets
}

impl Set {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of JSON lines.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The records of each topic, by its name.
    pub(crate) fn topics(&self) -> BTreeMap<String, Vec<Value>> {
        let files = std::fs::read_dir(self.path("records")).expect("there are records");
        let names = files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned());
        let topics = names.filter_map(|name| {
            let topic = name.strip_suffix(".jsonl")?.to_owned();
            Some((topic, self.lines(&format!("records/{name}"))))
        });
        topics.collect()
    }

    /// A number of `about.json`.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.path("about.json")).expect("about.json is there");
        let about: Value = serde_json::from_str(&text).expect("it is JSON");
        about[name].as_u64().unwrap_or_else(|| panic!("{name} in {about}"))
    }
}

/// A text of a line.
pub(crate) fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_else(|| panic!("{name} in {line}"))
}

/// The messages of an inbox or a room of one generation, as records and frames have them: by offset.
pub(crate) type Messages = BTreeMap<u64, Value>;

/// What one life of each stream has, of these values: those with the largest generation.
pub(crate) fn streams<'a>(messages: impl Iterator<Item = &'a Value>) -> BTreeMap<String, Messages> {
    let mut streams: BTreeMap<String, BTreeMap<u64, Messages>> = BTreeMap::new();
    for message in messages {
        let (generation, offset) = (message["generation"].as_u64(), message["offset"].as_u64());
        let lives = streams.entry(text(message, "stream").to_owned()).or_default();
        let life = lives.entry(generation.expect("a generation")).or_default();
        life.insert(offset.expect("an offset"), message.clone());
    }
    let last = |lives: BTreeMap<u64, Messages>| lives.into_iter().next_back().expect("a life").1;
    streams.into_iter().map(|(stream, lives)| (stream, last(lives))).collect()
}
