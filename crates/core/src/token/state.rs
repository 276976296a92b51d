//! Everything known of one account: plain data, published to readers as one immutable value.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::account::{Account, Endpoint};
use crate::budget::Ledger;
use crate::clock::Moment;
use crate::fault::FaultScope;
use crate::last_failure::LastFailure;
use crate::phase::Phase;
use crate::token::handed_out::{HandedOut, TokenDigest};
use crate::token::schedule::Rules;
use crate::token::{HeldToken, Token, Validity, margin};

mod activity;
mod cooldown;
mod early;
mod hint;
mod reason;

pub use activity::Activity;
pub use cooldown::{Rejections, Verdict};
pub use early::EarlyRefreshes;
pub use hint::{Hint, HintSource, HintVerdict, SourceId};
pub use reason::Reason;

/// What an account holds, has spent and is doing. The first half is persisted; the second half starts over
/// with the process, but outlives the actor.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AccountState {
    /// Version of the newest token; 0 before the first. Never decreases, even when the token is erased.
    pub version: u64,
    /// The newest token, which may have expired.
    pub token: Option<Arc<HeldToken>>,
    /// Set while a call may have minted a successor that never reached us.
    pub doubt: Option<Doubt>,
    /// When the token served at that time is due for a check. By then a lost call that minted must have
    /// shown, however late it reached WeChat.
    pub audit_at: Option<Moment>,
    /// Set, on disk first, while a call that can end the token is under way.
    pub intent: Option<Intent>,
    /// What has been spent of the daily budget.
    pub ledger: Ledger,
    /// When `force_refresh` was used in the last 24 h, oldest first.
    pub forced: Vec<Moment>,
    /// The tokens before the newest.
    #[serde(default, skip_serializing_if = "HandedOut::is_empty")]
    pub handed_out: HandedOut,
    /// When a check last found that WeChat honours the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honoured_at: Option<Moment>,

    /// The last call's failure; cleared by the next success.
    #[serde(skip)]
    pub last_failure: Option<Box<LastFailure>>,
    /// A call that was asked for; made before anything scheduled.
    #[serde(skip)]
    pub want: Option<WantedCall>,
    /// Whether the wanted call is made even while all hosts count as down: for an operator, or as a trial.
    #[serde(skip)]
    pub ignores_down_hosts: bool,
    /// The wanted call that the token call under way answers.
    #[serde(skip)]
    pub serving: Option<WantedCall>,
    /// Why the queued or current token call is made; otherwise why the last one was.
    #[serde(skip)]
    pub reason: Option<Reason>,
    /// What the current or last call was charged, as the time in which the budget gives it back. The budget
    /// itself may change before the call ends.
    #[serde(skip)]
    pub charge_interval: Duration,
    /// How many other accounts were queued when the current or last call got its turn.
    #[serde(skip)]
    pub others_waiting: usize,
    /// How clients' rejections of the current token were decided.
    #[serde(skip)]
    pub rejections: Rejections,
    /// A hint that waits for its turn in the call queue.
    #[serde(skip)]
    pub hint: Option<Hint>,
    /// The hint that the check in flight follows.
    #[serde(skip)]
    pub following: Option<Hint>,
    /// No audit is made before this.
    #[serde(skip)]
    pub no_audit_before: Option<Moment>,
    /// What is being done right now.
    #[serde(skip)]
    pub activity: Activity,
    /// How many attempts to fetch a token have ended, successfully or not. Requests that wait for a token
    /// watch this.
    #[serde(skip)]
    pub attempts_ended: u64,
    /// When the next step is due; `None` while that depends on the host.
    #[serde(skip)]
    pub next_at: Option<Moment>,
}

/// A call may have minted: the current token is trusted only for the overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// Until when the token is alive in any case.
    pub until: Moment,
    /// From when on a check is conclusive: had that call minted, the token would be dead by then.
    pub check_at: Moment,
    /// Whether that check was made and was inconclusive.
    pub checked: bool,
}

impl Doubt {
    /// When the call that may have minted was over at the latest.
    #[must_use]
    pub fn over_by(&self, rules: Rules) -> Moment {
        self.check_at - shows_after(rules)
    }

    /// Whether `token` was issued after that call, which may still have been at work.
    #[must_use]
    pub fn is_older_than(&self, token: &HeldToken) -> bool {
        self.until.boot_ms <= (token.issued_at + token.overlap).boot_ms
    }
}

