//! Where SDKs that share their tokens through Redis look for them, and in which format.
//!
//! We publish access_tokens, and tickets where an SDK shares them in the same way. Every byte matches what
//! the SDK itself would have written, so that it reads our entries as its own.

use md5::{Digest, Md5};
use serde_json::Value;

use crate::account::Account;
use crate::secret::{Secret, hex};
use crate::ticket::TicketKind;

mod entry;
mod template;
#[cfg(test)]
mod tests;

pub use entry::{Content, Entry, Promised};
pub use template::{InvalidTemplate, Template};

/// How one SDK, or one of its settings, keeps tokens in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// WxJava: `{prefix}:access_token:{appid}`.
    WxJava {
        /// `wx`, or `wa` for its mini programs.
        prefix: String,
    },
    /// silenceper/wechat (Go) on its classic endpoint.
    Silenceper,
    /// silenceper/wechat (Go) on its stable endpoint.
    SilenceperStable,
    /// EasyWeChat 6 (PHP). Its keys hold the AppSecret.
    EasyWeChat6 {
        /// Namespace of its cache; empty for none.
        namespace: String,
    },
    /// EasyWeChat 4 and 5 (PHP).
    EasyWeChat5,
    /// PowerWeChat (Go).
    PowerWeChat,
    /// wechatpy (Python): two keys, one of them for the expiry.
    Wechatpy,
    /// weixin_authorize (Ruby): a hash.
    WeixinAuthorize,
    /// A layout defined by the operator.
    Raw {
        /// The key.
        key: Template,
        /// The value.
        value: Template,
    },
}

impl Layout {
    /// The layouts' names in `accounts.yaml`.
    pub const NAMES: [&str; 9] = [
        "wxjava",
        "silenceper",
        "silenceper-stable",
        "easywechat6",
        "easywechat5",
        "powerwechat",
        "wechatpy",
        "weixin_authorize",
        "raw",
    ];

