//! Who calls, and what they may do.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::Notify;

use super::connection::note_key;
use super::cookie;
use super::edge::Edge;
use super::origin;
use super::problem::{Code, Problem};
use crate::account::{Account, Appid};
use crate::config::{Allow, Client};
use crate::fleet::Fleet;

/// The clients that may call, exchanged as a whole by a reload. Clones share them.
#[derive(Clone)]
pub struct Clients {
    list: Arc<ArcSwap<Vec<Arc<Client>>>>,
    /// Tells those who are let in for long that the list is another one.
    exchanged: Arc<Notify>,
    /// Only where nobody else can connect may everybody be let in.
    on_loopback: bool,
}

impl Clients {
    pub(super) fn new(clients: Vec<Client>, on_loopback: bool) -> Self {
        let all = Self { list: Arc::default(), exchanged: Arc::default(), on_loopback };
        all.set(clients);
        all
    }

    /// Lets these clients in from the next request on, and nobody else. With none, every local caller may do
    /// everything; unless the API listens on an address that others reach too: then nobody may.
    pub fn set(&self, clients: Vec<Client>) {
        self.list.store(Arc::new(clients.into_iter().map(Arc::new).collect()));
        self.exchanged.notify_waiters();
    }

    /// Returns when `caller` was let in by a list that is not in force any more.
    pub(super) async fn until_unlike(&self, caller: &Caller) {
        loop {
            let exchanged = self.exchanged.notified();
            tokio::pin!(exchanged);
            // Before looking: an exchange in between must not be missed.
            exchanged.as_mut().enable();
            let is_in_force = match &caller.client {
                None => self.need_no_key(),
                Some(client) => self.list.load().iter().any(|known| Arc::ptr_eq(known, client)),
            };
            if !is_in_force {
                return;
            }
            exchanged.await;
        }
    }

    /// The same caller by the list that is in force; none if it would not be let in.
    pub(super) fn again(&self, caller: &Caller) -> Option<Caller> {
        let Some(client) = &caller.client else { return self.need_no_key().then(|| caller.clone()) };
        let clients = self.list.load();
        let same = clients.iter().find(|known| known.key_sha256 == client.key_sha256)?;
        let same = Caller { client: Some(Arc::clone(same)), ..*caller };
        same.may(Scope::Read).then_some(same)
    }

    /// Whether callers need no key.
    pub(crate) fn need_no_key(&self) -> bool {
        self.on_loopback && self.list.load().is_empty()
    }

    /// Who sends `headers`. A key in `Authorization` goes before one in a cookie.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.need_no_key() {
            note_key(true);
            return Ok(Caller { client: None, by_cookie: false });
        }
        let refused =
            || Problem::new(Code::Unauthorized, "send Authorization: Bearer KEY with a client's key");
        let by_cookie = !headers.contains_key(header::AUTHORIZATION);
        let client = match by_cookie {
            true => cookie::key(headers).and_then(|key| self.with_key(&key)),
            false => bearer(headers).and_then(|key| self.with_key(key)),
        };
        Ok(Caller { client: Some(client.ok_or_else(refused)?), by_cookie })
    }

    /// Who sends `key`, which nobody needs where there are no clients.
    pub(super) fn caller_with_key(&self, key: &[u8]) -> Option<Caller> {
        match self.need_no_key() {
            true => {
                note_key(true);
                Some(Caller { client: None, by_cookie: false })
            }
            false => Some(Caller { client: Some(self.with_key(key)?), by_cookie: false }),
        }
    }

    /// The client whose key that is.
    pub(super) fn with_key(&self, key: &[u8]) -> Option<Arc<Client>> {
        let clients = self.list.load();
        let digest = words(&Sha256::digest(key).into());
        // All of them, whichever fits: the time tells nothing.
        let mut found = u32::MAX;
        for (index, client) in (0_u32..).zip(clients.iter()) {
            found.conditional_assign(&index, words(&client.key_sha256).ct_eq(&digest));
        }
        let found = usize::try_from(found).ok().and_then(|found| clients.get(found)).map(Arc::clone);
        note_key(found.is_some());
        found
    }
}

