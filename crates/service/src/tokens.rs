//! Tokens: whose they are, whether they hold, and where in a request they stand (RFC 7519, 7515, 7518).
//!
//! The signature is checked by jsonwebtoken; the claims are checked here, because its defaults are not ours
//! (60 s leeway, `nbf` unchecked, `aud` and `iss` checked only if present) and because time comes from outside.

mod bearer;
mod key;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{EncodingKey, Header, Validation};
use roost_proto::{Claims, ErrorBody, ErrorCode, UserId};
use serde::Serialize;
use serde_json::{Map, Value};

pub use self::bearer::{SUBPROTOCOL, bearer, from_authorization, from_subprotocol, subprotocols};
pub use self::key::{KeyError, KeySource, SECRET_BYTES_ADVISED};
use crate::secret::Secret;

/// How far the clock of who signs and ours may be apart, in seconds. Clocks kept by NTP differ by milliseconds;
/// five seconds forgive one that drifts, and are nothing beside the minutes a token lives.
pub const LEEWAY_S: u64 = 5;
/// Longest token that is looked at, in bytes: it has to fit into the headers (16 KiB) beside the others.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// No `exp` or `nbf` is this large (the year 5138); one that is was written in milliseconds and would never
/// expire.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Why a token is not accepted. The texts may be shown to whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token's signature or algorithm is not accepted")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is for another audience")]
    Audience,
    #[error(
        "the token names an audience (aud), and none is configured here (JWT_AUDIENCE): it is for somebody else"
    )]
    NoAudience,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token's claims are not accepted: {0}")]
    Claim(String),
}

impl TokenError {
    /// The answer to a request with this token: `unauthorized`.
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::Unauthorized, self.to_string())
    }
}

/// Checks tokens against one source of keys; cheap to clone.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: KeySource,
    audience: Option<String>,
    issuer: Option<String>,
}

impl Verifier {
    /// With an `audience` or an `issuer` the token must name it.
    pub fn new(keys: KeySource, audience: Option<String>, issuer: Option<String>) -> Self {
        Self { keys, audience, issuer }
    }

    /// Checks `token` as of `now_s`, in seconds since 1970.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong with it; of several things, the first in the order signature, time,
    /// audience and issuer, other claims.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        let mut claims = self.signed(token)?;
        check_time(&mut claims, now_s)?;
        self.check_audience(&claims)?;
        self.check_issuer(&claims)?;
        check_subject(&claims)?;
        // Nothing is what a claim that is left out says.
        claims.retain(|_, value| !value.is_null());
        check_rights(&claims)?;
        serde_json::from_value(Value::Object(claims)).map_err(|wrong| TokenError::Claim(wrong.to_string()))
    }

    /// The claims of a token whose signature holds under a key and an algorithm we chose: what the token's
    /// header says of either only decides whether it is refused.
    fn signed(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        // RFC 7515 §4.1.11: an extension marked critical that is not understood makes the token invalid.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let key = self.keys.choose(&header).ok_or(TokenError::Signature)?;
        let mut only_the_signature = Validation::new(key.algorithm);
        only_the_signature.required_spec_claims.clear();
        only_the_signature.validate_exp = false;
        only_the_signature.validate_aud = false;
        jsonwebtoken::decode(token, &key.decoding, &only_the_signature).map(|data| data.claims).map_err(
            |wrong| match wrong.kind() {
                ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
                    TokenError::Malformed
                }
                _ => TokenError::Signature,
            },
        )
    }

    /// RFC 7519 §4.1.3: a token that names audiences is only for them. That holds without a configured one too.
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let named = match (claims.get("aud"), &self.audience) {
            (None | Some(Value::Null), wanted) => wanted.is_none(),
            (Some(_), None) => return Err(TokenError::NoAudience),
            (Some(Value::String(one)), Some(wanted)) => one == wanted,
            (Some(Value::Array(several)), Some(wanted)) => several.iter().any(|one| one == wanted.as_str()),
            (Some(_), Some(_)) => false,
        };
        if named { Ok(()) } else { Err(TokenError::Audience) }
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        match &self.issuer {
            Some(wanted) if claims.get("iss").and_then(Value::as_str) != Some(wanted) => {
                Err(TokenError::Issuer)
            }
            _ => Ok(()),
        }
    }
}

/// RFC 7519 §4.1.4 and §4.1.5. Leaves `exp` as whole seconds, as [`Claims`] wants it.
fn check_time(claims: &mut Map<String, Value>, now_s: u64) -> Result<(), TokenError> {
    let exp = seconds(claims, "exp")?.ok_or_else(|| TokenError::Claim("exp is missing".into()))?;
    if now_s >= exp.saturating_add(LEEWAY_S) {
        return Err(TokenError::Expired);
    }
    if seconds(claims, "nbf")?.is_some_and(|nbf| nbf > now_s.saturating_add(LEEWAY_S)) {
        return Err(TokenError::NotYet);
    }
    claims.insert("exp".into(), exp.into());
    Ok(())
}

/// A NumericDate (RFC 7519 §2): it may have a fraction, which is dropped.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let fractional = value.as_f64().filter(|s| (0.0..1e18).contains(s))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..1e18")]
        Some(fractional as u64)
    });
    match whole {
        Some(whole) if whole < SECONDS_MAX => Ok(Some(whole)),
        _ => Err(TokenError::Claim(format!("{name} is not in seconds since 1970"))),
    }
}

/// Checked by hand first, for a better text than serde's.
fn check_subject(claims: &Map<String, Value>) -> Result<(), TokenError> {
    let sub = match claims.get("sub") {
        None => return Err(TokenError::Claim("sub is missing".into())),
        Some(sub) => sub.as_str().ok_or_else(|| TokenError::Claim("sub is not a text".into()))?,
    };
    if sub.starts_with(UserId::RESERVED) {
        return Err(TokenError::Claim(format!(
            "sub: ids that begin with '{}' are reserved",
            UserId::RESERVED
        )));
    }
    UserId::new(sub).map(|_| ()).map_err(|wrong| TokenError::Claim(format!("sub: {wrong}")))
}

/// By hand, too: each is named.
fn check_rights(claims: &Map<String, Value>) -> Result<(), TokenError> {
    if claims.get("role").is_some_and(|role| role != "user" && role != "service") {
        return Err(TokenError::Claim("role is neither \"user\" nor \"service\"".into()));
    }
    let is_list = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
    match ["rooms", "watch"].into_iter().find(|name| claims.get(*name).is_some_and(|value| !is_list(value))) {
        Some(name) => {
            Err(TokenError::Claim(format!("{name} is not a list of texts, such as [\"team-*\"] or [\"*\"]")))
        }
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Signed<'a> {
    #[serde(flatten)]
    claims: &'a Claims,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// Signs `claims` with `secret` (HS256), as `roost token` and tests need it.
pub fn sign(secret: &Secret, claims: &Claims) -> String {
    sign_for(secret, claims, None, None)
}

/// The same with `aud` and `iss`, for a cluster with `JWT_AUDIENCE` or `JWT_ISSUER`.
pub fn sign_for(secret: &Secret, claims: &Claims, aud: Option<&str>, iss: Option<&str>) -> String {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::default(), &Signed { claims, aud, iss }, &key)
        .expect("claims are plain JSON, and HMAC takes a key of any length")
}
