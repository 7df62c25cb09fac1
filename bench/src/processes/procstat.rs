//! What the kernel says of a process: processor time, memory, threads (`proc(5)`).

use anyhow::{Context, Result, bail};

/// Ticks of utime and stime in a second: what Linux shows to programs, on every architecture.
const TICKS_PER_S: f64 = 100.0;

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("{path}: is the process gone?"))
}

/// Seconds of processor time so far, of the user and of the kernel for it, all threads.
pub(super) fn cpu_s(pid: u32) -> Result<f64> {
    let stat = read(pid, "stat")?;
    // The name, in brackets, may hold anything; after it come the state and eleven more fields before utime.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).context("a line of stat")?;
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    let [user, system] = ticks[..] else { bail!("stat of {pid} has no times") };
    Ok((user + system) / TICKS_PER_S)
}

/// Seconds of processor time that anything at all took on this machine so far.
pub(super) fn machine_cpu_s() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = stat.lines().next().context("a line for all processors")?.split_whitespace().skip(1);
    let ticks: Vec<f64> = ticks.filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests took is in user.
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { bail!("/proc/stat: {stat}") };
    Ok((user + nice + system + irq + softirq + steal) / TICKS_PER_S)
}

/// The number in the line of `/proc/PID/status` with this name: KiB where it is a size.
fn status(pid: u32, name: &str) -> Result<f64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{name} of {pid}"))
}

pub(super) fn rss_kib(pid: u32) -> Result<f64> {
    status(pid, "VmRSS")
}

pub(super) fn threads(pid: u32) -> Result<f64> {
    status(pid, "Threads")
}

/// The processes whose time counts, by kind.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub nodes: Vec<u32>,
    pub coordinator: u32,
    pub redis: u32,
    pub kafka: u32,
}

/// Seconds of processor time by kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    pub nodes: f64,
    pub coordinator: f64,
    pub redis: f64,
    pub kafka: f64,
    /// The load tool's own: not part of the total.
    pub load: f64,
    /// Of the whole machine, all of these included.
    pub machine: f64,
}

impl Cpu {
    pub(super) fn total(&self) -> f64 {
        self.nodes + self.coordinator + self.redis + self.kafka
    }

    /// What programs took that have nothing to do with this.
    pub(super) fn others(&self) -> f64 {
        (self.machine - self.total() - self.load).max(0.0)
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        self.with(before, |now, before| now - before)
    }

    /// Microseconds for each of `n`.
    pub(super) fn us_each(&self, n: f64) -> Self {
        self.with(self, |seconds, _| seconds * 1e6 / n.max(1.0))
    }

    fn with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            nodes: f(self.nodes, other.nodes),
            coordinator: f(self.coordinator, other.coordinator),
            redis: f(self.redis, other.redis),
            kafka: f(self.kafka, other.kafka),
            load: f(self.load, other.load),
            machine: f(self.machine, other.machine),
        }
    }
}

impl Watched {
    pub(super) fn cpu(&self) -> Result<Cpu> {
        let nodes: Result<Vec<f64>> = self.nodes.iter().map(|pid| cpu_s(*pid)).collect();
        Ok(Cpu {
            nodes: nodes?.iter().sum(),
            coordinator: cpu_s(self.coordinator)?,
            redis: cpu_s(self.redis)?,
            kafka: cpu_s(self.kafka)?,
            load: cpu_s(std::process::id())?,
            machine: machine_cpu_s()?,
        })
    }

    pub(super) fn nodes_rss_kib(&self) -> Result<f64> {
        self.nodes.iter().map(|pid| rss_kib(*pid)).sum()
    }
}
