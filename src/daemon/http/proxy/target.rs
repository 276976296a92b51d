//! What a call is for: its path and query, as they are passed on.
//!
//! Both go out byte for byte as they came in. So a path that WeChat might read in another way than we do is
//! refused rather than rewritten: what is refused here must not come through in another spelling.

use crate::daemon::http::problem::{ApiProblem, Code};

/// Paths that are never passed on, with all below them: they mint tokens behind our back, or change what
/// belongs to the whole account or platform.
const NEVER: [&str; 6] = [
    "/cgi-bin/token",
    "/cgi-bin/stable_token",
    "/cgi-bin/gettoken",
    "/cgi-bin/clear_quota",
    "/cgi-bin/component",
    "/cgi-bin/service",
];

/// Checks that `path`, which begins with a slash, has one meaning only, and may be called at all.
///
/// # Errors
/// The refusal, which does not repeat the path.
pub(in crate::daemon::http) fn require_passable(path: &str) -> Result<(), ApiProblem> {
    require_unambiguous(path)?;
    // The case counts at WeChat, as far as is known; it does not here, in case it does not there.
    let is_below = |known: &&str| match path.split_at_checked(known.len()) {
        Some((head, rest)) => head.eq_ignore_ascii_case(known) && !rest.starts_with(is_word),
        None => false,
    };
    if NEVER.iter().any(is_below) {
        let detail = "this path is not passed on: tokens are minted by wxtokend alone, and quotas and platforms \
            belong to all that use the account";
        return Err(ApiProblem::new(Code::PathNotAllowed, detail));
    }
    Ok(())
}

/// Checks that `path`, which begins with a slash, has one meaning only.
///
/// # Errors
/// The refusal, which does not repeat the path.
pub(super) fn require_unambiguous(path: &str) -> Result<(), ApiProblem> {
    match ambiguity(path) {
        Some(why) => Err(ApiProblem::bad_request(format!("the path {why}: send it in its plain form"))),
        None => Ok(()),
    }
}

/// Whether [`require_passable`] lets a path pass.
#[cfg(feature = "internals")]
pub(crate) fn is_passable(path: &str) -> bool {
    require_passable(path).is_ok()
}

/// Whether a name goes on with this character.
fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

/// Why a server might take the path for another one.
fn ambiguity(path: &str) -> Option<&'static str> {
    if path.contains("//") {
        return Some("has an empty segment");
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Some("has a dot segment");
    }
    if path.contains(['\\', ';']) || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Some("has a backslash, a semicolon, a blank or a control character");
    }
    let mut rest = path;
    while let Some((_, escape)) = rest.split_once('%') {
        let Some(byte) = escape.get(..2).and_then(unescape) else {
            return Some("has a % that escapes nothing");
        };
        match byte {
            b'/' | b'\\' => return Some("has an escaped slash or backslash"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                return Some("has an escaped character that needs no escape");
            }
            b';' | b'?' | b'#' | b'%' | 0..=0x20 | 0x7f => {
                return Some("has an escaped character that has no place in a path");
            }
            _ => {}
        }
        rest = &escape[2..];
    }
    None
}

fn unescape(digits: &str) -> Option<u8> {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// A query without its parameters of one name, and their values; all else is as it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Without {
    pub(crate) rest: String,
    /// The values, unescaped, in their order.
    pub(crate) values: Vec<String>,
}

/// Takes the parameters `name` out of `query`, however their name is escaped.
pub(crate) fn take_out(query: &str, name: &str) -> Without {
    let (mut rest, mut values) = (String::with_capacity(query.len()), Vec::new());
    let mut is_first = true;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if is_name(key, name) {
            values.push(decoded(value));
            continue;
        }
        if !std::mem::take(&mut is_first) {
            rest.push('&');
        }
        rest.push_str(pair);
    }
    Without { rest, values }
}

/// Whether `key`, as it stands in a query, means `name`.
fn is_name(key: &str, name: &str) -> bool {
    key == name || (key.contains(['%', '+']) && decoded(key) == name)
}

/// The text of a part of a query; what escapes nothing stands for itself, as with all decoders.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%');
        match digits.and_then(|digits| unescape(std::str::from_utf8(digits).ok()?)) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The query `rest`, which has no token, with this one put in.
