//! Compares what the keys of a credential in Redis should hold with what they do hold, and plans the changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::account::Account;
use wxtokend_core::clock::Moment;
use wxtokend_core::sdk::layout::{Entry, Layout, Promised};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::Credential;

use crate::config::Grants;
use crate::fleet::cells::directory::Directory;
use crate::fleet::publish::connection::KeyChange;

/// How far our clock and Redis' may drift apart.
const SLACK: Duration = Duration::from_secs(1);

/// A token or a ticket as it may be relied on now.
pub(crate) struct Desired {
    account: Arc<Account>,
    value: Secret,
    promise: Duration,
}

impl Desired {
    /// What a credential's keys should hold. `None` where none may be served, or only for less than a second,
    /// which is Redis' unit, or where `accounts` does not cover its account.
    pub(crate) fn of(
        directory: &Directory,
        credential: &Credential,
        accounts: &Grants,
        now: Moment,
    ) -> Option<Self> {
        let cell = directory.by_appid.get(&credential.appid)?;
        let snapshot = cell.load();
        let (value, promise) = match credential.ticket {
            None => snapshot.state.read(now).map(|token| (token.held().value.clone(), token.expires_in())),
            Some(kind) => {
                let ticket = cell.ticket(kind)?.read(now);
                ticket.map(|ticket| (Secret::new(ticket.value()), ticket.expires_in()))
            }
        }?;
        let is_wanted = promise.as_secs() > 0 && accounts.covers(&snapshot.account);
        is_wanted.then(|| Self { account: Arc::clone(&snapshot.account), value, promise })
    }
}

/// What we have written to Redis for one token or ticket.
#[derive(Default)]
pub(crate) struct Published {
    source: Option<(Arc<Account>, Secret)>,
    /// The value before it.
    before: Option<Secret>,
    entries: Vec<Entry>,
    /// The entries of a write that failed; they may be in Redis.
    tried: Vec<Entry>,
    /// When the keys expire, at the earliest;
    until: Moment,
    /// and at the latest, since when Redis began to count is not known more precisely.
    until_by: Moment,
    /// Whether nothing contradicts that the entries are in Redis.
    is_certain: bool,
    pub(crate) check_at: Option<Instant>,
}

impl Published {
    /// Marks what is in Redis as unknown.
    pub(crate) fn forget(&mut self) {
        self.is_certain = false;
    }

    /// Records that `plan` may or may not have been carried out.
    pub(crate) fn tried(&mut self, plan: Plan) {
        self.is_certain = false;
        if let Plan::Put(put) = plan {
            self.tried = put.entries;
        }
    }

    /// The entries that must be in Redis, and for more than a moment.
    pub(crate) fn stored_entries(&self, now: Moment) -> Option<&[Entry]> {
        (self.is_certain && self.until.until(now) > Duration::from_secs(1)).then_some(&self.entries)
    }

    /// How long the keys may exist: as long as they were given, or as the token is now promised.
    pub(crate) fn at_most(&self, wanted: Option<&Desired>, now: Moment) -> Duration {
        let promise = wanted.filter(|wanted| self.is_of(wanted)).map(|wanted| wanted.promise);
        self.until_by.until(now).max(promise.unwrap_or_default()) + SLACK
    }

    /// How long until the promise is read again. It may have grown, and must be written before the keys
    /// expire.
    pub(crate) fn next_check(&self, now: Moment) -> Duration {
        (self.until.until(now) / 2).max(Duration::from_millis(200))
    }

    /// Whether there are any entries.
    pub(crate) fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Takes over the value that the keys held before.
    pub(crate) fn follow(&mut self, before: &Self) {
        let value = |published: &Self| published.source.as_ref().map(|(_, value)| value.clone());
        let is_same = value(self) == value(before);
        self.before = if is_same { before.before.clone() } else { value(before) };
    }

