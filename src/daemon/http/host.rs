//! Protection of the API while it needs no key.
//!
//! Without keys a caller only has to be local, and so is a web page in a local browser. A page can make its
//! own name resolve to 127.0.0.1 (DNS rebinding) and read our answers as its own; then `Host` is its name. It
//! can also send simple requests without reading the answers; then `Origin` is its name. So where no key is
//! needed, both have to be local. A proxy makes every caller look local, so requests with a proxy's headers
//! are refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request, Uri, Version, header};

use super::paths;
use super::problem::{ApiProblem, Code};

/// Headers that proxies add to the requests they forward, in addition to all that begin with `x-forwarded`.
const PROXY_HEADERS: [&str; 12] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "ali-cdn-real-ip",
];

/// Requires exactly one `Host` header.
pub(super) fn require_host_header(
    headers: &HeaderMap,
    uri: &Uri,
    version: Version,
) -> Result<(), ApiProblem> {
    match headers.get_all(header::HOST).iter().count() {
        1 => Ok(()),
        // HTTP/1.0 has no `Host`.
        0 if version < Version::HTTP_11 || uri.authority().is_some() => Ok(()),
        _ => Err(ApiProblem::bad_request("send one Host header")),
    }
}

/// Gives a request over HTTP/2, which names its host in the URI, the `Host` header that it would have over
/// HTTP/1.1. A program that mounts the API may speak HTTP/2.
pub(super) fn insert_host_header<B>(request: &mut Request<B>) {
    if request.version() == Version::HTTP_2
        && !request.headers().contains_key(header::HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Requires that a local program sent the request.
pub(super) fn require_local(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), ApiProblem> {
    if headers.keys().any(|name| is_proxy_header(name.as_str())) {
        let detail = "this came through a proxy, behind which everybody is local: configure api.clients";
        return Err(ApiProblem::new(Code::Forbidden, detail));
    }
    let mut names =
        headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default()).peekable();
    let in_uri = uri.authority().map(Authority::as_str);
    // Browsers always send it. Only HTTP/1.0 monitors leave it out.
    let is_monitor = version < Version::HTTP_11 && paths::is_probe(uri.path());
    if names.peek().is_none() && in_uri.is_none() && !is_monitor {
        return Err(ApiProblem::bad_request("send one Host header"));
    }
    if !names.chain(in_uri).all(is_local) {
        return Err(not_local());
    }
    let local_origin = |origin: &str| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(is_local)
    };
    match headers.get(header::ORIGIN) {
        Some(origin) if !origin.to_str().is_ok_and(local_origin) => Err(not_local()),
        _ => Ok(()),
    }
}

fn is_proxy_header(name: &str) -> bool {
    name.starts_with("x-forwarded") || PROXY_HEADERS.contains(&name)
}

fn not_local() -> ApiProblem {
    let detail = "only local callers are let in without a key: call 127.0.0.1, [::1] or localhost by that name, \
                  or configure api.clients";
    ApiProblem::new(Code::Forbidden, detail)
}

/// Whether `authority`, a host with or without a port, names this machine in a way that no DNS can redirect.
fn is_local(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let local = address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
            return local && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let local = host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    local && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_of_ipv4_may_be_written_as_one_of_ipv6() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("[::ffff:10.0.0.1]:1", false),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
        ] {
            assert_eq!(super::super::is_loopback(address.parse().unwrap()), loopback, "{address}");
        }
    }

    #[test]
    fn local_is_localhost_and_loopback_addresses_with_any_port() {
        for local in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1",
            "127.0.0.1:8787",
            "127.255.0.9:1",
            "[::1]",
            "[::1]:8787",
        ] {
            assert!(is_local(local), "{local}");
        }
        for not_local in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:8787",
            "128.0.0.1",
            "10.0.0.1:8787",
            "[::2]:80",
            "[::1",
            "::1",
            "[::1]evil",
            "localhost:80:80",
            "2130706433",
            "me@localhost",
            "localhost@evil.example",
            "127.0.0.1:evil",
            "0.0.0.0",
            "127.1",
        ] {
            assert!(!is_local(not_local), "{not_local}");
        }
    }
}
