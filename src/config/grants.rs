//! Clients of the API: their accounts and permissions.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use wildmatch::WildMatch;
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::sdk::jssdk;
use wxtokend_core::secret::{Secret, hex};

use super::invisible;

/// A client of the API.
#[derive(Clone, PartialEq)]
pub struct Client {
    /// The name in logs; unique among clients.
    pub name: String,
    /// SHA-256 of the key; the key itself is not kept.
    pub key_sha256: [u8; 32],
    /// The accounts that it has access to.
    pub accounts: Grants,
    /// What it may do with them.
    pub allow: Allow,
    /// Prefixes of page addresses that may be signed for it; if empty, all may.
    pub urls: Vec<String>,
    /// Prefixes of the paths of WeChat's API that it may call through the proxy; if empty, all that are passed
    /// on at all.
    pub paths: Vec<String>,
    /// The longest time for which a token or ticket is promised to it; less than a minute counts as one.
    pub promise_at_most: Option<Duration>,
}

impl Client {
    /// The least that [`Client::promise_at_most`] can be: a client that keeps nothing asks for a token before each
    /// call.
    pub const LEAST_PROMISE: Duration = Duration::from_secs(60);

    /// A client that may read the tokens of these accounts, and do nothing else.
    #[must_use]
    pub fn new(name: &str, key: &Secret, accounts: Grants) -> Self {
        let (name, key_sha256) = (name.to_owned(), key.sha256());
        Self {
            name,
            key_sha256,
            accounts,
            allow: Allow::default(),
            urls: Vec::new(),
            paths: Vec::new(),
            promise_at_most: None,
        }
    }

    /// Whether the page at `url` may be signed for this client.
    #[must_use]
    pub fn may_sign(&self, url: &str) -> bool {
        self.urls.is_empty()
            || self.urls.iter().any(|prefix| url.starts_with(prefix)) && !jssdk::signs_another_page(url)
    }

    /// Whether this client may call `path` of WeChat's API, which begins with a slash.
    #[must_use]
    pub fn may_call(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|prefix| path.starts_with(prefix))
    }

    /// The longest time for which something may be promised to this client.
    #[must_use]
    pub fn longest_promise(&self) -> Duration {
        self.promise_at_most.map_or(Duration::MAX, |most| most.max(Self::LEAST_PROMISE))
    }

    /// The first 8 hex digits of the key's digest: enough to tell two keys apart, useless to an attacker.
    #[must_use]
    pub fn key_fingerprint(&self) -> String {
        hex(&self.key_sha256[..4])
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .field("key_sha256", &format_args!("{}…", self.key_fingerprint()))
            .field("accounts", &self.accounts)
            .field("allow", &self.allow)
            .field("urls", &self.urls)
            .field("paths", &self.paths)
            .field("promise_at_most", &self.promise_at_most)
            .finish()
    }
}

/// Permissions of a client. None implies another, except that a client that may read tickets may also have
/// pages signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    /// Read tokens and the state of accounts.
    pub read: bool,
    /// Report a token that WeChat rejected.
    pub refresh: bool,
    /// Order a refresh.
    pub admin: bool,
    /// Have pages signed, without reading tokens or tickets.
    pub sign: bool,
    /// Have calls passed on to WeChat with the account's token, without reading it.
    pub call: bool,
}

impl Allow {
    /// The names in `accounts.yaml`, in the order of the fields.
    pub const NAMES: [&str; 5] = ["read", "refresh", "admin", "sign", "call"];
    /// No permissions.
    pub const NONE: Self = Self { read: false, refresh: false, admin: false, sign: false, call: false };
    /// All permissions.
    pub const ALL: Self = Self { read: true, refresh: true, admin: true, sign: true, call: true };

    /// The names of the granted permissions.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let flags = [self.read, self.refresh, self.admin, self.sign, self.call];
        Self::NAMES.into_iter().zip(flags).filter_map(|(name, allowed)| allowed.then_some(name))
    }
}

impl Default for Allow {
    /// Only `read`.
    fn default() -> Self {
        Self { read: true, ..Self::NONE }
    }
}

/// A set of accounts, given by appids, globs of appids and tags. It also covers matching accounts that are
/// added later.
#[derive(Clone, Default)]
pub struct Grants {
    appids: BTreeSet<Appid>,
    tags: BTreeSet<String>,
    patterns: BTreeSet<String>,
    /// The text before the star, for patterns with a single star at the end. Nearly all patterns are of this
    /// form.
    prefixes: Vec<String>,
    /// All other patterns, compiled.
    globs: Vec<WildMatch>,
}

