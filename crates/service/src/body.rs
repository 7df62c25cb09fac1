//! Bodies of requests: read by who has looked at the token, up to a bound, within a time.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use roost_proto::{ErrorBody, ErrorCode, reading};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use warp::Stream;

/// Time for a body to come: a megabyte over a slow line.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads all that `warp::body::stream()` gives.
///
/// # Errors
/// `too_large` beyond `max` bytes, `bad_request` if it breaks off or does not come in time.
pub async fn read<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    max: usize,
) -> Result<Bytes, ErrorBody> {
    let mut body = pin!(body);
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(piece) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
            let piece = piece.map_err(|_| ErrorBody::new(ErrorCode::BadRequest, "the body broke off"))?;
            if bytes.len() + piece.remaining() > max {
                return Err(ErrorBody::new(ErrorCode::TooLarge, format!("the body is over {max} bytes")));
            }
            bytes.put(piece);
        }
        Ok(bytes.freeze())
    };
    let late = || ErrorBody::new(ErrorCode::BadRequest, "the body did not come in time");
    timeout(BODY_TIMEOUT, whole).await.map_err(|_| late())?
}

/// The fields of a body that is a JSON object in UTF-8.
///
/// # Errors
/// `bad_request`, naming the field.
pub fn fields<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorBody> {
    let bad = |why: String| ErrorBody::new(ErrorCode::BadRequest, format!("the body: {why}"));
    let text = std::str::from_utf8(body).map_err(|_| bad("not UTF-8".to_owned()))?;
    reading::read(text).map_err(bad)
}
