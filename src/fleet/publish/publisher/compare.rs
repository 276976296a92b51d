//! Compares the keys in a Redis with what we wrote, and takes what others have done to them as hints.
//!
//! SDKs delete or overwrite a token's key when WeChat refuses the token, and tell nobody. So a key that is
//! missing, or holds a token that is not ours, is a hint that ours is dead. Our own token, written again by an
//! SDK with an expiry of its own, is none, nor is the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Bound;
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::clock::Moment;
use wxtokend_core::ticket::Credential;
use wxtokend_core::token::state::{HintSource, SourceId};

use super::{COMPARE_EVERY, Publisher};
use crate::fleet::publish::connection::ExpectedValue;
use crate::fleet::publish::outbox::Outbox;
use crate::fleet::publish::publication::Published;
use crate::fleet::publish::sink_error::SinkError;

/// Over how many rounds a comparison covers all keys,
const COMPARE_ROUNDS: u32 = 10;
/// and the most tokens and tickets per round.
const COMPARE_MAX: usize = 1_000;
/// How many tokens and tickets are read in one batch.
const READ_AT_ONCE: usize = 250;

impl Publisher {
    /// The wait before the next comparison. Where most keys were changed, Redis was emptied, and the rest is
    /// compared at once; but not over and over where it keeps nothing.
    pub(super) fn compare_delay(&mut self, compared: usize, changed: usize) -> Duration {
        let is_mismatched = changed * 2 > compared;
        self.mismatched = if is_mismatched { self.mismatched + compared } else { 0 };
        if is_mismatched && self.mismatched < self.published.len() {
            return Duration::ZERO;
        }
        self.mismatched = 0;
        if is_mismatched { COMPARE_EVERY * COMPARE_ROUNDS } else { COMPARE_EVERY }
    }

    /// Compares the next part of the keys in Redis with what we wrote. Returns how many credentials were
    /// compared, and how many of them are not ours.
    pub(super) async fn compare(&mut self) -> Result<(usize, usize), SinkError> {
        let start = self.last_compared.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.published.range((start, Bound::Unbounded)).map(|(credential, _)| credential);
        let share = self.published.len().div_ceil(COMPARE_ROUNDS as usize).min(COMPARE_MAX);
        let round: Vec<Credential> = rest.by_ref().take(share).cloned().collect();
        self.last_compared = rest.next().and(round.last()).cloned();
        let mut changed = 0;
        for batch in round.chunks(READ_AT_ONCE) {
            let now = self.clock.now();
            let (mut credentials, mut expected) = (Vec::new(), Vec::new());
            for credential in batch {
                let Some(published) = self.published.get(credential) else { continue };
                let at_most = published.at_most(self.wanted(credential, now).as_ref(), now);
                for entry in published.stored_entries(now).unwrap_or_default() {
                    credentials.push(credential);
                    expected.push(ExpectedValue { entry, at_most });
                }
            }
            let Some(connection) = self.connection.as_mut().filter(|_| !expected.is_empty()) else {
                continue;
            };
            let (mut drifted, mut refused) = (BTreeSet::new(), BTreeMap::new());
            for (credential, differs) in credentials.into_iter().zip(connection.differ(&expected).await?) {
                match differs {
                    Ok(false) => {}
                    Ok(true) => drop(drifted.insert(credential.clone())),
                    Err(refusal) => drop(refused.insert(credential.clone(), refusal)),
                }
            }
            Outbox::count(&self.outbox.tally.failed, refused.len());
            for (credential, refusal) in refused {
                self.refusals.add(credential, refusal, Instant::now());
            }
            // Before the keys are written again, which may take a while where Redis has lost all of them.
            let lacking = self.without_our_token(&drifted, now).await?;
            let in_place = batch.iter().filter(|credential| !drifted.contains(*credential));
            self.note_use(in_place.filter(|credential| self.holds(credential, now)), now);
            self.hint(&lacking, now);
            changed += drifted.len();
            self.log.drift(drifted.len());
            Outbox::count(&self.outbox.tally.drifted, drifted.len());
            for credential in drifted {
                self.published.entry(credential.clone()).and_modify(Published::forget);
                self.todo.insert(credential);
            }
        }
        Ok((round.len(), changed))
    }

    /// Those of `drifted` that are tokens, and whose key is missing or holds none of our tokens.
    async fn without_our_token(
        &mut self,
        drifted: &BTreeSet<Credential>,
        now: Moment,
    ) -> Result<Vec<Credential>, SinkError> {
        let (mut credentials, mut expected) = (Vec::new(), Vec::new());
        for credential in drifted.iter().filter(|credential| credential.ticket.is_none()) {
            let wanted = self.wanted(credential, now);
            let current =
                self.published.get(credential).and_then(|published| published.current(wanted.as_ref()));
            if let Some((entry, tokens)) = current {
                credentials.push(credential.clone());
                expected.push((entry, tokens));
            }
        }
        let Some(connection) = self.connection.as_mut().filter(|_| !expected.is_empty()) else {
            return Ok(Vec::new());
        };
        let lack = connection.lack(&expected).await?;
        Ok(credentials
            .into_iter()
            .zip(lack)
            .filter_map(|(credential, lacks)| lacks.then_some(credential))
            .collect())
    }

    /// Whether a credential's keys should be in Redis.
    fn holds(&self, credential: &Credential, now: Moment) -> bool {
        let published = self.published.get(credential);
        published.is_some_and(|published| published.stored_entries(now).is_some())
    }

    /// A token that stands in a Redis counts as in use.
    fn note_use<'a>(&self, credentials: impl Iterator<Item = &'a Credential>, now: Moment) {
        let directory = self.directory.load();
        let tokens = credentials.filter(|credential| credential.ticket.is_none());
        for cell in tokens.filter_map(|credential| directory.by_appid.get(&credential.appid)) {
            cell.note_use(now);
        }
    }

    fn hint(&self, credentials: &[Credential], now: Moment) {
        let mut hasher = DefaultHasher::new();
        ("sink", self.outbox.name()).hash(&mut hasher);
        let (from, directory) = (SourceId(hasher.finish()), self.directory.load());
        for cell in credentials.iter().filter_map(|credential| directory.by_appid.get(&credential.appid)) {
            cell.hint(HintSource::Drift, from, now);
        }
    }
}
