//! `roost watch`: who is there.

use std::pin::pin;

use anyhow::{Context, bail};
use roost_client::{Event, Presence, Status};
use roost_proto::UserId;

use crate::out::say;
use crate::{connect, room, talk};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whom to watch
    #[arg(required = true)]
    users: Vec<UserId>,
    /// Stop after this many lines
    #[arg(long)]
    count: Option<usize>,
    #[command(flatten)]
    by: room::As,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (client, mut events) = args.by.builder()?.connect().await?;
    let (watcher, users) = (client.clone(), args.users);
    // In a task of its own: answers come over the same socket as the events, which say the same.
    let mut watching =
        tokio::spawn(async move { watcher.watch(users.iter().map(UserId::as_str)).await.map(drop) });
    let mut in_vain = pin!(connect::in_vain(&client, args.by.limit()));
    let (mut left, mut asked) = (args.count.unwrap_or(usize::MAX), true);
    while left > 0 {
        let event = tokio::select! {
            event = events.recv() => event,
            why = &mut in_vain => return Err(why.context("not watched")),
            ended = &mut watching, if asked => {
                asked = false;
                ended?.context("not watched")?;
                continue;
            }
            _ = tokio::signal::ctrl_c() => break,
        };
        match event {
            Some(Event::Presence(shown)) => {
                for presence in shown.iter().take(left) {
                    say!("{}", line(presence));
                }
                left = left.saturating_sub(shown.len());
            }
            Some(other) => talk::tell(&other),
            None => bail!("the connection ended: {:?}", *client.state().borrow()),
        }
    }
    client.close().await;
    Ok(())
}

fn line(presence: &Presence) -> String {
    let Presence { user, status, since, last_seen, .. } = presence;
    let status = match status {
        Status::Online => "online",
        Status::Away => "away",
        Status::Offline => "offline",
    };
    let since = since.as_ref().map(|at| format!(" since {at}")).unwrap_or_default();
    let seen = last_seen.as_ref().map(|at| format!(", last seen {at}")).unwrap_or_default();
    format!("{user} is {status}{since}{seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_was_last_seen_and_who_never_came_was_not() {
        let user = UserId::new("bob").unwrap();
        let (since, last_seen) = (Some("then".to_owned()), Some("before".to_owned()));
        let gone = Presence { user, status: Status::Offline, since, last_seen, stale: false };
        assert_eq!(line(&gone), "bob is offline since then, last seen before");
        assert_eq!(line(&Presence { since: None, last_seen: None, ..gone }), "bob is offline");
    }
}
