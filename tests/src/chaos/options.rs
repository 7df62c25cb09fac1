//! What a run is made with, from the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::chaos::bystanders::Attack;
use crate::chaos::faults::Fault;
use crate::history::Made;
use crate::processes::ClusterSetup;

pub const USAGE: &str = "\
chaos run [--seed N] [--faults a,b,...] [--rounds N] [--scale F] [--brokers 1|3] [--clients N] [--rate N] [--short] [--out DIR]
chaos check DIR
chaos failover [--kills N] [--scale F] [--out DIR]
chaos drain [--sessions N] [--out DIR]
chaos storm [--sessions N] [--out DIR]
chaos leaderless [--clients N] [--rate N] [--out DIR]
chaos archive [--clients N] [--rate N] [--kills N] [--scale F] [--out DIR]
chaos bystanders [--attack a,b,...] [--seconds N] [--short] [--out DIR]

--scale 1 has the product's times (lease 6 s, linger 10 s, grace 20 s, messages undelivered and events timed out after
30 s) and outages of 30 s; 0.25 a quarter of all. --brokers 3 is a Kafka of three, with faults of its own.
--short is one round of six faults with 60 clients at --scale 0.25; of the attacks three seconds each, in one cluster.";

/// The product's defaults, and how long what is out stays out.
const LEASE_TTL_MS: f64 = 6_000.0;
const LINGER_MS: f64 = 10_000.0;
const GRACE_MS: f64 = 20_000.0;
const UNDELIVERED_AFTER_MS: f64 = 30_000.0;
const EVENT_TIMEOUT_MS: f64 = 30_000.0;
const OUTAGE_MS: f64 = 30_000.0;

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub rounds: usize,
    /// Of all times: 1 is as in production.
    pub scale: f64,
    pub brokers: usize,
    pub clients: usize,
    /// Messages per second of all of them together.
    pub rate: usize,
    pub kills: usize,
    pub sessions: usize,
    pub attacks: Vec<Attack>,
    /// How long each attack lasts.
    pub seconds: u64,
    pub short: bool,
    pub out: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            faults: Vec::new(),
            rounds: 5,
            scale: 1.0,
            brokers: 1,
            clients: 200,
            rate: 120,
            kills: 20,
            sessions: 2_000,
            attacks: Attack::ALL.to_vec(),
            seconds: 20,
            short: false,
            out: PathBuf::from("target/chaos"),
        }
    }
}

impl Options {
    /// # Errors
    /// For the one who typed it.
    pub fn parse(args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut args = args;
        while let Some(flag) = args.next() {
            if flag == "--short" {
                options.rounds = 1;
                options.scale = 0.25;
                options.clients = 60;
                options.faults = Fault::SHORT.to_vec();
                options.attacks = Attack::SHORT.to_vec();
                options.seconds = 3;
                options.short = true;
                continue;
            }
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--seed" => options.seed = number(&flag, &value)?,
                "--faults" => options.faults = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--rounds" => options.rounds = number(&flag, &value)?,
                "--scale" => options.scale = number(&flag, &value)?,
                "--brokers" => options.brokers = number(&flag, &value)?,
                "--clients" => options.clients = number(&flag, &value)?,
                "--rate" => options.rate = number(&flag, &value)?,
                "--kills" => options.kills = number(&flag, &value)?,
                "--sessions" => options.sessions = number(&flag, &value)?,
                "--attack" => options.attacks = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--seconds" => options.seconds = number(&flag, &value)?,
                "--out" => options.out = PathBuf::from(value),
                _ => bail!("'{flag}' is unknown"),
            }
        }
        options.cast_faults()?;
        Ok(options)
    }

    /// All that there are for so many brokers, unless some were named.
    fn cast_faults(&mut self) -> anyhow::Result<()> {
        ensure!([1, 3].contains(&self.brokers), "--brokers is 1 or 3");
        let possible = |fault: &Fault| self.brokers == 3 || !fault.needs_three_brokers();
        if self.faults.is_empty() {
            self.faults = Fault::ALL.into_iter().filter(possible).collect();
        }
        let impossible = self.faults.iter().find(|fault| !possible(fault));
        ensure!(impossible.is_none(), "{} needs --brokers 3", impossible.expect("one").name());
        Ok(())
    }

    fn scaled(&self, ms: f64) -> u64 {
        (ms * self.scale).round() as u64
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.scaled(LEASE_TTL_MS))
    }

    pub fn outage(&self) -> Duration {
        Duration::from_millis(self.scaled(OUTAGE_MS))
    }

    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.scaled(GRACE_MS))
    }

    /// After a fault, until nothing of it is left to be published.
    pub fn quiet(&self) -> Duration {
        self.grace() + Duration::from_millis(self.scaled(LINGER_MS))
    }

    /// For the checker.
    pub fn made(&self, absent: usize) -> Made {
        Made {
            absent,
            grace_ms: self.scaled(GRACE_MS),
            undelivered_after_ms: self.scaled(UNDELIVERED_AFTER_MS),
            event_timeout_ms: self.scaled(EVENT_TIMEOUT_MS),
        }
    }

    pub fn cluster(&self) -> ClusterSetup {
        let times = [
            ("UNDELIVERED_AFTER_MS", self.scaled(UNDELIVERED_AFTER_MS)),
            ("EVENT_TIMEOUT_MS", self.scaled(EVENT_TIMEOUT_MS)),
        ];
        let open = ("OPEN_ROOMS", "true".to_owned());
        ClusterSetup {
            coordinators: 2,
            lease_ttl_ms: self.scaled(LEASE_TTL_MS),
            linger_ms: self.scaled(LINGER_MS),
            grace_ms: self.scaled(GRACE_MS),
            logs: Some(self.out.clone()),
            vars: times.map(|(name, ms)| (name, ms.to_string())).into_iter().chain([open]).collect(),
            ..ClusterSetup::default()
        }
    }

    /// For the first line of a history.
    pub fn settings(&self) -> String {
        let Self { rounds, clients, rate, brokers, .. } = self;
        format!(
            "{rounds} rounds, {clients} clients, {rate} msg/s, {brokers} broker(s), lease {:?}, grace {:?}, outages of {:?}",
            self.lease(),
            self.grace(),
            self.outage()
        )
    }
}

fn number<T: FromStr>(flag: &str, value: &str) -> anyhow::Result<T> {
    value.parse().ok().with_context(|| format!("{flag} {value} is not a number"))
}
