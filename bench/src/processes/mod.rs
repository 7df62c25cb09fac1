//! A cluster of release processes on real Kafka and Redis, measured from outside: `scripts/bench cluster`.
//!
//! This process is the load tool: what it takes itself is printed beside what it measures. Everything is measured in
//! turns with its floor, and with another build if one is named; medians count. How to read the figures is in
//! docs/PERFORMANCE.md.

mod connections;
mod floor;
mod floor_server;
mod histogram;
mod http;
mod load;
mod messages;
mod options;
mod procstat;
mod programs;
mod report;
mod room;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use floor::{FloorServer, LogFloor};
use programs::{Build, Running, Services};
use report::{Report, Who};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use floor_server::serve as serve_floor;
pub(crate) use options::Options;
use options::Part;

/// Redis databases that are this benchmark's, and emptied by it.
const DATABASES: [u8; 2] = [9, 10];

/// What every part has at hand.
struct Bench {
    options: Options,
    services: Services,
    builds: Vec<(Who, Build)>,
    log: LogFloor,
    server: FloorServer,
    program: PathBuf,
    logs: PathBuf,
    report: Report,
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    // Whatever ends it, what was started is dropped, and killed so.
    tokio::select! {
        done = measure(options) => done,
        interrupted = tokio::signal::ctrl_c() => { interrupted?; bail!("interrupted") }
        _ = terminated.recv() => bail!("terminated"),
    }
}

async fn measure(options: Options) -> Result<()> {
    let services = Services::from_env()?;
    let program = std::env::current_exe()?;
    let here = program.parent().context("a directory")?.to_owned();
    let this =
        Build { dir: options.bin.clone().unwrap_or(here), vars: options.env.clone(), database: DATABASES[0] };
    let mut builds = vec![(Who::This, this)];
    if let Some(dir) = options.beside.clone() {
        builds.push((Who::Beside, Build { dir, vars: options.beside_env.clone(), database: DATABASES[1] }));
    }
    let logs = std::env::temp_dir().join(format!("roost-bench-{:08x}", rand::random::<u32>()));
    std::fs::create_dir_all(&logs)?;
    println!("(the logs of the programs are in {})", logs.display());
    let log = LogFloor::open(&services.brokers).await?;
    let server = FloorServer::start(&program)?;
    let mut bench =
        Bench { options, services, builds, log, server, program, logs, report: Report::default() };
    println!("warming Kafka");
    bench.log.warm().await?;
    for turn in 1..=bench.options.turns {
        for part in bench.options.parts() {
            println!("== turn {turn} of {}: {part:?}", bench.options.turns);
            bench.floor(part).await?;
            for (who, build) in bench.builds.clone() {
                bench.cluster(part, who, &build, turn == 1).await?;
            }
        }
    }
    bench.finish().await
}

impl Bench {
    async fn floor(&mut self, part: Part) -> Result<()> {
        // A new one, as the cluster is: what an earlier turn gave back would be taken again and not be seen.
        self.server = FloorServer::start(&self.program)?;
        match part {
            Part::Messages => self.message_floor().await,
            Part::Connections => self.connection_floor().await,
            Part::Room => {
                let measured = room::of_floor(&self.server, self.options.seconds).await?;
                self.note_room(Who::Floor, &measured);
                Ok(())
            }
        }
    }

    /// A cluster of its own for every part of every turn, gone when the other's turn comes.
    async fn cluster(&mut self, part: Part, who: Who, build: &Build, first: bool) -> Result<()> {
        self.log.remove_shared().await?;
        let mut cluster = Running::start(&self.services, build, &self.logs).await?;
        let done = match part {
            Part::Messages => self.messages(who, &cluster, first).await,
            Part::Connections => self.connections(who, &cluster).await,
            Part::Room => {
                let measured = room::of_cluster(&cluster, self.options.seconds).await;
                measured.map(|measured| self.note_room(who, &measured))
            }
        };
        // A program that ended says more than a connection that did.
        cluster.check()?;
        done?;
        cluster.kill();
        self.log.remove_nodes(&cluster).await
    }

    fn note(&mut self, who: Who, what: &str, unit: &'static str, value: f64) {
        self.report.note(who, what, unit, value);
    }

    fn note_room(&mut self, who: Who, measured: &[crate::room::Measured]) {
        for (window, m) in room::WINDOWS.iter().zip(measured) {
            println!(
                "{who:?} room, {window} in flight: {:.0} deliveries/s, p50 {} µs, p99 {} µs",
                m.per_s, m.p50, m.p99
            );
            self.note(who, &format!("room of 1,000, {window} in flight: deliveries/s"), "/s", m.per_s);
            self.note(who, &format!("room of 1,000, {window} in flight: p50"), "µs", m.p50 as f64);
            self.note(who, &format!("room of 1,000, {window} in flight: p99"), "µs", m.p99 as f64);
        }
    }

    async fn connection_floor(&mut self) -> Result<()> {
        let connected = connections::of_floor(&self.server, self.options.connections).await?;
        self.note_connected(Who::Floor, &connected);
        let (addr, pid) = (self.server.http, self.server.pid());
        let routes = connections::routes(addr, pid, self.options.seconds).await?;
        self.note_routes(Who::Floor, routes);
        Ok(())
    }

    async fn connections(&mut self, who: Who, cluster: &Running) -> Result<()> {
        let connected = connections::of_cluster(cluster, self.options.connections).await?;
        self.note_connected(who, &connected);
        let (addr, pid) = (cluster.route_addr, cluster.watched.coordinator);
        let routes = connections::routes(addr, pid, self.options.seconds).await?;
        self.note_routes(who, routes);
        Ok(())
    }

    fn note_connected(&mut self, who: Who, connected: &connections::Connected) {
        println!(
            "{who:?} connections: {:.0}/s; processor time of one {:.0} µs (nodes {:.0}, Redis {:.0}, Kafka {:.0}, \
             coordinator {:.0}), load tool {:.0} µs; {:.1} KiB for an idle one",
            connected.per_s,
            connected.cpu.total(),
            connected.cpu.nodes,
            connected.cpu.redis,
            connected.cpu.kafka,
            connected.cpu.coordinator,
            connected.cpu.load,
            connected.kib_each
        );
        self.note(who, "connects a second", "/s", connected.per_s);
        self.note(who, "processor time of one connect, nodes", "µs", connected.cpu.nodes);
        self.note(who, "processor time of one connect, total", "µs", connected.cpu.total());
        self.note(who, "memory of an idle connection", "KiB", connected.kib_each);
    }

    fn note_routes(&mut self, who: Who, [per_s, us]: [f64; 2]) {
        println!("{who:?} /route: {per_s:.0}/s, {us:.1} µs of the server for one");
        self.note(who, "`/route`, 32 connections", "/s", per_s);
        self.note(who, "processor time of one `/route`", "µs", us);
    }

    async fn finish(self) -> Result<()> {
        let Self { options, log, logs, report, .. } = self;
        // The last build may have wanted other topics than whoever comes next.
        log.remove_shared().await?;
        log.remove().await?;
        println!("\n{}", report.table());
        let about = serde_json::json!({
            "turns": options.turns, "seconds": options.seconds, "rate": options.rate, "pairs": options.pairs,
            "connections": options.connections,
        });
        if let Some(dir) = options.json.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&options.json, format!("{:#}\n", report.json(about)))
            .with_context(|| options.json.display().to_string())?;
        println!("(medians of {} turns; all of them are in {})", options.turns, options.json.display());
        // They say something only when something failed.
        std::fs::remove_dir_all(logs)?;
        Ok(())
    }
}
