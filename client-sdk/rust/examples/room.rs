//! A chat room in as many terminals as you like: lines go to everyone, and who comes and goes is shown.
//!
//! ```text
//! cargo run -p roost-client --example room -- "$(roost token alice)" lobby
//! cargo run -p roost-client --example room -- "$(roost token bob)" lobby
//! ```

use std::io::BufRead;

use roost_client::{Change, Client, Event, JoinOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(token), Some(room)) = (args.next(), args.next()) else {
        return Err("usage: room <token> <room> [coordinator]".into());
    };
    let coordinator = args.next().unwrap_or_else(|| "http://127.0.0.1:7300".to_owned());
    let (client, mut events) = Client::builder(coordinator).token(token).connect().await?;

    // Events have a task of their own: replies come over the same socket, so they must be taken while calls wait.
    let shown = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Message(m) => {
                    let data: Value = serde_json::from_str(m.data.get()).unwrap_or_default();
                    println!("{}: {}", m.from, data["text"].as_str().unwrap_or(m.data.get()));
                }
                Event::Members { members, .. } => println!("-- {} here", members.count),
                Event::Member { user, change: Change::Join, .. } => println!("-- {user} is here"),
                Event::Member { user, change: Change::Leave, .. } => println!("-- {user} left"),
                other => println!("-- {other:?}"),
            }
        }
    });

    client.join(&room, JoinOptions { presence: true, ..JoinOptions::default() }).await?;
    let (lines, mut typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    while let Some(text) = typed.recv().await {
        if let Err(e) = client.publish(&room, json!({"text": text})).await {
            println!("-- {e}");
        }
    }
    client.leave(&room).await?;
    client.close().await;
    shown.await?;
    Ok(())
}
