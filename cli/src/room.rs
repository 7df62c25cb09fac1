//! `roost join`, `publish`, `members`, `signal`: rooms from the command line.

use std::io::BufRead;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use roost_client::{Builder, Change, Client, Cursor, Event, JoinOptions, Members, Offset};
use roost_proto::{MessageId, RoomId, UserId};
use serde_json::json;
use tokio::sync::mpsc;

use crate::connect;
use crate::out::{note, say};
use crate::{talk, token};

/// Lines typed faster than they are confirmed.
const TYPED_MAX: usize = 16;
/// Whoever interrupts does not wait longer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who asks, and whom.
#[derive(clap::Args)]
pub(crate) struct As {
    /// The user who does it
    #[arg(long, default_value = "cli", visible_alias = "from")]
    user: UserId,
    /// A coordinator
    #[arg(long, env = "ROOST_URL", default_value = "http://127.0.0.1:7300")]
    url: String,
    /// How long to try, in seconds
    #[arg(long, default_value_t = 30)]
    timeout: u64,
}

#[derive(clap::Args)]
pub(crate) struct JoinArgs {
    room: RoomId,
    /// Be shown as a member, and show the others
    #[arg(long)]
    presence: bool,
    /// What the others are shown beside the user
    #[arg(long, requires = "presence")]
    name: Option<String>,
    /// Begin with the oldest message that is still in the hot window, if all of this generation are there
    #[arg(long)]
    from_start: bool,
    /// Stop after this many messages
    #[arg(long)]
    count: Option<usize>,
    #[command(flatten)]
    by: As,
}

#[derive(clap::Args)]
pub(crate) struct PublishArgs {
    room: RoomId,
    /// The message: JSON, or a text that becomes {"text": …}
    data: String,
    /// The message's id: the same id again is never a second message
    #[arg(long)]
    id: Option<MessageId>,
    #[command(flatten)]
    by: As,
}

#[derive(clap::Args)]
pub(crate) struct MembersArgs {
    room: RoomId,
    #[command(flatten)]
    by: As,
}

#[derive(clap::Args)]
pub(crate) struct SignalArgs {
    /// What it is: cursor, typing, reaction, …
    kind: String,
    /// JSON, or a text that becomes {"text": …}
    data: String,
    /// To everyone who is in this room
    #[arg(long, required_unless_present = "to", conflicts_with = "to")]
    room: Option<RoomId>,
    /// To every connection of this user
    #[arg(long)]
    to: Option<UserId>,
    #[command(flatten)]
    by: As,
}

impl As {
    pub(crate) fn builder(&self) -> anyhow::Result<Builder> {
        Ok(Client::builder(&self.url).token(token::at_hand(&self.user)?).send_timeout(self.limit()))
    }

    /// How long to try.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// A client that only asks.
    async fn client(&self) -> anyhow::Result<Client> {
        let (client, events) = self.builder()?.connect().await?;
        drop(events);
        connect::connected(&client, self.limit()).await?;
        Ok(client)
    }
}

pub(crate) async fn publish(args: PublishArgs) -> anyhow::Result<()> {
    let (client, data) = (args.by.client().await?, talk::data(&args.data));
    let published = match args.id {
        Some(id) => client.publish_with_id(id, args.room.as_str(), data).await,
        None => client.publish(args.room.as_str(), data).await,
    };
    client.close().await;
    let published = published.context("not published")?;
    match published.cursor {
        Some(cursor) => say!("kept at {} as number {}", published.at, cursor.offset),
        None => say!("kept at {}, before", published.at),
    }
    Ok(())
}

pub(crate) async fn members(args: MembersArgs) -> anyhow::Result<()> {
    let client = args.by.client().await?;
    let members = client.members(args.room.as_str()).await;
    client.close().await;
    let members = members.context("no answer")?;
    for member in members.listed.iter().flatten() {
        say!("{} {}", member.user, member.info.as_ref().map_or("", |info| info.get()));
    }
    note!("# {} in {}", members.count, args.room);
    Ok(())
}

pub(crate) async fn signal(args: SignalArgs) -> anyhow::Result<()> {
    let (client, data) = (args.by.client().await?, talk::data(&args.data));
    let signalled = async {
        if let Some(room) = &args.room {
            client.join(room.as_str(), JoinOptions::default()).await?;
            client.signal_room(room.as_str(), &args.kind, data)?;
        } else if let Some(to) = &args.to {
            client.signal_user(to.as_str(), &args.kind, data)?;
        }
        // Nothing answers a signal; the answer to what follows it says that it was read.
        client.leave(args.room.as_ref().map_or("cli", RoomId::as_str)).await?;
        anyhow::Ok(())
    };
    let signalled = signalled.await;
    client.close().await;
    signalled.context("not signalled")
}

