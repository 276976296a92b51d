//! Why an account, or one of its tickets, is in trouble.

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::budget::Ledger;
use crate::clock::Moment;
use crate::fault::{Fault, FaultKind, FaultScope, Wait};
use crate::token::schedule::wait_after;

/// Failure of an account's last call.
#[derive(Debug, Clone, PartialEq)]
pub struct LastFailure {
    /// What failed.
    pub fault: Arc<Fault>,
    /// When it failed.
    pub at: Moment,
    /// How many calls have failed in a row.
    pub failures: u32,
    /// How many of them failed since the host last recovered. The next wait grows with this count, so that it
    /// starts over after an outage.
    pub failures_since_recovery: u32,
    /// When to call again.
    pub retry_at: Moment,
    /// Whether the host is to blame: nothing is tried while it is down, and everything at once when it is
    /// back.
    pub awaits_host: bool,
    /// WeChat's last fault that needs an operator, and when it came. Kept through failures that say nothing
    /// of the account.
    pub parked: Option<(Arc<Fault>, Moment)>,
}

impl LastFailure {
    /// Records another failed call after `earlier`, for a credential that is still usable for `usable_for`.
    #[must_use]
    pub fn after(
        earlier: Option<&Self>,
        fault: Fault,
        account: &Account,
        usable_for: Duration,
        ledger: &Ledger,
        now: Moment,
        jitter: f64,
    ) -> Self {
        let failures = earlier.map_or(0, |failure| failure.failures).saturating_add(1);
        let failures_since_recovery =
            earlier.map_or(0, |failure| failure.failures_since_recovery).saturating_add(1);
        let wait = wait_after(&fault, failures_since_recovery, account, usable_for, ledger, now, jitter);
        let awaits_host =
            fault.scope == FaultScope::Host && matches!(fault.wait, Wait::BackOff | Wait::NotBefore(_));
        let fault = Arc::new(fault);
        let parked = match fault.kind {
            FaultKind::Parked => Some((Arc::clone(&fault), now)),
            _ if fault.says_nothing_of_the_account() => earlier.and_then(|earlier| earlier.parked.clone()),
            _ => None,
        };
        Self { fault, at: now, failures, failures_since_recovery, retry_at: now + wait, awaits_host, parked }
    }

    /// Ends the wait for a host that was down and now answers again.
    pub fn host_is_back(&mut self, now: Moment) {
        if self.awaits_host {
            (self.retry_at, self.failures_since_recovery) = (now, 0);
        }
    }

    /// Ends the wait because the token was found dead, which this failure did not cause: one attempt is made
    /// at once, unless the fault itself says when to try again.
    pub fn clear_wait(&mut self, now: Moment) {
        if !self.fault.says_when() {
            self.retry_at = now;
        }
    }

    /// Whether it needs an operator to act.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.parked.is_some() || self.fault.kind == FaultKind::Parked
    }

    /// Returns what is wrong with the account, and since when. A fault that needs an operator wins over later
    /// ones.
    #[must_use]
    pub fn cause(&self) -> (&Fault, Moment) {
        self.parked.as_ref().map_or((&*self.fault, self.at), |(fault, at)| (&**fault, *at))
    }

    /// Returns what keeps us from asking WeChat again about the cause: mostly the host or our own budget.
    #[must_use]
    pub fn obstacle(&self) -> Option<&Fault> {
        Some(&*self.fault).filter(|fault| self.is_parked() && fault.kind != FaultKind::Parked)
    }
}
