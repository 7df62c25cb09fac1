//! A room of a thousand over three nodes, beside the bare hub: the same readers, frames as long, as many in flight.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::floor::FloorServer;
use super::programs::{Running, token};
use crate::client::{Client, Socket, open};
use crate::room::{self, Measured, Run};

const MEMBERS: usize = 1000;
/// A session may publish 50 times a second: together they may more than a room takes.
const PUBLISHERS: usize = 64;
const OPENING: usize = 50;
const LIMIT: Duration = Duration::from_secs(10);
pub(super) const WINDOWS: [u64; 3] = [1, 8, 64];

pub(super) async fn of_cluster(cluster: &Running, seconds: f64) -> Result<Vec<Measured>> {
    let room = format!("bench-{}", cluster.run);
    let mut run = Run::new();
    let joining = stream::iter(0..MEMBERS).map(|i| join(cluster, format!("{room}-{i}"), &room));
    for socket in joining.buffer_unordered(OPENING).try_collect::<Vec<_>>().await? {
        run.add(socket);
    }
    let (mut sinks, mut replies) = (Vec::new(), JoinSet::new());
    for i in 0..PUBLISHERS {
        let user = format!("{room}-publisher-{i}");
        let (_, url) = cluster.home(&user).await?;
        let (sink, mut frames) = Client::connect_to(&url, token(&user)?).await?.into_socket().split();
        sinks.push(sink);
        replies.spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                if let Message::Text(text) = frame
                    && text.contains(r#""error":"#)
                {
                    anyhow::bail!("refused: {text}");
                }
            }
            anyhow::Ok(())
        });
    }
    let measured = run
        .measure(&WINDOWS, Duration::from_secs_f64(seconds), async |n, data| {
            if let Some(ended) = replies.try_join_next() {
                ended??;
                anyhow::bail!("a publisher's connection ended");
            }
            publish(&mut sinks[n as usize % PUBLISHERS], &room, n, &data).await
        })
        .await?;
    run.finish().await;
    Ok(measured)
}

async fn join(cluster: &Running, user: String, room: &str) -> Result<Socket> {
    let (_, url) = cluster.home(&user).await?;
    let token = token(&user)?;
    Client::enter(&url, format!(r#"{{"type":"connect","token":"{token}","rooms":[{{"room":"{room}"}}]}}"#))
        .await
}

async fn publish(sink: &mut SplitSink<Socket, Message>, room: &str, n: u64, data: &str) -> Result<()> {
    let frame = format!(r#"{{"type":"publish","id":"bench-{n}","room":"{room}","data":{data}}}"#);
    Ok(timeout(LIMIT, sink.send(Message::text(frame))).await??)
}

pub(super) async fn of_floor(server: &FloorServer, seconds: f64) -> Result<Vec<Measured>> {
    let mut run = Run::new();
    for _ in 0..MEMBERS {
        let mut socket = open(&server.url("hub")).await?;
        timeout(LIMIT, socket.next()).await?.context("the hub ended")??;
        run.add(socket);
    }
    let mut publisher = open(&server.url("publish")).await?;
    let measured = run
        .measure(&WINDOWS, Duration::from_secs_f64(seconds), async |n, data| {
            Ok(timeout(LIMIT, publisher.send(Message::text(room::frame(n, &data)))).await??)
        })
        .await?;
    run.finish().await;
    Ok(measured)
}
