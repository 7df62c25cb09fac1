//! Sends one message and waits until it is confirmed.
//!
//! ```text
//! cargo run -p roost-client --example send -- "$(roost token alice)" bob "hello"
//! cargo run -p roost-client --example send -- "$(roost token alice)" bob "hello" http://127.0.0.1:7300
//! ```

use std::time::Duration;

use roost_client::Client;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(token), Some(to), Some(text)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: send <token> <to> <text> [coordinator]".into());
    };
    let coordinator = args.next().unwrap_or_else(|| "http://127.0.0.1:7300".to_owned());

    let (client, events) = Client::builder(coordinator).token(token).connect().await?;
    drop(events); // What arrives is not wanted here; it stays unread for the user's other devices.
    client.connected(Duration::from_secs(10)).await?;
    let sent = client.send(to, json!({"text": text})).await?;
    println!("{} at {}", sent.id, sent.at);
    client.close().await;
    Ok(())
}
