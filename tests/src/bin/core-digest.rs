//! Whether the protocol core still does exactly what it did: `core-digest` compares the digest of all actions of many
//! runs with `tests/core.digest`, `core-digest --write` takes today's as the measure, and
//! `core-digest --lines STORY SEED` prints those of one run, to compare the output of two builds.
//! `--seeds N` looks at the first N of each story alone.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, bail};
use roost_tests::sim::{Setup, Story, digest, share_out};

const SEEDS: u64 = 1000;
/// Seeds that share a line of the file.
const TOGETHER: u64 = 20;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/core.digest");

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(SEEDS),
        ["--seeds", seeds] => compare(seeds.parse().context("--seeds takes a number")?),
        ["--write"] => Ok(std::fs::write(FILE, digests(SEEDS).concat())?),
        ["--lines", story, seed] => print_lines(story, seed.parse().context("the seed is a number")?),
        _ => bail!("usage: core-digest [--seeds N | --write | --lines STORY SEED]"),
    }
}

fn print_lines(story: &str, seed: u64) -> anyhow::Result<()> {
    let story = Story::named(story).with_context(|| format!("the stories are {:?}", Story::ALL))?;
    for line in digest::lines(Setup::of(story, seed)) {
        println!("{line}");
    }
    Ok(())
}

/// A line for each story and [`TOGETHER`] seeds, by story and first seed.
fn digests(seeds: u64) -> Vec<String> {
    let of_a_story = seeds / TOGETHER;
    let found = Mutex::new(BTreeMap::new());
    share_out(0..of_a_story * Story::ALL.len() as u64, |n| {
        let line = line(Story::ALL[(n / of_a_story) as usize], n % of_a_story * TOGETHER);
        found.lock().expect("no worker panics").insert(n, line);
        ControlFlow::Continue(())
    });
    found.into_inner().expect("no worker panics").into_values().collect()
}

fn line(story: Story, from: u64) -> String {
    let of_one = |seed| digest::of(Setup::of(story, seed));
    let all = (from..from + TOGETHER).map(of_one).fold(0u64, |all, one| all.rotate_left(7) ^ one);
    format!("{story:?} {from} {all:016x}\n")
}

fn compare(seeds: u64) -> anyhow::Result<()> {
    let kept =
        std::fs::read_to_string(Path::new(FILE)).context("there is no tests/core.digest: --write it")?;
    let kept: Vec<&str> = kept.lines().collect();
    let lines = digests(seeds);
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
