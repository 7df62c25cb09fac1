//! Questions to a coordinator, or to an archiver.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use roost_proto::UserId;
use roost_proto::claims::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::out::note;
use crate::{place, token};

/// A little longer than a coordinator waits for a node.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer takes milliseconds: that none came yet is told within three seconds.
const QUIET: Duration = Duration::from_millis(2_500);
/// A service token that is made up here is used once.
const TOKEN_TTL_S: u64 = 60;
/// A question without a body.
const NOTHING: Option<&()> = None;
/// A stream says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// Which coordinator.
#[derive(clap::Args)]
pub(crate) struct Coordinator {
    /// A coordinator
    #[arg(long, env = "ROOST_URL", default_value = "http://127.0.0.1:7300")]
    url: String,
}

/// Which archiver.
#[derive(clap::Args)]
pub(crate) struct Archiver {
    /// An archiver
    #[arg(long = "archive-url", env = "ARCHIVE_URL", default_value = "http://127.0.0.1:7310")]
    url: String,
}

/// The status and the JSON of an answer, whatever it is: as `T` a text where payloads are in it, which are shown as they
/// are.
async fn ask<T: DeserializeOwned>(
    url: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<&(impl Serialize + Sync)>,
) -> anyhow::Result<(u16, T)> {
    let url = format!("{}{path}", url.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let mut request = client.request(method, &url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = answered(&url, request.send()).await?;
    let status = response.status().as_u16();
    let body = response.bytes().await.with_context(|| format!("the answer of {url}"))?;
    match serde_json::from_slice(&body) {
        Ok(body) => Ok((status, body)),
        // The HTTP library has no body for these.
        Err(_) if body.is_empty() && matches!(status, 400 | 431) => {
            bail!("{url} refused the request: HTTP {status}")
        }
        Err(_) if status >= 500 => {
            bail!("{url}: HTTP {status}, as a proxy says it that does not reach the cluster")
        }
        Err(_) => bail!("{url} is not of a Roost cluster: it answers HTTP {status}, and no JSON"),
    }
}

/// Waits for the head of an answer, and says so if it takes long.
async fn answered(
    url: &str,
    answer: impl Future<Output = reqwest::Result<reqwest::Response>>,
) -> anyhow::Result<reqwest::Response> {
    let mut answer = pin!(answer);
    let answer = match timeout(QUIET, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            note!("# {url}: no answer yet");
            answer.await
        }
    };
    answer.with_context(|| format!("asking {url}"))
}

impl Archiver {
    /// The JSON of a good answer to an operator.
    pub(crate) async fn operate(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        good(ask(&self.url, method, path, Some(&service_token()?), body).await?)
    }
}

impl Coordinator {
    /// The status and the JSON of an answer, whatever it is.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
    ) -> anyhow::Result<(u16, Value)> {
        ask(&self.url, method, path, token, NOTHING).await
    }

    /// The JSON of a good answer.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        good(ask(&self.url, Method::GET, path, None, NOTHING).await?)
    }

    /// The same, as an operator.
    pub(crate) async fn operate<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        good(ask(&self.url, method, path, Some(&service_token()?), NOTHING).await?)
    }

    /// Has the server API do something.
    pub(crate) async fn command(
        &self,
        command: &str,
        body: &(impl Serialize + Sync),
    ) -> anyhow::Result<Value> {
        let (token, path) = (service_token()?, format!("/api/{command}"));
        good(ask(&self.url, Method::POST, &path, Some(&token), Some(body)).await?)
    }

    /// The nodes that are up, by name.
    pub(crate) async fn nodes(&self) -> anyhow::Result<Vec<(String, Node)>> {
        let nodes = self.get("/nodes").await?;
        let up = |node: &Value| {
            let url = node["url"].as_str()?.replacen("ws", "http", 1);
            let url = url.strip_suffix("/socket")?.to_owned();
            (node["state"] == "up")
                .then(|| (node["node"].as_str().unwrap_or_default().to_owned(), Node { url }))
        };
        Ok(nodes["nodes"].as_array().into_iter().flatten().filter_map(up).collect())
    }

    /// `/ring` and `/nodes`, and the number of vnodes.
    pub(crate) async fn tables(&self) -> anyhow::Result<(Value, Value, u32)> {
        let (ring, nodes) = (self.get("/ring").await?, self.get("/nodes").await?);
        let vnodes = u32::try_from(ring["vnodes"].as_u64().unwrap_or(0))?;
        if vnodes == 0 {
            bail!("{} is not a coordinator, or has not read the ring yet", self.url);
        }
        Ok((ring, nodes, vnodes))
    }
}

/// A node's public address.
pub(crate) struct Node {
    url: String,
}

impl Node {
    /// The JSON of a good answer to an operator.
    pub(crate) async fn operate(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        good(ask(&self.url, method, path, Some(&service_token()?), NOTHING).await?)
    }

    /// An answer that goes on until it is dropped.
    pub(crate) async fn stream(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let url = format!("{}{path}", self.url);
        let client = reqwest::Client::builder().read_timeout(SILENCE).build()?;
        let response = answered(&url, client.get(&url).bearer_auth(service_token()?).send()).await?;
        if !response.status().is_success() {
            bail!("{}: {}", response.status(), response.text().await.unwrap_or_default());
        }
        Ok(response)
    }
}

/// `ROOST_TOKEN`, else one made with the secret at hand.
fn service_token() -> anyhow::Result<String> {
    if let Some(token) = std::env::var("ROOST_TOKEN").ok().filter(|token| !token.is_empty()) {
        return Ok(token);
    }
    let secret = place::secret()?.context(token::NO_SECRET)?;
    Ok(token::make(&secret, &UserId::new("roost-cli")?, TOKEN_TTL_S, Role::Service, None))
}

fn good<T: DeserializeOwned>((status, body): (u16, Box<RawValue>)) -> anyhow::Result<T> {
    if !(200..300).contains(&status) {
        let body: Value = serde_json::from_str(body.get()).unwrap_or_default();
        bail!("{status}: {}", body["error"]["message"].as_str().unwrap_or("no reason given"));
    }
    Ok(serde_json::from_str(body.get())?)
}
