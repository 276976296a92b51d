//! Where the SDKs that share their tokens through Redis look for them, and in which form.
//!
//! What is published is the access_token. Every byte is an SDK's own: it reads what we write as if it had written it.

use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::account::Account;
use crate::secret::{Secret, hex};

mod template;
#[cfg(test)]
mod tests;

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
        /// Of its cache; empty for none.
        namespace: String,
    },
    /// EasyWeChat 4 and 5 (PHP).
    EasyWeChat5,
    /// PowerWeChat (Go).
    PowerWeChat,
    /// wechatpy (Python): two keys, one for the end.
    Wechatpy,
    /// weixin_authorize (Ruby): a hash.
    WeixinAuthorize,
    /// The operator's own.
    Raw {
        /// The key.
        key: Template,
        /// The value.
        value: Template,
    },
}

/// One key in Redis. A key can hold an AppSecret, and so is as secret as what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Secret,
    /// What it holds.
    pub content: Content,
}

/// What stands at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A string.
    Text(Secret),
    /// A hash with the fields `access_token` and `expired_at`, in seconds of unix time.
    Hash {
        /// The token.
        access_token: Secret,
        /// When it ends.
        expired_at: i64,
    },
}

impl Content {
    /// The part by which ours is told from what somebody else has written.
    #[must_use]
    pub fn mark(&self) -> &Secret {
        match self {
            Self::Text(text) => text,
            Self::Hash { access_token, .. } => access_token,
        }
    }
}

/// A token for which there is a promise.
#[derive(Debug, Clone, Copy)]
pub struct Promised<'a> {
    /// The access_token.
    pub token: &'a str,
    /// How long it may be relied on, in whole seconds.
    pub expires_in_s: u64,
    /// When that ends, in seconds of unix time.
    pub expires_at_s: i64,
}

impl Layout {
    /// The names in `accounts.yaml`.
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

    /// The name in `accounts.yaml`.
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

    /// Everything that an SDK reads to have the account's token.
    #[must_use]
    pub fn entries(&self, account: &Account, promised: Promised<'_>) -> Vec<Entry> {
        let (appid, secret) = (account.appid.as_str(), account.secret.expose());
        let Promised { token, expires_in_s, expires_at_s } = promised;
        let plain = |key: String| vec![text(key, token.to_owned())];
        match self {
            Self::WxJava { prefix } => plain(format!("{prefix}:access_token:{appid}")),
            Self::Silenceper => plain(format!("gowechat_officialaccount__access_token_{appid}")),
            Self::SilenceperStable => plain(format!("gowechat_officialaccount__stable_access_token_{appid}")),
            Self::EasyWeChat6 { namespace } => {
                let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}:") };
                // 1 is for an SDK set to stable_token. Which endpoint ours comes from is nothing to it.
                let key =
                    |stable| format!("{namespace}official_account.access_token.{appid}.{secret}.{stable}");
                [0, 1].map(|stable| text(key(stable), php_string(token) + ";")).into()
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
            Self::Wechatpy => {
                let key = format!("wechatpy:{appid}_access_token");
                let end = text(format!("{key}_expires_at"), expires_at_s.to_string());
                vec![text(key, json!(token).to_string()), end]
            }
            Self::WeixinAuthorize => {
                let key = md5_hex(&format!("weixin_{appid}")).to_uppercase();
                let content = Content::Hash { access_token: Secret::new(token), expired_at: expires_at_s };
                vec![Entry { key: Secret::new(key), content }]
            }
            Self::Raw { key, value } => {
                vec![text(key.fill(account, None), value.fill(account, Some(promised)))]
            }
        }
    }
}

fn text(key: String, value: String) -> Entry {
    Entry { key: Secret::new(key), content: Content::Text(Secret::new(value)) }
}

/// `serialize` of a string, without the semicolon; PHP counts bytes.
fn php_string(text: &str) -> String {
    format!("s:{}:\"{text}\"", text.len())
}

/// `json_encode` of a string, which escapes slashes and all that is not ASCII.
fn php_json(text: &str) -> String {
    let mut escaped = String::new();
    for char in Value::from(text).to_string().chars() {
        match char {
            '/' => escaped.push_str("\\/"),
            char if char.is_ascii() => escaped.push(char),
            char => {
                let units = char
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect::<String>();
                escaped.push_str(&units);
            }
        }
    }
    escaped
}

fn md5_hex(text: &str) -> String {
    hex(&Md5::digest(text.as_bytes()))
}
