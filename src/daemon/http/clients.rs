//! The clients that may call the API.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::cookie;
use super::peer::note_key;
use super::problem::{ApiProblem, Code};
use super::rights::Rights;
use crate::config::Client;

/// The clients that may call the API, replaced as a whole by a reload. Clones share the list.
#[derive(Clone)]
pub struct Clients {
    list: Arc<ArcSwap<Vec<Arc<Client>>>>,
    /// Notifies long-lived requests that the list has been replaced.
    exchanged: Arc<Notify>,
    /// Whether the API listens on a loopback address. Callers without a key are let in only there.
    on_loopback: bool,
}

/// Lets nobody in without the key of one of them.
impl From<Vec<Client>> for Clients {
    fn from(clients: Vec<Client>) -> Self {
        Self::new(clients, false)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.load().iter().map(|client| &client.name)).finish()
    }
}

impl Clients {
    pub(super) fn new(clients: Vec<Client>, on_loopback: bool) -> Self {
        let all = Self { list: Arc::default(), exchanged: Arc::default(), on_loopback };
        all.set(clients);
        all
    }

    /// Replaces the clients, from the next request on.
    ///
    /// With an empty list nobody is let in, but for the daemon's own API on a loopback address, where every local
    /// caller may do everything then.
    pub fn set(&self, clients: Vec<Client>) {
        self.list.store(Arc::new(clients.into_iter().map(Arc::new).collect()));
        self.exchanged.notify_waiters();
    }

    /// Replaces the list as [`Self::set`] does and returns the previous one, so that a failed reload can
    /// restore it.
    pub(crate) fn exchange(&self, clients: Vec<Client>) -> Vec<Client> {
        let before = self.list.load().iter().map(|client| Client::clone(client)).collect();
        self.set(clients);
        before
    }

    /// Completes when the list is replaced after this call.
    pub(crate) fn exchanged(&self) -> Notified<'_> {
        self.exchanged.notified()
    }

    /// The caller's rights by the list now in force, given the `rights` that it had before.
    ///
    /// # Errors
    /// When the caller would not be let in any more.
    pub(super) fn recheck(&self, rights: &Rights) -> Result<Rights, ApiProblem> {
        let client = match &rights.client {
            None => self.need_no_key().then_some(None),
            Some(client) => {
                let clients = self.list.load();
                let same = clients.iter().find(|known| known.key_sha256 == client.key_sha256);
                same.map(|same| Some(Arc::clone(same)))
            }
        };
        let refused =
            || ApiProblem::new(Code::Unauthorized, "the key that this was asked with is valid no more");
        Ok(Rights { client: client.ok_or_else(refused)?, ..*rights })
    }

    /// Whether callers need no key.
    pub(crate) fn need_no_key(&self) -> bool {
        self.on_loopback && self.list.load().is_empty()
    }

    /// The client of this name.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Client>> {
        self.list.load().iter().find(|client| client.name == name).map(Arc::clone)
    }

    /// The rights of the sender of `headers`. A key in `Authorization` takes precedence over one in a cookie.
    pub(super) fn rights(&self, headers: &HeaderMap) -> Result<Rights, ApiProblem> {
        if self.need_no_key() {
            note_key(true);
            return Ok(Rights { client: None, by_cookie: false });
        }
        let refused =
            || ApiProblem::new(Code::Unauthorized, "send Authorization: Bearer KEY with a client's key");
        let by_cookie = !headers.contains_key(header::AUTHORIZATION);
        let client = match by_cookie {
            true => cookie::key(headers).and_then(|key| self.with_key(&key)),
            false => bearer(headers).and_then(|key| self.with_key(key)),
        };
        Ok(Rights { client: Some(client.ok_or_else(refused)?), by_cookie })
    }

    /// The rights of the holder of `key`. No key is needed where no clients are configured.
    pub(super) fn rights_with_key(&self, key: &[u8]) -> Option<Rights> {
        match self.need_no_key() {
            true => {
                note_key(true);
                Some(Rights { client: None, by_cookie: false })
            }
            false => Some(Rights { client: Some(self.with_key(key)?), by_cookie: false }),
        }
    }

    /// The client with this key. An empty one is nobody's, whatever a client built in Rust has.
    pub(super) fn with_key(&self, key: &[u8]) -> Option<Arc<Client>> {
        if key.is_empty() {
            note_key(false);
            return None;
        }
        let clients = self.list.load();
        let digest = words(&Sha256::digest(key).into());
        // Compare with every client, whether or not one has matched, so that the time taken reveals nothing.
        let mut found = u32::MAX;
        for (index, client) in (0_u32..).zip(clients.iter()) {
            found.conditional_assign(&index, words(&client.key_sha256).ct_eq(&digest));
        }
        let found = usize::try_from(found).ok().and_then(|found| clients.get(found)).map(Arc::clone);
        note_key(found.is_some());
        found
    }
}

/// A digest as words, which compare in an eighth of the time: every read compares its key with those of all
/// clients.
fn words(digest: &[u8; 32]) -> [u64; 4] {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|index| u64::from_ne_bytes(words[index]))
}

/// The key in `Authorization: Bearer KEY`; `None` if there is more than one such header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}