/// How long after a mint the previous token is certainly dead.
#[must_use]
pub fn shows_after(rules: Rules) -> Duration {
    // A token's own overlap is the least it lives on; a check is conclusive only after the longest possible
    // one.
    rules.overlap + margin(rules.overlap)
}

/// Write-ahead record: a call that can end the current token is about to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// When it was written; the request is sent later.
    pub at: Moment,
    /// Until when the current token is alive even if the call mints.
    pub trusted_until: Moment,
}

/// Returns the version that follows `last`. After the store was lost it starts at the Unix time, which none
/// of our counters can have reached.
#[must_use]
pub fn next_version(last: u64, now: Moment) -> u64 {
    match last {
        0 => u64::try_from(now.wall_ms / 1000).unwrap_or(1).max(1),
        last => last.saturating_add(1),
    }
}

/// A call that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedCall {
    /// Find out whether WeChat honours the token.
    Check,
    /// Fetch now. If the reason is [`Reason::Reported`] and WeChat hands out the same token again, force.
    Fetch(Reason),
    /// Fetch with `force_refresh`.
    Force(Reason),
}

impl AccountState {
    /// How long the held token may still be served as good: until it expires or our trust in it ends, by
    /// whichever clock is sooner, less the margin. Zero if it must not be served.
    #[must_use]
    pub fn usable_for(&self, now: Moment) -> Duration {
        let Some(token) = self.token.as_deref().filter(|token| token.validity == Validity::Good) else {
            return Duration::ZERO;
        };
        let ends = [
            Some(token.expires_at),
            self.doubt.map(|doubt| doubt.until),
            self.intent.map(|intent| intent.trusted_until),
        ];
        let left = ends.iter().flatten().map(|end| end.until_by_either(now)).min();
        left.unwrap_or_default().saturating_sub(token.margin())
    }

    /// Whether the held token may be served at `now`.
    #[must_use]
    pub fn is_usable(&self, now: Moment) -> bool {
        !self.usable_for(now).is_zero()
    }

    /// Returns the token for a reader, if one may be served. Takes no lock and does not allocate.
    #[must_use]
    pub fn read(&self, now: Moment) -> Option<Token> {
        let usable_for = self.usable_for(now);
        let held = self.token.as_ref().filter(|_| !usable_for.is_zero())?;
        Some(Token::new(Arc::clone(held), self.promise(held, usable_for, now)))
    }

    /// How long a client may rely on the token. On `token` our own next call ends it, an overlap later.
    fn promise(&self, held: &HeldToken, usable_for: Duration, now: Moment) -> Duration {
        match held.endpoint {
            Endpoint::StableToken => usable_for,
            Endpoint::Token => {
                let until_ended = match self.intent {
                    Some(intent) => (intent.at + held.grace()).until_by_either(now),
                    None => {
                        let after = |call: Moment| call.until_by_either(now).saturating_add(held.grace());
                        // A restart, a reload or a recovered host may cut the wait for a retry short: then
                        // only the refresh instant and the overlap itself are firm.
                        let firm = after(held.refresh_at).max(held.overlap.saturating_sub(held.margin()));
                        self.next_at.map_or(held.grace(), after).min(firm)
                    }
                };
                usable_for.min(until_ended)
            }
        }
    }

    /// Returns the account's phase at `now`.
    #[must_use]
    pub fn phase(&self, now: Moment) -> Phase {
        Phase::of(
            self.last_failure.as_deref(),
            self.is_usable(now),
            // A check that nobody asked for, every few minutes, is not news.
            self.activity.is_busy() && self.following.is_none(),
            self.attempts_ended,
        )
    }

    /// Whether a mint on `token` now could at once end a token that readers still rely on. It is not known
    /// whether a second mint ends the token before the last at once, so mints stay an overlap apart.
    #[must_use]
    pub fn is_mint_too_soon(&self, now: Moment) -> bool {
        let recent = |token: &Arc<HeldToken>| !(token.issued_at + token.overlap).has_come(now);
        self.is_usable(now) && (self.doubt.is_some() || self.token.as_ref().is_some_and(recent))
    }

    /// Whether the served token is due for an audit: a check that no one asked for.
    #[must_use]
    pub fn is_audit_due(&self, now: Moment) -> bool {
        self.want.is_none() && self.audit_at.is_some_and(|at| at.has_come(now)) && self.is_usable(now)
    }

