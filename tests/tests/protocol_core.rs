//! Random schedules against the protocol core: thousands of runs with faults, each from one seed.
//!
//! `ROOST_SIM_SEEDS=20000 cargo test -p roost-tests --test protocol_core` for a long run;
//! `ROOST_SIM_SEED=17 … one_seed` to replay one with its trace.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use roost_tests::sim::{Setup, World};
use roost_ws_node::core::Rule;

fn seeds() -> u64 {
    std::env::var("ROOST_SIM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1000)
}

/// What is wrong with one seed's history.
fn violations(seed: u64, off: Option<Rule>) -> Vec<String> {
    let run = std::panic::catch_unwind(|| World::new(Setup { off, ..Setup::new(seed) }).run());
    run.unwrap_or_else(|e| {
        let text = e.downcast_ref::<String>().cloned().or(e.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        vec![format!("panicked: {}", text.unwrap_or_default())]
    })
}

/// A seed below `count` that finds a violation, with it. Seeds are shared out among the processors.
fn a_violation(count: u64, off: Option<Rule>) -> Option<(u64, Vec<String>)> {
    let next = AtomicU64::new(0);
    let found = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count || found.lock().expect("no worker panics").is_some() {
                        return;
                    }
                    let wrong = violations(seed, off);
                    if !wrong.is_empty() {
                        *found.lock().expect("no worker panics") = Some((seed, wrong));
                    }
                }
            });
        }
    });
    found.into_inner().expect("no worker panics")
}

#[test]
fn every_promise_holds_on_every_seed() {
    if let Some((seed, wrong)) = a_violation(seeds(), None) {
        panic!("seed {seed} (replay with ROOST_SIM_SEED={seed}): {wrong:#?}");
    }
}

#[test]
fn one_seed() {
    let Some(seed) = std::env::var("ROOST_SIM_SEED").ok().and_then(|s| s.parse().ok()) else { return };
    let mut world = World::new(Setup::new(seed)).traced();
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    for line in world.trace() {
        println!("{line}");
    }
    let wrong = run.unwrap_or_else(|_| vec!["panicked".into()]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each rule that random schedules must find, switched off.
#[test]
fn switching_off_a_rule_is_noticed() {
    for rule in [
        Rule::KeepUntilConfirmed,
        Rule::NextOnly,
        Rule::SeqFence,
        Rule::IdsByTime,
        Rule::ConfirmAfterLog,
        Rule::InheritFirst,
        Rule::Rewound,
        Rule::DataSetNamed,
        Rule::TailWhenQuiet,
    ] {
        let found = a_violation(seeds(), Some(rule));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("nobody notices that {rule:?} is off"));
        println!("{rule:?}: seed {seed}: {}", wrong[0]);
    }
}
