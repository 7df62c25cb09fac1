//! What `scripts/bench cluster` is told.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// One part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Private messages: latency, processor time, the most that gets through.
    Messages,
    /// Connects a second, memory of an idle one, `/route`.
    Connections,
    /// A room of a thousand.
    Room,
}

/// Measures a coordinator and three ws-nodes as processes on Kafka and Redis, in turns with the floor of each figure.
#[derive(Debug, Clone, Parser)]
#[command(name = "scripts/bench cluster")]
pub(crate) struct Options {
    /// These parts alone
    parts: Vec<Part>,
    /// Turns, of which the median counts
    #[arg(long, default_value_t = 3)]
    pub turns: usize,
    /// How long each thing is measured
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Messages a second of the fixed rate
    #[arg(long, default_value_t = 2000.0)]
    pub rate: f64,
    /// Pairs of users who send and receive: one session may send 50 commands a second
    #[arg(long, default_value_t = 512)]
    pub pairs: usize,
    /// Idle connections
    #[arg(long, default_value_t = 5000)]
    pub connections: usize,
    /// Where `coordinator` and `ws-node` are, if not beside this program
    #[arg(long, value_name = "DIR")]
    pub bin: Option<PathBuf>,
    /// What they have in their environment besides
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Where those of another build are, to be measured in turns with them
    #[arg(long, value_name = "DIR")]
    pub beside: Option<PathBuf>,
    /// What those have in their environment besides
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub beside_env: Vec<(String, String)>,
    /// The file with every turn's figures
    #[arg(long, value_name = "FILE", default_value = "target/bench/cluster.json")]
    pub json: PathBuf,
}

impl Options {
    pub(super) fn rate_name(&self) -> String {
        format!("{}/s", self.rate)
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        if self.parts.is_empty() { Part::value_variants().to_vec() } else { self.parts.clone() }
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has to be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
