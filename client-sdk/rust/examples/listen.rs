//! Prints what arrives for a user, and says where the connection stands.
//!
//! ```text
//! cargo run -p roost-cli -- dev                     # a whole cluster, coordinator on 7300
//! cargo run -p roost-client --example listen -- "$(roost token bob)"
//! cargo run -p roost-client --example listen -- "$(roost token bob)" http://127.0.0.1:7300
//! ```

use roost_client::{Client, Event};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let token = args.next().ok_or("usage: listen <token> [coordinator]")?;
    let coordinator = args.next().unwrap_or_else(|| "http://127.0.0.1:7300".to_owned());

    let (client, mut events) = Client::builder(coordinator).token(token).device("listen").connect().await?;
    println!("listening as {}", client.user());
    while let Some(event) = events.recv().await {
        match event {
            Event::Message(m) => println!("{} {}: {}", m.at, m.from, m.data.get()),
            Event::Gap { through, .. } | Event::Reset { through, .. } => {
                println!("-- something was missed: the history has it, through {through:?}");
            }
            Event::State { current, reason, .. } => println!("-- {current:?} {}", reason.unwrap_or_default()),
            _ => {}
        }
    }
    Ok(())
}
