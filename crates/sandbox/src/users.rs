//! The users of accounts' applications: their codes, and the tokens for which an application exchanged them.
//!
//! A code is `code-USER`, or `code-USER-` and anything: whoever writes a test makes codes up, as many as it needs,
//! and knows the user by the name.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use wxtokend_core::account::Appid;

/// What all good codes begin with.
const CODE: &str = "code-";

/// How long an application may renew a user's token. WeChat: 30 days.
const RENEWABLE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A user of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) appid: Appid,
    pub(super) name: String,
}

impl User {
    /// The user's id with this account: 28 characters, the first an `o`.
    pub(super) fn openid(&self) -> String {
        id(&[self.appid.as_str(), &self.name])
    }

    /// The user's id with all accounts of one owner.
    pub(super) fn unionid(&self) -> String {
        id(&["union", &self.name])
    }
}

fn id(parts: &[&str]) -> String {
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(parts.join("\n")));
    format!("o{}", &digest[..27])
}

/// What is wrong with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadCode {
    Invalid,
    Used,
}

struct Grant {
    user: User,
    ends_at: Duration,
}

/// The codes that were used, and the tokens that were given for them.
#[derive(Default)]
pub(super) struct Users {
    used: BTreeSet<(Appid, String)>,
    access: HashMap<String, Grant>,
    refresh: HashMap<String, Grant>,
}

impl Users {
    /// Uses a code up, and returns whose it is.
    pub(super) fn exchange(&mut self, appid: &Appid, code: &str) -> Result<User, BadCode> {
        let name = code.strip_prefix(CODE).and_then(|rest| rest.split('-').next());
        let name = name.filter(|name| !name.is_empty()).ok_or(BadCode::Invalid)?;
        if !self.used.insert((appid.clone(), code.to_owned())) {
            return Err(BadCode::Used);
        }
        Ok(User { appid: appid.clone(), name: name.to_owned() })
    }

    /// Remembers a user's access token, which ends at `ends_at`.
    pub(super) fn grant(&mut self, token: String, user: User, ends_at: Duration) {
        self.access.insert(token, Grant { user, ends_at });
    }

    /// Remembers the token by which an application renews the access token.
    pub(super) fn let_renew(&mut self, token: String, user: User, now: Duration) {
        self.refresh.insert(token, Grant { user, ends_at: now.saturating_add(RENEWABLE) });
    }

    /// Returns whose access token this is, and whether it is still good; `None` if it was never given.
    pub(super) fn by_access_token(&self, token: &str, now: Duration) -> Option<(&User, bool)> {
        self.access.get(token).map(|grant| (&grant.user, now < grant.ends_at))
    }

    /// The same for a refresh token.
    pub(super) fn by_refresh_token(&self, token: &str, now: Duration) -> Option<(&User, bool)> {
        self.refresh.get(token).map(|grant| (&grant.user, now < grant.ends_at))
    }
}
