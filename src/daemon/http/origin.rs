//! Checks that a request that changes something comes from our own page.
//!
//! A browser sends the cookie by itself. `SameSite=Strict` keeps it from requests of other sites, but a site
//! does not include the port: a page on another port of this machine belongs to the same site.

use axum::http::{HeaderMap, header};

use super::problem::{ApiProblem, Code};

/// Requires that a page of this origin sent the request. `Sec-Fetch-Site` shows that where there is TLS or
/// the host is local. Elsewhere the browser sends `Origin`, which has to name our host.
pub(super) fn require_our_page(headers: &HeaderMap) -> Result<(), ApiProblem> {
    let ours = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => origin(headers).is_some_and(|(_, authority)| {
            headers
                .get(header::HOST)
                .is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
        }),
    };
    let detail =
        "only the status page itself may do this with its cookie; programs send Authorization: Bearer KEY";
    if ours { Ok(()) } else { Err(ApiProblem::new(Code::Forbidden, detail)) }
}

/// Whether the page was loaded over TLS, which a proxy terminates in front of us.
pub(super) fn is_https(headers: &HeaderMap) -> bool {
    origin(headers).is_some_and(|(scheme, _)| scheme == "https")
}

/// The scheme and authority of `Origin`.
fn origin(headers: &HeaderMap) -> Option<(&str, &str)> {
    headers.get(header::ORIGIN)?.to_str().ok()?.split_once("://")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_our_page_is_accepted() {
        for (site, origin, ours) in [
            (Some("same-origin"), None, true),
            (Some("same-origin"), Some("https://behind.a.proxy"), true),
            (Some("same-site"), Some("http://tokens.example:8787"), false),
            (Some("cross-site"), None, false),
            (Some("none"), None, false),
            (Some(""), Some("http://tokens.example:8787"), false),
            (None, Some("http://tokens.example:8787"), true),
            (None, Some("https://TOKENS.example:8787"), true),
            (None, Some("http://tokens.example"), false),
            (None, Some("http://tokens.example:3000"), false),
            (None, Some("http://evil.example"), false),
            (None, Some("http://tokens.example:8787.evil.example"), false),
            (None, Some("null"), false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("tokens.example:8787"));
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(require_our_page(&headers).is_ok(), ours, "{site:?} {origin:?}");
        }
    }
}
