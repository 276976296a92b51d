//! Which headers pass the proxy.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers of one connection, which a proxy does not pass on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Begins the names of our own headers, which WeChat must not set for us.
const OURS: &str = "x-wxtokend-";

/// Says that the token was refused, replaced, and the call repeated.
pub(super) const RETRIED: HeaderName = HeaderName::from_static("x-wxtokend-retried");

/// Removes from a request what is between the client and us: the connection's headers, the key and the cookies.
pub(super) fn clean_request(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [header::AUTHORIZATION, header::COOKIE, header::HOST, header::EXPECT] {
        headers.remove(name);
    }
    // Only what can be decoded here, since each answer is looked into.
    if let Some(encodings) = headers.remove(header::ACCEPT_ENCODING)
        && let Ok(known) = HeaderValue::try_from(decodable(encodings.to_str().unwrap_or_default()))
        && !known.is_empty()
    {
        headers.insert(header::ACCEPT_ENCODING, known);
    }
}

/// Removes from an answer what is between WeChat and us.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(header::SET_COOKIE);
    let ours: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Without it a body would have no end.
        .filter(|name| *name != header::CONTENT_LENGTH)
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named) {
        headers.remove(name);
    }
}

/// The members of an `Accept-Encoding` that [`super::answer`] can decode.
fn decodable(encodings: &str) -> String {
    let is_known = |member: &&str| {
        let name = member.split(';').next().unwrap_or_default().trim();
        ["gzip", "x-gzip", "deflate", "identity"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    encodings.split(',').map(str::trim).filter(is_known).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_belongs_to_a_connection_or_to_us_is_not_passed_on() {
        let mut request = headers(&[
            ("connection", "close, X-Hop , content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer hunter2"),
            ("cookie", "wxtokend=hunter2"),
            ("host", "hub"),
            ("expect", "100-continue"),
            ("accept-encoding", "br, gzip;q=0.8, zstd"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("x-request-id", "7"),
        ]);
        clean_request(&mut request);
        let passed = headers(&[
            ("accept-encoding", "gzip;q=0.8"),
            ("content-length", "3"),
            ("content-type", "text/plain"),
            ("x-request-id", "7"),
        ]);
        assert_eq!(request, passed);
        let mut request = headers(&[("accept-encoding", "br")]);
        clean_request(&mut request);
        assert_eq!(request, HeaderMap::new());

        let mut answer = headers(&[
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a=b"),
            ("x-wxtokend-retried", "1"),
            ("content-encoding", "gzip"),
            ("date", "today"),
        ]);
        clean_response(&mut answer);
        assert_eq!(answer, headers(&[("content-encoding", "gzip"), ("date", "today")]));
    }

    #[test]
    fn encodings_that_cannot_be_decoded_are_not_asked_for() {
        for (asked, passed) in [
            ("", ""),
            ("gzip", "gzip"),
            ("gzip, deflate, br, zstd", "gzip, deflate"),
            ("br;q=1.0, GZIP;q=0.5, *;q=0.1", "GZIP;q=0.5"),
            ("identity;q=0", "identity;q=0"),
        ] {
            assert_eq!(decodable(asked), passed, "{asked}");
        }
    }
}
