//! Callers that have rejected a token or asked for a refresh, and wait for their account to settle.

use kameo::reply::ReplySender;
use wxtokend_core::clock::Moment;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::Validity;
use wxtokend_core::token::state::{AccountState, Verdict};
use wxtokend_core::token::transition::Fetched;

use crate::fleet::cells::mailbox::{NoValidToken, RefreshReply};
use crate::fleet::cells::tally::RejectionOutcome;

/// The callers that wait for one account.
#[derive(Default)]
pub(crate) struct Waiters(Vec<Waiter>);

struct Waiter {
    /// The token that was rejected; `None` for a request to refresh.
    presented: Option<Secret>,
    reply: ReplySender<RefreshReply>,
}

/// What has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Check,
    Fetch(Fetched),
}

impl Waiters {
    pub(crate) fn add(&mut self, presented: Option<Secret>, reply: ReplySender<RefreshReply>) {
        self.0.push(Waiter { presented, reply });
    }

    /// Answers the callers whose outcome is decided now that the account is in this `state`.
    pub(crate) fn settle(&mut self, state: &AccountState, settled: Settled, now: Moment) {
        for waiter in std::mem::take(&mut self.0) {
            match waiter.decide(state, settled, now) {
                Some(answer) => waiter.reply.send(answer),
                None => self.0.push(waiter),
            }
        }
    }
}

impl Waiter {
    /// The answer; `None` while the outcome is still open.
    fn decide(&self, state: &AccountState, settled: Settled, now: Moment) -> Option<RefreshReply> {
        let replaced = self.presented.as_ref().is_some_and(|presented| !state.is_current(presented));
        if replaced || settled == Settled::Fetch(Fetched::New) {
            return Some(Ok(RejectionOutcome::Refreshed));
        }
        let about_to_call = state.want.is_some()
            || state.token.as_ref().is_some_and(|token| token.validity != Validity::Good)
                && state.activity.is_busy();
        let usable = state.is_usable(now);
        match settled {
            Settled::Fetch(_) if about_to_call => None,
            Settled::Fetch(Fetched::Failed) if self.presented.is_some() && usable => {
                Some(Ok(RejectionOutcome::Limited))
            }
            Settled::Fetch(_) if usable => Some(Ok(RejectionOutcome::StillValid)),
            Settled::Fetch(_) => Some(Err(NoValidToken)),
            // A caller that wants a refresh, or whose token is dead, waits for the fetch.
            Settled::Check if self.presented.is_none() || about_to_call || !usable => None,
            Settled::Check if state.rejections.verdict == Some(Verdict::Honoured) => {
                Some(Ok(RejectionOutcome::StillValid))
            }
            Settled::Check => Some(Ok(RejectionOutcome::Limited)),
        }
    }
}