/// A digest in pieces that take an eighth of the time to compare: every read compares with every client's.
fn words(digest: &[u8; 32]) -> [u64; 4] {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|index| u64::from_ne_bytes(words[index]))
}

/// The key in `Authorization: Bearer KEY`; none where there is more than one such header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

/// What a call needs; none implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// To see how accounts are doing.
    Read,
    /// To read tokens: the same permission, but none of the status page's.
    Token,
    Refresh,
    Admin,
    /// To have pages signed.
    Sign,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// None where no clients are configured: every local caller may do everything.
    client: Option<Arc<Client>>,
    /// The key came in the cookie of the status page, which a browser sends by itself: no token goes to it, and
    /// only its own page may change anything.
    by_cookie: bool,
}

impl Caller {
    /// The client's name; none where nobody needs a key.
    pub(super) fn name(&self) -> Option<&str> {
        self.client.as_deref().map(|client| client.name.as_str())
    }

    /// What its key allows.
    pub(super) fn allow(&self) -> Allow {
        self.client.as_deref().map_or(Allow::ALL, |client| client.allow)
    }

    pub(super) fn may(&self, scope: Scope) -> bool {
        let allow = self.allow();
        match scope {
            Scope::Read => allow.read,
            Scope::Token => allow.read && !self.by_cookie,
            Scope::Refresh => allow.refresh && !self.by_cookie,
            Scope::Admin => allow.admin,
            // A page's signature tells less than the ticket, which a reader gets.
            Scope::Sign => (allow.sign || allow.read) && !self.by_cookie,
        }
    }

    pub(super) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        let detail = match scope {
            Scope::Token | Scope::Refresh | Scope::Sign if self.by_cookie => {
                "the status page deals with no tokens: send the key as Authorization: Bearer KEY"
            }
            Scope::Read | Scope::Token => "this key may not read: its client needs allow: [read]",
            Scope::Refresh => "this key may not reject tokens: its client needs allow: [refresh]",
            Scope::Admin => "this key may not order refreshes: its client needs allow: [admin]",
            Scope::Sign => "this key may not have pages signed: its client needs allow: [sign]",
        };
        if self.may(scope) { Ok(()) } else { Err(Problem::new(Code::Forbidden, detail)) }
    }

    /// Whether the page at `url` may be signed for it.
    pub(super) fn may_sign(&self, url: &str) -> bool {
        self.client.as_deref().is_none_or(|client| client.may_sign(url))
    }

    pub(super) fn covers(&self, account: &Account) -> bool {
        self.client.as_deref().is_none_or(|client| client.accounts.covers(account))
    }

    /// Lets the caller deal with `appid`. A client must not learn which accounts there are beside its own: where
    /// its grants do not name the appid, the answer is the same whether there is such an account or not.
    pub(super) fn deals_with(&self, appid: &str, fleet: &Fleet, scope: Scope) -> Result<(), Problem> {
        self.needs(scope)?;
        let Some(client) = &self.client else { return Ok(()) };
        if client.accounts.covers_appid(appid) {
            return Ok(());
        }
        if fleet.snapshot(appid).is_some_and(|snapshot| client.accounts.covers(&snapshot.account)) {
            return Ok(());
        }
        // What cannot be an appid is nobody's account.
        Appid::new(appid).map_err(|_| Problem::unknown_account())?;
        Err(Problem::new(Code::Forbidden, "this key may not deal with that account"))
    }
}

impl FromRequestParts<Edge> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let caller = edge.clients.caller(&parts.headers)?;
        if caller.by_cookie && !parts.method.is_safe() {
            origin::must_be_our_page(&parts.headers)?;
        }
        Ok(caller)
    }
}
