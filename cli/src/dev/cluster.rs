//! The nodes of `roost dev`: started, killed, started again and added while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use roost_coordinator::DevCluster;
use roost_proto::claims::Role;
use roost_proto::{ErrorBody, ErrorCode, NodeId, UserId};
use roost_ring::Pins;
use roost_service::{CommonConfig, Secret};
use roost_ws_node::{Backends, Ports, Server, SessionSettings, ShareSettings, WsNodeConfig};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Row, listen};
use crate::token;

/// How long a token of the console is good for; the SDK asks for the next one in time.
const TOKEN_TTL_S: u64 = 3_600;
/// A node that was killed lets go of its ports within moments.
const PORTS_FREE_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether all parts of all nodes run: nodes come and go, and nobody waits for the answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What all nodes are started with, and those there are.
pub(super) struct Cluster {
    pub common: CommonConfig,
    pub sessions: SessionSettings,
    pub shares: ShareSettings,
    pub backends: Backends,
    pub row: Row,
    /// What tokens are checked with, if it is a secret.
    pub secret: Option<Secret>,
    /// By number; `None` was killed.
    pub nodes: Mutex<BTreeMap<u16, Option<Server>>>,
}

impl Cluster {
    /// Starts the next node.
    pub(super) async fn start_next(&self) -> anyhow::Result<NodeId> {
        let mut nodes = self.nodes.lock().await;
        let i = next(&nodes);
        let server = self.start(i).await?;
        let name = server.node().clone();
        nodes.insert(i, Some(server));
        Ok(name)
    }

    async fn start(&self, i: u16) -> anyhow::Result<Server> {
        let (common, name) = (&self.common, name(i)?);
        let ports = Ports {
            public: listen(name.as_str(), self.row.node(i)).await?,
            admin: listen(name.as_str(), Row::admin(self.row.node(i))).await?,
        };
        let mut config = WsNodeConfig::new(name, common.tuning.vnodes, &Pins::Auto, common.jwt.verifier());
        config.core.open_rooms = true;
        config.core.archive_url = Some(format!("http://127.0.0.1:{}", self.row.archiver()));
        config.take_common(common);
        self.sessions.clone().apply(&mut config);
        self.shares.apply(&mut config);
        Ok(Server::bind(config, self.backends.clone(), ports).await?)
    }

    /// As [`Cluster::start`], when the ports are free again.
    async fn start_again(&self, i: u16) -> anyhow::Result<Server> {
        let deadline = Instant::now() + PORTS_FREE_WITHIN;
        loop {
            match self.start(i).await {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
                done => return done,
            }
        }
    }

    /// Waits until a part of one of them ends, which none should.
    pub(super) async fn join(&self) -> anyhow::Error {
        loop {
            let nodes = self.nodes.lock().await;
            let failed = |node: &Server| Some((node.node().clone(), node.failed()?));
            if let Some((name, bug)) = nodes.values().flatten().find_map(failed) {
                return anyhow::Error::from(bug).context(name.to_string());
            }
            drop(nodes);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Stops all of them at once, each in order.
    pub(super) async fn shutdown(&self, grace: Duration) -> anyhow::Result<()> {
        let servers = std::mem::take(&mut *self.nodes.lock().await).into_values().flatten();
        let stops: Vec<_> = servers.map(|server| tokio::spawn(server.shutdown(grace))).collect();
        for stop in stops {
            stop.await?;
        }
        Ok(())
    }
}

fn name(i: u16) -> anyhow::Result<NodeId> {
    NodeId::new(format!("ws-{i}")).context("the node's name")
}

fn next(nodes: &BTreeMap<u16, Option<Server>>) -> u16 {
    nodes.last_key_value().map_or(1, |(last, _)| last + 1)
}

/// A node that there is or was.
fn known<'a>(
    nodes: &'a mut BTreeMap<u16, Option<Server>>,
    node: &NodeId,
) -> Result<(u16, &'a mut Option<Server>), ErrorBody> {
    let found = nodes.iter_mut().find(|(i, _)| name(**i).is_ok_and(|name| name == *node));
    let found = found.map(|(i, server)| (*i, server));
    found.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, format!("there is no node '{node}'")))
}

fn not_started(error: &anyhow::Error) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, format!("it does not start: {error:#}"))
}

#[async_trait]
impl DevCluster for Cluster {
    fn token(&self, user: &UserId, role: Role) -> Result<String, ErrorBody> {
        let secret = self.secret.as_ref().ok_or_else(|| {
            ErrorBody::new(
                ErrorCode::Unavailable,
                "tokens are checked with a public key here: none can be made",
            )
        })?;
        Ok(token::make(secret, user, TOKEN_TTL_S, role, None))
    }

    async fn kill(&self, node: &NodeId) -> Result<(), ErrorBody> {
        let mut nodes = self.nodes.lock().await;
        let (_, server) = known(&mut nodes, node)?;
        // A server that is dropped hands nothing over.
        let killed = server.take().map(drop);
        killed.ok_or_else(|| ErrorBody::new(ErrorCode::NotFound, format!("{node} does not run")))
    }

    async fn restart(&self, node: &NodeId) -> Result<(), ErrorBody> {
        let mut nodes = self.nodes.lock().await;
        let (i, server) = known(&mut nodes, node)?;
        if server.is_some() {
            return Err(ErrorBody::new(ErrorCode::Conflict, format!("{node} runs")));
        }
        *server = Some(self.start_again(i).await.map_err(|error| not_started(&error))?);
        Ok(())
    }

    async fn add(&self) -> Result<NodeId, ErrorBody> {
        if self.row.node(next(&*self.nodes.lock().await)) >= self.row.archiver() {
            return Err(ErrorBody::new(
                ErrorCode::Conflict,
                "no port is left: the next one is the archiver's",
            ));
        }
        self.start_next().await.map_err(|error| not_started(&error))
    }
}