/// A string that does not name accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("allowed: an appid, a glob of appids (* for any characters, ? for one), or tag:NAME")]
pub struct InvalidGrant;

impl Grants {
    /// Parses entries as they are written under `accounts` of a client: `wx0123456789abcdef`, `wx*`,
    /// `tag:retail`.
    ///
    /// # Errors
    /// [`InvalidGrant`] when an entry has none of the three forms.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidGrant> {
        let mut grants = Self::default();
        for entry in entries {
            match Grant::parse(entry)? {
                Grant::Appid(appid) => grants.appids.insert(appid),
                Grant::Tag(tag) => grants.tags.insert(tag.to_owned()),
                Grant::Glob(pattern) => grants.patterns.insert(pattern.to_owned()),
            };
        }
        for pattern in &grants.patterns {
            if let Some(prefix) = pattern.strip_suffix('*').filter(|prefix| !prefix.contains(['*', '?'])) {
                grants.prefixes.push(prefix.to_owned());
                continue;
            }
            grants.globs.push(WildMatch::new(pattern));
        }
        Ok(grants)
    }

    /// All accounts.
    #[must_use]
    pub fn all() -> Self {
        Self::new(["*"]).unwrap_or_default()
    }

    /// Whether the set contains `account`.
    #[must_use]
    pub fn covers(&self, account: &Account) -> bool {
        self.covers_appid(account.appid.as_str()) || account.tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// Whether the set contains `appid` by itself, whatever the account's tags. The account need not exist.
    pub(crate) fn covers_appid(&self, appid: &str) -> bool {
        self.prefixes.iter().any(|prefix| appid.starts_with(prefix))
            || self.appids.contains(appid)
            || self.globs.iter().any(|glob| glob.matches(appid))
    }

    /// The entries, in the syntax of `accounts.yaml`.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        let appids = self.appids.iter().map(|appid| appid.as_str().to_owned());
        let tags = self.tags.iter().map(|tag| format!("tag:{tag}"));
        appids.chain(self.patterns.iter().cloned()).chain(tags)
    }
}

