//! Redis, Kafka and PostgreSQL of a run, from outside: processes that `scripts/services` starts, stopped, killed and given
//! other data. They are this run's alone.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// For a killed process to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Redis,
    Kafka,
    Postgres,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
        }
    }
}

/// The services of this run.
#[derive(Debug)]
pub struct Outside {
    dir: PathBuf,
    pub redis_port: u16,
    pub kafka_port: u16,
    /// Whoever comes by the port after Kafka's controller is told to go on here.
    pub kafka_gate_port: u16,
}

impl Outside {
    /// What `scripts/chaos` has in the environment; both services are up when this returns.
    ///
    /// # Errors
    /// If they cannot be started.
    pub async fn start() -> anyhow::Result<Self> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("{name} (use scripts/chaos)"));
        let port = |name: &str| variable(name)?.parse().with_context(|| name.to_owned());
        let outside = Self {
            dir: PathBuf::from(variable("ROOST_SERVICES_DIR")?),
            redis_port: port("REDIS_PORT")?,
            kafka_port: port("KAFKA_PORT")?,
            kafka_gate_port: port("KAFKA_GATE_PORT")?,
        };
        outside.up(Service::Redis).await?;
        outside.up(Service::Kafka).await?;
        Ok(outside)
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

    pub fn kafka(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port)
    }

    /// The broker's second listener, whose clients are told to go on at the gate.
    pub fn kafka_behind_gate(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port + 2)
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
        let output = Command::new(script).args([command, service.name()]).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scripts/services {command} {}: {said}", service.name());
        Ok(())
    }

    /// STOP, CONT or KILL, by process id.
    ///
    /// # Errors
    /// If there is no such process.
    pub async fn signal(&self, service: Service, signal: &str) -> anyhow::Result<()> {
        let pid = self.pid(service)?;
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().await?;
        ensure!(status.success(), "kill -{signal} {pid} ({})", service.name());
        Ok(())
    }

    fn pid(&self, service: Service) -> anyhow::Result<u32> {
        let file = self.dir.join(service.name()).join("pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.trim().parse()?)
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

/// A second Redis, which ends with this.
#[derive(Debug)]
pub struct OldCopy {
    pub port: u16,
    _process: Child,
}

impl Outside {
    /// Another Redis, with what was kept, on a free port.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_old_copy(&self) -> anyhow::Result<OldCopy> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Command::new("redis-server");
        server.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "yes",
        ]);
        // Else it waits five seconds for more replicas.
        server.args(["--repl-diskless-sync-delay", "0", "--dir"]).arg(self.dir.join("redis/kept"));
        let process = server.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(started.elapsed() < GONE_WITHIN, "the second redis-server does not start");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(OldCopy { port, _process: process })
    }
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
