//! What an attack is given: the cluster, a door, and the moment from which it counts.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use roost_proto::UserId;
use roost_ring::vnode_of_user;
use tokio::time::Instant;

use super::gauges::Gauges;
use super::peer::Door;
use crate::processes::{Cluster, VNODES};

/// One attack on a cluster.
pub(super) struct Round<'a> {
    pub cluster: &'a Cluster,
    pub door: &'a Door,
    pub redis: MultiplexedConnection,
    /// How long it lasts.
    pub lasts: Duration,
    /// After which messages are reported as undelivered.
    pub undelivered_after: Duration,
    /// In the names of this attack's users: nothing of an earlier one is theirs.
    series: String,
    began: Option<(Instant, Gauges)>,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        door: &'a Door,
        redis: MultiplexedConnection,
        lasts: Duration,
        undelivered_after: Duration,
    ) -> Self {
        let series = format!("{}-{:08x}", cluster.run(), rand::random::<u32>());
        Self { cluster, door, redis, lasts, undelivered_after, series, began: None }
    }

    /// Everything is prepared: from now on it counts. Returns when it has to end.
    ///
    /// # Errors
    /// If Redis does not answer at all.
    pub(super) async fn begin(&mut self) -> anyhow::Result<Instant> {
        let gauges = Gauges::read(self.cluster, &self.redis).await?;
        let now = Instant::now();
        self.began = Some((now, gauges));
        Ok(now + self.lasts)
    }

    /// When it began to count, and what was counted until then.
    pub(super) fn began(&self) -> Option<&(Instant, Gauges)> {
        self.began.as_ref()
    }

    /// A user of this attack.
    pub(super) fn user(&self, name: &str) -> String {
        format!("{}-{name}", self.series)
    }

    /// So many users whose inboxes share this user's vnode.
    pub(super) fn neighbours(&self, of: &str, count: usize) -> Vec<String> {
        let vnode = |user: &str| vnode_of_user(&UserId::new(user).expect("a user's id"), u32::from(VNODES));
        let users = (0..).map(|n| self.user(&format!("near-{n}")));
        users.filter(|user| vnode(user) == vnode(of)).take(count).collect()
    }
}
