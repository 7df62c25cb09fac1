//! A way to a user's home that can be cut, and what comes back on it kept.

use std::net::SocketAddr;

use roost_client::Client;
use roost_tests::cluster::{Cluster, Route, eventually};
use roost_tests::proxy::Proxy;
use roost_tests::wire::authority;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A coordinator that names the gate in front of the user's home of now.
pub(crate) struct Way {
    pub url: String,
    pub gate: Proxy,
    _answering: JoinSet<()>,
}

impl Way {
    pub(crate) async fn to(cluster: &Cluster, user: &str) -> Self {
        let Route { node, url, vnode, epoch } = cluster.route(user).await;
        let gate = Proxy::start(&[authority(&url).to_owned()]).await;
        let url = url.replace(authority(&url), &gate.addr.to_string());
        let route = json!({"user_id": user, "vnode": vnode, "node": node, "url": url, "epoch": epoch});
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let mut answering = JoinSet::new();
        answering.spawn(answer(listener, route.to_string()));
        Self { url, gate, _answering: answering }
    }

    /// Cuts the connection of this client, which may come back when the gate is restored.
    pub(crate) async fn sever(&self, client: &Client) {
        self.gate.cut();
        let noticed = async || (!client.state().borrow().is_connected()).then_some(());
        eventually("the client notices", noticed).await;
    }

    /// Cuts the connection of this client, which may come back at once.
    pub(crate) async fn cut(&self, client: &Client) {
        self.sever(client).await;
        self.gate.restore();
    }
}

/// Says the same to everybody.
async fn answer(listener: TcpListener, body: String) {
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.is_ok_and(|n| n > 0) {}
        // Who is gone asks again.
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    }
}
