//! Users who only come and go, so that there is something to be wrong about in presence.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, seq::SliceRandom};
use roost_client::{Builder, Client};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::processes::Cluster;

/// Of all visitors, this part comes or goes during a fault.
const MOVING: f64 = 0.4;

struct Visitor {
    name: String,
    builder: Box<dyn Fn() -> Builder + Send>,
    client: Option<Client>,
}

impl Visitor {
    async fn turn(&mut self) {
        match self.client.take() {
            Some(client) => client.close().await,
            None => {
                let (client, mut events) = (self.builder)().connect().await.expect("a usable client");
                self.client = Some(client);
                // It ends with the client.
                tokio::spawn(async move { while events.recv().await.is_some() {} });
            }
        }
    }
}

/// All of them; each is here or away.
pub struct Visitors {
    all: Vec<Visitor>,
}

impl Visitors {
    /// All of them are here.
    pub async fn come(cluster: &Cluster, names: Vec<String>) -> Self {
        let mut all = Vec::new();
        for name in names {
            let builder = cluster.client_maker(&name);
            let mut visitor = Visitor { name, builder: Box::new(builder), client: None };
            visitor.turn().await;
            all.push(visitor);
        }
        for client in all.iter().filter_map(|visitor| visitor.client.as_ref()) {
            client.connected(crate::processes::LIMIT).await.expect("visitors connect");
        }
        Self { all }
    }

    /// Some of them come and some go, each at a moment of its own within that time.
    pub async fn move_about(mut self, mut rng: StdRng, within: Duration) -> Self {
        self.all.shuffle(&mut rng);
        let staying = self.all.split_off((self.all.len() as f64 * MOVING).ceil() as usize);
        let mut moving = JoinSet::new();
        for mut visitor in self.all {
            let delay = within.mul_f64(rng.random());
            moving.spawn(async move {
                sleep(delay).await;
                visitor.turn().await;
                visitor
            });
        }
        let mut all = moving.join_all().await;
        all.extend(staying);
        Self { all }
    }

    pub fn here(&self) -> Vec<String> {
        self.named(true)
    }

    pub fn away(&self) -> Vec<String> {
        self.named(false)
    }

    fn named(&self, here: bool) -> Vec<String> {
        let wanted = self.all.iter().filter(|visitor| visitor.client.is_some() == here);
        wanted.map(|visitor| visitor.name.clone()).collect()
    }

    pub async fn leave(self) {
        for client in self.all.into_iter().filter_map(|visitor| visitor.client) {
            client.close().await;
        }
    }
}
