//! The status page: a few files that are compiled into the program.
//!
//! The files are the same for everyone and hold no data, so they need no key. Everything that the page shows
//! comes from the API, with the cookie of `/v1/session`. The content security policy lets the browser load
//! nothing from elsewhere and run nothing but these files; even our own scripts cannot turn text into markup
//! (`require-trusted-types-for`).

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use wxtokend_core::secret::hex;

use super::problem::{ApiProblem, Code};
use super::token::matches_etag;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name, type and content.
type File = (&'static str, &'static str, &'static [u8]);

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        [$(($name, $kind, include_bytes!(concat!("ui/", $name)))),*]
    };
}

const FILES: [File; 24] = files! {
    "index.html": HTML,
    "icon.svg": SVG,
    "style.css": CSS,
    "table.css": CSS,
    "account.js": JS,
    "advice.js": JS,
    "api.js": JS,
    "bar.js": JS,
    "dom.js": JS,
    "facts.js": JS,
    "fleet.js": JS,
    "history.js": JS,
    "hosts.js": JS,
    "language.js": JS,
    "list.js": JS,
    "live.js": JS,
    "main.js": JS,
    "overview.js": JS,
    "refresh.js": JS,
    "row.js": JS,
    "signin.js": JS,
    "tickets.js": JS,
    "time.js": JS,
    "words.js": JS,
};

const RULES: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Revalidated each time and answered 304, so that a new version of the program replaces all files at
    // once.
    (header::CACHE_CONTROL, "no-cache"),
];

static ETAGS: LazyLock<[String; FILES.len()]> =
    LazyLock::new(|| FILES.map(|(_, _, content)| format!("\"{}\"", hex(&Sha256::digest(content)[..8]))));

pub(super) async fn page(headers: HeaderMap) -> Response {
    serve(0, &headers)
}

pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Result<Response, ApiProblem> {
    let name = uri.path().strip_prefix("/ui/").unwrap_or_default();
    let index = FILES.iter().position(|file| file.0 == name);
    // The page itself is served at one address only.
    let index = index.filter(|index| *index > 0);
    index
        .map(|index| serve(index, &headers))
        .ok_or_else(|| ApiProblem::new(Code::NotFound, "there is no such file"))
}

fn serve(index: usize, headers: &HeaderMap) -> Response {
    let (_, kind, content) = FILES[index];
    let etag = &ETAGS[index];
    let matches_etag = matches_etag(headers, etag);
    let etag = [(header::ETAG, etag.as_str())];
    if matches_etag {
        return (StatusCode::NOT_MODIFIED, RULES, etag).into_response();
    }
    ([(header::CONTENT_TYPE, kind)], RULES, etag, content).into_response()
}
