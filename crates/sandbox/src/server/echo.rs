//! The description of a request, by which a client sees what arrived of it.

use std::collections::BTreeMap;

use axum::http::request::Parts;
use serde_json::{Value, json};
use wxtokend_core::account::Appid;

use super::upload::Upload;

/// Headers that carry keys.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Parameters of WeChat's calls that carry a secret, besides `access_token`, which is left out.
const SECRET_PARAMETERS: [&str; 9] = [
    "appsecret",
    "code",
    "component_access_token",
    "component_appsecret",
    "corpsecret",
    "js_code",
    "refresh_token",
    "secret",
    "suite_access_token",
];

const REDACTED: &str = "[redacted]";

/// Describes a request of `appid`. Path and query are as they arrived, byte for byte, but for secrets.
pub(super) fn echo(head: &Parts, upload: &Upload, appid: Option<&Appid>) -> Value {
    let mut headers = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in &head.headers {
        let value = if SECRET_HEADERS.contains(&name.as_str()) {
            REDACTED.to_owned()
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        headers.entry(name.as_str()).or_default().push(value);
    }
    let (query, access_tokens) = without_secrets(head.uri.query().unwrap_or_default());
    json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": query,
        "access_tokens": access_tokens,
        "appid": appid,
        "headers": headers,
        "length": upload.length,
        "sha256": upload.sha256,
    })
}

/// The query without its access_tokens and with other secrets redacted, and how many access_tokens it had.
fn without_secrets(query: &str) -> (String, usize) {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let (tokens, others): (Vec<&str>, Vec<&str>) = pairs.partition(|pair| name(pair) == "access_token");
    let shown = |pair: &&str| match name(pair) {
        name if SECRET_PARAMETERS.contains(&&*name) => format!("{name}={REDACTED}"),
        _ => (*pair).to_owned(),
    };
    (others.iter().map(shown).collect::<Vec<_>>().join("&"), tokens.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_shown_byte_for_byte_without_its_secrets() {
        for (query, shown, tokens) in [
            ("", "", 0),
            ("access_token=T", "", 1),
            ("a=%2f&access_token=T&b=+%20&c", "a=%2f&b=+%20&c", 1),
            ("access_token=T&x=1&access_token=U", "x=1", 2),
            ("appid=wx1&secret=S&js_code=C", "appid=wx1&secret=[redacted]&js_code=[redacted]", 0),
        ] {
            assert_eq!(without_secrets(query), (shown.to_owned(), tokens), "{query}");
        }
    }
}
