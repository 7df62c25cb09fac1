//! Ways to a cluster, right and wrong, and where a client goes on: against a fake coordinator and fake nodes.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the other tests use more of it")]
mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::{Coordinator, LIMIT, Node, at, message, next, next_offset, until, welcome};
use roost_client::{BoxError, BuildError, Cause, Client, Cursor, CursorStore, Event};
use serde_json::json;

/// An address, what answers there, and what is told of it.
async fn told_of(url: &str) -> (Cause, String) {
    let builder = Client::builder(url).token(fake::TOKEN).user("alice");
    let (client, mut events) = builder.connect().await.unwrap();
    let mut trouble = client.trouble();
    let within = Duration::from_secs(3);
    let told =
        tokio::time::timeout(within, trouble.wait_for(Option::is_some)).await.expect("within 3 s").unwrap();
    let (cause, reason) = told.as_ref().map(|t| (t.cause, t.reason.clone())).unwrap();
    drop(told);
    let Event::NotConnected { trouble, .. } = next(&mut events).await else { panic!("not told as an event") };
    assert_eq!((trouble.cause, &trouble.reason), (cause, &reason));
    (cause, reason)
}

/// Something that listens and answers every request with `answer`.
async fn answering(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn a_wrong_address_is_told_within_three_seconds() {
    let (cause, why) = told_of("http://127.0.0.1:1").await;
    assert_eq!(cause, Cause::Unreachable);
    assert!(why.starts_with("http://127.0.0.1:1/route: connection refused"), "{why}");
    // No label is that long (RFC 1035 §2.3.4): nobody is asked for it.
    let nowhere = format!("http://{}.invalid:7300", "a".repeat(70));
    let (cause, why) = told_of(&nowhere).await;
    assert_eq!(cause, Cause::Unreachable);
    assert!(why.starts_with(&format!("{nowhere}/route: no such host")), "{why}");
    let strangers = [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>",
        "-ERR wrong number of arguments for 'get' command\r\n",
    ];
    for stranger in strangers {
        let (cause, why) = told_of(&answering(stranger).await).await;
        assert!(cause == Cause::NotACoordinator && why.contains("not a coordinator's"), "{cause:?}: {why}");
    }
}

#[tokio::test]
async fn what_keeps_a_client_away_is_forgotten_when_it_is_back_and_told_once_until_then() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    coordinator.answers("503 Service Unavailable", "retry-after: 0\r\n", "{}");
    let (client, mut events) = coordinator.client().connect().await.unwrap();
    until(|| coordinator.asked.lock().unwrap().len() >= 5).await;
    assert_eq!(client.trouble().borrow().as_ref().map(|t| t.cause), Some(Cause::NotNow));
    coordinator.names(&node);
    let (_socket, _) = node.welcome(5).await;
    client.connected(LIMIT).await.unwrap();
    assert_eq!(*client.trouble().borrow(), None);
    client.close().await;
    let mut told = 0;
    while let Some(event) = events.recv().await {
        told += usize::from(matches!(event, Event::NotConnected { .. }));
    }
    assert_eq!(told, 1, "who takes no events for a night must not be full of them");
}

#[derive(Clone, Default)]
struct InMemory(Arc<Mutex<Vec<Cursor>>>);

impl CursorStore for InMemory {
    fn load(&self, user: &str, device: Option<&str>) -> Result<Option<Cursor>, BoxError> {
        assert_eq!((user, device), ("alice", Some("phone")));
        Ok(self.0.lock().unwrap().last().copied())
    }

    fn save(&self, _user: &str, _device: Option<&str>, cursor: Cursor) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(cursor);
        Ok(())
    }
}

struct Broken;

impl CursorStore for Broken {
    fn load(&self, _user: &str, _device: Option<&str>) -> Result<Option<Cursor>, BoxError> {
        Err("the disk is gone".into())
    }

    fn save(&self, _user: &str, _device: Option<&str>, _cursor: Cursor) -> Result<(), BoxError> {
        unreachable!("it never began")
    }
}

#[tokio::test]
async fn a_cursor_that_is_kept_is_shown_by_the_next_process() {
    let mut node = Node::bind().await;
    let coordinator = Coordinator::bind(&node).await;
    let kept = InMemory::default();
    let begin = || coordinator.client().device("phone").cursor_store(kept.clone()).connect();
    let (client, mut events) = begin().await.unwrap();
    let (mut socket, connect) = node.connect().await;
    assert!(connect["cursor"].is_null(), "it was never here");
    socket.write(welcome(5, true, 0)).await;
    for offset in 6..=8 {
        socket.write(message(offset)).await;
    }
    assert_eq!(next_offset(&mut events).await, 6);
    assert_eq!(next_offset(&mut events).await, 7);
    client.close().await;
    assert_eq!(kept.0.lock().unwrap().last(), Some(&at(7)), "what was taken, and no more");
    assert_eq!(next_offset(&mut events).await, 8);

    let (client, mut events) = begin().await.unwrap();
    let (mut socket, connect) = node.connect().await;
    assert_eq!(connect["cursor"], json!({"generation": 1, "offset": 7}));
    // The server lost its data meanwhile, and with it what it knew of this device.
    let mut lost = welcome(2, false, 0);
    lost["cursor"]["generation"] = json!(9);
    socket.write(lost).await;
    let Event::Gap { from, .. } = next(&mut events).await else { panic!("not told of a loss") };
    assert_eq!(from, Some(at(7)));
    client.close().await;

    let given = coordinator.client().device("phone").cursor_store(kept.clone()).cursor(at(3));
    let (_client, _events) = given.connect().await.unwrap();
    assert_eq!(node.connect().await.1["cursor"]["offset"], 3, "what is given goes first");
    let broken = coordinator.client().device("phone").cursor_store(Broken).connect().await;
    assert!(matches!(broken, Err(BuildError::Cursor(e)) if e.to_string() == "the disk is gone"));
}
