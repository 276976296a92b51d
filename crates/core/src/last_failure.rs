//! Why an account, or a ticket of its, is not well.

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::budget::Ledger;
use crate::clock::Moment;
use crate::fault::{Fault, FaultKind, FaultScope, Wait};
use crate::token::schedule::wait_after;

/// The account's last call failed.
#[derive(Debug, Clone, PartialEq)]
pub struct LastFailure {
    /// Why.
    pub fault: Arc<Fault>,
    /// When.
    pub at: Moment,
    /// How many calls have failed in a row,
    pub failures: u32,
    /// and how many of them since the host was last back, by which the next wait grows: after an outage it begins anew.
    pub failures_since_recovery: u32,
    /// When to call again.
    pub retry_at: Moment,
    /// Whether the host is to blame: while it is down nothing is tried, and when it is back, at once.
    pub awaits_host: bool,
    /// What WeChat said last that needs a person, and when: a call that does not get as far leaves that open.
    pub parked: Option<(Arc<Fault>, Moment)>,
}

impl LastFailure {
    /// One call more has failed after `earlier`, of a credential that is usable for `usable_for` still.
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
        let failures = earlier.map_or(0, |trouble| trouble.failures).saturating_add(1);
        let failures_since_recovery =
            earlier.map_or(0, |trouble| trouble.failures_since_recovery).saturating_add(1);
        let wait = wait_after(&fault, failures_since_recovery, account, usable_for, ledger, now, jitter);
        let awaits_host =
            fault.whose == FaultScope::Host && matches!(fault.wait, Wait::BackOff | Wait::NotBefore(_));
        let fault = Arc::new(fault);
        let parked = match fault.kind {
            FaultKind::Parked => Some((Arc::clone(&fault), now)),
            _ if fault.says_nothing_of_the_account() => earlier.and_then(|earlier| earlier.parked.clone()),
            _ => None,
        };
        Self { fault, at: now, failures, failures_since_recovery, retry_at: now + wait, awaits_host, parked }
    }

    /// The host that was down answers again.
    pub fn host_is_back(&mut self, now: Moment) {
        if self.awaits_host {
            (self.retry_at, self.failures_since_recovery) = (now, 0);
        }
    }

    /// A token has been found dead, of which this trouble was none: one attempt is made at once, unless somebody has said
    /// when to ask again.
    pub fn clear_wait(&mut self, now: Moment) {
        if !self.fault.says_when() {
            self.retry_at = now;
        }
    }

    /// Whether it needs a person.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.parked.is_some() || self.fault.kind == FaultKind::Parked
    }

    /// What is wrong with the account, and since when: what needs a person, whatever has come between.
    #[must_use]
    pub fn cause(&self) -> (&Fault, Moment) {
        self.parked.as_ref().map_or((&*self.fault, self.at), |(fault, at)| (&**fault, *at))
    }

    /// What keeps WeChat from being asked again about the cause: the host or our budget, mostly.
    #[must_use]
    pub fn obstacle(&self) -> Option<&Fault> {
        Some(&*self.fault).filter(|fault| self.is_parked() && fault.kind != FaultKind::Parked)
    }
}
