//! Target: a call that is to be passed on, and its answer.
//!
//! An input is one byte, which says what the rest is: a path, a query, or the body of an answer.

use serde::de::IgnoredAny;
use serde_json::Value;
use wxtokend::internals::proxy::{is_passable, refuses_token, without};

const NEVER: [&str; 6] = [
    "/cgi-bin/token",
    "/cgi-bin/stable_token",
    "/cgi-bin/gettoken",
    "/cgi-bin/clear_quota",
    "/cgi-bin/component",
    "/cgi-bin/service",
];
const NAME: &str = "access_token";

/// Checks what must hold of `input`.
pub fn run(input: &[u8]) {
    let [kind, rest @ ..] = input else { return };
    match kind % 4 {
        0 => path(&String::from_utf8_lossy(rest)),
        1 => query(&String::from_utf8_lossy(rest)),
        2 => answer(rest),
        _ => {
            for encoding in ["gzip", "deflate", "br", "gzip, gzip"] {
                // It must come to an end, whatever it is.
                let _ = refuses_token(rest, Some(encoding), kind & 4 == 0);
            }
        }
    }
}

/// A path that is passed on means the same to a server that unescapes it, however often, and that joins slashes or
/// takes `;` for the end of a name.
fn path(path: &str) {
    if !path.starts_with('/') || !is_passable(path) {
        return;
    }
    let mut seen = path.to_owned();
    for _ in 0..3 {
        seen = unescaped(&seen);
        let plain = seen.replace('\\', "/").to_ascii_lowercase();
        assert!(!plain.contains("//"), "an empty segment: {path}");
        for segment in plain.split('/') {
            let name = segment.split(';').next().unwrap_or_default().trim();
            assert!(!matches!(name, "." | ".."), "a dot segment: {path}");
        }
        for known in NEVER {
            let below = plain.strip_prefix(known);
            let names = |rest: &str| {
                rest.is_empty() || rest.starts_with(['/', '?', '#', ';', '.', ' ', '\0', '\t', '\r', '\n'])
            };
            assert!(!below.is_some_and(names), "is passed on as {known}: {path}");
        }
    }
}

/// No parameter of that name is left, and nothing else is lost.
fn query(query: &str) {
    let rest = without(query, NAME);
    let is_named = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        unescaped(&name.replace('+', " ")) == NAME
    };
    assert!(!rest.split('&').any(|pair| is_named(&pair)), "{query}: {rest}");
    let others: Vec<_> = query.split('&').filter(|pair| !is_named(pair)).collect();
    assert_eq!(rest, others.join("&"), "{query}");
}

/// An answer refuses the token if it is an object with such a code, by another reader's word.
fn answer(body: &[u8]) {
    let refuses = refuses_token(body, None, true);
    let object = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => object,
        // Words that cannot be read, of another encoding for example, do not change what the code says.
        Err(_) if serde_json::from_slice::<IgnoredAny>(body).is_ok() => return,
        _ => return assert!(!refuses, "no object"),
    };
    let code = object.get("errcode").and_then(Value::as_i64);
    assert_eq!(refuses, matches!(code, Some(40001 | 40014 | 42001)), "{object:?}");
    // The beginning of an answer says no other than the whole, once the code was there.
    if refuses_token(body, None, false) {
        assert!(refuses);
    }
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|digits| *first == b'%' && digits.bytes().all(|it| it.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
