//! Requests with a junk token whose bodies never end, more than there are places, at a coordinator and at a node; and
//! junk tokens at the places of operators. Services and operators must still be answered.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use roost_proto::claims::Role;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::flood::Answered;
use super::round::Round;
use crate::chaos::scenario::NODES;
use crate::cluster::token_of;

/// More than the 128 places.
const BODIES: usize = 140;
/// Twice the places of operators.
const OPERATORS: usize = 8;
const ASK_EVERY: Duration = Duration::from_millis(250);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// A body may take ten seconds: then it is begun again.
const AGAIN_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn attack(round: &mut Round<'_>) -> anyhow::Result<Answered> {
    let coordinator = round.cluster.coordinators()[0].listen;
    let node = round.cluster.node(NODES[0]).listen;
    let until = round.begin().await?;
    let honest = async {
        let mut answered = Answered::default();
        // The places are taken by then.
        sleep(ASK_EVERY).await;
        while Instant::now() < until {
            for at in [coordinator, node] {
                answered.add(served(&format!("http://{at}")).await);
            }
            answered.add(explained(&format!("http://{coordinator}")).await);
            sleep(ASK_EVERY).await;
        }
        answered
    };
    let junk = join_all((0..OPERATORS).map(|_| operate(coordinator, until)));
    let (answered, _, (), ()) = tokio::join!(honest, junk, hold(coordinator, until), hold(node, until));
    Ok(answered)
}

/// Bodies that do not end.
async fn hold(at: SocketAddr, until: Instant) {
    while Instant::now() < until {
        let sockets = join_all((0..BODIES).map(|_| unfinished(at))).await;
        sleep(AGAIN_EVERY.min(until - Instant::now())).await;
        drop(sockets);
    }
}

async fn unfinished(at: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    let head =
        "POST /api/send HTTP/1.1\r\nhost: x\r\nauthorization: Bearer junk\r\ncontent-length: 60000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// Asks what only operators may, with junk.
async fn operate(at: SocketAddr, until: Instant) {
    let http = reqwest::Client::new();
    while Instant::now() < until {
        let asked = http.get(format!("http://{at}/api/explain?user=bob")).bearer_auth("junk").send();
        let _ = timeout_at(until, asked).await;
    }
}

/// What a service is answered.
async fn served(base: &str) -> Answered {
    let request = reqwest::Client::new().post(format!("{base}/api/presence"));
    seen("a service", request.json(&json!({"users": ["bob"]}))).await
}

/// What an operator is answered.
async fn explained(base: &str) -> Answered {
    seen("an operator", reqwest::Client::new().get(format!("{base}/api/explain?user=bob"))).await
}

async fn seen(who: &str, request: reqwest::RequestBuilder) -> Answered {
    let mut answered = Answered::default();
    let asked = request.bearer_auth(token_of("service", Role::Service)).send();
    let status = match timeout(ANSWERED_WITHIN, asked).await {
        Ok(Ok(answer)) => {
            let status = answer.status().as_u16();
            answered.bytes += answer.bytes().await.map_or(0, |body| body.len() as u64);
            answered.status(status);
            status.to_string()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    if status != "200" {
        answered.flaws.push(format!("{who} is not served: {status}"));
    }
    answered
}
