//! What a request must be before any service sees it, and what all services may take for granted.

use http::header::{HOST, HeaderName, UPGRADE};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use roost_proto::{ErrorBody, ErrorCode};

/// Whether a header that is a list has `name` in it, in whatever line and case (RFC 9110 §5.3).
pub fn names(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let lines = headers.get_all(header).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| one.trim().eq_ignore_ascii_case(name))
}

/// Why a request is not for any service, and its status.
pub(super) type Refused = (StatusCode, ErrorBody);

/// Checks the head of a request, and lets `HEAD` stand for `GET` (RFC 9110 §9.3.2): the connection leaves the body out
/// of the answer.
pub(super) fn prepare<B>(request: &mut Request<B>) -> Result<(), Refused> {
    let bad = |status, why: &str| Err((status, ErrorBody::new(ErrorCode::BadRequest, why)));
    // RFC 9110 §9.3.6: for proxies, and its target has no path, which warp takes for a bug.
    if request.method() == Method::CONNECT {
        return bad(StatusCode::METHOD_NOT_ALLOWED, "this is no proxy");
    }
    if !request.uri().path().starts_with('/') {
        return bad(StatusCode::BAD_REQUEST, "the target of the request has no path");
    }
    // RFC 9112 §3.2. HTTP/1.0 knows none.
    match (request.headers().get_all(HOST).iter().count(), request.version()) {
        (1, _) | (0, Version::HTTP_10 | Version::HTTP_09) => {}
        _ => return bad(StatusCode::BAD_REQUEST, "a request has exactly one Host"),
    }
    // Whoever wants a WebSocket wants the method of it; others only offer HTTP/2, as Java's client does.
    if request.method() == Method::HEAD && !names(request.headers(), UPGRADE, "websocket") {
        *request.method_mut() = Method::GET;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, version: Version, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn what_no_service_could_understand_is_refused_before_it() {
        for (method, target, version, hosts, status) in [
            ("CONNECT", "a:1", Version::HTTP_11, &["a:1"][..], Some(405)),
            ("OPTIONS", "*", Version::HTTP_11, &["h"], Some(400)),
            ("GET", "a:1", Version::HTTP_11, &["h"], Some(400)),
            ("GET", "/", Version::HTTP_11, &[], Some(400)),
            ("GET", "/", Version::HTTP_11, &["h", "h"], Some(400)),
            ("GET", "/", Version::HTTP_10, &["h", "h"], Some(400)),
            ("GET", "/", Version::HTTP_10, &[], None),
            ("GET", "http://h/", Version::HTTP_11, &["h"], None),
            ("GET", "/", Version::HTTP_11, &["h"], None),
        ] {
            let refused = prepare(&mut request(method, target, version, hosts)).err();
            let refused = refused.map(|(status, _)| status.as_u16());
            assert_eq!(refused, status, "{method} {target} {version:?} {hosts:?}");
        }
    }

    #[test]
    fn head_is_get_unless_it_wants_a_socket() {
        for upgrade in [None, Some("h2c"), Some("h2c, websockets")] {
            let mut head = request("HEAD", "/", Version::HTTP_11, &["h"]);
            head.headers_mut().extend(upgrade.map(|upgrade| (UPGRADE, upgrade.parse().unwrap())));
            prepare(&mut head).unwrap();
            assert_eq!(head.method(), Method::GET, "{upgrade:?}");
        }
        let mut head = request("HEAD", "/", Version::HTTP_11, &["h"]);
        head.headers_mut().insert(UPGRADE, "websocket".parse().unwrap());
        prepare(&mut head).unwrap();
        assert_eq!(head.method(), Method::HEAD);
    }
}