    /// Whether `presented` is the value of the newest token.
    #[must_use]
    pub fn is_current(&self, presented: &crate::secret::Secret) -> bool {
        self.token.as_ref().is_some_and(|token| token.value == *presented)
    }

    /// Whether the token with this digest is or was the account's, and ended no longer ago than `stale`, by the end
    /// that WeChat gave it. It may be dead.
    #[must_use]
    pub fn has_handed_out(&self, sha256: &TokenDigest, stale: Duration, now: Moment) -> bool {
        let newest = self.token.as_ref().filter(|token| token.value.sha256() == *sha256);
        let ends = newest.map(|token| token.expires_at).into_iter().chain(self.handed_out.expiry_of(sha256));
        ends.into_iter().any(|end| !(end + stale).is_over(now))
    }

    /// Ends the wait for a host that was down and now answers again.
    pub fn host_is_back(&mut self, now: Moment) {
        if let Some(last_failure) = &mut self.last_failure {
            last_failure.host_is_back(now);
        }
    }

    /// Applies a configuration change. A changed secret or endpoint is tried at once; a changed budget ends
    /// the wait for the old one.
    pub fn reconfigured(&mut self, old: &Account, new: &Account, now: Moment) {
        if old.secret != new.secret || old.settings.endpoint != new.settings.endpoint {
            let reason = if old.settings.endpoint == new.settings.endpoint {
                Reason::SecretChanged
            } else {
                Reason::EndpointChanged
            };
            self.want = Some(WantedCall::Fetch(reason));
            self.forget_refusal();
        }
        let starved = |failure: &&mut Box<LastFailure>| failure.fault.scope == FaultScope::Budget;
        if let Some(last_failure) = self.last_failure.as_mut().filter(starved) {
            last_failure.retry_at = now;
        }
    }

    /// Applies a change of upstream: neither the token nor what needed an operator belongs to the new one.
    pub fn upstream_exchanged(&mut self) {
        self.forget_token();
        self.want = Some(WantedCall::Fetch(Reason::UpstreamChanged));
        self.forget_refusal();
    }

    /// Forgets the fault that needs an operator: it concerned settings that are no longer used.
    fn forget_refusal(&mut self) {
        if let Some(last_failure) = &mut self.last_failure {
            last_failure.parked = None;
        }
    }

    /// What remains of an account that is removed: what must hold when it comes back, and a call still under
    /// way, which no other may join.
    #[must_use]
    pub fn tombstone(&self) -> Self {
        let activity = self.activity.left_behind();
        let (ledger, forced, charge_interval) = (self.ledger, self.forced.clone(), self.charge_interval);
        let (doubt, audit_at) = (self.doubt, self.audit_at);
        Self {
            version: self.version,
            doubt,
            audit_at,
            ledger,
            forced,
            charge_interval,
            activity,
            ..Self::default()
        }
    }

    /// Converts the state to the clocks of another boot; only the wall clock connects the two.
    #[must_use]
    pub fn rebased(mut self, now: Moment) -> Self {
        self.ledger = self.ledger.rebased(now);
        // A wall clock that was set back must not forbid forced calls for longer than a day.
        self.forced.iter_mut().for_each(|at| *at = at.rebased(now).min(now));
        if let Some(doubt) = &mut self.doubt {
            (doubt.until, doubt.check_at) = (doubt.until.rebased(now), doubt.check_at.rebased(now));
        }
        self.audit_at = self.audit_at.map(|at| at.rebased(now));
        self.honoured_at = self.honoured_at.map(|at| at.rebased(now).min(now));
        if let Some(intent) = &mut self.intent {
            (intent.at, intent.trusted_until) = (intent.at.rebased(now), intent.trusted_until.rebased(now));
        }
        self.handed_out = self.handed_out.rebased(now);
        // Issued in the future: the wall clock was set back, so the token's age is unknown.
        self.token = self.token.filter(|token| token.issued_at.wall_ms <= now.wall_ms);
        if let Some(token) = &mut self.token {
            let token = Arc::make_mut(token);
            for at in [&mut token.issued_at, &mut token.expires_at, &mut token.refresh_at] {
                *at = at.rebased(now);
            }
        }
        self
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
