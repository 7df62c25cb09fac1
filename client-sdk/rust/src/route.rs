//! Asking a coordinator where home is.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use roost_proto::{Epoch, UserId};
use serde::Deserialize;

use crate::error::{BuildError, Failure, Trouble};

/// The answer is a few hundred bytes; a coordinator that says much more is none.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

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
        let http = reqwest::Client::builder().no_proxy().connect_timeout(timeout).timeout(timeout).build();
        Ok(Self { http: http.map_err(|e| BuildError::Http(e.to_string()))?, url })
    }

    pub(crate) async fn route(&self) -> Result<Route, Trouble> {
        let mut response = self.http.get(self.url.clone()).send().await.map_err(|e| trouble(&e))?;
        let (status, after_ms) = (response.status(), retry_after_ms(response.headers()));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| trouble(&e))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Trouble::retry("/route: the answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| Trouble::retry(format!("/route: {e}")));
        }
        let after_ms = said_ms(&body).unwrap_or(after_ms);
        Err(refusal(status, after_ms, String::from_utf8_lossy(&body).chars().take(200).collect()))
    }
}

/// `retry_after_ms` of an error: the header counts in whole seconds.
fn said_ms(body: &[u8]) -> Option<u64> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body["error"]["retry_after_ms"].as_u64()
}

/// What an HTTP status other than success means for the next try.
fn refusal(status: StatusCode, after_ms: u64, message: String) -> Trouble {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Trouble::Fatal(Failure::Refused { status: status.as_u16(), message })
        }
        _ => Trouble::Retry { after_ms, why: format!("/route: HTTP {status}: {message}") },
    }
}

fn trouble(e: &reqwest::Error) -> Trouble {
    // The cause is in the sources: "error sending request" alone helps nobody.
    let mut why = format!("/route: {e}");
    let mut source = std::error::Error::source(e);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    Trouble::retry(why)
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
        let retry = refusal(StatusCode::SERVICE_UNAVAILABLE, retry_after_ms(&headers), String::new());
        assert!(matches!(retry, Trouble::Retry { after_ms: 3000, .. }));
        let body = br#"{"error":{"code":"unavailable","retry_after_ms":250}}"#;
        assert_eq!((said_ms(body), said_ms(b"no JSON"), said_ms(b"{}")), (Some(250), None, None));
        assert!(matches!(refusal(StatusCode::BAD_REQUEST, 0, String::new()), Trouble::Fatal(_)));
    }
}
