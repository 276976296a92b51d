//! Who calls, and what they are let in for.
//!
//! A request may wait for a minute, and a reload may take its key away meanwhile. So nothing is decided by what the
//! caller was allowed once: a [`Caller`] looks at the clients that are in force whenever it is asked, and notes what it
//! was let in for, which is asked anew after every wait ([`Access`]).

use super::access::{Access, Need};
use super::clients::Clients;
use super::problem::ApiProblem;
use super::rights::{Rights, Scope};
use crate::fleet::Fleet;

/// Who calls.
#[derive(Clone)]
pub(super) struct Caller {
    clients: Clients,
    /// What it could do when it was let in.
    rights: Rights,
    access: Access,
}

impl Caller {
    /// The caller of the request that `access` is of, who has just been let in with `rights`.
    pub(super) fn new(clients: &Clients, rights: Rights, access: &Access) -> Self {
        access.let_in(&rights);
        Self { clients: clients.clone(), rights, access: access.clone() }
    }

    /// What it may do now.
    ///
    /// # Errors
    /// When it would not be let in any more.
    pub(super) fn rights(&self) -> Result<Rights, ApiProblem> {
        self.clients.again(&self.rights)
    }

    /// The client's name; none where nobody needs a key.
    pub(super) fn name(&self) -> Option<&str> {
        self.rights.name()
    }

    /// Whether it may do now what no answer depends on as a whole.
    pub(super) fn may(&self, scope: Scope) -> bool {
        self.rights().is_ok_and(|rights| rights.may(scope))
    }

    /// Lets the caller do what needs `scope`, now and for as long as its request takes.
    pub(super) fn needs(&self, scope: Scope) -> Result<(), ApiProblem> {
        self.rights()?.needs(scope)?;
        self.access.note(Need::Scope(scope));
        Ok(())
    }

    /// Lets the caller deal with `appid`, now and for as long as its request takes.
    pub(super) fn deals_with(&self, appid: &str, fleet: &Fleet, scope: Scope) -> Result<(), ApiProblem> {
        self.rights()?.deals_with(appid, fleet, scope)?;
        self.access.note(Need::Account(appid.to_owned(), scope));
        Ok(())
    }

    /// Lets the caller have the page at `url` signed, now and for as long as its request takes.
    pub(super) fn has_signed(&self, url: &str) -> Result<(), ApiProblem> {
        self.rights()?.has_signed(url)?;
        self.access.note(Need::Page(url.to_owned()));
        Ok(())
    }
}
