//! The SDK and the console as a coordinator serves them, and who may ask for what only `roost dev` does.

#![allow(clippy::unwrap_used, reason = "what breaks here is the test")]

mod common;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use common::*;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_NONE_MATCH, ORIGIN};
use roost_backend::store::Store;
use roost_coordinator::{Console, Coordinator, CoordinatorConfig, DevCluster};
use roost_proto::claims::Role;
use roost_proto::{ErrorBody, ErrorCode, NodeId, UserId};
use serde_json::{Value, json};

const VNODES: u32 = 16;
const INDEX: &str = include_str!("../../console/index.html");

async fn coordinator_with(console: Console) -> Coordinator {
    let store = TestStore::new(60_000);
    store.open_ring(VNODES).await.unwrap();
    coordinator(&store, CoordinatorConfig { console, ..config(VNODES, 60_000) }).await
}

/// Notes what it was asked for.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl Asked {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl DevCluster for Asked {
    fn token(&self, user: &UserId, role: Role) -> Result<String, ErrorBody> {
        self.note(format!("token {user} {role:?}"));
        Ok("a.b.c".into())
    }

    async fn kill(&self, node: &NodeId) -> Result<(), ErrorBody> {
        self.note(format!("kill {node}"));
        Ok(())
    }

    async fn restart(&self, node: &NodeId) -> Result<(), ErrorBody> {
        self.note(format!("restart {node}"));
        Err(ErrorBody::new(ErrorCode::Conflict, "it runs"))
    }

    async fn add(&self) -> Result<NodeId, ErrorBody> {
        self.note("add".into());
        Ok(NodeId::new("ws-4").unwrap())
    }
}

async fn dev() -> (Arc<Asked>, Coordinator) {
    let asked = Arc::new(Asked::default());
    (Arc::clone(&asked), coordinator_with(Console::Dev(asked)).await)
}

/// What the address of the console looks like in a browser.
fn origin(coordinator: &Coordinator) -> String {
    format!("http://{}", coordinator.addr())
}

async fn post(coordinator: &Coordinator, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
    let mut request = reqwest::Client::new().post(format!("http://{}{path}", coordinator.addr()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reply::of(request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await.unwrap())
        .await
}

#[tokio::test]
async fn every_coordinator_serves_the_sdk_to_pages_of_any_origin() {
    let coordinator = coordinator_with(Console::Off).await;
    let sdk = get(&coordinator, "/sdk.js").await;
    assert_eq!((sdk.status, sdk.header("content-type")), (200, "text/javascript; charset=utf-8"));
    assert_eq!((sdk.header("access-control-allow-origin"), sdk.header("cache-control")), ("*", "no-cache"));
    assert_eq!(sdk.header("x-content-type-options"), "nosniff");
    assert_eq!(sdk.text, include_str!("../../client-sdk/js/dist/roost.js"));
    let url = format!("{}/sdk.js", origin(&coordinator));
    let client = reqwest::Client::new();
    for tag in [sdk.header("etag").to_owned(), format!("\"other\", W/{}", sdk.header("etag"))] {
        let again = Reply::of(client.get(&url).header(IF_NONE_MATCH, tag).send().await.unwrap()).await;
        assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", sdk.header("etag")));
    }
    let other = Reply::of(client.get(&url).header(IF_NONE_MATCH, "\"other\"").send().await.unwrap()).await;
    assert_eq!(other.status, 200);
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()),
        (200, sdk.text.len().to_string().as_str())
    );
    assert_eq!(post(&coordinator, "/sdk.js", &[], Value::Null).await.status, 405);
}

#[tokio::test]
async fn the_console_is_there_if_it_was_wanted_and_takes_nothing_from_elsewhere() {
    let off = coordinator_with(Console::Off).await;
    for path in ["/console", "/console/app.js", "/console/mode.json"] {
        assert_eq!(get(&off, path).await.status, 404, "{path}");
    }
    let on = coordinator_with(Console::On).await;
    for path in ["/console", "/console/"] {
        let page = get(&on, path).await;
        assert_eq!((page.status, page.text.as_str()), (200, INDEX), "{path}");
        let policy = page.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("access-control-allow-origin"), "");
    }
    assert_eq!(get(&on, "/console/mode.json").await.json(), json!({"dev": false}));
    assert_eq!(get(&on, "/console/../Cargo.toml").await.status, 404);
    assert_eq!(get(&on, "/console/nope.js").await.status, 404);
}

