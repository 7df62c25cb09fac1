//! Where the token stands in a request: `Authorization`, or the subprotocols a browser can set.

use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol of the contract; a client that sends its token beside it offers both.
pub const SUBPROTOCOL: &str = "roost.v1";
const SUBPROTOCOL_TOKEN: &str = "bearer.";
const SCHEME: &str = "bearer";

/// The token of a request, wherever it stands; `Authorization` first.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    from_authorization(headers).or_else(|| from_subprotocol(headers))
}

/// From `Authorization: Bearer <jwt>`; the scheme in any case (RFC 9110 §11.1).
pub fn from_authorization(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty()).then_some(token)
}

/// From `Sec-WebSocket-Protocol: roost.v1, bearer.<jwt>`: the one header a browser's `WebSocket` lets a page set.
/// The answer must name [`SUBPROTOCOL`], never the token.
pub fn from_subprotocol(headers: &HeaderMap) -> Option<&str> {
    subprotocols(headers)
        .find_map(|offered| offered.strip_prefix(SUBPROTOCOL_TOKEN))
        .filter(|token| !token.is_empty())
}

/// Every subprotocol that is offered, in order; the header may be repeated (RFC 6455 §11.3.4).
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|offered| !offered.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header = (&'static str, &'static str);

    fn headers(pairs: &[Header]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_token_is_found_where_the_contract_puts_it_and_nowhere_else() {
        let table: &[(&[Header], Option<&str>)] = &[
            (&[], None),
            (&[("authorization", "Bearer a.b.c")], Some("a.b.c")),
            (&[("authorization", "bEARER   a.b.c ")], Some("a.b.c")),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Basic YTpi")], None),
            (&[("authorization", "a.b.c")], None),
            (&[("sec-websocket-protocol", "roost.v1, bearer.a.b.c")], Some("a.b.c")),
            (&[("sec-websocket-protocol", "bearer.a.b.c,roost.v1")], Some("a.b.c")),
            (&[("sec-websocket-protocol", "roost.v1"), ("sec-websocket-protocol", "bearer.x")], Some("x")),
            (&[("sec-websocket-protocol", "roost.v1, bearer.")], None),
            (&[("sec-websocket-protocol", "bearer")], None),
            (&[("authorization", "Bearer one"), ("sec-websocket-protocol", "bearer.two")], Some("one")),
            (&[("authorization", "Basic x"), ("sec-websocket-protocol", "bearer.two")], Some("two")),
            (&[("cookie", "bearer=a.b.c")], None),
        ];
        for (pairs, expected) in table {
            assert_eq!(bearer(&headers(pairs)), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn all_offered_subprotocols_are_seen_in_order() {
        let map = headers(&[("sec-websocket-protocol", " a ,, b"), ("sec-websocket-protocol", "c")]);
        assert_eq!(subprotocols(&map).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
