//! What an account's keys in Redis should hold, what they do hold, and what is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cell::Snapshot;
use crate::account::Account;
use crate::clock::Moment;
use crate::layout::{Entry, Layout, Promised};
use crate::publish::Change;
use crate::secret::Secret;
use crate::token::Token;

/// By so much a clock may go wrong between ours and Redis'.
const SLACK: Duration = Duration::from_secs(1);

/// An account's token as it may be relied on now.
pub(super) struct Wanted {
    account: Arc<Account>,
    token: Token,
}

impl Wanted {
    /// `None` where no token may be served, or only for less than the second that is Redis' unit.
    pub(super) fn of(snapshot: &Snapshot, now: Moment) -> Option<Self> {
        let token = snapshot.state.read(now).filter(|token| token.expires_in().as_secs() > 0)?;
        Some(Self { account: Arc::clone(&snapshot.account), token })
    }
}

/// What we have put into Redis for one account.
#[derive(Default)]
pub(super) struct Published {
    source: Option<(Arc<Account>, Secret)>,
    entries: Vec<Entry>,
    /// Of a write that failed: they may stand there.
    tried: Vec<Entry>,
    /// When the keys end, at the earliest,
    until: Moment,
    /// and at the latest: when Redis began to count is not known better.
    until_by: Moment,
    /// Nothing speaks against the entries standing there.
    is_sure: bool,
    pub(super) look_at: Option<Instant>,
}

impl Published {
    /// What stands there is not known any more.
    pub(super) fn forget(&mut self) {
        self.is_sure = false;
    }

    /// `plan` may have been carried out, or not.
    pub(super) fn tried(&mut self, plan: Plan) {
        self.is_sure = false;
        if let Plan::Put(put) = plan {
            self.tried = put.entries;
        }
    }

    /// What certainly must be there, and for more than a moment.
    pub(super) fn standing(&self, now: Moment) -> Option<&[Entry]> {
        (self.is_sure && self.until.until(now) > Duration::from_secs(1)).then_some(&self.entries)
    }

    /// How long the keys may stay there: as long as they were given, or as is promised for the token by now.
    pub(super) fn at_most(&self, wanted: Option<&Wanted>, now: Moment) -> Duration {
        let promise = wanted.filter(|wanted| self.is_of(wanted)).map(|wanted| wanted.token.expires_in());
        self.until_by.until(now).max(promise.unwrap_or_default()) + SLACK
    }

    /// How long until the promise is looked at again: it may have grown, and must be written before the keys end.
    pub(super) fn next_look(&self, now: Moment) -> Duration {
        (self.until.until(now) / 2).max(Duration::from_millis(200))
    }

    /// Whether there is anything.
    pub(super) fn is_any(&self) -> bool {
        !self.entries.is_empty()
    }

    fn is_of(&self, wanted: &Wanted) -> bool {
        let same = |(account, token): &(Arc<Account>, Secret)| {
            *account == wanted.account && *token == wanted.token.held.value
        };
        self.source.as_ref().is_some_and(same)
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().chain(&self.tried)
    }
}

/// What is to be done.
pub(super) enum Plan {
    /// Nothing: it is there, or neither there nor wanted.
    Keep,
    Put(Put),
    TakeBack(Vec<Entry>),
}

pub(super) struct Put {
    source: (Arc<Account>, Secret),
    entries: Vec<Entry>,
    for_s: u64,
    until: Moment,
    /// At keys that are not the account's any more.
    take_back: Vec<Entry>,
}

impl Plan {
    pub(super) fn new(
        wanted: Option<Wanted>,
        published: Option<&Published>,
        layout: &Layout,
        now: Moment,
    ) -> Self {
        let Some(wanted) = wanted else {
            let theirs: Vec<_> = published.into_iter().flat_map(Published::all).cloned().collect();
            return if theirs.is_empty() { Self::Keep } else { Self::TakeBack(theirs) };
        };
        let promise = wanted.token.expires_in();
        let for_s = promise.as_secs();
        let until = now + Duration::from_secs(for_s);
        let stands = published
            .filter(|published| published.is_sure && published.is_of(&wanted))
            .is_some_and(|published| is_enough(published.until, until, now + promise, now));
        if stands {
            return Self::Keep;
        }
        let promised = Promised {
            value: wanted.token.access_token(),
            expires_in_s: for_s,
            expires_at_s: until.wall_ms.div_euclid(1_000),
        };
        let entries = layout.entries(&wanted.account, promised);
        let stray = |entry: &&Entry| !entries.iter().any(|kept| kept.key == entry.key);
        let take_back = published.into_iter().flat_map(Published::all).filter(stray).cloned().collect();
        let source = (wanted.account, wanted.token.held.value.clone());
        Self::Put(Put { source, entries, for_s, until, take_back })
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let (put, take_back) = match self {
            Self::Keep => (None, [].as_slice()),
            Self::Put(put) => (Some(put), put.take_back.as_slice()),
            Self::TakeBack(entries) => (None, entries.as_slice()),
        };
        let puts = put
            .into_iter()
            .flat_map(|put| put.entries.iter().map(move |entry| Change::Put { entry, for_s: put.for_s }));
        puts.chain(take_back.iter().map(Change::TakeBack))
    }

    /// What stands there when it was done by `now`.
    pub(super) fn published(self, now: Moment) -> Option<Published> {
        let Self::Put(put) = self else { return None };
        Some(Published {
            source: Some(put.source),
            entries: put.entries,
            tried: Vec::new(),
            until: put.until,
            until_by: now + Duration::from_secs(put.for_s),
            is_sure: true,
            look_at: None,
        })
    }
}

/// Whether keys that end at `is` do, where they could be given until `could_be`: not beyond the promise's `end`, and
/// short of what is possible by less than a second, or by less than half of what they have left.
fn is_enough(is: Moment, could_be: Moment, end: Moment, now: Moment) -> bool {
    let slack = (is.until(now) / 2).min(Duration::from_secs(1));
    is.until(end).is_zero() && could_be.until(is) < slack
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enough(is_ms: i64, promise_ms: u64) -> bool {
        let at = |ms| Moment { wall_ms: ms, boot_ms: ms };
        let whole = Duration::from_secs(Duration::from_millis(promise_ms).as_secs());
        is_enough(at(is_ms), at(0) + whole, at(0) + Duration::from_millis(promise_ms), at(0))
    }

    #[test]
    fn keys_are_written_again_when_the_promise_shrinks_or_grows_and_not_for_its_fractions() {
        assert!(enough(100_000, 100_999));
        assert!(enough(99_500, 100_400), "half a second is not worth a write");
        assert!(!enough(100_001, 100_000), "they must not outlive the promise");
        assert!(!enough(50_000, 51_000), "it has grown by a second");
        assert!(!enough(500, 1_600), "half of their life is over");
        assert!(!enough(-5, 1_000), "they have ended");
    }
}
