//! Files that are part of the program: the SDK for pages (`/sdk.js`) and the console (`/console`).
//!
//! The console is plain files without data; what it shows it asks for as any client does, and what it does for
//! operators needs their token. So it may be served to anyone, and is not unless somebody wants it ([`Console`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use roost_service::reply;
use serde_json::json;
use warp::filters::BoxedFilter;
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{HeaderMap, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};
use xxhash_rust::xxh3::xxh3_64;

use super::dev::DevCluster;

/// Whether there is a page at `/console`.
#[derive(Clone, Default)]
pub enum Console {
    #[default]
    Off,
    /// It asks for a service token.
    On,
    /// It makes its own tokens, and may kill nodes.
    Dev(Arc<dyn DevCluster>),
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::On => "On",
            Self::Dev(_) => "Dev",
        })
    }
}

/// Nothing from elsewhere, nothing inline, in nobody's frame (a click there may kill a node). Connections go
/// anywhere, since nodes have addresses of their own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src * ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Kept, and asked about each time: pages are as new as the coordinator (RFC 9111 §5.2.2.4).
const REVALIDATE: &str = "no-cache";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

const SDK: &str = "/sdk.js";
const SDK_TEXT: &str = include_str!("../../../client-sdk/js/dist/roost.js");

macro_rules! of_console {
    ($($file:literal: $kind:expr),* $(,)?) => {
        [$((concat!("/console/", $file), $kind, include_str!(concat!("../../../console/", $file)))),*]
    };
}

const INDEX: &str = include_str!("../../../console/index.html");
const CONSOLE: [(&str, &str, &str); 19] = of_console! {
    "style.css": STYLE,
    "icon.svg": SVG,
    "app.js": SCRIPT,
    "ask.js": SCRIPT,
    "chat.js": SCRIPT,
    "cluster.js": SCRIPT,
    "colour.js": SCRIPT,
    "cursors.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "inbox.js": SCRIPT,
    "inspector.js": SCRIPT,
    "messages.js": SCRIPT,
    "nodes.js": SCRIPT,
    "ops.js": SCRIPT,
    "presence.js": SCRIPT,
    "ring.js": SCRIPT,
    "theme.js": SCRIPT,
    "token.js": SCRIPT,
};

struct File {
    kind: &'static str,
    etag: HeaderValue,
    text: String,
}

impl File {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        let etag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
        Self { kind, etag: HeaderValue::try_from(etag).expect("hex digits in quotes are a header"), text }
    }
}

/// `GET` and `HEAD` of each; everything else is not found here.
pub(super) fn route(console: &Console) -> BoxedFilter<(Response,)> {
    let mut files = BTreeMap::from([(SDK, File::new(SCRIPT, SDK_TEXT))]);
    if !matches!(console, Console::Off) {
        let mode = json!({"dev": matches!(console, Console::Dev(_))}).to_string();
        files.extend(CONSOLE.map(|(path, kind, text)| (path, File::new(kind, text))));
        files.insert("/console", File::new(HTML, INDEX));
        files.insert("/console/", File::new(HTML, INDEX));
        files.insert("/console/mode.json", File::new("application/json", mode));
    }
    let files = Arc::new(files);
    let known = warp::path::full().and_then(move |path: FullPath| {
        let files = Arc::clone(&files);
        async move {
            if files.contains_key(path.as_str()) { Ok((files, path)) } else { Err(warp::reject::not_found()) }
        }
    });
    known
        .and(warp::get().or(warp::head()).unify())
        .and(warp::header::headers_cloned())
        .map(|(files, path): (Arc<BTreeMap<&str, File>>, FullPath), headers: HeaderMap| {
            answer(path.as_str(), &files[path.as_str()], &headers)
        })
        .recover(|rejection: Rejection| async move {
            // What is known and asked for wrongly is answered here; the rest is for the other routes.
            if rejection.is_not_found() {
                Err(rejection)
            } else {
                reply::recover(rejection).await.map_err(|e| match e {})
            }
        })
        .unify()
        .boxed()
}

fn answer(path: &str, file: &File, headers: &HeaderMap) -> Response {
    let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    // Compared weakly (RFC 9110 §13.1.2): who compresses on the way makes it a weak one.
    let fresh = known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == file.etag);
    let mut response = if fresh { Response::default() } else { Response::new(file.text.clone().into()) };
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(ETAG, file.etag.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(REVALIDATE));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if path == SDK {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    response
}
