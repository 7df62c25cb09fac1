//! The answers of the application's own processors to what clients asked: the records of `client_results`
//! (key: the client), and of `dead_letters`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::frames::check_text;
use crate::ids::{MessageId, UserId};
use crate::limits::FRAME_BYTES_MAX;
use crate::time::rfc3339;

/// Topic names.
pub const CLIENT_RESULTS: &str = "client_results";
/// Records that a process could not place (key: as it was).
pub const DEAD_LETTERS: &str = "dead_letters";
/// The group under which nodes commit how far they have handed results out.
pub const RESULTS_GROUP: &str = "roost-results";
/// The kind of a message that is a result.
pub const RESULT: &str = "result";
/// Who results are from; no user's id begins with `#`.
pub const PROCESSOR: &str = "#processor";
/// Who a result is from that only says that none came in time.
pub const TIMER: &str = "#timer";

/// What was read out of a record of `client_results`. The record itself is what the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientResult {
    pub client: UserId,
    pub event: MessageId,
    /// Under this id it is in the inbox.
    pub id: MessageId,
}

impl ClientResult {
    /// Reads a record, whoever made it.
    ///
    /// # Errors
    /// Why no client can be sent it.
    pub fn parse(record: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(rename = "type")]
            _type: String,
            client_id: UserId,
            event_id: MessageId,
            result_id: Option<MessageId>,
        }
        if record.len() > FRAME_BYTES_MAX {
            return Err(format!("{} bytes, and a result has at most {FRAME_BYTES_MAX}", record.len()));
        }
        let text = std::str::from_utf8(record).map_err(|_| "not UTF-8".to_owned())?;
        check_text(text).map_err(|error| error.message)?;
        let fields: Fields = serde_json::from_str(text).map_err(|e| format!("not a result: {e}"))?;
        let Fields { client_id: client, event_id: event, result_id, .. } = fields;
        Ok(Self { client, id: result_id.unwrap_or_else(|| event.clone()), event })
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

/// A record of [`DEAD_LETTERS`]: what it was, where, and why nobody took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    pub key: String,
    pub payload: String,
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_by_its_own_id_or_by_its_event() {
        let parse = |text: &str| ClientResult::parse(text.as_bytes());
        let one =
            parse(r#"{"type":"event_accepted","client_id":"alice","event_id":"e-1","status":"ok","x":[]}"#);
        assert_eq!(one.map(|r| (r.client.to_string(), r.id.to_string())), Ok(("alice".into(), "e-1".into())));
        let two = parse(r#"{"type":"t","client_id":"alice","event_id":"e-1","result_id":"r-2"}"#).unwrap();
        assert_eq!((two.event.as_str(), two.id.as_str()), ("e-1", "r-2"));
    }

    #[test]
    fn what_no_client_can_be_sent_says_why() {
        let ok = r#"{"type":"t","client_id":"alice","event_id":"e-1","data":DATA}"#;
        for (record, why) in [
            ("{".to_owned(), "not a result"),
            ("[]".to_owned(), "not a result"),
            (r#"{"type":"t","event_id":"e-1"}"#.to_owned(), "not a result: missing field `client_id`"),
            (ok.replace("alice", ""), "not a result"),
            (ok.replace("DATA", r#""a\u0000b""#), "a text contains U+0000"),
            (ok.replace("DATA", &format!("\"{}\"", "x".repeat(1 << 20))), "1048"),
            (ok.replace("DATA", &format!("{}{}", "[".repeat(40), "]".repeat(40))), "nested deeper"),
        ] {
            let reason = ClientResult::parse(record.as_bytes()).expect_err(why);
            assert!(reason.starts_with(why), "{reason}");
        }
    }
}
