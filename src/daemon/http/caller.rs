//! The caller of a request, and its permissions.
//!
//! A request may wait for a minute, and a reload may remove its key meanwhile. So a decision never relies on
//! an earlier check: a [`Caller`] looks up the clients in force each time it is asked, and records each
//! permission that it has granted, so that [`Access`] can check it again after every wait.

use std::time::Duration;

use super::access::{Access, Need};
use super::clients::Clients;
use super::problem::ApiProblem;
use super::rights::{Permission, Rights};
use crate::fleet::Fleet;

/// The caller of one request.
#[derive(Clone)]
pub(super) struct Caller {
    clients: Clients,
    /// The caller's rights when it was let in.
    rights: Rights,
    access: Access,
}

impl Caller {
    /// The caller of the request to which `access` belongs, just let in with `rights`.
    pub(super) fn new(clients: &Clients, rights: Rights, access: &Access) -> Self {
        access.authorize(&rights);
        Self { clients: clients.clone(), rights, access: access.clone() }
    }

    /// The caller's rights now.
    ///
    /// # Errors
    /// When the caller would not be let in any more.
    pub(super) fn rights(&self) -> Result<Rights, ApiProblem> {
        self.clients.recheck(&self.rights)
    }

    /// The client's name; `None` where no key is needed.
    pub(super) fn name(&self) -> Option<&str> {
        self.rights.name()
    }

    /// Whether the caller has `permission` now. For optional parts of an answer; it is not checked again
    /// after a wait.
    pub(super) fn may(&self, permission: Permission) -> bool {
        self.rights().is_ok_and(|rights| rights.may(permission))
    }

    /// The longest time for which something may be promised to the caller.
    pub(super) fn longest_promise(&self) -> Duration {
        // One that would not be let in any more gets no answer.
        self.rights().as_ref().unwrap_or(&self.rights).longest_promise()
    }

    /// Requires `permission`, now and for as long as the request takes.
    pub(super) fn require(&self, permission: Permission) -> Result<(), ApiProblem> {
        self.rights()?.require(permission)?;
        self.access.note(Need::Permission(permission));
        Ok(())
    }

    /// Requires `permission` for the account `appid`, now and for as long as the request takes.
    pub(super) fn require_account(
        &self,
        appid: &str,
        fleet: &Fleet,
        permission: Permission,
    ) -> Result<(), ApiProblem> {
        self.rights()?.require_account(appid, fleet, permission)?;
        self.access.note(Need::Account(appid.to_owned(), permission));
        Ok(())
    }

    /// Requires the right to have the page at `url` signed, now and for as long as the request takes.
    pub(super) fn require_signable(&self, url: &str) -> Result<(), ApiProblem> {
        self.rights()?.require_signable(url)?;
        self.access.note(Need::Page(url.to_owned()));
        Ok(())
    }

    /// Requires the right to call `path` of WeChat's API, now and for as long as the request takes.
    pub(super) fn require_path(&self, path: &str) -> Result<(), ApiProblem> {
        self.rights()?.require_path(path)?;
        self.access.note(Need::Path(path.to_owned()));
        Ok(())
    }
}
