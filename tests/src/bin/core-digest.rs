//! Whether the protocol core still does exactly what it did: `core-digest` compares the digest of all actions of many
//! runs with `tests/core.digest`, `core-digest --write` takes today's as the measure, and
//! `core-digest --lines STORY SEED` prints those of one run, to compare the output of two builds.
//! `--seeds N` looks at the first N of each story alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use roost_tests::sim::{Setup, Story, digest};

const STORIES: [Story; 5] = [Story::Faults, Story::Quiet, Story::Join, Story::Leave, Story::Restart];
const SEEDS: u64 = 1000;
/// Seeds that share a line of the file.
const TOGETHER: u64 = 20;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/core.digest");

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(SEEDS),
        ["--seeds", seeds] => compare(seeds.parse().context("--seeds takes a number")?),
        ["--write"] => {
            Ok(std::fs::write(FILE, digests(SEEDS).values().flatten().cloned().collect::<String>())?)
        }
        ["--lines", story, seed] => print_lines(story, seed.parse().context("the seed is a number")?),
        _ => bail!("usage: core-digest [--seeds N | --write | --lines STORY SEED]"),
    }
}

fn setup(story: Story, seed: u64) -> Setup {
    if story == Story::Faults { Setup::new(seed) } else { Setup::story(seed, story) }
}

fn print_lines(story: &str, seed: u64) -> anyhow::Result<()> {
    let named = STORIES.into_iter().find(|known| format!("{known:?}") == story);
    let story = named.with_context(|| format!("the stories are {STORIES:?}"))?;
    for line in digest::lines(setup(story, seed)) {
        println!("{line}");
    }
    Ok(())
}

/// A line for each story and [`TOGETHER`] seeds, by story and first seed. Shared out among the processors.
fn digests(seeds: u64) -> BTreeMap<usize, Vec<String>> {
    let lines = seeds / TOGETHER;
    let (next, found) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= lines * STORIES.len() as u64 {
                        return;
                    }
                    let (place, from) = ((n / lines) as usize, n % lines * TOGETHER);
                    let line = line(STORIES[place], from);
                    found.lock().expect("no worker panics").insert((place, from), line);
                }
            });
        }
    });
    let mut by_story: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for ((place, _), line) in found.into_inner().expect("no worker panics") {
        by_story.entry(place).or_default().push(line);
    }
    by_story
}

fn line(story: Story, from: u64) -> String {
    let of_one = |seed| digest::of(setup(story, seed));
    let all = (from..from + TOGETHER).map(of_one).fold(0u64, |all, one| all.rotate_left(7) ^ one);
    format!("{story:?} {from} {all:016x}\n")
}

fn compare(seeds: u64) -> anyhow::Result<()> {
    let kept =
        std::fs::read_to_string(Path::new(FILE)).context("there is no tests/core.digest: --write it")?;
    let kept: Vec<&str> = kept.lines().collect();
    let lines: Vec<String> = digests(seeds).into_values().flatten().collect();
    let differ: Vec<_> = lines.iter().filter(|line| !kept.contains(&line.trim_end())).collect();
    if differ.is_empty() {
        println!("{} runs: the core does what it did", lines.len() as u64 * TOGETHER);
        return Ok(());
    }
    for line in differ.iter().take(10) {
        eprint!("{TOGETHER} seeds from: {line}");
    }
    bail!(
        "{} of {} lines of tests/core.digest are others: the core does something else",
        differ.len(),
        lines.len()
    )
}
