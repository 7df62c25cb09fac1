//! What the user of this store may do: tested before anything else, and again after a refusal.
//!
//! Redis takes nothing back: a script whose third command is refused has done two. So after a refusal nothing is written
//! before every command was permitted again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script, Value, cmd};
use tokio::time::{Instant, timeout};

use super::RedisStore;
use super::link::{DIAL_TIMEOUT, Lane, Link};
use super::reply::{Fields, failed};
use crate::store::StoreError;

/// Between two tests, however many calls wait for one.
const AGAIN: Duration = Duration::from_secs(1);

static SELF_TEST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("self_test.lua")));

/// What was refused last, until a test finds that it is permitted.
#[derive(Default)]
pub(super) struct Rights {
    doubt: Mutex<Option<Doubt>>,
    /// The test at the start was passed. Before it nothing is noted: what is refused then is what a program ends with.
    passed: AtomicBool,
}

struct Doubt {
    refused: String,
    /// A script could stop half-way: nothing is written. What is only published, or listened to, stops nothing.
    stops: bool,
    tested: Option<Instant>,
}

/// Whether this refusal is of a channel.
fn is_of_a_channel(refused: &str) -> bool {
    refused.starts_with("PUBLISH") || refused.starts_with("SUBSCRIBE")
}

/// Whether this says that the user may not do something, which does not pass by itself.
pub(super) fn denies(text: &str) -> bool {
    ["NOPERM", "NoPerm", "The user executing the script", "nknown Redis command", "unknown command"]
        .iter()
        .any(|sign| text.contains(sign))
}

impl Rights {
    pub(super) fn note(&self, error: &RedisError) {
        if !error.is_io_error() {
            self.note_text(&error.to_string(), true);
        }
    }

    /// Something was not published, or is not heard.
    pub(super) fn note_channel(&self, text: &str) {
        self.note_text(text, false);
    }

    fn note_text(&self, text: &str, stops: bool) {
        if !denies(text) || !self.passed.load(Ordering::Acquire) {
            return;
        }
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if doubt.as_ref().is_none_or(|doubt| stops && !doubt.stops) {
            tracing::warn!(refused = text, "Redis refuses what this user must be permitted");
            *doubt = Some(Doubt { refused: text.into(), stops, tested: None });
        }
    }

    /// What was refused, whether it stops writing, and whether to test it again now.
    fn doubted(&self) -> Option<(String, bool, bool)> {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        let doubt = doubt.as_mut()?;
        let again = doubt.tested.is_none_or(|at| at.elapsed() >= AGAIN);
        if again {
            doubt.tested = Some(Instant::now());
        }
        Some((doubt.refused.clone(), doubt.stops, again))
    }

    fn tested(&self, refused: &[String]) {
        let mut doubt = self.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_empty() {
            tracing::info!("Redis permits everything again");
            *doubt = None;
        } else if let Some(doubt) = doubt.as_mut() {
            doubt.stops = !refused.iter().all(|refused| is_of_a_channel(refused));
            let before = std::mem::replace(&mut doubt.refused, lacks(refused));
            if before != doubt.refused {
                tracing::warn!("{}", doubt.refused);
            }
        }
    }
}

fn lacks(refused: &[String]) -> String {
    format!("the Redis user of this process may not do: {}", refused.join(", "))
}

/// What an error says may not be done, if it does: the command that it names, or all of its text.
fn denied(error: &RedisError) -> Option<String> {
    let text = error.to_string();
    let named = text.split_once("to run the '").and_then(|(_, rest)| rest.split('\'').next());
    denies(&text).then(|| named.map_or_else(|| text.clone(), str::to_uppercase))
}

/// Of what was asked while a connection is made: what is refused there does not pass by itself. A script does not say
/// which of its commands it was.
pub(super) async fn refused_at_start(
    connection: &mut MultiplexedConnection,
    error: &RedisError,
) -> StoreError {
    let Some(refused) = denied(error) else { return failed(error) };
    match refused_commands(connection, "{roost}", "").await {
        Ok(commands) if !commands.is_empty() => StoreError::Config(lacks(&commands)),
        _ => StoreError::Config(lacks(&[refused])),
    }
}

/// What is refused of the scripts' commands, on keys and a channel under this hash tag.
async fn refused_commands(
    connection: &mut MultiplexedConnection,
    place: &str,
    channel: &str,
) -> Result<Vec<String>, StoreError> {
    let mut script = SELF_TEST.prepare_invoke();
    for kind in ["text", "hash", "stream"] {
        script.key(format!("{place}:self-test:{kind}"));
    }
    script.arg(channel);
    match script.invoke_async::<Value>(connection).await {
        Ok(answer) => {
            let (mut fields, mut refused) = (Fields::new(answer)?, Vec::new());
            while !fields.done() {
                refused.push(fields.text()?);
            }
            Ok(refused)
        }
        Err(error) => {
            let lacks_keys = error.to_string().contains("access one of the keys");
            let refused = denied(&error).ok_or_else(|| failed(&error))?;
            Ok(vec![if lacks_keys { format!("keys {place}:*") } else { refused }])
        }
    }
}

