//! Asking a coordinator where home is.

use std::io;
use std::pin::pin;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use roost_proto::{Epoch, ErrorBody, UserId};
use serde::Deserialize;
use tokio::time::timeout;

use crate::error::{BuildError, Cause, ConnectTrouble, Failure, Trouble};

/// A coordinator answers in milliseconds. After this it is told that none did yet; the try goes on, since a name server
/// or a lost packet may take longer.
const SILENCE: Duration = Duration::from_millis(2_500);
/// The answer is a few hundred bytes; a coordinator that says much more is none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Of an answer that is no coordinator's, so much is shown.
const EXCERPT_CHARS: usize = 100;

/// Where home is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    pub url: String,
    pub epoch: Epoch,
    /// How long to wait before connecting, because the node is being stormed.
    #[serde(default)]
    pub connect_after_ms: u64,
}

/// Asks coordinators.
#[derive(Debug, Clone)]
pub(crate) struct Router {
    http: reqwest::Client,
    url: Url,
}

impl Router {
    /// # Errors
    /// If `coordinator` is not an `http://` URL.
    pub(crate) fn new(coordinator: &str, user: &UserId, timeout: Duration) -> Result<Self, BuildError> {
        let wrong = |why: String| BuildError::Url { url: coordinator.to_owned(), why };
        let mut url = Url::parse(coordinator).map_err(|e| wrong(e.to_string()))?;
        if url.scheme() != "http" {
            return Err(wrong("it must begin with http://".to_owned()));
        }
        url.path_segments_mut()
            .map_err(|()| wrong("it has no path".to_owned()))?
            .pop_if_empty()
            .push("route");
        url.query_pairs_mut().clear().append_pair("userId", user.as_str());
        // WebSockets do not go through HTTP proxies either.
        let http = reqwest::Client::builder().no_proxy().timeout(timeout).build();
        Ok(Self { http: http.map_err(|e| BuildError::Http(e.to_string()))?, url })
    }

    /// Asks; `quiet` is told if there is no answer for some time.
    pub(crate) async fn route_or_tell(&self, quiet: impl FnOnce(ConnectTrouble)) -> Result<Route, Trouble> {
        let mut route = pin!(self.route());
        match timeout(SILENCE, &mut route).await {
            Ok(answer) => answer,
            Err(_) => {
                let reason = format!("{}: no answer yet", self.asked());
                quiet(ConnectTrouble { cause: Cause::Unreachable, reason });
                route.await
            }
        }
    }

    pub(crate) async fn route(&self) -> Result<Route, Trouble> {
        let mut response = self.http.get(self.url.clone()).send().await.map_err(|e| self.trouble(&e))?;
        let (status, after_ms) = (response.status(), retry_after_ms(response.headers()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.trouble(&e))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.stranger(status, b"a long answer"));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| self.stranger(status, &body));
        }
        Err(self.refusal(status, after_ms, &body))
    }

    /// What is tried, for people: without the query.
    fn asked(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    /// What an HTTP status other than success means for the next try.
    fn refusal(&self, status: StatusCode, after_ms: u64, body: &[u8]) -> Trouble {
        let said = serde_json::from_slice::<Refusal>(body).ok().map(|refusal| refusal.error);
        let retry = |after_ms, cause, text: String| {
            let why = format!("{}: HTTP {status}: {text}", self.asked());
            Trouble::Retry { after_ms, cause, why }
        };
        match (status, said) {
            // A coordinator knows its own path: this is a node, an archiver, or a stranger.
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => self.stranger(status, body),
            (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, said) => {
                let message = said.map_or_else(|| self.no_coordinator(status, body), |error| error.message);
                Trouble::Fatal(Failure::Refused { status: status.as_u16(), message })
            }
            (_, Some(error)) => {
                retry(error.retry_after_ms.unwrap_or(after_ms), Cause::NotNow, error.to_string())
            }
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, None) => {
                retry(after_ms, Cause::NotNow, excerpt(body))
            }
            // A proxy that does not reach it.
            (status, None) if status.is_server_error() => retry(after_ms, Cause::Unreachable, excerpt(body)),
            (status, None) => self.stranger(status, body),
        }
    }

    fn stranger(&self, status: StatusCode, said: &[u8]) -> Trouble {
        Trouble::because(Cause::NotACoordinator, self.no_coordinator(status, said))
    }

    fn no_coordinator(&self, status: StatusCode, said: &[u8]) -> String {
        let text =
            format!("{} is not a coordinator's: it answers HTTP {status} {}", self.asked(), excerpt(said));
        text.trim_end().to_owned()
    }

    fn trouble(&self, e: &reqwest::Error) -> Trouble {
        let (cause, what) = met(e);
        Trouble::because(cause, format!("{}: {what}", self.asked()))
    }
}