    /// The layout's name in `accounts.yaml`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let index = match self {
            Self::WxJava { .. } => 0,
            Self::Silenceper => 1,
            Self::SilenceperStable => 2,
            Self::EasyWeChat6 { .. } => 3,
            Self::EasyWeChat5 => 4,
            Self::PowerWeChat => 5,
            Self::Wechatpy => 6,
            Self::WeixinAuthorize => 7,
            Self::Raw { .. } => 8,
        };
        Self::NAMES[index]
    }

    /// Returns every entry that an SDK reads to get the account's token.
    #[must_use]
    pub fn entries(&self, account: &Account, promised: Promised<'_>) -> Vec<Entry> {
        let (appid, secret) = (account.appid.as_str(), account.secret.expose());
        let Promised { value: token, expires_in_s, .. } = promised;
        let plain = |key: String| vec![text(key, token.to_owned())];
        match self {
            Self::WxJava { prefix } => plain(format!("{prefix}:access_token:{appid}")),
            Self::Silenceper => plain(format!("gowechat_officialaccount__access_token_{appid}")),
            Self::SilenceperStable => plain(format!("gowechat_officialaccount__stable_access_token_{appid}")),
            Self::EasyWeChat6 { namespace } => {
                // `1` is for an SDK set to stable_token. The SDK does not care which endpoint our token comes
                // from.
                let key = |stable| format!("official_account.access_token.{appid}.{secret}.{stable}");
                [0, 1].map(|stable| easywechat6(namespace, &key(stable), token)).into()
            }
            Self::EasyWeChat5 => {
                let credentials = format!(
                    r#"{{"grant_type":"client_credential","appid":{},"secret":{}}}"#,
                    php_json(appid),
                    php_json(secret)
                );
                let key = format!("easywechat.kernel.access_token.{}", md5_hex(&credentials));
                let names = [php_string("access_token"), php_string("expires_in")];
                let token = php_string(token);
                vec![text(key, format!("a:2:{{{};{token};{};i:{expires_in_s};}}", names[0], names[1]))]
            }
            Self::PowerWeChat => {
                let key = format!("powerwechat.access_token.{}", md5_hex(&format!("{appid}{secret}")));
                let token = Value::from(token);
                vec![text(key, format!(r#"{{"access_token":{token},"expires_in":{expires_in_s}}}"#))]
            }
            Self::Wechatpy => wechatpy(&format!("{appid}_access_token"), promised),
            Self::WeixinAuthorize => {
                vec![weixin_authorize(&format!("weixin_{appid}"), "access_token", promised)]
            }
            Self::Raw { key, value } => {
                vec![text(key.fill(account, None), value.fill(account, Some(promised)))]
            }
        }
    }

    /// Returns every entry that an SDK reads to get one of the account's tickets; empty if it does not share
    /// that kind.
    #[must_use]
    pub fn ticket_entries(&self, account: &Account, kind: TicketKind, promised: Promised<'_>) -> Vec<Entry> {
        let (appid, name) = (account.appid.as_str(), kind.as_str());
        let Promised { value: ticket, expires_in_s, .. } = promised;
        match (self, kind) {
            (Self::WxJava { prefix }, _) => {
                vec![text(format!("{prefix}:ticket:key:{appid}:{name}"), ticket.to_owned())]
            }
            (Self::Silenceper | Self::SilenceperStable, TicketKind::Jsapi) => {
                vec![text(format!("gowechat_officialaccount__jsapi_ticket_{appid}"), ticket.to_owned())]
            }
            (Self::EasyWeChat6 { namespace }, TicketKind::Jsapi) => {
                vec![easywechat6(namespace, &format!("official_account.jsapi_ticket.{appid}"), ticket)]
            }
            // WeChat's whole answer, in its order.
            (Self::EasyWeChat5, _) => {
                let key = format!("easywechat.basic_service.jssdk.ticket.{name}.{appid}");
                let names = ["errcode", "errmsg", "ticket", "expires_in"].map(php_string);
                let values = ["i:0", &php_string("ok"), &php_string(ticket), &format!("i:{expires_in_s}")];
                let pairs = names.iter().zip(values).map(|(name, value)| format!("{name};{value};"));
                vec![text(key, format!("a:4:{{{}}}", pairs.collect::<String>()))]
            }
            // The same, with its names sorted, as Go writes a map.
            (Self::PowerWeChat, _) => {
                let key = format!("powerwechat.basic_service.jssdk.ticket.{name}.{appid}");
                let ticket = Value::from(ticket);
                let answer =
                    format!(r#"{{"errcode":0,"errmsg":"ok","expires_in":{expires_in_s},"ticket":{ticket}}}"#);
                vec![text(key, answer)]
            }
            (Self::Wechatpy, TicketKind::Jsapi) => wechatpy(&format!("{appid}_jsapi_ticket"), promised),
            (Self::Wechatpy, TicketKind::WxCard) => wechatpy(&format!("{appid}_jsapi_card_ticket"), promised),
            (Self::WeixinAuthorize, TicketKind::Jsapi) => {
                vec![weixin_authorize(&format!("js_sdk_{appid}"), "jsticket", promised)]
            }
            (Self::Silenceper | Self::SilenceperStable, TicketKind::WxCard)
            | (Self::EasyWeChat6 { .. } | Self::WeixinAuthorize, TicketKind::WxCard)
            | (Self::Raw { .. }, _) => Vec::new(),
        }
    }
}

fn text(key: String, value: String) -> Entry {
    Entry { key: Secret::new(key), content: Content::Text(Secret::new(value)) }
}

fn easywechat6(namespace: &str, key: &str, value: &str) -> Entry {
    let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}:") };
    text(format!("{namespace}{key}"), php_string(value) + ";")
}

fn wechatpy(key: &str, promised: Promised<'_>) -> Vec<Entry> {
    let key = format!("wechatpy:{key}");
    let end = text(format!("{key}_expires_at"), promised.expires_at_s.to_string());
    vec![text(key, ascii_json(promised.value)), end]
}

fn weixin_authorize(key: &str, field: &'static str, promised: Promised<'_>) -> Entry {
    let value = Secret::new(promised.value);
    let content = Content::Hash { field, value, expired_at: promised.expires_at_s };
    Entry { key: Secret::new(md5_hex(key).to_uppercase()), content }
}

/// PHP's `serialize` of a string, without the semicolon; PHP counts bytes.
fn php_string(text: &str) -> String {
    format!("s:{}:\"{text}\"", text.len())
}

/// PHP's `json_encode` of a string, which escapes slashes as well.
fn php_json(text: &str) -> String {
    ascii_json(text).replace('/', "\\/")
}

/// JSON of a string with everything outside ASCII escaped, as in Python.
fn ascii_json(text: &str) -> String {
    let mut escaped = String::new();
    for char in Value::from(text).to_string().chars() {
        if char.is_ascii() {
            escaped.push(char);
        } else {
            let units = char
                .encode_utf16(&mut [0; 2])
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<String>();
            escaped.push_str(&units);
        }
    }
    escaped
}

fn md5_hex(text: &str) -> String {
    hex(&Md5::digest(text.as_bytes()))
}
