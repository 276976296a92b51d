//! The cookie of the status page: the client's key itself, in hex.
//!
//! The server keeps no session state, so a session outlives a restart and ends at once when a reload removes
//! the key. Scripts cannot read the cookie (`HttpOnly`), requests from other sites do not carry it
//! (`SameSite=Strict`), and the browser forgets it when it is closed. It names no path and
//! so has that of the folder of `/v1/session`, wherever a proxy or a program that embeds us has mounted it: cookies
//! are not bound to a port, and another program on this machine should not receive it with every request for its
//! own pages.

use axum::http::{HeaderMap, HeaderValue, header};
use wxtokend_core::secret::{hex, unhex};

const NAME: &str = "wxtokend_key";
const RULES: &str = "HttpOnly; SameSite=Strict";

/// The key in the cookie; `None` if there is more than one such cookie.
pub(super) fn key(headers: &HeaderMap) -> Option<Vec<u8>> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|list| list.to_str().ok());
    let pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value);
    let (value, None) = (values.next()?, values.next()) else { return None };
    unhex(value).filter(|key| !key.is_empty())
}

/// `Set-Cookie` for a sign-in. With `over_tls`, the cookie is never sent without TLS.
pub(super) fn set(key: &str, over_tls: bool) -> HeaderValue {
    let secure = if over_tls { "; Secure" } else { "" };
    header_value(format!("{NAME}={}; {RULES}{secure}", hex(key.as_bytes())))
}

/// `Set-Cookie` for a sign-out.
pub(super) fn forget() -> HeaderValue {
    header_value(format!("{NAME}=; {RULES}; Max-Age=0"))
}

fn header_value(text: String) -> HeaderValue {
    // Fails only for unprintable characters, and the text has none.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cookies: &[&'static str]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        key(&headers)
    }

    #[test]
    fn any_key_comes_back_out_of_its_cookie() {
        for text in ["k", "a key; with=all, \"that\" cookies forbid", "钥匙"] {
            let set = set(text, false);
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(pair).unwrap())]);
            assert_eq!(key(&headers).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn a_cookie_that_is_not_ours_or_not_alone_is_no_key() {
        assert_eq!(of(&["theme=dark; wxtokend_key=6b; x=y"]).unwrap(), b"k");
        assert_eq!(of(&["theme=dark", "wxtokend_key=6B"]).unwrap(), b"k");
        for cookies in [
            &["wxtokend_key=6b; wxtokend_key=6b"][..],
            &["wxtokend_key=6b", "wxtokend_key=6b"],
            &["wxtokend_key="],
            &["wxtokend_key=6"],
            &["wxtokend_key=6g"],
            &["wxtokend_key=+b"],
            &["Wxtokend_key=6b"],
            &["xwxtokend_key=6b"],
            &["wxtokend_key"],
            &[],
        ] {
            assert_eq!(of(cookies), None, "{cookies:?}");
        }
    }

    #[test]
    fn it_is_secure_over_tls_and_never_shown_by_debug() {
        let cookie = set("k", true);
        assert_eq!(cookie.to_str().unwrap(), "wxtokend_key=6b; HttpOnly; SameSite=Strict; Secure");
        assert!(!set("k", false).to_str().unwrap().contains("Secure"));
        assert_eq!(format!("{cookie:?}"), "Sensitive");
        assert_eq!(forget(), "wxtokend_key=; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
