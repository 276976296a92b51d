//! Destinations to publish tokens to, in addition to the API.

use reqwest::Url;
use wxtokend_core::sdk::layout::Layout;
use wxtokend_core::secret::Secret;

use super::grants::Grants;
use super::problem::InvalidSetting;

/// A Redis from which SDKs read tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    /// The unique name in logs and metrics; by default the layout and the address.
    pub name: String,
    /// `redis://` or, with TLS, `rediss://`; may hold a user, a password and a database.
    pub url: Secret,
    /// The keys and values under which the tokens are stored.
    pub layout: Layout,
    /// The accounts whose tokens are published.
    pub accounts: Grants,
}

impl Sink {
    /// A Redis at `url` in which the tokens of these accounts are kept as `layout` says. It is named after layout and
    /// address.
    ///
    /// # Errors
    /// When `url` is no `redis://` or `rediss://` URL that is accepted in a file.
    pub fn new(url: Secret, layout: Layout, accounts: Grants) -> Result<Self, InvalidSetting> {
        let address = parse(url.expose());
        let address = address.map_err(|what| InvalidSetting { key: "publish.redis".to_owned(), what })?;
        Ok(Self { name: default_name(&layout, &address), url, layout, accounts })
    }

    /// The URL without user and password.
    #[must_use]
    pub fn address(&self) -> String {
        parse(self.url.expose()).unwrap_or_default()
    }
}

/// The name of a sink that is given none.
pub(super) fn default_name(layout: &Layout, address: &str) -> String {
    let place = address.split_once("://").map_or(address, |(_, place)| place);
    format!("{}@{place}", layout.name())
}

/// Checks the URL of a Redis and returns it without user and password. The error completes a sentence that
/// begins with `this value`, and quotes nothing.
pub(super) fn parse(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL; such as redis://:PASSWORD@127.0.0.1:6379/0")?;
    let scheme = url.scheme();
    if !["redis", "rediss"].contains(&scheme) {
        return Err("must be a redis:// URL, or rediss:// for TLS");
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return Err("names no host") };
    // The fragment `#insecure` would turn off the check of certificates.
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment");
    }
    let database = url.path().trim_matches('/');
    if !database.is_empty() && (database.len() > 9 || !database.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("names no database by its number; such as redis://127.0.0.1:6379/0");
    }
    let database = if database.is_empty() { "0" } else { database };
    Ok(format!("{scheme}://{host}:{}/{database}", url.port().unwrap_or(6379)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_made_in_rust_is_held_to_the_rules_of_a_file() {
        let sink = |url| Sink::new(Secret::new(url), Layout::Wechatpy, Grants::new(["*"]).unwrap());
        assert_eq!(sink("rediss://:hunter2@h/3").unwrap().name, "wechatpy@h:6379/3");
        let refused = sink("rediss://:hunter2@h#insecure").unwrap_err().to_string();
        assert_eq!(refused, "publish.redis must not have a query or a fragment");
    }

    #[test]
    fn a_redis_is_known_by_its_address_without_the_password() {
        for (url, address) in [
            ("redis://h", "redis://h:6379/0"),
            ("rediss://u:p%40ss@h.example:7000/12", "rediss://h.example:7000/12"),
            ("redis://:hunter2@[::1]/", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(parse(url).as_deref(), Ok(address), "{url}");
        }
        for url in [
            "h:6379",
            "redis:///1",
            "http://h",
            "redis://h/x",
            "redis://h/1?a=b",
            "rediss://h#insecure",
            "unix:/x",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
