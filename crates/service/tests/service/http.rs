use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use roost_proto::{ErrorBody, ErrorCode};
use roost_service::{ClientAddr, ConnectionSlot, HttpLimits, HttpMetrics, reply, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::support::{PATIENCE, read_answer, start};

const HEAD: &str = "GET / HTTP/1.1\r\nhost: x\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

fn limits() -> HttpLimits {
    HttpLimits { handshakes_per_s: 0, ..HttpLimits::default() }
}

fn hello() -> BoxedFilter<(Response,)> {
    warp::path::end().and(warp::get()).map(|| reply::ok(&"hello")).boxed()
}

/// A request on its way: says when it has arrived, and is answered when the test allows it.
struct Held {
    filter: BoxedFilter<(Response,)>,
    arrivals: mpsc::UnboundedReceiver<()>,
    allowed: Arc<Semaphore>,
}

fn held() -> Held {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let allowed = Arc::new(Semaphore::new(0));
    let waits_for = Arc::clone(&allowed);
    let filter = warp::path::end().then(move || {
        arrived.send(()).unwrap();
        let waits_for = Arc::clone(&waits_for);
        async move {
            let _permit = waits_for.acquire_owned().await.unwrap();
            reply::ok(&"late")
        }
    });
    Held { filter: filter.boxed(), arrivals, allowed }
}

/// Upgrades to an echo that holds its connection's slot, as a WebSocket would.
fn echo() -> BoxedFilter<(Response,)> {
    let upgrade = warp::ext::optional::<OnUpgrade>().and(warp::ext::get::<ConnectionSlot>());
    let answer = |upgrade: Option<OnUpgrade>, slot: ConnectionSlot| {
        let Some(upgrade) = upgrade else {
            let body = ErrorBody::new(ErrorCode::BadRequest, "upgrade");
            return reply::error_with_status(StatusCode::UPGRADE_REQUIRED, &body);
        };
        tokio::spawn(async move {
            let parts = upgrade.await.unwrap().downcast::<TokioIo<TcpStream>>().unwrap();
            let mut stream = parts.io.into_inner();
            assert!(stream.nodelay().unwrap());
            stream.write_all(&parts.read_buf).await.unwrap();
            let (mut reading, mut writing) = stream.split();
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
            drop(slot);
        });
        let mut response = Response::default();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "echo".parse().unwrap());
        response
    };
    warp::path::end().and(upgrade).map(answer).boxed()
}

/// Reads up to and including `end`.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        bytes.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn headers_that_trickle_in_are_cut_off() {
    let header_timeout = Duration::from_millis(150);
    let server = start(HttpLimits { header_timeout, ..limits() }, hello()).await;
    let since = Instant::now();
    let (mut reading, mut writing) = server.connect().await.into_split();
    let trickle = tokio::spawn(async move {
        writing.write_all(HEAD.as_bytes()).await.unwrap();
        // Each byte alone would keep an idle timer from firing.
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, reading.read_to_end(&mut bytes)).await.expect("it is cut off");
    assert!(since.elapsed() >= header_timeout);
    server.metric_becomes("roost_http_header_timeouts_total", 1.0).await;
    trickle.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let server = start(HttpLimits { header_timeout: Duration::from_millis(50), ..limits() }, hello()).await;
    assert_eq!(read_answer(&mut server.connect().await).await.status, 0);
    server.metric_becomes("roost_http_connections", 0.0).await;
}

