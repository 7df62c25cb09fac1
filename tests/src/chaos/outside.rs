//! Redis, Kafka and PostgreSQL of a run, from outside: processes that `scripts/services` starts, stopped, killed and given
//! other data. They are this run's alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// For a killed process to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// For a server to start with its data, or to have those of another.
const SYNCED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Redis,
    /// All its brokers.
    Kafka,
    /// One of three, from 0.
    Broker(u16),
    Postgres,
}

/// Between the ports of two brokers.
const BROKERS_APART: u16 = 10;
/// From a broker's port to that of its listener whose clients are told to go on at the gate, and to the gate.
const GATED_ABOVE: u16 = 2;
const GATE_ABOVE: u16 = 3;

/// The services of this run.
#[derive(Debug)]
pub struct Outside {
    dir: PathBuf,
    pub redis_port: u16,
    /// Of each broker.
    kafka_ports: Vec<u16>,
}

impl Outside {
    /// What `scripts/chaos` has in the environment, with one broker; all services are up when this returns.
    ///
    /// # Errors
    /// If they cannot be started.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_brokers(1).await
    }

    /// The same with one broker or three.
    ///
    /// # Errors
    /// If they cannot be started.
    pub async fn with_brokers(brokers: usize) -> anyhow::Result<Self> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("{name} (use scripts/chaos)"));
        let port = |name: &str| variable(name)?.parse::<u16>().with_context(|| name.to_owned());
        let kafka_ports = match brokers {
            1 => vec![port("KAFKA_PORT")?],
            _ => {
                let first = port("KAFKA_3_PORT")?;
                (0..3).map(|broker| first + BROKERS_APART * broker).collect()
            }
        };
        let dir = PathBuf::from(variable("ROOST_SERVICES_DIR")?);
        let outside = Self { dir, redis_port: port("REDIS_PORT")?, kafka_ports };
        outside.up(Service::Redis).await?;
        outside.up(Service::Kafka).await?;
        Ok(outside)
    }

    /// As `scripts/services` calls it: its processes.
    fn names(&self, service: Service) -> Vec<String> {
        let broker = |n: u16| format!("kafka-3-{}", n + 1);
        match service {
            Service::Redis => vec!["redis".to_owned()],
            Service::Kafka if self.kafka_ports.len() == 1 => vec!["kafka".to_owned()],
            Service::Kafka => (0..3).map(broker).collect(),
            Service::Broker(n) => vec![broker(n)],
            Service::Postgres => vec!["postgres".to_owned()],
        }
    }

    pub fn redis(&self) -> String {
        format!("127.0.0.1:{}", self.redis_port)
    }

    /// Where PostgreSQL is; it is up when this returns. Only who needs it asks.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn postgres(&self) -> anyhow::Result<String> {
        self.up(Service::Postgres).await?;
        let port = std::env::var("POSTGRES_PORT").context("POSTGRES_PORT (use scripts/chaos)")?;
        Ok(format!("postgres://roost:roost@127.0.0.1:{port}/roost"))
    }

    /// Where every broker is, as clients are told.
    pub fn kafka(&self) -> String {
        let at: Vec<String> = self.kafka_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        at.join(",")
    }

    /// Of each broker: where its gate is, and its second listener, whose clients are told to go on at the gate.
    pub fn kafka_gates(&self) -> impl Iterator<Item = (SocketAddr, String)> {
        self.kafka_ports.iter().map(|port| {
            let gate = SocketAddr::from(([127, 0, 0, 1], port + GATE_ABOVE));
            (gate, format!("127.0.0.1:{}", port + GATED_ABOVE))
        })
    }

    /// Starts it with the data it has, and waits until it answers.
    ///
    /// # Errors
    /// If it does not.
    pub async fn up(&self, service: Service) -> anyhow::Result<()> {
        self.script("up", service).await
    }

    /// An orderly stop.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn down(&self, service: Service) -> anyhow::Result<()> {
        self.script("down", service).await
    }

    async fn script(&self, command: &str, service: Service) -> anyhow::Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services");
        let names = self.names(service);
        let output = Command::new(script).arg(command).args(&names).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scripts/services {command} {names:?}: {said}");
        Ok(())
    }

    /// STOP, CONT or KILL, by process id.
    ///
    /// # Errors
    /// If there is no such process.
    pub async fn signal(&self, service: Service, signal: &str) -> anyhow::Result<()> {
        let names = self.names(service);
        let pids: Vec<String> = names.iter().map(|name| self.pid(name)).collect::<Result<_, _>>()?;
        let status =
            Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", pids.join(" "))).status().await?;
        ensure!(status.success(), "kill -{signal} {pids:?} ({names:?})");
        Ok(())
    }

    fn pid(&self, name: &str) -> anyhow::Result<String> {
        let file = self.dir.join(name).join("pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.trim().to_owned())
    }

    async fn kill_redis(&self) -> anyhow::Result<()> {
        self.signal(Service::Redis, "KILL").await?;
        let killed = Instant::now();
        // Its port is free when the last of its threads has ended, which is after its main one.
        while TcpStream::connect(self.redis()).await.is_ok() {
            ensure!(killed.elapsed() < GONE_WITHIN, "redis-server does not go");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn redis_data(&self) -> PathBuf {
        self.dir.join("redis/data")
    }

    /// A copy of what Redis has on its disk now.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn keep_snapshot(&self) -> anyhow::Result<()> {
        let kept = self.dir.join("redis/kept");
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        copy(&self.redis_data(), &kept)
    }

    /// Killed, and started with nothing.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart_redis_empty(&self) -> anyhow::Result<()> {
        self.kill_redis().await?;
        std::fs::remove_dir_all(self.redis_data())?;
        self.up(Service::Redis).await
    }

    /// Killed, and started with what was kept.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart_redis_with_snapshot(&self) -> anyhow::Result<()> {
        self.kill_redis().await?;
        std::fs::remove_dir_all(self.redis_data())?;
        copy(&self.dir.join("redis/kept"), &self.redis_data())?;
        self.up(Service::Redis).await
    }
}