pub(in crate::daemon::http) fn with_token(rest: &str, access_token: &str) -> String {
    let join = if rest.is_empty() { "" } else { "&" };
    format!("access_token={}{join}{rest}", escaped(access_token))
}

/// `value` as a value in a query.
pub(crate) fn escaped(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &str) -> Option<Code> {
        require_passable(path).err().map(|problem| problem.code)
    }

    #[test]
    fn a_path_is_passed_on_if_it_has_one_meaning_alone() {
        for path in [
            "/cgi-bin/user/info",
            "/cgi-bin/tokens",
            "/cgi-bin/token_x",
            "/cgi-bin/token-x",
            "/cgi-bin/services",
            "/cgi-bin/componentry/x",
            "/wxa/getwxacode",
            "/a.b/c..d/...",
            "/%E5%BE%AE/x",
            "/a%2Bb",
            "/a/",
            "/",
        ] {
            assert_eq!(code(path), None, "{path}");
        }
        for path in [
            "//cgi-bin/token",
            "/a//b",
            "/a/./b",
            "/a/..",
            "/..",
            "/a/%2e%2e/b",
            "/a%2Fb",
            "/a%2fb",
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/%74oken",
            "/cgi-bin/%74oken",
            "/cgi%2Dbin/token",
            "/a%7Eb",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/a%é",
            "/a%00",
            "/a%20",
            "/a%7f",
            "/a;b",
            "/a b",
            "/a\r../b",
            "/a\0",
            "/a\x7f",
            "/a%3bb",
            "/a%3fb",
            "/a%23b",
            "/a%252e",
        ] {
            assert_eq!(code(path), Some(Code::BadRequest), "{path}");
        }
    }

    #[test]
    fn what_mints_or_clears_is_never_passed_on_in_whatever_spelling() {
        for path in [
            "/cgi-bin/token",
            "/cgi-bin/token/",
            "/cgi-bin/token/x",
            "/cgi-bin/token.json",
            "/cgi-bin/token%E3",
            "/cgi-bin/token,x",
            "/CGI-BIN/Token",
            "/cgi-bin/stable_token",
            "/cgi-bin/gettoken",
            "/cgi-bin/clear_quota",
            "/cgi-bin/clear_quota/v2",
            "/cgi-bin/component",
            "/cgi-bin/component/api_component_token",
            "/cgi-bin/service/get_suite_token",
        ] {
            assert_eq!(code(path), Some(Code::PathNotAllowed), "{path}");
        }
    }

    #[test]
    fn a_parameter_is_taken_out_however_it_is_written_and_all_else_stays() {
        for (query, rest, values) in [
            ("", "", &[][..]),
            ("a=1&b=%20+c&d", "a=1&b=%20+c&d", &[]),
            ("access_token=T&a=1", "a=1", &["T"]),
            ("a=1&access_token=T", "a=1", &["T"]),
            ("a=1&access_token=T&b=2&access_token=U", "a=1&b=2", &["T", "U"]),
            ("access%5Ftoken=T%2D1&a", "a", &["T-1"]),
            ("%61ccess_token=T", "", &["T"]),
            ("access_token", "", &[""]),
            ("access_token=", "", &[""]),
            ("access_tokens=T&xaccess_token=T", "access_tokens=T&xaccess_token=T", &[]),
            ("a=access_token=1", "a=access_token=1", &[]),
            ("a==1&&b", "a==1&&b", &[]),
            ("&a&", "&a&", &[]),
            ("access_token=T&&a", "&a", &["T"]),
            ("access_token=a+b%zz%4", "", &["a b%zz%4"]),
        ] {
            let expected =
                Without { rest: rest.to_owned(), values: values.iter().map(|it| (*it).to_owned()).collect() };
            assert_eq!(take_out(query, "access_token"), expected, "{query}");
        }
    }

    #[test]
    fn a_value_is_escaped_where_it_must_be() {
        assert_eq!(escaped("Az09-._~"), "Az09-._~");
        assert_eq!(escaped("a+b&c=é"), "a%2Bb%26c%3D%C3%A9");
        assert_eq!(decoded(&escaped("a+b&c=é")), "a+b&c=é");
    }
}