#[tokio::test]
async fn sixty_four_headers_pass_and_sixty_five_do_not() {
    let server = start(limits(), hello()).await;
    for (more, status) in [(62, 200), (63, 431)] {
        let headers: String = (0..more).map(|n| format!("x-{n}: y\r\n")).collect();
        let answer = server.ask(&format!("{HEAD}{headers}connection: close\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{} headers", more + 2);
    }
}

#[tokio::test]
async fn headers_of_sixteen_kilobytes_are_the_most() {
    let server = start(limits(), hello()).await;
    for (bytes, status) in [(15 * 1024, 200), (17 * 1024, 431)] {
        let padding = "p".repeat(bytes);
        let answer = server.ask(&format!("{HEAD}x-pad: {padding}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{bytes} bytes");
    }
}

#[tokio::test]
async fn what_is_not_http_1_is_refused_and_the_server_goes_on() {
    let server = start(limits(), hello()).await;
    assert_eq!(server.ask("hello?\r\n\r\n").await.status, 400);
    assert_ne!(server.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.status, 200);
    assert_eq!(server.get("/").await.status, 200);
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_told_429_and_when_to_come_back() {
    let strict = HttpLimits { handshakes_per_s: 1, handshakes_burst: 3, ..limits() };
    let server = start(strict, hello()).await;
    for _ in 0..3 {
        assert_eq!(server.get("/").await.status, 200);
    }
    let refused = server.get("/").await;
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    let error = &refused.json()["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
    assert_eq!(server.metric("roost_http_refused_total{listener=\"public\",reason=\"rate\"}"), 1.0);
}

#[tokio::test]
async fn one_connection_too_many_is_told_503_until_another_has_left() {
    let server = start(HttpLimits { connections_max: 1, ..limits() }, hello()).await;
    let first = server.connect().await;
    server.metric_becomes("roost_http_connections", 1.0).await;
    let refused = server.get("/").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["code"], "unavailable");
    assert_eq!(server.metric("roost_http_refused_total{listener=\"public\",reason=\"full\"}"), 1.0);
    drop(first);
    server.metric_becomes("roost_http_connections", 0.0).await;
    assert_eq!(server.get("/").await.status, 200);
}

#[tokio::test]
async fn an_upgraded_socket_keeps_its_place_and_gets_what_was_sent_behind_the_headers() {
    let server = start(HttpLimits { connections_max: 1, ..limits() }, echo()).await;
    let mut socket = server.connect().await;
    socket.write_all(format!("{UPGRADE}early").as_bytes()).await.unwrap();
    let head = read_to(&mut socket, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(read_to(&mut socket, "early").await, "early");
    assert_eq!(server.get("/").await.status, 503);
    drop(socket);
    server.metric_becomes("roost_http_connections", 0.0).await;
    assert_eq!(server.get("/").await.status, 426);
}

#[tokio::test]
async fn an_upgraded_socket_neither_holds_up_the_shutdown_nor_feels_it() {
    let server = start(limits(), echo()).await;
    let mut socket = server.connect().await;
    socket.write_all(UPGRADE.as_bytes()).await.unwrap();
    read_to(&mut socket, "\r\n\r\n").await;
    server.shutdown.cancel();
    server.stopped().await;
    socket.write_all(b"still here").await.unwrap();
    assert_eq!(read_to(&mut socket, "here").await, "still here");
}

#[tokio::test]
async fn a_running_request_is_finished_while_nobody_new_gets_in() {
    let mut held = held();
    let server = start(limits(), held.filter).await;
    let mut idle = server.connect().await;
    let mut running = server.connect().await;
    running.write_all(format!("{HEAD}\r\n").as_bytes()).await.unwrap();
    held.arrivals.recv().await.unwrap();
    server.shutdown.cancel();
    // The idle connection is closed at once, without an answer.
    assert_eq!(read_answer(&mut idle).await.status, 0);
    let refused = async {
        while TcpStream::connect(server.addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("the listener is closed");
    assert!(!server.serving.is_finished());
    held.allowed.add_permits(1);
    let answer = read_answer(&mut running).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "\"late\""));
    assert_eq!(server.metric("roost_http_cut_total"), 0.0);
    server.stopped().await;
}

#[tokio::test]
async fn a_request_that_outlasts_the_bound_is_cut_and_counted() {
    let mut held = held();
    let server =
        start(HttpLimits { finish_within: Duration::from_millis(50), ..limits() }, held.filter).await;
    let mut running = server.connect().await;
    running.write_all(format!("{HEAD}\r\n").as_bytes()).await.unwrap();
    held.arrivals.recv().await.unwrap();
    server.shutdown.cancel();
    assert_eq!(read_answer(&mut running).await.status, 0);
    server.metric_becomes("roost_http_cut_total", 1.0).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_request_nobody_answers_is_told_that_the_outcome_is_unknown() {
    let held = held();
    let server =
        start(HttpLimits { request_timeout: Duration::from_millis(50), ..limits() }, held.filter).await;
    let answer = server.get("/").await;
    assert_eq!(answer.status, 504);
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("unknown"), &json!(true)));
    assert_eq!(server.metric("roost_http_request_timeouts_total"), 1.0);
}

#[tokio::test]
async fn the_service_knows_who_asks() {
    let filter = warp::ext::get::<ClientAddr>().map(|client: ClientAddr| reply::ok(&client.ip)).boxed();
    let server = start(limits(), filter).await;
    assert_eq!(server.get("/").await.json(), json!("127.0.0.1"));
}

#[derive(serde::Deserialize)]
struct ReceiptRequest {
    id: u32,
}

#[tokio::test]
async fn every_error_has_the_same_shape() {
    let body = warp::body::content_length_limit(16).and(warp::body::json());
    let post = warp::path!("api").and(warp::post()).and(body).map(|w: ReceiptRequest| reply::ok(&w.id));
    let query =
        warp::path!("query").and(warp::get()).and(warp::query()).map(|w: ReceiptRequest| reply::ok(&w.id));
    let header = warp::path!("header").and(warp::header("x-id")).map(|id: u32| reply::ok(&id));
    let own = warp::path!("own").and_then(|| async {
        let body = ErrorBody::new(ErrorCode::Unavailable, "no home yet").retry_after(2_500);
        Err::<Response, _>(reply::reject(body))
    });
    let bug = warp::path!("bug").and(warp::ext::get::<u8>()).map(|n: u8| reply::ok(&n));
    let routes = post.or(query).unify().or(header).unify().or(own).unify().or(bug).unify();
    let server = start(limits(), routes.boxed()).await;

    let with_body = |body: &str| format!("POST /api HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{body}");
    let table = [
        ("GET /nowhere", None, 404, "not_found"),
        ("GET /api", None, 405, "bad_request"),
        ("GET /query", None, 400, "bad_request"),
        ("GET /query?id=x", None, 400, "bad_request"),
        ("GET /header", None, 400, "bad_request"),
        ("GET /own", None, 503, "unavailable"),
        ("GET /bug", None, 500, "internal"),
        ("", Some("content-length: 5\r\n\r\n{\"id\""), 400, "bad_request"),
        ("", Some("content-length: 10\r\n\r\n{\"id\":\"no\"}"), 400, "bad_request"),
        ("", Some("content-length: 17\r\n\r\n{\"id\":1111111111}"), 413, "too_large"),
        ("", Some("transfer-encoding: chunked\r\n\r\n0\r\n\r\n"), 411, "bad_request"),
        ("", Some("content-type: text/plain\r\ncontent-length: 8\r\n\r\n{\"id\":1}"), 415, "bad_request"),
    ];
    for (line, body, status, code) in table {
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = server.ask(&body.map_or(head, with_body)).await;
        assert_eq!(answer.status, status, "{line}{body:?}");
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{line}{body:?}");
        assert!(error["message"].is_string() && error["retryable"].is_boolean(), "{line}{body:?}");
        assert_eq!(answer.head.contains("retry-after: 3"), status == 503, "{}", answer.head);
    }
    assert_eq!(server.get("/query?id=7").await.body, "7");
    assert_eq!(server.ask(&with_body("content-length: 8\r\n\r\n{\"id\":1}")).await.status, 200);
}

/// One request's bug is that request's: the connection goes on, and so does everybody else.
#[tokio::test]
async fn a_bug_in_a_request_is_answered_with_500_and_the_next_one_as_ever() {
    let bug = warp::path!("bug").then(|| async {
        tokio::task::yield_now().await;
        if true {
            panic!("on purpose")
        }
        reply::ok(&1)
    });
    let server = start(limits(), bug.or(hello()).unify().boxed()).await;
    let mut stream = server.connect().await;
    stream
        .write_all(
            b"GET /bug HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let both = read_answer(&mut stream).await;
    assert_eq!(both.status, 500, "{}", both.head);
    assert!(both.body.contains("\"code\":\"internal\"") && both.body.contains("200 OK"), "{}", both.body);
}

#[tokio::test]
async fn a_request_without_a_path_or_with_two_hosts_reaches_no_service() {
    let server = start(limits(), hello()).await;
    for (head, status) in [
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nconnection: close\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 200),
        ("HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 200),
    ] {
        let answer = server.ask(head).await;
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.body.is_empty(), head.starts_with("HEAD"), "{head}: {}", answer.body);
        assert_eq!(status >= 400, answer.body.contains("bad_request"), "{head}");
    }
}

#[tokio::test]
async fn a_filter_of_any_type_can_be_served_from_a_spawned_task() {
    let two = warp::path!("two" / String).and(warp::header::optional::<u32>("x-n")).and_then(
        |name: String, n: Option<u32>| async move {
            tokio::task::yield_now().await;
            if name == "no" { Err(warp::reject()) } else { Ok(reply::ok(&(name, n))) }
        },
    );
    let filter = hello().or(two).recover(reply::recover).with(warp::reply::with::header("x-by", "roost"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let serving = serve(
        listener,
        warp::service(filter),
        limits(),
        HttpMetrics::unregistered(),
        shutdown.clone(),
        &tracker,
    );
    let serving = tokio::spawn(serving);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(b"GET /two/a HTTP/1.1\r\nhost: x\r\nx-n: 4\r\nconnection: close\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut stream).await.json(), json!(["a", 4]));
    shutdown.cancel();
    timeout(PATIENCE, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn listeners_of_one_process_count_for_themselves() {
    let registry = Registry::new();
    HttpMetrics::register(&registry, "public").unwrap();
    HttpMetrics::register(&registry, "admin").unwrap();
    assert!(HttpMetrics::register(&registry, "admin").is_err());
    let (one, two) = (start(limits(), hello()).await, start(limits(), hello()).await);
    let _socket = one.connect().await;
    one.metric_becomes("roost_http_connections{listener=\"public\"}", 1.0).await;
    assert_eq!(two.metric("roost_http_connections{listener=\"public\"}"), 0.0);
}

#[tokio::test]
async fn thousands_may_wait_to_be_accepted() {
    let listener = roost_service::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let addr = listener.local_addr().unwrap();
    // Who finds no place is not refused: TCP asks again a second later.
    let mut waiting = Vec::new();
    for n in 0..3_000 {
        let connected = timeout(Duration::from_millis(500), TcpStream::connect(addr)).await;
        waiting.push(connected.unwrap_or_else(|_| panic!("there is no place for number {n}")).unwrap());
    }
}
