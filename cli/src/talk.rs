//! `roost send`, `roost event` and `roost listen`: the SDK from the command line.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use roost_client::{Client, Event, Events, Receipt, SendOptions};
use roost_proto::{MessageId, UserId};
use serde_json::value::{RawValue, to_raw_value};

use crate::connect::{self, CONNECT_LIMIT};
use crate::out::{note, say};
use crate::token;

#[derive(clap::Args)]
pub(crate) struct SendArgs {
    /// The receiver
    to: UserId,
    /// The message: JSON, or a text that becomes {"text": …}
    data: String,
    /// The sender
    #[arg(long)]
    from: UserId,
    /// The message's id: the same id again is never a second message
    #[arg(long)]
    id: Option<MessageId>,
    /// Wait until a device of the receiver has it, too
    #[arg(long)]
    receipt: bool,
    /// A coordinator
    #[arg(long, env = "ROOST_URL", default_value = "http://127.0.0.1:7300")]
    url: String,
    /// How long to try, in seconds
    #[arg(long, default_value_t = 30)]
    timeout: u64,
}

#[derive(clap::Args)]
pub(crate) struct EventArgs {
    /// What it says: JSON, or a text that becomes {"text": …}
    data: String,
    /// Whose event it is
    #[arg(long)]
    user: UserId,
    /// The event's id: the same id again is never a second event
    #[arg(long)]
    id: Option<MessageId>,
    /// A coordinator
    #[arg(long, env = "ROOST_URL", default_value = "http://127.0.0.1:7300")]
    url: String,
    /// How long to wait for the result, in seconds
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

#[derive(clap::Args)]
pub(crate) struct ListenArgs {
    user: UserId,
    /// The device whose place is kept: what was missed since it last listened comes first
    #[arg(long, default_value = "cli")]
    device: String,
    /// A coordinator
    #[arg(long, env = "ROOST_URL", default_value = "http://127.0.0.1:7300")]
    url: String,
    /// Stop after this many messages
    #[arg(long)]
    count: Option<usize>,
    /// Say that what is printed was read: other devices are told, and senders who asked for receipts
    #[arg(long)]
    read: bool,
}

pub(crate) async fn send(args: SendArgs) -> anyhow::Result<()> {
    let data = data(&args.data);
    let limit = Duration::from_secs(args.timeout);
    let builder = Client::builder(&args.url).token(token::at_hand(&args.from)?).send_timeout(limit);
    let (client, events) = builder.connect().await?;
    let options = SendOptions { id: args.id, receipt: args.receipt };
    // Who takes no events is not kept waiting by them.
    let mut events = Some(events).filter(|_| args.receipt);
    connect::connected(&client, limit).await.context("not sent")?;
    let sent = client.send_with(args.to.as_str(), data, options).await.context("not sent")?;
    say!("kept at {}", sent.at);
    let told = match &mut events {
        Some(events) => Some(tokio::time::timeout(limit, delivered(events, &sent.id)).await.ok().flatten()),
        None => None,
    };
    client.close().await;
    match told {
        Some(Some(at)) => say!("delivered at {at}"),
        Some(None) => bail!("no receipt of {} within {} s", sent.id, args.timeout),
        None => {}
    }
    Ok(())
}

pub(crate) async fn event(args: EventArgs) -> anyhow::Result<()> {
    let limit = Duration::from_secs(args.timeout);
    let builder = Client::builder(&args.url).token(token::at_hand(&args.user)?).event_timeout(limit);
    // Who takes no events is not kept waiting by them.
    let (client, _) = builder.connect().await?;
    connect::connected(&client, limit.min(CONNECT_LIMIT)).await.context("not given")?;
    let data = data(&args.data);
    let result = match args.id {
        Some(id) => client.event_with_id(id, data).await,
        None => client.event(data).await,
    };
    client.close().await;
    say!("{}", result?.record.get());
    Ok(())
}

/// When a device of the receiver had the message, as soon as it does; nothing if the connection ends.
async fn delivered(events: &mut Events, id: &MessageId) -> Option<String> {
    loop {
        let Event::Message(message) = events.recv().await? else { continue };
        if let Some(Receipt::Delivered { ids, at }) = message.receipt()
            && ids.contains(id)
        {
            return Some(at);
        }
    }
}

/// JSON as it is, to the byte; anything else as a text. A number is what somebody typed.
pub(crate) fn data(text: &str) -> Box<RawValue> {
    let json = RawValue::from_string(text.trim().to_owned()).ok();
    let number = |json: &RawValue| json.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    json.filter(|json| !number(json)).unwrap_or_else(|| {
        let text = serde_json::json!({ "text": text });
        to_raw_value(&text).expect("a text is JSON")
    })
}

/// What happens beside what was asked for.
pub(crate) fn tell(event: &Event) {
    match event {
        Event::State { current, reason, .. } => {
            note!("# {current:?} {}", reason.as_deref().unwrap_or_default());
        }
        Event::NotConnected { trouble, .. } => note!("# not connected: {trouble}; trying again"),
        Event::Message(m) => note!("# {} {} → {}: {}", m.at, m.from, m.stream, m.data.get()),
        other => note!("# {other:?}"),
    }
}

pub(crate) async fn listen(args: ListenArgs) -> anyhow::Result<()> {
    let user = args.user.clone();
    let token = move || std::future::ready(token::at_hand(&user));
    let builder = Client::builder(&args.url).token_fn(token).device(&args.device);
    let (client, mut events) = builder.connect().await?;
    let mut in_vain = pin!(connect::in_vain(&client, CONNECT_LIMIT));
    let mut left = args.count.unwrap_or(usize::MAX);
    while left > 0 {
        let event = tokio::select! {
            event = events.recv() => event,
            why = &mut in_vain => return Err(why),
            _ = tokio::signal::ctrl_c() => break,
        };
        match event {
            Some(Event::Message(m)) if m.receipt().is_some() => tell(&Event::Message(m)),
            Some(Event::Message(m)) if !m.stream.is_room() => {
                left -= 1;
                say!("{} {} → {}: {}", m.at, m.from, args.user, m.data.get());
                if args.read {
                    client.read(m.cursor()).await;
                }
            }
            Some(other) => tell(&other),
            None => bail!("the connection ended: {:?}", *client.state().borrow()),
        }
    }
    client.close().await;
    Ok(())
}
