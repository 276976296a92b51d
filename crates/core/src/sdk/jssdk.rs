//! The signature with which WeChat lets a page use its JS-SDK (`wx.config`).

use serde::Serialize;
use sha1::{Digest, Sha1};

use crate::account::Appid;
use crate::secret::hex;
use crate::ticket::Ticket;

/// What a page passes to `wx.config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsConfig {
    /// The account's appid.
    pub app_id: Appid,
    /// Unix time in seconds.
    pub timestamp: i64,
    /// Random string, generated for this signature.
    pub nonce_str: String,
    /// SHA-1 in lower-case hex.
    pub signature: String,
}

impl JsConfig {
    /// Signs the page at `url`, taken verbatim up to its `#`.
    #[must_use]
    pub fn new(app_id: Appid, ticket: &Ticket, url: &str, nonce_str: String, timestamp: i64) -> Self {
        let signature = sign(ticket.value(), &nonce_str, timestamp, url);
        Self { app_id, timestamp, nonce_str, signature }
    }
}

/// Cuts `url` at its `#`; only what precedes it is signed.
fn without_fragment(url: &str) -> &str {
    url.split('#').next().unwrap_or_default()
}

/// Whether a signature of `url` could be passed off as that of another page. Nothing in the signed text marks
/// where a value ends: an attacker who sends everything before a `&url=` in the URL as `timestamp` has a
/// signature of what follows it. The `#…` is not signed, so it does no harm.
pub fn signs_another_page(url: &str) -> bool {
    without_fragment(url).contains("&url=")
}

fn sign(ticket: &str, nonce: &str, timestamp: i64, url: &str) -> String {
    let url = without_fragment(url);
    let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={url}");
    hex(&Sha1::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str =
        "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg";

    #[test]
    fn a_page_is_signed_as_wechat_documents_it() {
        let sign = |url| sign(TICKET, "Wm3WZYTPz0wzccnW", 1_414_587_457, url);
        let published = "0f9de62fce790f9a083d5c99e95740ceb90c27ed";
        assert_eq!(sign("http://mp.weixin.qq.com?params=value"), published);
        assert_eq!(sign("http://mp.weixin.qq.com?params=value#wechat_redirect"), published);
        assert_ne!(sign("http://mp.weixin.qq.com?params=value&"), published);
    }

    #[test]
    fn a_page_that_could_be_passed_off_is_known() {
        let url = "https://shop.example/?a&timestamp=1&url=https://evil.example/#top";
        let signed = sign(TICKET, "nonce", 5, url);
        let nonce = "nonce&timestamp=5&url=https://shop.example/?a";
        assert_eq!(signed, sign(TICKET, nonce, 1, "https://evil.example/"), "the same text");
        assert!(signs_another_page(url));
        let url = "https://shop.example/?a&url=https://evil.example/";
        let text = |timestamp: &str, url: &str| {
            format!("jsapi_ticket={TICKET}&noncestr=nonce&timestamp={timestamp}&url={url}")
        };
        let forged = text("5&url=https://shop.example/?a", "https://evil.example/");
        assert_eq!(forged, text("5", url), "the same text, of which the timestamp is more than a number");
        assert!(signs_another_page(url));
        for harmless in ["https://shop.example/?url=https://evil.example/", "https://shop.example/#/?a&url=b"]
        {
            assert!(!signs_another_page(harmless), "{harmless}");
        }
    }
}