    /// The entry that holds the value, and this value with the one before it; `None` if it is no longer the
    /// one that is `wanted`.
    pub(crate) fn current(&self, wanted: Option<&Desired>) -> Option<(&Entry, Vec<&Secret>)> {
        let (_, value) = self.source.as_ref().filter(|_| wanted.is_some_and(|wanted| self.is_of(wanted)))?;
        let holds = |entry: &&Entry| entry.content.mark().expose().contains(value.expose());
        Some((self.entries.iter().find(holds)?, [value].into_iter().chain(&self.before).collect()))
    }

    fn is_of(&self, wanted: &Desired) -> bool {
        let same =
            |(account, value): &(Arc<Account>, Secret)| *account == wanted.account && *value == wanted.value;
        self.source.as_ref().is_some_and(same)
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.tried)
    }
}

/// What is to be done.
pub(crate) enum Plan {
    /// Nothing: it is in Redis, or neither there nor wanted.
    Keep,
    Put(Put),
    Withdraw(Vec<Entry>),
}

pub(crate) struct Put {
    source: (Arc<Account>, Secret),
    entries: Vec<Entry>,
    for_s: u64,
    until: Moment,
    /// Entries at keys that are no longer its own.
    withdraw: Vec<Entry>,
}

impl Plan {
    pub(crate) fn new(
        credential: &Credential,
        wanted: Option<Desired>,
        published: Option<&Published>,
        layout: &Layout,
        now: Moment,
    ) -> Self {
        let Some(wanted) = wanted else {
            let theirs: Vec<_> = published.into_iter().flat_map(Published::all).cloned().collect();
            return if theirs.is_empty() { Self::Keep } else { Self::Withdraw(theirs) };
        };
        let promise = wanted.promise;
        let for_s = promise.as_secs();
        let until = now + Duration::from_secs(for_s);
        let is_stored = published
            .filter(|published| published.is_certain && published.is_of(&wanted))
            .is_some_and(|published| is_enough(published.until, until, now + promise, now));
        if is_stored {
            return Self::Keep;
        }
        let promised = Promised {
            value: wanted.value.expose(),
            expires_in_s: for_s,
            expires_at_s: until.wall_ms.div_euclid(1_000),
        };
        let entries = match credential.ticket {
            None => layout.entries(&wanted.account, promised),
            Some(kind) => layout.ticket_entries(&wanted.account, kind, promised),
        };
        let stray = |entry: &&Entry| !entries.iter().any(|kept| kept.key == entry.key);
        let withdraw: Vec<_> =
            published.into_iter().flat_map(Published::all).filter(stray).cloned().collect();
        // Its SDK shares no tickets of this kind.
        if entries.is_empty() && withdraw.is_empty() {
            return Self::Keep;
        }
        let source = (wanted.account, wanted.value);
        Self::Put(Put { source, entries, for_s, until, withdraw })
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = KeyChange<'_>> {
        let (put, withdraw) = match self {
            Self::Keep => (None, [].as_slice()),
            Self::Put(put) => (Some(put), put.withdraw.as_slice()),
            Self::Withdraw(entries) => (None, entries.as_slice()),
        };
        let puts = put
            .into_iter()
            .flat_map(|put| put.entries.iter().map(move |entry| KeyChange::Put { entry, for_s: put.for_s }));
        puts.chain(withdraw.iter().map(KeyChange::Withdraw))
    }

    /// What is in Redis if the plan was carried out by `now`.
    pub(crate) fn published(self, now: Moment) -> Option<Published> {
        let Self::Put(put) = self else { return None };
        Some(Published {
            source: Some(put.source),
            before: None,
            entries: put.entries,
            tried: Vec::new(),
            until: put.until,
            until_by: now + Duration::from_secs(put.for_s),
            is_certain: true,
            check_at: None,
        })
    }
}

/// Whether keys that expire at `is` may stay, where they could be given until `could_be`.
///
/// They must not outlive the promise's `end`, and may fall short of what is possible by less than a second,
/// or by less than half of what they have left.
fn is_enough(is: Moment, could_be: Moment, end: Moment, now: Moment) -> bool {
    let slack = (is.until(now) / 2).min(Duration::from_secs(1));
    is.until(end).is_zero() && could_be.until(is) < slack
}

#[cfg(test)]
mod tests;
