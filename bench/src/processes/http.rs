//! One connection for one request after the other, and nothing that an HTTP client does beside: the load tool has
//! the same two cores.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers are some hundred bytes.
const ANSWER_MAX: usize = 16 * 1024;

pub(super) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub(super) async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(ANSWER_MAX) })
    }

    /// The body of a 200.
    pub(super) async fn route(&mut self, user: &str) -> Result<String> {
        let request = format!("GET /route?userId={user} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
            let text = std::str::from_utf8(&self.buffer)?;
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                ensure!(head.starts_with("HTTP/1.1 200"), "{text}");
                if body.len() >= content_length(head)? {
                    return Ok(body.to_owned());
                }
            }
            ensure!(self.buffer.len() < ANSWER_MAX, "an answer of more than {ANSWER_MAX} bytes");
        }
    }
}

fn content_length(head: &str) -> Result<usize> {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    Ok(line.context("no length")?.parse()?)
}