impl RedisStore {
    /// Nothing is written while a command is refused: a script could do half of it.
    pub(super) async fn may(&self, link: &Arc<Link>) -> Result<(), StoreError> {
        match self.doubted(link).await? {
            Some((refused, true)) => Err(StoreError::Refused(refused)),
            Some((_, false)) | None => Ok(()),
        }
    }

    /// Whether everything is permitted, channels too.
    pub(super) async fn permitted(&self, link: &Arc<Link>) -> Result<(), StoreError> {
        self.doubted(link).await?.map_or(Ok(()), |(refused, _)| Err(StoreError::Refused(refused)))
    }

    /// What is refused, tested anew from time to time, and whether it stops writing.
    async fn doubted(&self, link: &Arc<Link>) -> Result<Option<(String, bool)>, StoreError> {
        let Some((refused, stops, again)) = self.rights.doubted() else { return Ok(None) };
        if !again {
            return Ok(Some((refused, stops)));
        }
        let refused = self.refused(link).await?;
        self.rights.tested(&refused);
        Ok(self.rights.doubted().map(|(refused, stops, _)| (refused, stops)))
    }

    pub(super) async fn check_rights(&self) -> Result<(), StoreError> {
        let refused = self.refused(&self.links.get(Lane::Control).await?).await?;
        if !refused.is_empty() {
            return Err(StoreError::Config(lacks(&refused)));
        }
        self.rights.passed.store(true, Ordering::Release);
        Ok(())
    }

    /// Everything that this user would have to be permitted.
    async fn refused(&self, link: &Arc<Link>) -> Result<Vec<String>, StoreError> {
        let mut refused = BTreeSet::new();
        for place in ["{roost}", "{v0}"] {
            let channel = self.channels.named(&format!("{place}:self-test"));
            refused.extend(refused_commands(&mut link.connection(), place, &channel).await?);
        }
        refused.extend(self.refused_transaction().await?);
        refused.extend(self.refused_channels().await?);
        Ok(refused.into_iter().collect())
    }

    /// On a connection of its own and one by one: in a pipeline the driver does not survive that MULTI is refused.
    async fn refused_transaction(&self) -> Result<Vec<String>, StoreError> {
        let dial = timeout(DIAL_TIMEOUT, self.client.get_multiplexed_async_connection()).await;
        let dial = dial.map_err(|_| StoreError::Timeout(DIAL_TIMEOUT))?;
        let (mut connection, mut refused) = (dial.map_err(|e| failed(&e))?, Vec::new());
        for command in ["MULTI", "PING", "EXEC"] {
            let answer = cmd(command).query_async::<Value>(&mut connection).await;
            refused.extend(answer.err().as_ref().and_then(denied));
        }
        Ok(refused)
    }

    async fn refused_channels(&self) -> Result<Vec<String>, StoreError> {
        let away = |e: &dyn std::fmt::Display| StoreError::Unreachable(e.to_string());
        let dial = timeout(DIAL_TIMEOUT, self.client.get_async_pubsub()).await.map_err(|e| away(&e))?;
        let (mut sink, _messages) = dial.map_err(|e| failed(&e))?.split();
        let mut refused = Vec::new();
        for place in ["{roost}", "{v0}"] {
            let channel = self.channels.named(&format!("{place}:self-test"));
            let done = timeout(DIAL_TIMEOUT, sink.subscribe(&channel)).await.map_err(|e| away(&e))?;
            if let Err(error) = done {
                denied(&error).ok_or_else(|| failed(&error))?;
                refused.push(format!("SUBSCRIBE {channel}"));
            }
        }
        Ok(refused)
    }
}

#[cfg(test)]
mod tests {
    const TEST: &str = include_str!("self_test.lua");

    /// Two scripts choose their command: `activate.lua` between XLEN and HLEN, `window.lua` between two ranges.
    #[test]
    fn the_self_test_does_every_command_that_a_script_does() {
        let scripts = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/redis")).unwrap();
        let (mut seen, mut missing) = (0, Vec::new());
        for path in scripts.map(|entry| entry.unwrap().path()) {
            if path.extension().is_none_or(|e| e != "lua") || path.ends_with("self_test.lua") {
                continue;
            }
            let code = std::fs::read_to_string(&path).unwrap();
            for call in code.split("call('").skip(1) {
                let command = call.split('\'').next().unwrap();
                seen += 1;
                if !TEST.contains(&format!("try('{command}'")) {
                    missing.push(command.to_owned());
                }
            }
        }
        assert!(seen > 40 && missing.is_empty(), "{seen} calls; not tested: {missing:?}");
        for command in ["XLEN", "HLEN", "XRANGE", "XREVRANGE"] {
            assert!(TEST.contains(&format!("try('{command}'")), "{command}");
        }
    }
}