impl PartialEq for Grants {
    fn eq(&self, other: &Self) -> bool {
        (&self.appids, &self.tags, &self.patterns) == (&other.appids, &other.tags, &other.patterns)
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

/// One entry of [`Grants`].
pub(super) enum Grant<'a> {
    Appid(Appid),
    Glob(&'a str),
    Tag(&'a str),
}

impl<'a> Grant<'a> {
    /// The account, if the entry names exactly one.
    pub(super) fn appid(self) -> Option<Appid> {
        if let Self::Appid(appid) = self { Some(appid) } else { None }
    }

    pub(super) fn parse(entry: &'a str) -> Result<Self, InvalidGrant> {
        if let Some(tag) = entry.strip_prefix("tag:") {
            // No account can have such a tag.
            let is_invalid =
                tag.is_empty() || invisible::is_not_one_line(tag) || invisible::has_invisible_ends(tag);
            return if is_invalid { Err(InvalidGrant) } else { Ok(Self::Tag(tag)) };
        }
        if !entry.contains(['*', '?']) {
            return Appid::new(entry).map(Self::Appid).map_err(|_| InvalidGrant);
        }
        // A pattern with other characters could never match an appid.
        let is_pattern_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"_-*?".contains(&byte);
        let fits = entry.len() <= 64 && entry.bytes().all(is_pattern_byte);
        if fits { Ok(Self::Glob(entry)) } else { Err(InvalidGrant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Defaults;
    use wxtokend_core::secret::Secret;

    fn account(appid: &str, tags: &[&str]) -> Account {
        let mut account = Defaults::default().account(Appid::new(appid).unwrap(), Secret::new("s"));
        account.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        account
    }

    #[test]
    fn a_grant_covers_by_appid_glob_and_tag() {
        let grants = Grants::new(["wx1", "gh_*", "mp-?", "tag:retail"]).unwrap();
        for (appid, tags, covered) in [
            ("wx1", &[][..], true),
            ("wx12", &[], false),
            ("WX1", &[], false),
            ("gh_", &[], true),
            ("gh_flower", &[], true),
            ("gx_flower", &[], false),
            ("mp-7", &[], true),
            ("mp-77", &[], false),
            ("wx9", &["vip", "retail"], true),
            ("wx9", &["retail2", "tag:retail"], false),
        ] {
            assert_eq!(grants.covers(&account(appid, tags)), covered, "{appid} {tags:?}");
        }
        assert!(Grants::all().covers(&account("anything-_9", &[])));
        assert!(!Grants::default().covers(&account("wx1", &["retail"])));
    }

    #[test]
    fn what_is_neither_appid_nor_glob_nor_tag_is_refused() {
        for bad in [
            "",
            "tag:",
            "tag: a",
            "tag:a\n",
            "tag:\u{feff}a",
            "wx 1",
            "wx[12]*",
            "{a,b}*",
            "a/*",
            "wx\\*",
            "微*",
            "Tag:a",
        ] {
            assert_eq!(Grants::new([bad]), Err(InvalidGrant), "{bad:?}");
        }
    }

    #[test]
    fn grants_are_equal_when_their_entries_are() {
        assert_eq!(Grants::new(["b", "a", "tag:x", "w*"]), Grants::new(["w*", "tag:x", "a", "b", "a"]));
        assert_ne!(Grants::new(["w*"]), Grants::new(["x*"]));
    }

    #[test]
    fn a_page_is_signed_where_its_address_begins_as_allowed_and_no_other_page_is() {
        let client = |urls: &[&str]| Client {
            name: "shop".to_owned(),
            key_sha256: [0; 32],
            accounts: Grants::all(),
            allow: Allow::default(),
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            paths: Vec::new(),
            promise_at_most: None,
        };
        let limited = client(&["https://shop.example/", "https://pay.example/a/"]);
        for (page, may) in [
            ("https://shop.example/", true),
            ("https://shop.example/x?y=1&timestamp=2#z", true),
            ("https://shop.example/?url=https://evil.example/", true),
            ("https://shop.example/?next=%2F%3Fa%26url%3Dhttps%3A%2F%2Fevil.example%2F", true),
            ("https://shop.example/?a&URL=https://evil.example/", true),
            ("https://shop.example/?a&urls=https://evil.example/", true),
            ("https://shop.example/#&timestamp=1&url=https://evil.example/", true),
            ("https://shop.example/?a&timestamp=1&url=%2Fcart", false),
            ("https://shop.example/?a&timestamp=1&url=https%3A%2F%2Fevil.example%2F", false),
            ("https://shop.example/?a&url=https%3A%2F%2Fevil.example%2F", false),
            ("https://shop.example/?a&url=https%3a//evil.example", false),
            ("https://shop.example/?a&url=", false),
            ("https://shop.example/?a&url=//evil.example/", false),
            ("https://shop.example/a&url=https://evil.example/", false),
            ("https://shop.example/?a&timestamp=1&url=https://pay.example/a/", false),
            ("https://shop.example/?a&url=https://evil.example/", false),
            ("https://shop.example/?a&url=https://evil.example/#b", false),
            ("https://shop.example/?a&url=https://shop.example/", false),
            ("https://shop.example", false),
            ("https://SHOP.example/", false),
            ("https://shop.example.evil.example/", false),
            ("https://shop.example@evil.example/", false),
            ("https://shop.example:444/", false),
            ("https://shop.example\\@evil.example/", false),
            (" https://shop.example/", false),
            ("https:shop.example/", false),
            ("https://evil.example/#https://shop.example/", false),
            ("https://pay.example/", false),
            ("https://shop.example/?a&timestamp=1&url=https://evil.example/", false),
            ("https://shop.example/?a&timestamp=1&b&url=HTTPS://evil.example/", false),
            ("https://shop.example/?a&timestamp=&url=https://shop.example/&url=https://evil.example/", false),
        ] {
            assert_eq!(limited.may_sign(page), may, "{page:?}");
            assert!(client(&[]).may_sign(page));
        }
    }

    #[test]
    fn debug_shows_a_prefix_of_the_digest_only() {
        let client = Client {
            name: "crm".to_owned(),
            key_sha256: [0xab; 32],
            accounts: Grants::all(),
            allow: Allow::default(),
            urls: Vec::new(),
            paths: Vec::new(),
            promise_at_most: None,
        };
        let text = format!("{client:?}");
        assert!(text.contains("abababab…") && !text.contains("ababababab"), "{text}");
    }
}
