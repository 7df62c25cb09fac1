//! nginx, with the settings that are shipped for it, in front of three nodes and a coordinator.
//!
//! Skipped, with a line that says so, where there is no nginx; with `ROOST_REQUIRE_SERVICES=1` that is a failure.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use roost_service::TrustedProxies;
use roost_tests::cluster::{Backend, Cluster, Setup, TempDir, eventually};
use roost_tests::processes::free_addr;
use roost_tests::wire::{LIMIT, get, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// As in an office of so many people behind each of so many addresses.
const CLIENTS: u8 = 30;
const SOCKETS_OF_EACH: usize = 50;
/// Enough for each of them, and far from enough for all together.
const BURST: u32 = 60;
const NODES: usize = 3;

fn nginx() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    // Debian keeps it where only root looks.
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places.map(|dir| dir.join("nginx")).find(|program| program.is_file());
    if found.is_none() {
        let why = "there is no nginx (Debian: apt-get install nginx-light)";
        assert!(std::env::var("ROOST_REQUIRE_SERVICES").is_err(), "{why}");
        eprintln!("skipped: {why}");
    }
    found
}

/// An nginx of this test, killed with it.
struct Proxy {
    process: Child,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Gently, or its worker would stay behind.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
    }
}

impl Proxy {
    fn start(program: &Path, cluster: &Cluster) -> Self {
        let (dir, addr) = (TempDir::default(), free_addr());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docker/proxy.conf");
        let node = |i: usize| format!("location /{i}/ {{ proxy_pass http://{}/; }}", cluster.node(i).addr());
        let nodes: String = (0..NODES).map(node).collect();
        let config = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log stderr;
             events {{ worker_connections 8192; }}
             http {{
               access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy;
               fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
               include {shipped};
               server {{ listen {addr} backlog=4096; {nodes} location / {{ proxy_pass {coordinator}; }} }}
             }}",
            dir.path().display(),
            shipped = shipped.display(),
            coordinator = cluster.url(),
        );
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).expect("the directory can be written");
        let mut command = Command::new(program);
        command.args(["-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(&file).stdin(Stdio::null());
        Self { process: command.spawn().expect("nginx starts"), addr, _dir: dir }
    }
}

/// An address of this machine's loopback network that stands for one of the world's.
fn client(i: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, i)
}

/// Asks for a socket from this address: the status, and the connection.
async fn knock(from: Ipv4Addr, proxy: SocketAddr, node: usize, header: &str) -> (u16, TcpStream) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddrV4::new(from, 0).into()).expect("loopback is a whole network");
    let mut stream = socket.connect(proxy).await.expect("nginx takes it");
    let request = format!(
        "GET /{node}/socket HTTP/1.1\r\nhost: chat.example.com\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("it is written");
    let mut line = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut line)).await.expect("an answer in time").expect("an answer");
    let status = std::str::from_utf8(&line[9..]).expect("digits").parse().expect("a status");
    (status, stream)
}

/// 1,500 sockets through one proxy are all taken, and who comes too often is refused alone, whatever it writes.
/// Thirty addresses open fifty sockets each; then one of them forges where it comes from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_fifteen_hundred_sockets_are_those_of_thirty_addresses() {
    let Some(program) = nginx() else { return };
    let setup = Setup::new(Backend::Memory, NODES).tune(|_, config| {
        (config.http.handshakes_per_s, config.http.handshakes_burst) = (1, BURST);
        config.http.trusted_proxies = TrustedProxies::parse("127.0.0.1").expect("an address");
    });
    let cluster = setup.start().await.expect("it needs no services");
    let proxy = Proxy::start(&program, &cluster);
    let url = format!("http://{}", proxy.addr);
    eventually("nginx listens", async || TcpStream::connect(proxy.addr).await.ok()).await;
    assert_eq!(get(&url, "/route?userId=alice", &[]).await.status, 200, "to a coordinator");
    // A method of this name is no header: closed without an answer, it would be nginx's 502, and the coordinator down.
    let status = request("PROXY", &url, "/", &[]).await.status;
    assert!((400..500).contains(&status), "{status}");

    let mut held = Vec::new();
    for round in 0..SOCKETS_OF_EACH {
        let knocks =
            (1..=CLIENTS).map(|i| knock(client(i), proxy.addr, (round + usize::from(i)) % NODES, ""));
        for (status, stream) in join_all(knocks).await {
            assert_eq!(
                status,
                101,
                "socket {} of {}",
                held.len() + 1,
                SOCKETS_OF_EACH * usize::from(CLIENTS)
            );
            held.push(stream);
        }
    }
    assert_eq!(held.len(), 1_500);
    // The second is no text.
    for made_up in ["", "\u{ff}"] {
        let mut refused = 0;
        for i in 0..2 * BURST {
            let header = format!("x-forwarded-for: 198.51.100.{i}{made_up}\r\n");
            refused += usize::from(knock(client(1), proxy.addr, 0, &header).await.0 == 429);
        }
        assert!(refused > 0, "what is written to the left makes nobody another: {made_up:?}");
    }
    assert_eq!(knock(client(CLIENTS + 1), proxy.addr, 0, "").await.0, 101, "nobody else is refused");
    drop(held);
    timeout(Duration::from_secs(20), cluster.stop()).await.expect("it stops");
}
