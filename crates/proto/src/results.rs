//! The answers to clients' events, `client_results`, which the customers' own processors write, and what a process could
//! not place, `dead_letters`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::ids::{MessageId, UserId};
use crate::limits::FRAME_BYTES_MAX;
use crate::reading::{check_text, fault, read};
use crate::time::rfc3339;

/// Topic names.
pub const CLIENT_RESULTS: &str = "client_results";
/// Has [`Refused`] records.
pub const DEAD_LETTERS: &str = "dead_letters";
/// The kind of a message that is a result.
pub const RESULT: &str = "result";
/// Who results are from; no user's id begins with `#`.
pub const PROCESSOR: &str = "#processor";
/// Who a result is from that only says that none came in time.
pub const TIMER: &str = "#timer";

/// A record of `client_results` (key: client).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientResult {
    /// What the processor calls it.
    pub kind: String,
    /// Whose inbox it is for.
    pub client_id: UserId,
    /// What it is the result of.
    pub event_id: MessageId,
    /// That of the event, unless the record has its own: several results of one event need different ones.
    pub result_id: MessageId,
    /// All of the record, as it is.
    pub record: Json,
}

impl ClientResult {
    /// Reads what anybody may have written.
    ///
    /// # Errors
    /// Why it cannot be taken: larger than [`FRAME_BYTES_MAX`], no JSON, U+0000 or half a surrogate pair in a text, too deep, or `type`,
    /// `client_id`, `event_id` or `result_id` are not what they must be.
    pub fn parse(record: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(rename = "type")]
            kind: String,
            client_id: UserId,
            event_id: MessageId,
            result_id: Option<MessageId>,
        }
        if record.len() > FRAME_BYTES_MAX {
            return Err(format!("{} bytes are more than {FRAME_BYTES_MAX}", record.len()));
        }
        let text = std::str::from_utf8(record).map_err(|e| format!("not UTF-8: {e}"))?;
        check_text(text).map_err(|e| e.message)?;
        let Head { kind, client_id, event_id, result_id } = read(text)?;
        client_id.check_reserved().map_err(|e| e.message)?;
        let result_id = result_id.unwrap_or_else(|| event_id.clone());
        let record = serde_json::from_str(text).map_err(|e| fault(&e))?;
        Ok(Self { kind, client_id, event_id, result_id, record })
    }
}

/// What a client is told when no result came in time: the `data` of a message of the kind [`RESULT`].
pub fn timed_out(client: &UserId, event: &MessageId, created_ms: u64) -> Box<RawValue> {
    #[derive(Serialize)]
    struct TimedOut<'a> {
        r#type: &'a str,
        client_id: &'a UserId,
        event_id: &'a MessageId,
        created_at: String,
    }
    let created_at = rfc3339(created_ms);
    let told = TimedOut { r#type: "event_timeout", client_id: client, event_id: event, created_at };
    serde_json::value::to_raw_value(&told).expect("plain fields always encode")
}

/// A record of `dead_letters` (key: as the original's): a record of another topic that a process could not place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Where the original is.
    pub topic: String,
    /// Of that topic.
    pub partition: u32,
    /// In that partition.
    pub offset: u64,
    /// The original, as text.
    pub key: String,
    /// What is not UTF-8 in it is replaced (U+FFFD).
    pub payload: String,
    /// For people.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_kept_as_it_is() {
        let text = r#"{"type":"event_accepted", "client_id":"alice","event_id":"e-1","more":[1.50]}"#;
        let result = ClientResult::parse(text.as_bytes()).unwrap();
        assert_eq!((result.kind.as_str(), result.client_id.as_str()), ("event_accepted", "alice"));
        assert_eq!((result.event_id.as_str(), result.result_id.as_str()), ("e-1", "e-1"));
        assert_eq!(result.record.get(), text);
        let own = text.replace("\"more\"", "\"result_id\":\"r-2\",\"more\"");
        assert_eq!(ClientResult::parse(own.as_bytes()).unwrap().result_id.as_str(), "r-2");
    }

    #[test]
    fn what_is_no_result_says_why() {
        let large = format!(
            r#"{{"type":"t","client_id":"a","event_id":"e","data":"{}"}}"#,
            "x".repeat(FRAME_BYTES_MAX)
        );
        for (record, why) in [
            (&b"{"[..], "EOF"),
            (b"\xff", "not UTF-8"),
            (br#"["t","a","e",null]"#, "a JSON object is expected"),
            (br#"{"client_id":"a","event_id":"e"}"#, "missing field `type`"),
            (br#"{"type":"t","event_id":"e"}"#, "missing field `client_id`"),
            (br##"{"type":"t","client_id":"#a","event_id":"e"}"##, "must not start with '#'"),
            (br#"{"type":"t","client_id":"a","event_id":7}"#, "invalid type"),
            (br#"{"type":"t","client_id":"roost.canary.1","event_id":"e"}"#, "reserved"),
            (br#"{"type":"t","client_id":"a","event_id":"e","result_id":"r r"}"#, "message id"),
            (br#"{"type":"t","client_id":"a","event_id":"e","data":"\u0000"}"#, "U+0000"),
            (br#"{"type":"t","client_id":"a","event_id":"e","data":"\ud83d"}"#, "not Unicode"),
            (large.as_bytes(), "bytes are more than 65536"),
        ] {
            let reason = ClientResult::parse(record).expect_err(why);
            assert!(reason.contains(why), "{reason}");
            assert!(!reason.contains('\0'));
        }
        let deep = format!(
            r#"{{"type":"t","client_id":"a","event_id":"e","data":{}{}}}"#,
            "[".repeat(40),
            "]".repeat(40)
        );
        assert!(ClientResult::parse(deep.as_bytes()).unwrap_err().contains("deeper"));
    }

    #[test]
    fn what_could_not_be_placed_names_its_original() {
        let text = r#"{"topic":"client_results","partition":3,"offset":17,"key":"k","payload":"{}","reason":"unknown client: k"}"#;
        let refused: Refused = serde_json::from_str(text).unwrap();
        assert_eq!((refused.topic.as_str(), refused.partition, refused.offset), (CLIENT_RESULTS, 3, 17));
        assert_eq!(serde_json::to_string(&refused).unwrap(), text);
    }
}
