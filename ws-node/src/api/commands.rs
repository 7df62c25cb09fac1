//! The bodies of the server API: what is asked, checked field by field.

use roost_proto::history::Before;
use roost_proto::limits::{BATCH_COMMANDS_MAX, FRAME_BYTES_MAX, PRESENCE_USERS_MAX, REASON_BYTES_MAX};
use roost_proto::reading::{self, check_text};
use roost_proto::results::ClientResult;
use roost_proto::{ErrorBody, ErrorCode, MessageId, RoomId, StreamId, UserId};
use roost_service::query;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::access::bad;
use crate::core::ApiCommand;

/// Every command.
pub(super) const NAMES: [&str; 9] =
    ["send", "publish", "result", "disconnect", "presence", "history", "tickets", "events", "batch"];
/// Said to whom is disconnected, if nothing else is.
const REASON: &str = "disconnected by the application";

/// What is asked.
#[derive(Debug)]
pub(super) enum Asked {
    Do(ApiCommand),
    Batch(Vec<Result<ApiCommand, ErrorBody>>),
    Presence(Vec<UserId>),
    History {
        stream: StreamId,
        before: Option<Before>,
        limit: Option<usize>,
    },
    /// Events that wait for a result, of one client or of anybody.
    Tickets(Option<UserId>),
}

#[derive(Deserialize)]
struct SendBody {
    id: MessageId,
    to: UserId,
    data: Box<RawValue>,
    from: Option<UserId>,
    receipt: Option<bool>,
}

#[derive(Deserialize)]
struct PublishBody {
    id: MessageId,
    room: RoomId,
    data: Box<RawValue>,
    from: Option<UserId>,
}

