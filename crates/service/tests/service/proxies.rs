//! Behind proxies: who asks, whose rate it is, and whom nobody believes.

use std::net::IpAddr;
use std::time::Duration;

use roost_service::{ClientAddr, HttpLimits, TrustedProxies, reply};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::support::{Answer, PATIENCE, Server, read_answer, start};

const V1: &str = "PROXY TCP4 203.0.113.9 10.0.0.1 4711 7301\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\0\0\x01\x12\x67\x1b\x59";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// Somebody connects through the proxy, over what is no IP.
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const UNSPEC: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";

fn who() -> BoxedFilter<(Response,)> {
    warp::ext::get::<ClientAddr>().map(|client: ClientAddr| reply::ok(&client.ip)).boxed()
}

/// Behind a proxy at this machine, which may come as often as it likes.
fn trusting() -> HttpLimits {
    let trusted_proxies = TrustedProxies::parse("127.0.0.1, 10.0.0.0/8").unwrap();
    HttpLimits { trusted_proxies, ..HttpLimits::default() }
}

fn request(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

async fn ask(server: &Server, before: &[u8], headers: &str) -> Answer {
    let mut stream = server.connect().await;
    stream.write_all(&[before, request(headers).as_bytes()].concat()).await.unwrap();
    read_answer(&mut stream).await
}

async fn asked_by(server: &Server, before: &[u8], headers: &str) -> IpAddr {
    let answer = ask(server, before, headers).await;
    assert_eq!(answer.status, 200, "{}", before.escape_ascii());
    serde_json::from_value(answer.json()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_trusted_proxy_says_for_whom_it_asks_by_header_or_by_proxy_protocol() {
    let server = start(trusting(), who()).await;
    let forwarded = "x-forwarded-for: 198.51.100.1, 203.0.113.9, 10.1.1.1\r\n";
    for (before, headers, client) in [
        (b"".as_slice(), forwarded, "203.0.113.9"),
        (b"", "", "127.0.0.1"),
        (b"", "x-forwarded-for: nonsense\r\n", "127.0.0.1"),
        (V1.as_bytes(), "", "203.0.113.9"),
        (V2, "", "203.0.113.9"),
        // Who connects for itself may say it in the request.
        (LOCAL, "", "127.0.0.1"),
        (LOCAL, "x-forwarded-for: 203.0.113.9\r\n", "203.0.113.9"),
        // Who connects for somebody without an address did not write the request.
        (UNKNOWN, "x-forwarded-for: 203.0.113.9\r\n", "127.0.0.1"),
        (UNSPEC, "x-forwarded-for: 203.0.113.9\r\n", "127.0.0.1"),
        // A stranger's header says nothing, a second proxy's does.
        (V1.as_bytes(), "x-forwarded-for: 198.51.100.1\r\n", "203.0.113.9"),
        (b"PROXY TCP4 10.2.2.2 10.0.0.1 1 2\r\n", "x-forwarded-for: 198.51.100.1\r\n", "198.51.100.1"),
    ] {
        assert_eq!(asked_by(&server, before, headers).await, ip(client), "{}", before.escape_ascii());
    }
}

#[tokio::test]
async fn of_a_peer_that_is_not_trusted_nothing_is_believed() {
    let server = start(HttpLimits::default(), who()).await;
    assert_eq!(asked_by(&server, b"", "x-forwarded-for: 203.0.113.9\r\n").await, ip("127.0.0.1"));
    for before in [V1.as_bytes(), V2, LOCAL] {
        assert_eq!(ask(&server, before, "").await.status, 400, "a malformed request");
    }
}

#[tokio::test]
async fn a_header_that_comes_in_pieces_is_put_together() {
    let server = start(trusting(), who()).await;
    for before in [V1.as_bytes(), V2] {
        let mut stream = server.connect().await;
        for byte in before {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream.write_all(request("").as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.json(), json!("203.0.113.9"));
    }
}

#[tokio::test]
async fn a_header_that_never_ends_or_is_none_is_cut_off() {
    let header_timeout = Duration::from_millis(100);
    let server = start(HttpLimits { header_timeout, ..trusting() }, who()).await;
    for part in [&V1.as_bytes()[..20], &V2[..20], b"PROX"] {
        let mut stream = server.connect().await;
        stream.write_all(part).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.status, 0);
    }
    server.metric_becomes("roost_http_header_timeouts_total", 3.0).await;
    let too_long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &[0; 1000]].concat();
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    for wrong in [too_long.as_slice(), &endless, b"PROXY TCP4 here there 1 2\r\n"] {
        assert_eq!(ask(&server, wrong, "").await.status, 0);
    }
    server.metric_becomes("roost_http_refused_total{listener=\"public\",reason=\"proxy\"}", 3.0).await;
    server.metric_becomes("roost_http_connections", 0.0).await;
}

#[tokio::test]
async fn a_proxy_that_waits_to_say_who_connects_does_not_hold_up_a_shutdown() {
    let server = start(trusting(), who()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PROXY").await.unwrap();
    server.metric_becomes("roost_http_connections", 1.0).await;
    server.shutdown.cancel();
    server.stopped().await;
}

/// The rate of new connections is that of a client, not of the proxy that all of them come through.
#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_rate_of_handshakes() {
    let limits = HttpLimits { handshakes_per_s: 1, handshakes_burst: 3, ..trusting() };
    let server = start(limits, who()).await;
    for _ in 0..20 {
        assert_eq!(ask(&server, b"", "").await.status, 200, "the proxy itself");
    }
    let from = |last: usize| format!("upgrade: websocket\r\nx-forwarded-for: 198.51.100.{last}\r\n");
    for last in 1..=20 {
        assert_eq!(ask(&server, b"", &from(last)).await.status, 200, "twenty clients");
    }
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(ask(&server, V1.as_bytes(), "").await.status);
    }
    assert_eq!(statuses[..3], [200; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask(&server, b"", &from(1)).await.status, 200, "nobody else is refused");
}

/// How many of twenty connections are served.
async fn served(server: &Server, before: &[u8], headers: impl Fn(usize) -> String) -> usize {
    let mut served = 0;
    for i in 0..20 {
        let status = ask(server, before, &headers(i)).await.status;
        assert!(status == 200 || status == 429, "{status}");
        served += usize::from(status == 200);
    }
    served
}

/// Or whoever makes a proxy's word illegible would be as free as the proxy.
#[tokio::test]
async fn sockets_for_somebody_whom_a_proxy_does_not_name_cost_the_proxys_address() {
    let limits = HttpLimits { handshakes_per_s: 1, handshakes_burst: 3, ..trusting() };
    let upgrade = |list: &str| format!("upgrade: websocket\r\nx-forwarded-for: {list}\r\n");
    for list in ["unknown", "", "\u{ff}", "198.51.100.1\u{ff}"] {
        let server = start(limits.clone(), who()).await;
        let sockets = served(&server, b"", |_| upgrade(list)).await;
        assert!((3..20).contains(&sockets), "{list:?}: {sockets}");
        assert_eq!(served(&server, b"", |_| "upgrade: websocket\r\n".into()).await, 20, "for itself");
        assert_eq!(ask(&server, b"", &upgrade("203.0.113.9")).await.status, 200, "nobody else is refused");
    }
    // Whatever a client writes to the left, of those that a proxy names each pays for itself.
    let server = start(limits.clone(), who()).await;
    let sockets = served(&server, b"", |i| upgrade(&format!("198.51.100.{i}\u{ff}, 203.0.113.9"))).await;
    assert!((3..20).contains(&sockets), "{sockets}");
    assert_eq!(ask(&server, b"", &upgrade("\u{ff}, 203.0.113.10")).await.status, 200);
    for before in [UNKNOWN, UNSPEC] {
        let server = start(limits.clone(), who()).await;
        let connections = served(&server, before, |i| format!("x-forwarded-for: 198.51.100.{i}\r\n")).await;
        assert!((3..20).contains(&connections), "{connections}");
        assert_eq!(served(&server, LOCAL, |_| String::new()).await, 20, "for itself");
        assert_eq!(ask(&server, V2, "").await.status, 200, "nobody else is refused");
    }
}

/// A proxy that reads HTTP passes on any method, and of a connection that is closed without an answer it thinks that
/// the program behind it is down.
#[tokio::test]
async fn a_request_whose_method_is_proxy_is_answered_as_any_other() {
    let server = start(trusting(), warp::get().and(who()).boxed()).await;
    for target in ["/", "/x", "*"] {
        let mut stream = server.connect().await;
        let request = format!("PROXY {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let status = read_answer(&mut stream).await.status;
        assert!((400..500).contains(&status), "{target}: {status}");
    }
    assert_eq!(server.metric("roost_http_refused_total{listener=\"public\",reason=\"proxy\"}"), 0.0);
}

/// Requests of many clients follow each other on the connections that a proxy keeps. Each socket that is asked for is
/// somebody's connection; a plain request is none.
#[tokio::test]
async fn on_a_kept_connection_each_request_is_its_clients() {
    let limits = HttpLimits { handshakes_per_s: 1, handshakes_burst: 2, ..trusting() };
    let server = start(limits, who()).await;
    let mut stream = server.connect().await;
    let mut statuses = Vec::new();
    let socket = "upgrade: websocket\r\n";
    for (client, header) in
        [(1, ""), (1, socket), (1, socket), (1, socket), (2, socket), (1, socket), (1, ""), (2, socket)]
    {
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 198.51.100.{client}\r\n");
        stream.write_all(format!("{head}{header}\r\n").as_bytes()).await.unwrap();
        statuses.push(status(&mut stream).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 200, 429, 200, 200]);
}

/// Reads one whole answer of a connection that stays.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    head[9..12].parse().unwrap()
}
