//! A server on an ephemeral port, and a client that writes bytes.

use std::net::SocketAddr;
use std::time::Duration;

use prometheus::{Encoder, Registry, TextEncoder};
use roost_service::{HttpLimits, HttpMetrics, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) registry: Registry,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) async fn start(limits: HttpLimits, filter: BoxedFilter<(Response,)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let registry = Registry::new();
    let metrics = HttpMetrics::register(&registry, "public").unwrap();
    let (shutdown, tracker) = (CancellationToken::new(), TaskTracker::new());
    let service = warp::service(warp::Filter::recover(filter, roost_service::reply::recover));
    let serving = tracker.spawn(serve(listener, service, limits, metrics, shutdown.clone(), &tracker));
    Server { addr, shutdown, registry, serving }
}

impl Server {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends `request` over a connection of its own and reads until the server closes.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        // A server that refuses early may close before all of it is written.
        let _ = stream.write_all(request.as_bytes()).await;
        read_answer(&mut stream).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    /// The value of the counter or gauge whose line begins with `start`.
    pub(crate) fn metric(&self, start: &str) -> f64 {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until that value is `wanted`.
    pub(crate) async fn metric_becomes(&self, start: &str, wanted: f64) {
        let since = Instant::now();
        while (self.metric(start) - wanted).abs() > f64::EPSILON {
            assert!(since.elapsed() < PATIENCE, "{start} stays {}", self.metric(start));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn stopped(self) {
        timeout(PATIENCE, self.serving).await.expect("serve returns").unwrap();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Reads until the end; a connection that ends without a byte has status 0. A reset is an end too: a server that
/// has not read all of a request sends one after its answer.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}
