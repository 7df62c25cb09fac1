//! A chat of two in two terminals: lines go to the other, what the other writes is shown.
//!
//! ```text
//! cargo run -p roost-client --example chat -- "$(roost token alice)" bob
//! cargo run -p roost-client --example chat -- "$(roost token bob)" alice
//! ```
//!
//! Stop a node in between: lines written meanwhile wait, and arrive once and in order.

use std::io::BufRead;

use roost_client::{Client, Event};
use serde_json::json;
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(token), Some(to)) = (args.next(), args.next()) else {
        return Err("usage: chat <token> <to> [coordinator]".into());
    };
    let coordinator = args.next().unwrap_or_else(|| "http://127.0.0.1:7300".to_owned());
    let (client, mut events) = Client::builder(coordinator).token(token).device("chat").connect().await?;

    // Events have a task of their own: replies come over the same socket, so they must be taken while sends wait.
    let shown = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Message(m) => {
                    let data: serde_json::Value = serde_json::from_str(m.data.get()).unwrap_or_default();
                    println!("{}: {}", m.from, data["text"].as_str().unwrap_or(m.data.get()));
                }
                Event::State { current, .. } => println!("-- {current:?}"),
                other => println!("-- {other:?}"),
            }
        }
    });

    let (lines, mut typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    while let Some(text) = typed.recv().await {
        if let Err(e) = client.send(&to, json!({"text": text})).await {
            println!("-- {e}");
        }
    }
    client.close().await;
    shown.await?;
    Ok(())
}