pub(crate) async fn join(args: JoinArgs) -> anyhow::Result<()> {
    let (client, mut events) = args.by.builder()?.connect().await?;
    let (joining, room) = (client.clone(), args.room.clone());
    let (presence, from_start) = (args.presence, args.from_start);
    let info = args.name.as_ref().map(|name| json!({"name": name}));
    // In a task of its own: answers come over the same socket as the events.
    let mut chat = tokio::spawn(async move {
        let mut cursor = None;
        if from_start {
            let end = joining.join(room.as_str(), JoinOptions::default()).await?.cursor;
            joining.leave(room.as_str()).await?;
            cursor = Some(Cursor::new(end.generation, Offset(0)));
        }
        let joined = joining.join(room.as_str(), JoinOptions { cursor, presence, info }).await?;
        note!("# in {room}, which has {} messages; lines typed here are published", joined.cursor.offset);
        let mut lines = typed();
        while let Some(line) = lines.recv().await {
            if let Err(e) = joining.publish(room.as_str(), json!({"text": line})).await {
                note!("# not published: {e}");
            }
        }
        Ok::<_, roost_client::SendError>(())
    });
    let mut in_vain = pin!(connect::in_vain(&client, args.by.limit()));
    let (mut left, mut chatting) = (args.count.unwrap_or(usize::MAX), true);
    while left > 0 {
        let event = tokio::select! {
            event = events.recv() => event,
            why = &mut in_vain => return Err(why.context("not joined")),
            ended = &mut chat, if chatting => {
                chatting = false;
                ended?.context("not joined")?;
                continue;
            }
            _ = tokio::signal::ctrl_c() => break,
        };
        match event {
            Some(Event::Message(m)) if m.stream.room().as_ref() == Some(&args.room) => {
                left -= 1;
                say!("{} {} → {}: {}", m.at, m.from, args.room, m.data.get());
            }
            Some(Event::Members { members, .. }) => note!("# here: {}", names(&members)),
            Some(Event::Member { user, change, info, .. }) => {
                let what = if change == Change::Join { "is here" } else { "left" };
                note!("# {user} {what} {}", info.as_ref().map_or("", |info| info.get()));
            }
            Some(Event::Signal(s)) => say!("# {} signals {}: {}", s.from, s.kind, s.data.get()),
            Some(other) => talk::tell(&other),
            None => bail!("the connection ended: {:?}", *client.state().borrow()),
        }
    }
    // Without a connection nobody is there to be told.
    let gone = tokio::time::timeout(LEAVE_TIMEOUT, client.leave(args.room.as_str())).await;
    client.close().await;
    gone.unwrap_or(Ok(())).context("not left")
}

fn names(members: &Members) -> String {
    match &members.listed {
        Some(all) => all.iter().map(|m| m.user.to_string()).collect::<Vec<_>>().join(", "),
        None => format!("{} users", members.count),
    }
}

/// Lines of standard input. The thread ends with the process: nothing can stop a read of a terminal.
fn typed() -> mpsc::Receiver<String> {
    let (lines, typed) = mpsc::channel(TYPED_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_by_its_number() {
        assert_eq!(names(&Members { listed: None, count: 1001 }), "1001 users");
        assert_eq!(names(&Members { listed: Some(Vec::new()), count: 0 }), "");
    }

    #[test]
    fn json_is_sent_as_it_is_and_anything_else_as_a_text() {
        for (typed, sent) in [
            (r#"{"x":1}"#, r#"{"x":1}"#),
            (r#" {"b":1e400,"a":1,"a":1.50} "#, r#"{"b":1e400,"a":1,"a":1.50}"#),
            (r#""cut \ud83d""#, r#""cut \ud83d""#),
            ("true", "true"),
            ("42", r#"{"text":"42"}"#),
            ("-1.5e3", r#"{"text":"-1.5e3"}"#),
            ("hi", r#"{"text":"hi"}"#),
            ("{x}", r#"{"text":"{x}"}"#),
        ] {
            assert_eq!(talk::data(typed).get(), sent);
        }
    }
}
