//! JSON replies and the one shape of errors: `{"error":{"code","message","retryable"}}`.
//!
//! Everything is a plain [`Response`]: a filter that ends in `-> Response` keeps its type short.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response as HttpResponse, StatusCode};
use roost_proto::{ErrorBody, ErrorCode};
use serde::Serialize;
use warp::Rejection;
use warp::reject::{self, Reject};
use warp::reply::Response;

/// Told to a client that is refused for now without a more exact time, in milliseconds.
const RETRY_AFTER_MS_DEFAULT: u64 = 1_000;

#[derive(Serialize)]
struct Wrapped<'a> {
    error: &'a ErrorBody,
}

/// `body` as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => with_type(status, "application/json", bytes),
        Err(failure) => {
            tracing::error!(%failure, "a reply could not be written as JSON");
            error(&ErrorBody::new(ErrorCode::Internal, "the reply could not be written"))
        }
    }
}

/// `200` and `body` as JSON.
pub fn ok(body: &impl Serialize) -> Response {
    json(StatusCode::OK, body)
}

/// `body` under the HTTP status of its code; with `Retry-After` where repeating later is the advice.
pub fn error(body: &ErrorBody) -> Response {
    let status = StatusCode::from_u16(body.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    error_with_status(status, body)
}

/// `body` under a status that has no code of its own (405, 411, 415, 426).
pub fn error_with_status(status: StatusCode, body: &ErrorBody) -> Response {
    error_response(status, body).map(Into::into)
}

pub(crate) fn with_type(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The same for those who answer below warp (a request that took too long, a refused connection).
pub(crate) fn error_response(status: StatusCode, body: &ErrorBody) -> HttpResponse<Bytes> {
    let bytes = serde_json::to_vec(&Wrapped { error: body }).unwrap_or_default();
    let mut response = HttpResponse::new(Bytes::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after_s(body) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Whole seconds for `Retry-After` (RFC 9110 §10.2.3), rounded up so that nobody comes too early.
pub(crate) fn retry_after_s(body: &ErrorBody) -> Option<u64> {
    let advised = matches!(body.code, ErrorCode::RateLimited | ErrorCode::Unavailable);
    let ms = body.retry_after_ms.or(advised.then_some(RETRY_AFTER_MS_DEFAULT))?;
    Some(ms.div_ceil(1000).max(1))
}

/// An [`ErrorBody`] on its way out of a filter; [`recover`] answers with it.
#[derive(Debug, Clone)]
pub struct ApiError(pub ErrorBody);

impl Reject for ApiError {}

/// Ends a filter with this error.
pub fn reject(body: ErrorBody) -> Rejection {
    reject::custom(ApiError(body))
}

/// Turns whatever a filter was refused with into the one shape of errors: the last thing before `warp::service`.
///
/// # Errors
/// Never; the type is what [`warp::Filter::recover`] wants.
pub async fn recover(rejection: Rejection) -> Result<Response, Infallible> {
    if let Some(ApiError(body)) = rejection.find() {
        return Ok(error(body));
    }
    let (status, code, message) = describe(&rejection);
    Ok(error_with_status(status, &ErrorBody::new(code, message)))
}

/// Routes are tried one after the other and their refusals pile up: the most telling one wins, and "wrong
/// method" comes last because any route with the same path leaves one behind.
fn describe(rejection: &Rejection) -> (StatusCode, ErrorCode, String) {
    let bad = |status: StatusCode, message: String| (status, ErrorCode::BadRequest, message);
    if rejection.is_not_found() {
        return (StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such path".into());
    }
    if rejection.find::<reject::PayloadTooLarge>().is_some() {
        return (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, "the body is over the limit".into());
    }
    if rejection.find::<reject::LengthRequired>().is_some() {
        return bad(StatusCode::LENGTH_REQUIRED, "a Content-Length is required".into());
    }
    if rejection.find::<reject::UnsupportedMediaType>().is_some() {
        return bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json".into());
    }
    if let Some(refused) = rejection.find::<warp::filters::body::BodyDeserializeError>() {
        return bad(StatusCode::BAD_REQUEST, refused.to_string());
    }
    if rejection.find::<reject::InvalidQuery>().is_some() {
        return bad(StatusCode::BAD_REQUEST, "the query is not as documented".into());
    }
    if let Some(refused) = rejection.find::<reject::MissingHeader>() {
        return bad(StatusCode::BAD_REQUEST, format!("the header {} is missing", refused.name()));
    }
    if let Some(refused) = rejection.find::<reject::InvalidHeader>() {
        return bad(StatusCode::BAD_REQUEST, format!("the header {} is malformed", refused.name()));
    }
    if rejection.find::<reject::MethodNotAllowed>().is_some() {
        return bad(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method".into());
    }
    tracing::error!(?rejection, "a request was refused for a reason nobody foresaw");
    (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, "a bug in the server".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_too_early() {
        let told = |code, ms: Option<u64>| {
            let body = ErrorBody::new(code, "x");
            retry_after_s(&ms.map_or(body.clone(), |ms| body.retry_after(ms)))
        };
        assert_eq!(told(ErrorCode::RateLimited, Some(1)), Some(1));
        assert_eq!(told(ErrorCode::RateLimited, Some(1001)), Some(2));
        assert_eq!(told(ErrorCode::Unavailable, None), Some(1));
        assert_eq!(told(ErrorCode::BadRequest, None), None);
    }

    #[test]
    fn the_status_is_that_of_the_code() {
        for code in ErrorCode::ALL {
            let response = error(&ErrorBody::new(*code, "why"));
            assert_eq!(response.status().as_u16(), code.http_status());
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        }
    }
}
