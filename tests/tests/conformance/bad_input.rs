//! Everything that is refused, and how: one table, and the limits that take more than one line.

use roost_ws_node::core::ShareConfig;
use std::future::Future;
use std::pin::Pin;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header};
use roost_proto::claims::Role;
use roost_tests::cluster::{AUDIENCE, Backend, Cluster, ISSUER, Setup, now_s, secret, token, token_of};
use roost_tests::wire::{Answer, Dial, Incoming, Wire, get, request};
use serde_json::{Value, json};

use crate::held_log::HeldLog;

/// Bytes of the largest frame.
const FRAME_BYTES_MAX: usize = 65_536;
const SESSIONS_MAX: usize = 16;
const UNANSWERED_MAX: usize = 256;

/// What is done wrong.
enum Input {
    /// A request to the coordinator.
    Http(&'static str, String),
    /// A request to a node's public port, with these headers.
    Handshake(&'static str, &'static str, Vec<(&'static str, String)>),
    /// An upgrade that works, then this instead of a good `connect`.
    First(Say),
    /// A good session, then this.
    Later(Say),
    /// A good `connect`, to a node that is not home.
    Elsewhere,
}

enum Say {
    Nothing,
    Json(Value),
    Text(String),
    Bytes(&'static [u8]),
    Binary(&'static [u8]),
    /// A frame whose opcode RFC 6455 reserves.
    Reserved,
    /// One text in two fragments.
    Halves(String),
    Times(usize, &'static str),
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// An HTTP status, and the code in the body if there must be one.
    Status(u16, Option<&'static str>),
    Closed(u16),
    /// The last reply: its id and code.
    Refused(Option<&'static str>, &'static str),
    /// The reply to this id is `ok`.
    Done(&'static str),
    /// A frame of this type.
    Frame(&'static str),
}

use Input::{Elsewhere, First, Handshake, Http, Later};
use Outcome::{Closed, Done, Refused, Status};

/// What a good handshake has.
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A good handshake with some headers added or, if empty, left out.
fn upgrade(changed: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let kept = UPGRADE.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| other == name));
    let added = changed.iter().filter(|(_, value)| !value.is_empty());
    kept.chain(added).map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn hs256(claims: Value) -> String {
    let key = EncodingKey::from_secret(secret().expose().as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token")
}

/// Good claims with some changed, or left out where they are null.
fn claims(changed: Value) -> Value {
    let mut claims = json!({"sub": "alice", "exp": now_s() + 3_600, "aud": AUDIENCE, "iss": ISSUER});
    let fields = claims.as_object_mut().expect("an object");
    for (name, value) in changed.as_object().expect("an object") {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    claims
}

fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

/// A good token whose payload was changed without the key.
fn forged() -> String {
    let good = token("alice", now_s() + 3_600);
    let (head, signature) =
        (good.split('.').next().expect("a head"), good.rsplit('.').next().expect("a signature"));
    format!("{head}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(claims(json!({"sub": "eve"})).to_string()))
}

fn of_another_secret() -> String {
    let key = EncodingKey::from_secret(b"another secret of more than thirty-two bytes");
    jsonwebtoken::encode(&Header::default(), &claims(json!({})), &key).expect("a token")
}

fn connect(token: &str) -> Input {
    First(Say::Json(json!({"type": "connect", "token": token})))
}

fn connect_with(field: &str, value: Value) -> Input {
    let mut frame = json!({"type": "connect", "token": token("alice", now_s() + 3_600)});
    frame[field] = value;
    First(Say::Json(frame))
}

/// A good `connect`, and these fields as they are written.
fn connect_text(fields: &str) -> Input {
    let token = token("alice", now_s() + 3_600);
    First(Say::Text(format!(r#"{{"type":"connect","token":"{token}",{fields}}}"#)))
}

/// A `send` to bob under the id `x`, with one field replaced, or left out if null.
fn send_with(field: &str, value: Value) -> Input {
    let mut frame = json!({"type": "send", "id": "x", "to": "bob", "data": 1});
    match value {
        Value::Null => drop(frame.as_object_mut().expect("an object").remove(field)),
        value => frame[field] = value,
    }
    Later(Say::Json(frame))
}

fn text(frame: impl Into<String>) -> Input {
    Later(Say::Text(frame.into()))
}

/// A `send` whose frame is nested this deep.
fn nested(depth: usize) -> String {
    let inner = depth - 1;
    format!(r#"{{"type":"send","id":"x","to":"bob","data":{}{}}}"#, "[".repeat(inner), "]".repeat(inner))
}

/// A `send` whose frame has this many bytes.
fn sized(bytes: usize) -> String {
    let (head, tail) = (r#"{"type":"send","id":"x","to":"bob","data":""#, r#""}"#);
    format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
}

const ID_65: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const ID_64: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const BAD: &str = "bad_request";

#[rustfmt::skip]
fn http_cases() -> Vec<(&'static str, Input, Outcome)> {
    let users = |n: usize| (0..n).map(|i| format!("u{i}")).collect::<Vec<_>>().join(",");
    vec![
        ("route without a user", Http("GET", "/route".into()), Status(400, Some(BAD))),
        ("route with an empty user", Http("GET", "/route?userId=".into()), Status(400, Some(BAD))),
        ("route with 128 bytes", Http("GET", format!("/route?userId={}", "u".repeat(128))), Status(200, None)),
        ("route with 129 bytes", Http("GET", format!("/route?userId={}", "u".repeat(129))), Status(400, Some(BAD))),
        ("route of a room", Http("GET", "/route?userId=%23lobby".into()), Status(400, Some(BAD))),
        ("route with a control character", Http("GET", "/route?userId=a%0Ab".into()), Status(400, Some(BAD))),
        ("presence without users", Http("GET", "/presence".into()), Status(400, Some(BAD))),
        ("presence of nobody", Http("GET", "/presence?userIds=".into()), Status(400, Some(BAD))),
        ("presence with an empty name", Http("GET", "/presence?userIds=a,,b".into()), Status(400, Some(BAD))),
        ("presence of a room", Http("GET", "/presence?userIds=a,%23b".into()), Status(400, Some(BAD))),
        ("presence of 500", Http("GET", format!("/presence?userIds={}", users(500))), Status(200, None)),
        ("presence of 501", Http("GET", format!("/presence?userIds={}", users(501))), Status(400, Some(BAD))),
        ("route with what is not UTF-8", Http("GET", "/route?userId=%FF".into()), Status(400, Some(BAD))),
        ("route with half a character", Http("GET", "/route?userId=zo%C3".into()), Status(400, Some(BAD))),
        ("route with half a surrogate pair", Http("GET", "/route?userId=%ED%A0%BD".into()), Status(400, Some(BAD))),
        ("route with no escape", Http("GET", "/route?userId=%zz".into()), Status(400, Some(BAD))),
        ("presence with what is not UTF-8", Http("GET", "/presence?userIds=a,%FF".into()), Status(400, Some(BAD))),
        ("what only a proxy takes", Http("CONNECT", "a:1".into()), Status(405, Some(BAD))),
        ("of the server itself", Http("OPTIONS", "*".into()), Status(400, Some(BAD))),
        ("route by POST", Http("POST", "/route?userId=alice".into()), Status(405, Some(BAD))),
        ("no such path", Http("GET", "/nothing".into()), Status(404, Some("not_found"))),
        ("a head of more than 16 KiB", Http("GET", format!("/route?userId={}", "u".repeat(17_000))), Status(431, None)),
    ]
}

#[rustfmt::skip]
fn handshake_cases() -> Vec<(&'static str, Input, Outcome)> {
    let socket = |changed: &[(&'static str, &str)]| Handshake("GET", "/socket", upgrade(changed));
    let expired = format!("Bearer {}", token("alice", now_s() - 60));
    let good = token("alice", now_s() + 3_600);
    let headers = |n: usize| {
        let fill = (0..n).map(|_| ("x-fill", "1".to_owned()));
        Handshake("GET", "/socket", upgrade(&[]).into_iter().chain(fill).collect())
    };
    vec![
        ("a good handshake", socket(&[]), Status(101, None)),
        ("as Firefox writes it", socket(&[("connection", "keep-alive, Upgrade")]), Status(101, None)),
        ("with extensions", socket(&[("sec-websocket-extensions", "permessage-deflate")]), Status(101, None)),
        ("Connection in two lines", socket(&[("connection", "keep-alive"), ("connection", "Upgrade")]), Status(101, None)),
        ("one upgrade of several", socket(&[("upgrade", "h2c, websocket")]), Status(101, None)),
        ("Upgrade in two lines", socket(&[("upgrade", "h2c"), ("upgrade", "WebSocket")]), Status(101, None)),
        ("no upgrade", Handshake("GET", "/socket", vec![]), Status(426, Some(BAD))),
        ("another upgrade", socket(&[("upgrade", "h2c")]), Status(426, Some(BAD))),
        ("what only looks like it", socket(&[("upgrade", "websockets")]), Status(426, Some(BAD))),
        ("two hosts", socket(&[("host", "b.example")]), Status(400, Some(BAD))),
        ("no Connection: Upgrade", socket(&[("connection", "")]), Status(400, Some(BAD))),
        ("no key", socket(&[("sec-websocket-key", "")]), Status(400, Some(BAD))),
        ("no version", socket(&[("sec-websocket-version", "")]), Status(400, Some(BAD))),
        ("an old version", socket(&[("sec-websocket-version", "8")]), Status(426, Some(BAD))),
        ("by POST", Handshake("POST", "/socket", upgrade(&[])), Status(405, Some(BAD))),
        ("another path", Handshake("GET", "/", upgrade(&[])), Status(404, Some("not_found"))),
        ("another subprotocol", socket(&[("sec-websocket-protocol", "chat")]), Status(400, Some(BAD))),
        ("ours among others", socket(&[("sec-websocket-protocol", "chat, roost.v1")]), Status(101, None)),
        ("a bad token in Authorization", socket(&[("authorization", "Bearer nonsense")]), Status(401, Some("unauthorized"))),
        ("a forged one", socket(&[("authorization", &format!("Bearer {}", forged()))]), Status(401, Some("unauthorized"))),
        ("an expired one", socket(&[("authorization", &expired)]), Status(401, Some("unauthorized"))),
        ("a good one", socket(&[("authorization", &format!("Bearer {good}"))]), Status(101, None)),
        ("a bad one as subprotocol", socket(&[("sec-websocket-protocol", "roost.v1, bearer.nonsense")]), Status(401, Some("unauthorized"))),
        ("a token without roost.v1", socket(&[("sec-websocket-protocol", &format!("bearer.{good}"))]), Status(400, Some(BAD))),
        ("64 headers", headers(64 - 5), Status(101, None)),
        ("65 headers", headers(65 - 5), Status(431, None)),
    ]
}

#[rustfmt::skip]
fn connect_cases() -> Vec<(&'static str, Input, Outcome)> {
    let bad = |changed: Value| connect(&hs256(claims(changed)));
    vec![
        ("nonsense for a token", connect("nonsense"), Closed(3500)),
        ("a forged token", connect(&forged()), Closed(3500)),
        ("of another secret", connect(&of_another_secret()), Closed(3500)),
        ("with alg none", connect(&unsigned(&claims(json!({})))), Closed(3500)),
        ("for another audience", bad(json!({"aud": "others"})), Closed(3500)),
        ("for no audience", bad(json!({"aud": null})), Closed(3500)),
        ("for several, ours among them", bad(json!({"aud": ["others", AUDIENCE]})), Outcome::Frame("welcome")),
        ("of another issuer", bad(json!({"iss": "https://others.test"})), Closed(3500)),
        ("of no issuer", bad(json!({"iss": null})), Closed(3500)),
        ("without sub", bad(json!({"sub": null})), Closed(3500)),
        ("sub a room", bad(json!({"sub": "#lobby"})), Closed(3500)),
        ("sub of 129 bytes", bad(json!({"sub": "u".repeat(129)})), Closed(3500)),
        ("without exp", bad(json!({"exp": null})), Closed(3500)),
        ("exp in milliseconds", bad(json!({"exp": (now_s() + 3_600) * 1_000})), Closed(3500)),
        ("not valid yet", bad(json!({"nbf": now_s() + 600})), Closed(3500)),
        ("more than 8 KiB", bad(json!({"pad": "x".repeat(8_192)})), Closed(3500)),
        ("an unknown role", bad(json!({"role": "king"})), Closed(3500)),
        ("expired", bad(json!({"exp": now_s() - 60})), Closed(3501)),
        ("no token", First(Say::Json(json!({"type": "connect"}))), Closed(3500)),
        ("no connect in time", First(Say::Nothing), Closed(3502)),
        ("a send before connect", First(Say::Json(json!({"type": "send", "id": "x", "to": "bob", "data": 1}))), Refused(Some("x"), BAD)),
        ("a pong before connect", First(Say::Json(json!({"type": "pong"}))), Refused(None, BAD)),
        ("no JSON before connect", First(Say::Text("hello".into())), Refused(None, BAD)),
        ("ten of those", First(Say::Times(10, "hello")), Closed(3506)),
        ("a binary frame before connect", First(Say::Binary(b"{}")), Closed(1003)),
        ("not UTF-8 before connect", First(Say::Bytes(b"{\"type\":\"\xff\"}")), Closed(1007)),
        ("too large before connect", First(Say::Text(sized(FRAME_BYTES_MAX + 1))), Closed(1009)),
        ("a device of 129 bytes", connect_with("device", json!("d".repeat(129))), Refused(None, BAD)),
        ("a device with a control character", connect_with("device", json!("a\u{7}b")), Refused(None, BAD)),
        ("a token that is no text", connect_with("token", json!(7)), Refused(None, BAD)),
        ("a cursor that is no cursor", connect_with("cursor", json!(7)), Refused(None, BAD)),
        ("half a cursor", connect_with("cursor", json!({"generation": 1})), Refused(None, BAD)),
        ("a negative offset", connect_with("cursor", json!({"generation": 1, "offset": -1})), Refused(None, BAD)),
        ("a room that is no object", connect_with("rooms", json!([["lobby"]])), Refused(None, BAD)),
        ("half a pair in a room's info", connect_text(r#""rooms":[{"room":"r","info":"\ud83d"}]"#), Refused(None, BAD)),
        ("half a pair in a device", connect_text(r#""device":"\ude00""#), Refused(None, BAD)),
        ("nulls", connect_text(r#""device":null,"cursor":null,"rooms":null,"epoch":null"#), Outcome::Frame("welcome")),
        ("a field of a later version", connect_with("later", json!([])), Outcome::Frame("welcome")),
    ]
}

#[rustfmt::skip]
fn frame_cases() -> Vec<(&'static str, Input, Outcome)> {
    let status = |status: Value| Later(Say::Json(json!({"type": "status", "id": "x", "status": status})));
    let ack = |cursor: Value| Later(Say::Json(json!({"type": "ack", "cursor": cursor})));
    vec![
        ("told to move, and stays", Elsewhere, Closed(3000)),
        ("a reserved opcode", Later(Say::Reserved), Closed(1002)),
        ("binary", Later(Say::Binary(b"{\"type\":\"pong\"}")), Closed(1003)),
        ("not UTF-8", Later(Say::Bytes(b"{\"type\":\"pong\",\"x\":\"\xc3\x28\"}")), Closed(1007)),
        ("too large", text(sized(FRAME_BYTES_MAX + 1)), Closed(1009)),
        ("as large as may be", text(sized(FRAME_BYTES_MAX)), Done("x")),
        ("as large as may be, in fragments", Later(Say::Halves(sized(FRAME_BYTES_MAX))), Done("x")),
        ("too large in fragments", Later(Say::Halves(sized(FRAME_BYTES_MAX + 1))), Closed(1009)),
        ("nothing", text(""), Refused(None, BAD)),
        ("no JSON", text("hello"), Refused(None, BAD)),
        ("half of it", text(r#"{"type":"send","id":"x","#), Refused(None, BAD)),
        ("more than one", text(r#"{"type":"pong"}{"type":"pong"}"#), Refused(None, BAD)),
        ("a list", text(r#"["send"]"#), Refused(None, BAD)),
        ("null", text("null"), Refused(None, BAD)),
        ("nine of them", Later(Say::Times(9, "hello")), Refused(None, BAD)),
        ("ten of them", Later(Say::Times(10, "hello")), Closed(3506)),
        ("no type", text(r#"{"id":"x"}"#), Refused(Some("x"), BAD)),
        ("a type that is no text", text(r#"{"type":7,"id":"x"}"#), Refused(Some("x"), BAD)),
        ("an unknown type", text(r#"{"type":"dance","id":"x"}"#), Refused(Some("x"), BAD)),
        ("a server's type", text(r#"{"type":"welcome","id":"x"}"#), Refused(Some("x"), BAD)),
        ("connect twice", Later(Say::Json(json!({"type": "connect", "token": "nonsense"}))), Refused(None, BAD)),
        ("no id", send_with("id", Value::Null), Refused(None, BAD)),
        ("an id that is no text", send_with("id", json!(7)), Refused(None, BAD)),
        ("an empty id", send_with("id", json!("")), Refused(Some(""), BAD)),
        ("an id with a space", send_with("id", json!("x y")), Refused(Some("x y"), BAD)),
        ("an id beyond ASCII", send_with("id", json!("é")), Refused(Some("é"), BAD)),
        ("an id of 64 characters", send_with("id", json!(ID_64)), Done(ID_64)),
        ("an id of 65 characters", send_with("id", json!(ID_65)), Refused(Some(ID_65), BAD)),
        ("an id of all that is allowed", send_with("id", json!("aZ0_.:-")), Done("aZ0_.:-")),
        ("no recipient", send_with("to", Value::Null), Refused(Some("x"), BAD)),
        ("a recipient that is no text", send_with("to", json!(["bob"])), Refused(Some("x"), BAD)),
        ("an empty recipient", send_with("to", json!("")), Refused(Some("x"), BAD)),
        ("to a room", send_with("to", json!("#lobby")), Refused(Some("x"), BAD)),
        ("to 128 bytes", send_with("to", json!("é".repeat(64))), Done("x")),
        ("to 129 bytes", send_with("to", json!(format!("{}u", "é".repeat(64)))), Refused(Some("x"), BAD)),
        ("to a name with a newline", send_with("to", json!("bob\n")), Refused(Some("x"), BAD)),
        ("to a name with a control character beyond ASCII", send_with("to", json!("bob\u{85}")), Refused(Some("x"), BAD)),
        ("no data", send_with("data", Value::Null), Refused(Some("x"), BAD)),
        ("null for data", text(r#"{"type":"send","id":"x","to":"bob","data":null}"#), Done("x")),
        ("U+0000 in the data", send_with("data", json!("a\u{0}b")), Refused(Some("x"), BAD)),
        ("to one of Roost's own", send_with("to", json!("roost.canary.1")), Refused(Some("x"), "forbidden")),
        ("to a guest, who is kept for later", send_with("to", json!("roost.guest.1")), Refused(Some("x"), "forbidden")),
        ("half a pair in the data", text(r#"{"type":"send","id":"x","to":"bob","data":"cut \ud83d"}"#), Refused(Some("x"), BAD)),
        ("half a pair in a key", text(r#"{"type":"send","id":"x","to":"bob","data":{"\ude00":1}}"#), Refused(Some("x"), BAD)),
        ("half a pair in a recipient", text(r#"{"type":"send","id":"x","to":"b\ud83d","data":1}"#), Refused(Some("x"), BAD)),
        ("half a pair in an event", text(r#"{"type":"event","id":"x","data":["\ud83d\ud83d"]}"#), Refused(Some("x"), BAD)),
        ("half a pair in a publication", text(r#"{"type":"publish","id":"x","room":"r","data":"\udfff"}"#), Refused(Some("x"), BAD)),
        ("half a pair in a signal", text(r#"{"type":"signal","to":"bob","kind":"k","data":"\ud800"}"#), Refused(None, BAD)),
        ("a whole pair", text(r#"{"type":"send","id":"x","to":"bob","data":"\ud83d\ude00"}"#), Done("x")),
        ("null for a receipt", text(r#"{"type":"send","id":"x","to":"bob","data":1,"receipt":null}"#), Done("x")),
        ("a list of what a send has", text(r#"{"type":"send","id":"x","to":"bob","data":1,"receipt":[]}"#), Refused(Some("x"), BAD)),
        ("a limit that is no number", text(r#"{"type":"history","id":"x","stream":"user:bob","limit":"all"}"#), Refused(Some("x"), BAD)),
        ("an escaped backslash before u0000", send_with("data", json!("\\u0000")), Done("x")),
        ("nested 32 deep", text(nested(32)), Done("x")),
        ("nested 33 deep", text(nested(33)), Refused(None, BAD)),
        ("a field of a later version", text(r#"{"type":"send","id":"x","to":"bob","data":1,"later":[]}"#), Done("x")),
        ("a status nobody can choose", status(json!("offline")), Refused(Some("x"), BAD)),
        ("a status that is no text", status(json!(true)), Refused(Some("x"), BAD)),
        ("an ack without a cursor", Later(Say::Json(json!({"type": "ack"}))), Refused(None, BAD)),
        ("an ack of half a cursor", ack(json!({"offset": 1})), Refused(None, BAD)),
        ("a ping", Later(Say::Json(json!({"type": "ping"}))), Outcome::Frame("pong")),
    ]
}

async fn say(wire: &mut Wire, say: Say) {
    match say {
        Say::Nothing => {}
        Say::Json(frame) => wire.send_text(&frame.to_string()).await,
        Say::Text(text) => wire.send_text(&text).await,
        Say::Bytes(bytes) => wire.send_bytes_as_text(bytes).await,
        Say::Binary(bytes) => wire.send_binary(bytes).await,
        Say::Reserved => wire.send_reserved().await,
        Say::Halves(text) => wire.send_in_halves(&text).await,
        Say::Times(n, text) => {
            for _ in 0..n {
                wire.send_text(text).await;
            }
        }
    }
}

/// What came, in the words of the table; for a wrong one, all of it.
fn seen(incoming: &Incoming, expected: &Outcome) -> Result<(), String> {
    let fits = match (incoming, expected) {
        (Incoming::Closed(Some((code, _))), Closed(expected)) => code == expected,
        (Incoming::Frame(frame), Refused(id, code)) => {
            frame["type"] == "reply"
                && frame["id"].as_str() == *id
                && frame["error"]["code"] == *code
                && frame["error"]["retryable"] == false
                && frame["error"]["message"].as_str().is_some_and(|text| !text.is_empty())
        }
        (Incoming::Frame(frame), Done(id)) => frame["id"] == *id && frame["ok"]["at"].is_string(),
        (Incoming::Frame(frame), Outcome::Frame(tag)) => frame["type"] == *tag,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{incoming:?} instead of {expected:?}")) }
}

fn answered(answer: &Answer, status: u16, code: Option<&str>) -> Result<(), String> {
    let error = &answer.json()["error"];
    let shaped = code.is_none_or(|code| {
        error["code"] == code && error["retryable"].is_boolean() && error["message"].is_string()
    });
    if answer.status == status && shaped {
        Ok(())
    } else {
        Err(format!("{answer:?} instead of {status} {code:?}"))
    }
}

/// Replies to the frames before the last one.
fn early(input: &Input, outcome: &Outcome) -> usize {
    match (input, outcome) {
        (First(Say::Times(n, _)) | Later(Say::Times(n, _)), _) => n - 1,
        // It is welcome until its token ends, or told where to go and does not.
        (First(Say::Json(_)), Closed(3501)) | (Elsewhere, _) => 1,
        _ => 0,
    }
}

async fn try_case(cluster: &Cluster, input: Input, outcome: &Outcome) -> Result<(), String> {
    let (skipped, connected) = (early(&input, outcome), matches!(input, Later(_)));
    let mut wire = match input {
        Http(method, path) => {
            let Status(status, code) = outcome else { unreachable!("a status for a request") };
            // Whom nothing is refused for who it is.
            let service = format!("Bearer {}", token_of("service", Role::Service));
            let headers = [("authorization", service.as_str())];
            return answered(&request(method, &cluster.url(), &path, &headers).await, *status, *code);
        }
        Handshake(method, path, headers) => {
            let Status(status, code) = outcome else { unreachable!("a status for a request") };
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = request(method, cluster.node(0).url(), path, &headers).await;
            let told = *status != 426 || answer.header("upgrade") == Some("websocket");
            assert!(told, "RFC 9110 §15.5.22: {answer:?}");
            let version =
                headers.iter().any(|(name, value)| *name == "sec-websocket-version" && *value != "13");
            let told = answer.header("sec-websocket-version") == Some("13");
            assert!(!version || *status != 426 || told, "RFC 6455 §4.2.2: {answer:?}");
            return answered(&answer, *status, *code);
        }
        First(what) => {
            let mut wire = Wire::open(&cluster.route("alice").await.url).await;
            say(&mut wire, what).await;
            wire
        }
        Elsewhere => {
            let home = cluster.route("alice").await.node;
            let wrong = (0..2).find(|i| cluster.name(*i) != home).expect("another node");
            Wire::connect(cluster.node(wrong).url(), cluster.fields("alice", json!({}))).await
        }
        Later(what) => {
            let (mut wire, _) = cluster.connect(&cluster.user("alice"), json!({})).await;
            say(&mut wire, what).await;
            wire
        }
    };
    let mut incoming = wire.next().await;
    for _ in 0..skipped {
        if matches!(incoming, Incoming::Frame(_)) {
            incoming = wire.next().await;
        }
    }
    seen(&incoming, outcome)?;
    // A refusal is not the end: what is right still works.
    if let (Incoming::Frame(_), Refused(..)) = (incoming, outcome) {
        if connected {
            wire.say("right", "bob", json!(1)).await;
        } else {
            wire.say_connect(json!({"token": token("alice", now_s() + 3_600)})).await;
        }
        let expected = if connected { Done("right") } else { Outcome::Frame("welcome") };
        seen(&wire.next().await, &expected).map_err(|wrong| format!("afterwards {wrong}"))?;
    }
    Ok(())
}

/// Each limit is refused with its code, never silently; and whoever was refused can go on.
/// Every line of the table on a connection of its own, all at the same time.
pub(crate) async fn every_bad_input_gets_its_documented_answer(backend: Backend) {
    let Some(cluster) =
        Setup::new(backend, 2).tune(|_, c| c.core.sessions_per_user_max = 1_000).start().await
    else {
        return;
    };
    let cases = [http_cases(), handshake_cases(), connect_cases(), frame_cases()].into_iter().flatten();
    let tries = cases.map(|(name, input, outcome)| {
        let cluster = &cluster;
        async move { try_case(cluster, input, &outcome).await.err().map(|wrong| format!("{name}: {wrong}")) }
    });
    let tries: Vec<Pin<Box<dyn Future<Output = Option<String>> + '_>>> =
        tries.map(|case| Box::pin(case) as Pin<Box<dyn Future<Output = _>>>).collect();
    let wrong: Vec<_> = join_all(tries).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// P9: without the log nothing is promised that is not kept: a `connect` that needs it is told to come again.
/// The log is stopped. One session needs to know where it ends, another one would make its user online.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_is_away_a_connect_that_needs_it_is_closed_with_1013() {
    let gate = HeldLog::default();
    let between = gate.clone();
    let setup = Setup::new(Backend::Memory, 2).log(move |log| between.before(log));
    let Some(cluster) = setup.start().await else { return };
    let bob = cluster.user_at(1).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&bob, "online").await;
    gate.close();
    let url = cluster.route(&bob).await.url;
    let another = json!({"cursor": {"generation": 1, "offset": 1}});
    let mut lost = Wire::connect(&url, cluster.fields(&bob, another.clone())).await;
    assert_eq!(lost.close_code().await.0, 1013);
    b.say("kept", &bob, json!(1)).await;
    assert_eq!(b.message().await["id"], "kept", "it is in the stream, and not confirmed yet");
    let mut late = Wire::connect(&url, cluster.fields(&bob, json!({}))).await;
    assert_eq!(late.close_code().await.0, 1013, "its place is known when what is before it is in the log");
    gate.open();
    assert!(b.reply("kept").await["ok"].is_object());
    let (_, welcome) = cluster.connect(&bob, another).await;
    assert_eq!(welcome["recovered"], false);
}

/// The token is taken from three places, and never from the query.
/// The same user comes in by each of them.
pub(crate) async fn a_token_is_taken_from_connect_authorization_or_subprotocol(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 1).await else { return };
    let url = cluster.node(0).url();
    let good = cluster.token("alice");
    let with = |authorization: Option<String>, subprotocols: &[String]| Dial {
        authorization,
        subprotocols: subprotocols.to_vec(),
        ..Dial::new(url)
    };
    let v1 = "roost.v1".to_owned();
    let dials = [
        (with(Some(format!("Bearer {good}")), &[]), json!({}), None),
        (with(None, &[v1.clone(), format!("bearer.{good}")]), json!({}), Some("roost.v1")),
        (with(None, std::slice::from_ref(&v1)), json!({"token": good}), Some("roost.v1")),
    ];
    for (dial, fields, subprotocol) in dials {
        let mut wire = Wire::dial(dial.clone()).await.expect("the upgrade is accepted");
        assert_eq!(wire.subprotocol.as_deref(), subprotocol, "the answer names ours, never the token");
        wire.say_connect(fields).await;
        assert_eq!(wire.frame().await["user"], "alice", "{dial:?}");
    }
    let mut wire = Wire::open(&format!("{url}?token={good}")).await;
    wire.say_connect(json!({})).await;
    assert_eq!(wire.close_code().await.0, 3500);
}

/// The 17th session of a user is refused, and there is room again when one has gone.
/// Sixteen devices, one more, one less.
pub(crate) async fn the_seventeenth_session_of_a_user_is_closed_with_3504(backend: Backend) {
    let Some(cluster) = Cluster::start(backend, 2).await else { return };
    let bob = cluster.user_at(1).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS_MAX {
        sessions.push(cluster.connect(&bob, json!({})).await.0);
    }
    let url = cluster.route(&bob).await.url;
    let mut one_more = Wire::connect(&url, cluster.fields(&bob, json!({}))).await;
    assert_eq!(one_more.close_code().await.0, 3504);
    sessions.pop().expect("sixteen").close().await;
    let (_, welcome) = cluster.connect(&bob, json!({})).await;
    assert_eq!(welcome["type"], "welcome");
}

fn send(id: usize, to: &str) -> Value {
    json!({"type": "send", "id": format!("m-{id}"), "to": to, "data": id})
}

/// The earliest refused send has to be repeated first: later ones are refused until it is accepted (order, P3).
/// The log is stopped, so that nothing is answered; 260 sends go out, then the log goes on.
pub(crate) async fn more_than_256_unanswered_sends_are_refused_and_keep_their_order(backend: Backend) {
    let gate = HeldLog::default();
    let unlimited = |config: &mut roost_ws_node::WsNodeConfig| {
        config.core.commands_per_s = 100_000;
        config.core.commands_burst = 100_000;
        config.core.shares = ShareConfig::unlimited();
    };
    let between = gate.clone();
    let setup =
        Setup::new(backend, 2).tune(move |_, config| unlimited(config)).log(move |log| between.before(log));
    let Some(cluster) = setup.start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    cluster.presence_is(&alice, "online").await;
    cluster.presence_is(&bob, "online").await;
    gate.close();
    let (first_refused, last) = (UNANSWERED_MAX + 1, UNANSWERED_MAX + 4);
    a.send_all((1..=last).map(|i| send(i, &bob))).await;
    for i in first_refused..=last {
        // Nothing before it is answered: what is not in the log is not acknowledged.
        let reply = a.frame().await;
        assert_eq!(reply["id"], format!("m-{i}"));
        let error = &reply["error"];
        assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
        assert!(error["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{error}");
    }
    gate.open();
    for i in 1..=UNANSWERED_MAX {
        assert!(a.reply(&format!("m-{i}")).await["ok"].is_object());
    }
    // There is room now, but the order comes first.
    let reply = a.ask(&format!("m-{last}"), &bob, json!(last)).await;
    assert_eq!(reply["error"]["code"], "rate_limited", "{reply}");
    for i in first_refused..=last {
        let reply = a.ask(&format!("m-{i}"), &bob, json!(i)).await;
        assert!(reply["ok"].is_object(), "{reply}");
    }
    for i in 1..=last {
        assert_eq!(b.message().await["data"], i);
    }
}

/// 50 commands a second in bursts of 200; beyond that a command is told when to come again, and order holds.
/// A flood until the first refusal, to one user; another user is not affected by the order, only by the rate.
pub(crate) async fn commands_beyond_the_burst_are_refused_with_a_time_and_keep_their_order(backend: Backend) {
    let shares = ShareConfig::unlimited();
    refused_beyond(200, Setup::new(backend, 2).tune(move |_, config| config.core.shares = shares)).await;
}

/// The same of what one sender may send to one receiver.
pub(crate) async fn messages_beyond_a_receivers_share_are_refused_with_a_time_and_keep_their_order(
    backend: Backend,
) {
    refused_beyond(100, Setup::new(backend, 2)).await;
}

async fn refused_beyond(burst: usize, setup: Setup) {
    let Some(cluster) = setup.start().await else { return };
    let (alice, bob) = (cluster.user_at(0).await, cluster.user_at(1).await);
    let (mut a, _) = cluster.connect(&alice, json!({})).await;
    let (mut b, _) = cluster.connect(&bob, json!({})).await;
    // To whom somebody has not written it would be half of the burst at most.
    let reply = b.ask("hello", &alice, json!("hello")).await;
    assert!(reply["ok"].is_object(), "{reply}");
    assert_eq!(a.message().await["data"], "hello");
    // A machine that is slow enough to earn tokens meanwhile needs more of them.
    let (mut sent, mut refused): (usize, Vec<(usize, u64)>) = (0, Vec::new());
    while refused.is_empty() {
        assert!(sent < 5_000, "nothing is refused");
        let batch = sent + 1..=sent + 203;
        a.send_all(batch.clone().map(|i| send(i, &bob))).await;
        sent += 203;
        for i in batch {
            let reply = a.reply(&format!("m-{i}")).await;
            if reply["ok"].is_object() {
                assert!(refused.is_empty(), "m-{i} was accepted after {refused:?} were refused");
            } else {
                assert_eq!(reply["error"]["code"], "rate_limited", "{reply}");
                refused.push((i, reply["error"]["retry_after_ms"].as_u64().expect("a time")));
            }
        }
    }
    assert!(refused[0].0 > burst, "a burst of {burst} passes: {refused:?}");
    assert!((1..=1_000).contains(&refused[0].1), "{refused:?}");
    for (i, retry_after_ms) in &refused {
        let mut wait = *retry_after_ms;
        loop {
            // What the server asked for, not luck.
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            let reply = a.ask(&format!("m-{i}"), &bob, json!(i)).await;
            match reply["error"]["retry_after_ms"].as_u64() {
                Some(again) => wait = again,
                None => break assert!(reply["ok"].is_object(), "{reply}"),
            }
        }
    }
    for i in 1..=sent {
        assert_eq!(b.message().await["data"], i);
    }
}

/// An address that knocks too often is answered 429, a full node 503, both with a time.
/// One node allows three connections a second, the other has two places.
pub(crate) async fn a_node_says_when_an_address_comes_too_often_or_all_places_are_taken(backend: Backend) {
    let setup = Setup::new(backend, 2).tune(|i, config| match i {
        0 => (config.http.handshakes_per_s, config.http.handshakes_burst) = (1, 3),
        _ => config.http.connections_max = 2,
    });
    let Some(cluster) = setup.start().await else { return };
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = get(cluster.node(0).url(), "/socket", &[("connection", "close")]).await;
        if answer.status == 429 {
            let error = &answer.json()["error"];
            assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..3], [426; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");

    let _held = [Wire::open(cluster.node(1).url()).await, Wire::open(cluster.node(1).url()).await];
    let answer = get(cluster.node(1).url(), "/socket", &[]).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("unavailable")));
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}