/// A file that a page or a module names and the coordinator lacks would be seen by users first.
#[tokio::test]
async fn everything_that_the_console_names_is_served() {
    let coordinator = coordinator_with(Console::On).await;
    let (mut open, mut seen) = (vec!["/console".to_owned()], Vec::new());
    while let Some(path) = open.pop() {
        let file = get(&coordinator, &path).await;
        assert_eq!(file.status, 200, "{path}");
        for word in file.text.split(['"', '\'']) {
            let named = match word.strip_prefix("./") {
                Some(name) if word.ends_with(".js") => format!("/console/{name}"),
                None if word == "/sdk.js" || word.starts_with("/console/") => word.to_owned(),
                _ => continue,
            };
            if !seen.contains(&named) {
                seen.push(named.clone());
                open.push(named);
            }
        }
    }
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../console")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_page = name == "index.html" || name == "README.md";
        assert!(is_page || seen.contains(&format!("/console/{name}")), "{name} is named nowhere");
    }
}

#[tokio::test]
async fn the_page_of_a_dev_cluster_makes_tokens_and_kills_nodes() {
    let (asked, coordinator) = dev().await;
    let own = origin(&coordinator);
    assert_eq!(get(&coordinator, "/console/mode.json").await.json(), json!({"dev": true}));
    let token = json!({"user": "alice", "role": "service"});
    // A tool sends no Origin.
    for headers in [vec![("origin", own.as_str())], vec![]] {
        let made = post(&coordinator, "/dev/token", &headers, token.clone()).await;
        assert_eq!((made.status, made.json()), (200, json!({"token": "a.b.c"})));
        assert_eq!(
            (made.header("cache-control"), made.header("access-control-allow-origin")),
            ("no-store", "")
        );
    }
    post(&coordinator, "/dev/token", &[], json!({"user": "bob"})).await;
    assert_eq!(post(&coordinator, "/dev/nodes", &[], Value::Null).await.json(), json!({"node": "ws-4"}));
    assert_eq!(
        post(&coordinator, "/dev/nodes/ws-1/kill", &[], Value::Null).await.json(),
        json!({"node": "ws-1"})
    );
    assert_eq!(post(&coordinator, "/dev/nodes/ws-1/restart", &[], Value::Null).await.status, 409);
    let done =
        ["token alice Service", "token alice Service", "token bob User", "add", "kill ws-1", "restart ws-1"];
    assert_eq!(asked.taken(), done);
    for (path, body, status) in [
        ("/dev/token", json!({}), 400),
        ("/dev/token", json!({"user": "#lobby"}), 400),
        ("/dev/token", json!({"user": "alice", "role": "admin"}), 400),
        ("/dev/token", json!({"user": "a".repeat(5_000)}), 413),
        ("/dev/nodes/a%20b/kill", Value::Null, 400),
        ("/dev/nodes/ws-1", Value::Null, 404),
        ("/dev", Value::Null, 404),
    ] {
        assert_eq!(post(&coordinator, path, &[], body).await.status, status, "{path}");
    }
    assert_eq!(get(&coordinator, "/dev/token").await.status, 404);
    assert!(asked.taken().is_empty());
}

#[tokio::test]
async fn a_page_of_another_origin_or_under_a_foreign_name_may_not() {
    let (asked, coordinator) = dev().await;
    let (own, port) = (origin(&coordinator), coordinator.addr().port());
    let rebound = format!("evil.example:{port}");
    let at_rebound = format!("http://{rebound}");
    for headers in [
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("origin", "http://127.0.0.1:1")],
        vec![("origin", "http://localhost")],
        vec![("host", rebound.as_str())],
        vec![("host", rebound.as_str()), ("origin", at_rebound.as_str())],
        vec![("host", "127.0.0.1.evil.example"), ("origin", own.as_str())],
        vec![("host", "evil.example@127.0.0.1")],
    ] {
        for path in ["/dev/token", "/dev/nodes", "/dev/nodes/ws-1/kill", "/dev/nope"] {
            let refused = post(&coordinator, path, &headers, json!({"user": "alice"})).await;
            assert_eq!(refused.status, 403, "{headers:?} {path}: {}", refused.text);
            assert_eq!(refused.header("access-control-allow-origin"), "");
        }
    }
    // What a browser asks first is not answered with leave, either.
    let preflight = reqwest::Client::new().request(Method::OPTIONS, format!("{own}/dev/token"));
    let preflight = Reply::of(preflight.header(ORIGIN, "https://evil.example").send().await.unwrap()).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (403, ""));
    // The same machine by another name, as a forwarded port looks.
    let localhost = [("host", "localhost:9000"), ("origin", "http://localhost:9000")];
    assert_eq!(post(&coordinator, "/dev/nodes", &localhost, Value::Null).await.status, 200);
    assert_eq!(asked.taken(), ["add"]);
}

#[tokio::test]
async fn outside_of_dev_there_is_no_such_path() {
    for console in [Console::Off, Console::On] {
        let coordinator = coordinator_with(console).await;
        for path in ["/dev/token", "/dev/nodes", "/dev/nodes/ws-1/kill"] {
            assert_eq!(post(&coordinator, path, &[], json!({"user": "alice"})).await.status, 404, "{path}");
        }
    }
}
