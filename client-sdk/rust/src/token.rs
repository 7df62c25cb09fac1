//! Tokens: given once, or asked of the application when a fresh one is needed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roost_proto::UserId;
use serde::Deserialize;

use crate::error::{BoxError, NotAToken};

pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;
pub(crate) type TokenFn = Box<dyn Fn() -> TokenFuture + Send + Sync>;

/// A token that expires sooner than this is not worth a connection.
const EXPIRY_MARGIN_S: u64 = 5;

pub(crate) struct Tokens {
    last: Mutex<Option<String>>,
    ask: Option<TokenFn>,
    timeout: Duration,
}

impl Tokens {
    pub(crate) fn new(token: Option<String>, ask: Option<TokenFn>, timeout: Duration) -> Self {
        Self { last: Mutex::new(token), ask, timeout }
    }

    /// The token to connect with: the last one, or one from the callback if there is none, if it expired, or if
    /// a `fresh` one is wanted.
    ///
    /// # Errors
    /// The callback's, or that it took too long.
    pub(crate) async fn get(&self, fresh: bool) -> Result<String, BoxError> {
        let last = self.last.lock().map_or(None, |last| last.clone());
        match (&self.ask, last) {
            (Some(ask), last) => {
                if let Some(token) = last.filter(|t| !fresh && !expires_before(t, now_s() + EXPIRY_MARGIN_S))
                {
                    return Ok(token);
                }
                let token =
                    tokio::time::timeout(self.timeout, ask()).await.map_err(|_| "no token in time")??;
                check(&token)?;
                if let Ok(mut last) = self.last.lock() {
                    *last = Some(token.clone());
                }
                Ok(token)
            }
            (None, Some(token)) => Ok(token),
            (None, None) => Err("no token".into()),
        }
    }

    pub(crate) fn renewable(&self) -> bool {
        self.ask.is_some()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("renewable", &self.renewable()).finish_non_exhaustive()
    }
}

/// Whether `text` is made like a token. Whether it holds is the server's to say.
///
/// # Errors
/// What it is instead.
pub(crate) fn check(text: &str) -> Result<(), NotAToken> {
    let parts: Vec<&str> = text.split('.').collect();
    let encoded = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b));
    if text.trim().is_empty() {
        return Err(NotAToken("is empty"));
    }
    if text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) {
        return Err(NotAToken("begins with \"Bearer \": give what comes after it"));
    }
    if parts.len() != 3 {
        return Err(NotAToken("has another number of parts"));
    }
    if !parts.iter().all(encoded) {
        return Err(NotAToken("has a part that is not base64url"));
    }
    let claims = URL_SAFE_NO_PAD.decode(parts[1].trim_end_matches('=')).unwrap_or_default();
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&claims);
    object.map(|_| ()).map_err(|_| NotAToken("has a second part that is no JSON object"))
}

/// The user a token was made for (`sub`), read without checking the signature: the server does that.
pub(crate) fn user_of(token: &str) -> Option<UserId> {
    claims(token)?.sub
}

fn expires_before(token: &str, s: u64) -> bool {
    claims(token).and_then(|c| c.exp).is_some_and(|exp| exp < s)
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<UserId>,
    exp: Option<u64>,
}

/// The second part of a JWT (RFC 7519 §3.1).
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_user_is_read_from_the_token() {
        assert_eq!(user_of(&jwt(r#"{"sub":"alice","exp":1}"#)), UserId::new("alice").ok());
        for bad in ["", "x", "a.b.c", &jwt("{}"), &jwt(r##"{"sub":"#x"}"##), &jwt("7")] {
            assert_eq!(user_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_token_is_called_that() {
        let good = jwt("{}");
        for (text, what) in [
            ("", "is empty"),
            (" ", "is empty"),
            ("my-api-key", "another number of parts"),
            ("a.b.c.d", "another number of parts"),
            (&format!("Bearer {good}"), "Bearer"),
            ("e30.!.c2ln", "not base64url"),
            (&format!("{good}\n"), "not base64url"),
            (&jwt("7"), "no JSON object"),
            (&jwt("alice"), "no JSON object"),
        ] {
            let told = check(text).unwrap_err().to_string();
            assert!(told.starts_with("this is no token") && told.contains(what), "{text:?}: {told}");
        }
        // Whether there are the right claims in it, and whether it is signed, is not looked at.
        assert_eq!((check(&good), check("e30.e30.")), (Ok(()), Ok(())));
    }

    #[tokio::test]
    async fn a_callback_that_gives_no_token_is_told_so() {
        let ask: TokenFn = Box::new(|| Box::pin(async { Ok("undefined".to_owned()) }));
        let told = Tokens::new(None, Some(ask), Duration::from_secs(1)).get(false).await.unwrap_err();
        assert!(told.downcast_ref::<NotAToken>().is_some(), "{told}");
    }

    #[tokio::test]
    async fn a_fresh_token_is_asked_for_only_when_it_is_needed() {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let ask: TokenFn = Box::new(move || {
            let n = counter.fetch_add(1, Ordering::Relaxed);
            let exp = if n < 2 { now_s() + 600 } else { 1 };
            Box::pin(async move { Ok(jwt(&format!(r#"{{"sub":"alice","exp":{exp},"n":{n}}}"#))) })
        });
        let tokens = Tokens::new(None, Some(ask), Duration::from_secs(1));
        let first = tokens.get(false).await.unwrap();
        assert_eq!(tokens.get(false).await.unwrap(), first);
        let second = tokens.get(true).await.unwrap();
        assert_ne!(second, first);
        assert_eq!(tokens.get(false).await.unwrap(), second);
        tokens.get(true).await.unwrap();
        tokens.get(false).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 4, "an expired token is not used");
    }

    #[tokio::test]
    async fn a_callback_that_hangs_is_an_error() {
        let ask: TokenFn = Box::new(|| Box::pin(std::future::pending()));
        let tokens = Tokens::new(None, Some(ask), Duration::from_millis(10));
        assert_eq!(tokens.get(false).await.unwrap_err().to_string(), "no token in time");
    }
}