/// As every error of the cluster says what it is.
#[derive(Deserialize)]
struct Refusal {
    error: ErrorBody,
}

/// The beginning of an answer, in one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(EXCERPT_CHARS).collect()
}

/// What a request met that got no answer, in the words of whoever looks for a wrong address.
fn met(e: &reqwest::Error) -> (Cause, String) {
    let causes: Vec<_> =
        std::iter::successors(std::error::Error::source(e), |&cause| cause.source()).collect();
    let io = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // "error sending request" alone helps nobody.
    let text = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if io == Some(io::ErrorKind::ConnectionRefused) {
        (Cause::Unreachable, "connection refused: nothing listens there".to_owned())
    } else if text.contains("dns error") {
        let last = causes.last().map(ToString::to_string).unwrap_or_default();
        (Cause::Unreachable, format!("no such host ({last})"))
    } else if e.is_timeout() {
        (Cause::Unreachable, "no answer in time".to_owned())
    } else if text.contains("invalid HTTP") {
        (Cause::NotACoordinator, format!("not a coordinator's: it does not answer in HTTP ({text})"))
    } else {
        (Cause::Unreachable, text)
    }
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3), as milliseconds; a date counts as none.
pub(crate) fn retry_after_ms(headers: &HeaderMap) -> u64 {
    let seconds =
        headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|s| s.trim().parse::<u64>().ok());
    seconds.unwrap_or(0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(url: &str) -> Result<Router, BuildError> {
        Router::new(url, &UserId::new("a b&c").unwrap(), Duration::from_secs(1))
    }

    #[test]
    fn the_user_is_encoded_and_a_path_is_kept() {
        for (base, want) in [
            ("http://h:7300", "http://h:7300/route?userId=a+b%26c"),
            ("http://h:7300/", "http://h:7300/route?userId=a+b%26c"),
            ("http://h/chat/", "http://h/chat/route?userId=a+b%26c"),
        ] {
            assert_eq!(router(base).unwrap().url.as_str(), want);
        }
        assert!(router("https://h").is_err());
        assert!(router("h:7300").is_err());
        assert!(router("").is_err());
    }

    #[test]
    fn a_coordinator_that_asks_for_patience_gets_it() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after_ms(&headers), 0);
        headers.insert(RETRY_AFTER, "3".parse().unwrap());
        let after_ms = retry_after_ms(&headers);
        let refusal = |status, body: &[u8]| router("http://h").unwrap().refusal(status, after_ms, body);
        let waits = |body| match refusal(StatusCode::SERVICE_UNAVAILABLE, body) {
            Trouble::Retry { after_ms, cause: Cause::NotNow, .. } => after_ms,
            other => panic!("{other:?}"),
        };
        let body = br#"{"error":{"code":"unavailable","message":"m","retryable":true,"retry_after_ms":250}}"#;
        assert_eq!((waits(b"no JSON"), waits(b"{}"), waits(body)), (3000, 3000, 250));
        assert!(matches!(refusal(StatusCode::BAD_REQUEST, b""), Trouble::Fatal(_)));
    }

    #[test]
    fn who_is_no_coordinator_is_called_that() {
        let router = router("http://h:7300").unwrap();
        let refusal =
            |status: u16, body: &str| match router.refusal(status.try_into().unwrap(), 0, body.as_bytes()) {
                Trouble::Retry { cause, why, .. } => (Some(cause), why),
                Trouble::Fatal(failure) => (None, failure.to_string()),
                other @ Trouble::Token(_) => panic!("{other:?}"),
            };
        let (cause, why) = refusal(404, "<html>\n  <h1>Not here</h1>");
        assert_eq!(cause, Some(Cause::NotACoordinator));
        assert!(why.starts_with("http://h:7300/route is not a coordinator's: it answers HTTP 404"), "{why}");
        assert!(why.ends_with("<html> <h1>Not here</h1>"), "{why}");
        let of_a_node = r#"{"error":{"code":"not_found","message":"no such path","retryable":false}}"#;
        assert_eq!(refusal(404, of_a_node).0, Some(Cause::NotACoordinator));
        assert_eq!(refusal(502, "<html>").0, Some(Cause::Unreachable));
        let (cause, why) = refusal(403, "");
        assert!(cause.is_none() && why.contains("not a coordinator's"), "AirPlay: {why}");
    }
}