/// Redis' data go back while its process stays: it is made the replica of a server that was started with what was kept,
/// and a primary again when it has all of that. As a failover does that flips back, or a restore through a replica.
impl Outside {
    /// # Errors
    /// If it cannot be done.
    pub async fn resync_redis_with_snapshot(&self) -> anyhow::Result<()> {
        let port = self.redis_port + 2;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--port"])
            .arg(port.to_string());
        command.arg("--dir").arg(self.dir.join("redis/kept"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut older = command.spawn().context("redis-server")?;
        let mut at_older = redis_at(port).await?;
        let mut here = redis_at(self.redis_port).await?;
        let run_id = info(&mut here, "server", "run_id").await?;
        let () = cmd("REPLICAOF").arg("127.0.0.1").arg(port).query_async(&mut here).await?;
        let since = Instant::now();
        while info(&mut here, "replication", "master_link_status").await.unwrap_or_default() != "up" {
            ensure!(since.elapsed() < SYNCED_WITHIN, "Redis does not become a replica");
            sleep(Duration::from_millis(10)).await;
        }
        let () = cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut here).await?;
        ensure!(info(&mut here, "server", "run_id").await? == run_id, "Redis is another process");
        // It goes before its connection does.
        let _: Result<(), _> = cmd("SHUTDOWN").arg("NOSAVE").query_async(&mut at_older).await;
        older.wait().await?;
        Ok(())
    }
}

/// A connection to a server that may only be starting.
async fn redis_at(port: u16) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let since = Instant::now();
    loop {
        let connection = client.get_multiplexed_async_connection().await;
        if let Ok(mut connection) = connection
            && cmd("PING").query_async::<String>(&mut connection).await.is_ok()
        {
            return Ok(connection);
        }
        ensure!(since.elapsed() < SYNCED_WITHIN, "no Redis at {port}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// One line of INFO.
async fn info(redis: &mut MultiplexedConnection, section: &str, name: &str) -> anyhow::Result<String> {
    let text: String = cmd("INFO").arg(section).query_async(redis).await?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("INFO has no {name}"))?.to_owned())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
