//! Takes in the end of an account's call, in the one order that the invariants require.
//!
//! How a call ended has a type for each step of its way, from what WeChat answered to what clients are told:
//!
//! | type | says | made by |
//! |---|---|---|
//! | [`FetchEnd`], [`CheckEnd`] | what came of one token call, or of one check | `call.rs`, from WeChat's answer |
//! | [`CallEnd`] | either of them, or that the result is no longer wanted; waits in the account's cell | the call's task |
//! | [`TokenCallEnd`] | that, or that no call was made: the hosts are down, or the budget is spent | the actor |
//! | [`Fetched`] | what a token call changed: a new token, the same one, or a failure | `AccountState::end_fetch` |
//! | [`CallOutcome`] | what the end changed, for counters, the log and the waiting clients | `apply`, below |
//! | [`Settled`] | which of the two ended, for the waiting clients | `answer_waiters`, below |
//!
//! [`FetchEnd`]: wxtokend_core::token::transition::FetchEnd

use std::sync::Arc;
use std::time::Duration;

use wxtokend_core::fault::Fault;
use wxtokend_core::token::state::{Activity, Hint, HintVerdict};
use wxtokend_core::token::transition::{CheckEnd, Fetched};

use super::TokenActor;
use super::end::TokenCallEnd;
use crate::fleet::actor::pending::Pending;
use crate::fleet::actor::waiters::Settled;
use crate::fleet::cells::call_state::CallEnd;

/// What the end of a call has changed.
enum CallOutcome {
    /// A token call was made.
    Fetched {
        fetched: Fetched,
        took_ms: u64,
        /// The lifetime of the token as WeChat states it.
        stated_lifetime: Option<Duration>,
    },
    /// No call was made, which counts as a failure.
    Refused(Arc<Fault>),
    /// A check was made, perhaps because of a hint.
    Checked(CheckEnd, Option<Hint>),
    /// A token call was made whose result is no longer wanted.
    Dropped,
    /// The check of a served token was not made, which is no failure.
    PutOff,
}

impl TokenActor {
    /// Takes in what became of the call that was due, and goes on to the next step.
    pub(super) async fn finish(&mut self, end: TokenCallEnd) {
        self.enter(Activity::Idle, Pending::nothing());
        let waiting = self.state.hint;
        let change = self.apply(end);
        self.count(&change);
        if let Some(hint) = waiting.filter(|_| self.state.hint.is_none()) {
            self.settle_hint(hint, HintVerdict::Skipped, self.shared.now());
        }
        if let CallOutcome::Checked(end, hint) = &change {
            self.log(self.shared.now()).check_ended(end, *hint);
            // A token found dead is out of every answer before the disk is written.
            self.publish();
        }
        if change.was_called() {
            // A new token is on disk before any reader sees it.
            self.commit().await;
        }
        if change.is_attempt() {
            self.cell.clear_awaited();
        }
        self.advance();
        // Both depend on the next step: when the refresh is due, and whether another call follows at once.
        self.log_end(&change);
        self.answer_waiters(&change);
    }

    fn apply(&mut self, end: TokenCallEnd) -> CallOutcome {
        let (rules, now) = (self.shared.rules(), self.shared.now());
        match end {
            TokenCallEnd::Called(CallEnd::Fetch { end, spare_left }) => {
                if spare_left {
                    self.state.return_spare();
                }
                let took_ms = u64::try_from(self.call_started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let stated_lifetime = end.result.as_ref().ok().map(|answer| answer.expires_in);
                let fetched = self.state.end_fetch(end, &self.account, rules, now, self.shared.draw());
                CallOutcome::Fetched { fetched, took_ms, stated_lifetime }
            }
            TokenCallEnd::Called(CallEnd::Check(end)) => {
                let hint = self.state.following;
                self.state.end_check(&end, &self.account, now);
                if let Some(hint) = hint {
                    self.settle_hint(hint, end.verdict(), now);
                }
                CallOutcome::Checked(end, hint)
            }
            TokenCallEnd::Called(CallEnd::Abandoned { force, was_sent }) => {
                self.state.drop_fetch(force, was_sent);
                CallOutcome::Dropped
            }
            TokenCallEnd::Refused(_) if self.state.put_off_audit(now) => CallOutcome::PutOff,
            TokenCallEnd::Refused(fault) => {
                self.state.refuse_fetch(fault.clone(), &self.account, now, (self.shared.jitter)());
                CallOutcome::Refused(Arc::new(fault))
            }
        }
    }

    fn count(&self, change: &CallOutcome) {
        let (fetched, fault) = match change {
            CallOutcome::Fetched { fetched, .. } => {
                (*fetched, self.state.last_failure.as_deref().map(|failure| &*failure.fault))
            }
            CallOutcome::Refused(fault) => (Fetched::Failed, Some(&**fault)),
            CallOutcome::Checked(..) | CallOutcome::Dropped | CallOutcome::PutOff => return,
        };
        self.shared.count_fetch(&self.cell, fetched, fault);
    }

    fn log_end(&self, change: &CallOutcome) {
        let log = self.log(self.shared.now());
        match change {
            CallOutcome::Fetched { fetched, took_ms, stated_lifetime } => {
                log.fetch_ended(*fetched, *took_ms);
                stated_lifetime.iter().for_each(|lifetime| log.note_stated_lifetime(*lifetime));
            }
            CallOutcome::Refused(fault) => log.failed(fault, None),
            CallOutcome::Checked(..) | CallOutcome::Dropped | CallOutcome::PutOff => {}
        }
    }

    fn answer_waiters(&mut self, change: &CallOutcome) {
        let settled = match change {
            CallOutcome::Fetched { fetched, .. } => Settled::Fetch(*fetched),
            CallOutcome::Refused(_) => Settled::Fetch(Fetched::Failed),
            CallOutcome::Checked(..) => Settled::Check,
            CallOutcome::Dropped | CallOutcome::PutOff => return,
        };
        self.waiters.settle(&self.state, settled, self.shared.now());
    }
}

impl CallOutcome {
    fn was_called(&self) -> bool {
        matches!(self, Self::Fetched { .. } | Self::Checked(..) | Self::Dropped)
    }

    /// Whether callers that wait for a token have seen an attempt to get one.
    fn is_attempt(&self) -> bool {
        matches!(self, Self::Fetched { .. } | Self::Refused(_))
    }
}