#[derive(Deserialize)]
struct DisconnectBody {
    user: UserId,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct PresenceBody {
    users: Vec<UserId>,
}

#[derive(Deserialize)]
struct HistoryBody {
    stream: StreamId,
    before: Option<Before>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct BatchBody {
    commands: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Tagged {
    r#type: String,
}

pub(super) fn unknown(command: &str) -> ErrorBody {
    let shown: String = command.chars().take(32).collect();
    ErrorBody::new(ErrorCode::NotFound, format!("there is no command '{shown}'"))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, ErrorBody> {
    reading::read(text).map_err(bad)
}

/// Reads the body of a command; whoever `from` does not name sends as `sub`.
///
/// # Errors
/// `bad_request`, `too_large`, `not_found`.
pub(super) fn parse(command: &str, text: &str, sub: &UserId) -> Result<Asked, ErrorBody> {
    match command {
        "batch" => {
            let BatchBody { commands } = read(text)?;
            if !(1..=BATCH_COMMANDS_MAX).contains(&commands.len()) {
                return Err(bad(format!("a batch has 1 to {BATCH_COMMANDS_MAX} commands")));
            }
            Ok(Asked::Batch(commands.iter().map(|command| call_of(command.get(), sub)).collect()))
        }
        "presence" => {
            check_text(text)?;
            let PresenceBody { users } = read(text)?;
            if users.len() > PRESENCE_USERS_MAX {
                return Err(bad(format!("at most {PRESENCE_USERS_MAX} users at a time")));
            }
            Ok(Asked::Presence(users))
        }
        "history" => {
            check_text(text)?;
            let HistoryBody { stream, before, limit } = read(text)?;
            Ok(Asked::History { stream, before, limit })
        }
        _ => call(command, text, sub).map(Asked::Do),
    }
}

/// `GET /api/history?stream=…`.
pub(super) fn history(query: &str) -> Result<Asked, ErrorBody> {
    let HistoryBody { stream, before, limit } = query::read(query)?;
    Ok(Asked::History { stream, before, limit })
}

/// `GET /api/tickets?userId=…`.
pub(super) fn tickets(query: &str) -> Result<Asked, ErrorBody> {
    #[derive(Deserialize)]
    struct Whose {
        #[serde(rename = "userId")]
        user_id: Option<UserId>,
    }
    let Whose { user_id } = query::read(query)?;
    Ok(Asked::Tickets(user_id))
}

/// One command of a batch: as a frame of a client, with its `type`.
fn call_of(text: &str, sub: &UserId) -> Result<ApiCommand, ErrorBody> {
    check_text(text)?;
    let Tagged { r#type } = read(text)?;
    match r#type.as_str() {
        "presence" | "history" | "result" | "batch" => {
            Err(bad(format!("'{}' does not go into a batch", r#type)))
        }
        command => call(command, text, sub),
    }
}

/// Whoever is not named sends as the service.
fn sender(from: Option<UserId>, sub: &UserId) -> Result<UserId, ErrorBody> {
    let from = from.unwrap_or_else(|| sub.clone());
    from.check_reserved().map(|()| from)
}

fn call(command: &str, text: &str, sub: &UserId) -> Result<ApiCommand, ErrorBody> {
    if text.len() > FRAME_BYTES_MAX {
        return Err(ErrorBody::new(ErrorCode::TooLarge, format!("over {FRAME_BYTES_MAX} bytes")));
    }
    check_text(text)?;
    match command {
        "send" => {
            let SendBody { id, to, data, from, receipt } = read(text)?;
            to.check_reserved()?;
            let from = sender(from, sub)?;
            Ok(ApiCommand::Append {
                stream: StreamId::inbox(&to),
                from,
                id,
                data,
                receipt: receipt.unwrap_or_default(),
            })
        }
        "publish" => {
            let PublishBody { id, room, data, from } = read(text)?;
            let from = sender(from, sub)?;
            Ok(ApiCommand::Append { stream: StreamId::of_room(&room), from, id, data, receipt: false })
        }
        "result" => {
            let ClientResult { client_id, .. } = ClientResult::parse(text.as_bytes()).map_err(bad)?;
            Ok(ApiCommand::Result { client: client_id, record: text.to_owned().into() })
        }
        "disconnect" => {
            let DisconnectBody { user, reason } = read(text)?;
            let reason = reason.unwrap_or_else(|| REASON.to_owned());
            if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
                let why = format!("'reason' is at most {REASON_BYTES_MAX} bytes, without control characters");
                return Err(bad(why));
            }
            Ok(ApiCommand::Disconnect { user, reason })
        }
        other => Err(unknown(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(command: &str, text: &str) -> Option<(ErrorCode, String)> {
        let sub = UserId::new("backend").unwrap();
        parse(command, text, &sub).err().map(|error| (error.code, error.message))
    }

    #[test]
    fn a_body_is_refused_with_the_code_of_its_fault() {
        use ErrorCode::{BadRequest, NotFound, TooLarge};
        let deep = format!(r#"{{"id":"a","to":"b","data":{}{}}}"#, "[".repeat(32), "]".repeat(32));
        let large = format!(r#"{{"id":"a","to":"b","data":"{}"}}"#, "x".repeat(FRAME_BYTES_MAX));
        let users = serde_json::json!({"users": vec!["u"; PRESENCE_USERS_MAX + 1]}).to_string();
        let many = format!(r#"{{"commands":[{}]}}"#, vec!["{}"; BATCH_COMMANDS_MAX + 1].join(","));
        let reason = format!(r#"{{"user":"bob","reason":"{}"}}"#, "x".repeat(REASON_BYTES_MAX + 1));
        for (command, text, wanted, part) in [
            ("send", "nonsense", BadRequest, "expected"),
            ("send", r#"{"to":"bob","data":1}"#, BadRequest, "missing field `id`"),
            ("send", r#"{"id":"a","to":"bob"}"#, BadRequest, "missing field `data`"),
            ("send", r##"{"id":"a","to":"#bob","data":1}"##, BadRequest, "must not start with '#'"),
            (
                "send",
                r##"{"id":"a","to":"bob","data":1,"from":"#x"}"##,
                BadRequest,
                "must not start with '#'",
            ),
            ("send", r#"{"id":"a b","to":"bob","data":1}"#, BadRequest, "message id"),
            ("send", r#"{"id":"a","to":"bob","data":"\u0000"}"#, BadRequest, "U+0000"),
            ("send", &deep, BadRequest, "nested deeper"),
            ("send", &large, TooLarge, "65536"),
            ("publish", r#"{"id":"a","data":1}"#, BadRequest, "missing field `room`"),
            ("publish", r#"{"id":"a","room":"","data":1}"#, BadRequest, "room id"),
            ("disconnect", "{}", BadRequest, "missing field `user`"),
            ("disconnect", &reason, BadRequest, "at most 120 bytes"),
            ("disconnect", r#"{"user":"bob","reason":"a\nb"}"#, BadRequest, "control characters"),
            ("presence", &users, BadRequest, "at most 500"),
            ("history", r#"{"stream":"inbox:bob"}"#, BadRequest, "a stream is"),
            ("history", r#"{"stream":"user:bob","before":"x"}"#, BadRequest, "an earlier page"),
            ("batch", r#"{"commands":[]}"#, BadRequest, "1 to 100"),
            ("batch", &many, BadRequest, "1 to 100"),
            ("dance", "{}", NotFound, "dance"),
        ] {
            let (found, message) =
                code(command, text).unwrap_or_else(|| panic!("{command} {text} was taken"));
            assert_eq!(found, wanted, "{command} {text}: {message}");
            assert!(message.contains(part), "{command} {text}: {message}");
        }
        assert!(history("stream=user:bob&limit=x").is_err() && history("").is_err());
    }

    #[test]
    fn one_wrong_command_of_a_batch_does_not_spoil_the_others() {
        let batch = r#"{"commands":[
            {"type":"send","id":"a","to":"bob","data":{"x": 1.50}},
            {"type":"history","stream":"user:bob"}, 7, {"type":"send","id":"b"},
            {"type":"disconnect","user":"eve"}]}"#;
        let sub = UserId::new("backend").unwrap();
        let Ok(Asked::Batch(commands)) = parse("batch", batch, &sub) else { panic!("it is a batch") };
        let Ok(ApiCommand::Append { from, data, .. }) = &commands[0] else { panic!("a send") };
        assert_eq!((from.as_str(), data.get()), ("backend", r#"{"x": 1.50}"#), "kept to the byte");
        assert!(commands[1..4].iter().all(Result::is_err), "{commands:?}");
        assert!(matches!(&commands[4], Ok(ApiCommand::Disconnect { user, .. }) if user.as_str() == "eve"));
    }
}
