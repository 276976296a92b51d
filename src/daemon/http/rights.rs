//! Permissions of a client.

use std::sync::Arc;
use std::time::Duration;

use wxtokend_core::account::{Account, Appid};

use super::problem::{ApiProblem, Code};
use crate::config::{Allow, Client};
use crate::fleet::Fleet;

/// A permission that a call needs. None implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// See the state of accounts.
    Read,
    /// Read tokens. The same permission as `Read`, but not for the status page.
    Token,
    Refresh,
    Admin,
    /// Have pages signed.
    Sign,
    /// Have calls passed on to WeChat.
    Call,
}

/// A caller's permissions, by the clients in force at one instant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rights {
    /// `None` where no clients are configured: every local caller may do everything.
    pub(super) client: Option<Arc<Client>>,
    /// The key came in the status page's cookie, which a browser sends by itself. Such a request gets no
    /// token, and changes something only if our own page sent it.
    pub(super) by_cookie: bool,
}

impl Rights {
    /// The client's name; `None` where no key is needed.
    pub(super) fn name(&self) -> Option<&str> {
        self.client.as_deref().map(|client| client.name.as_str())
    }

    /// The permissions of the key.
    pub(super) fn allow(&self) -> Allow {
        self.client.as_deref().map_or(Allow::ALL, |client| client.allow)
    }

    pub(super) fn may(&self, permission: Permission) -> bool {
        let allow = self.allow();
        match permission {
            Permission::Read => allow.read,
            Permission::Token => allow.read && !self.by_cookie,
            Permission::Refresh => allow.refresh && !self.by_cookie,
            Permission::Admin => allow.admin,
            // A page's signature reveals less than the ticket, which readers may have.
            Permission::Sign => (allow.sign || allow.read) && !self.by_cookie,
            Permission::Call => allow.call && !self.by_cookie,
        }
    }

    /// Refuses a caller that lacks `permission`.
    pub(super) fn require(&self, permission: Permission) -> Result<(), ApiProblem> {
        let detail = match permission {
            Permission::Token | Permission::Refresh | Permission::Sign | Permission::Call
                if self.by_cookie =>
            {
                "the status page deals with no tokens: send the key as Authorization: Bearer KEY"
            }
            Permission::Read | Permission::Token => "this key may not read: its client needs allow: [read]",
            Permission::Refresh => "this key may not reject tokens: its client needs allow: [refresh]",
            Permission::Admin => "this key may not order refreshes: its client needs allow: [admin]",
            Permission::Sign => "this key may not have pages signed: its client needs allow: [sign]",
            Permission::Call => "this key may not have calls passed on: its client needs allow: [call]",
        };
        if self.may(permission) { Ok(()) } else { Err(ApiProblem::new(Code::Forbidden, detail)) }
    }

    /// Refuses a caller that may not have the page at `url` signed.
    pub(super) fn require_signable(&self, url: &str) -> Result<(), ApiProblem> {
        let detail = "no page at that address may be signed for this key: see urls of its client";
        let may = self.client.as_deref().is_none_or(|client| client.may_sign(url));
        if may { Ok(()) } else { Err(ApiProblem::new(Code::Forbidden, detail)) }
    }

    /// Refuses a caller that may not call `path` of WeChat's API.
    pub(super) fn require_path(&self, path: &str) -> Result<(), ApiProblem> {
        let detail = "this key may not call that path of WeChat's API: see paths of its client";
        let may = self.client.as_deref().is_none_or(|client| client.may_call(path));
        if may { Ok(()) } else { Err(ApiProblem::new(Code::PathNotAllowed, detail)) }
    }

    /// The longest time for which something may be promised to the caller.
    pub(super) fn longest_promise(&self) -> Duration {
        self.client.as_deref().map_or(Duration::MAX, Client::longest_promise)
    }

    pub(super) fn covers(&self, account: &Account) -> bool {
        self.client.as_deref().is_none_or(|client| client.accounts.covers(account))
    }

    /// Refuses a caller that may not use `appid`. A client must not learn which other accounts exist: where
    /// its grants do not name the appid, the answer is the same whether or not there is such an account.
    pub(super) fn require_account(
        &self,
        appid: &str,
        fleet: &Fleet,
        permission: Permission,
    ) -> Result<(), ApiProblem> {
        self.require(permission)?;
        let Some(client) = &self.client else { return Ok(()) };
        if client.accounts.covers_appid(appid) {
            return Ok(());
        }
        if fleet.snapshot(appid).is_some_and(|snapshot| client.accounts.covers(&snapshot.account)) {
            return Ok(());
        }
        // No account has an appid of another form.
        Appid::new(appid).map_err(|_| ApiProblem::unknown_account())?;
        Err(ApiProblem::new(Code::Forbidden, "this key may not deal with that account"))
    }
}
