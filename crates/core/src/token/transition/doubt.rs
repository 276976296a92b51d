//! Calls whose outcome is unknown, and the checks that settle what they did to the token.

use std::time::Duration;

use crate::account::{Account, Endpoint};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::token::Validity;
use crate::token::schedule::{LATE, Rules};
use crate::token::state::{
    AccountState, Doubt, Intent, Reason, Rejections, Verdict, WantedCall, shows_after,
};

/// How long after an inconclusive audit the next one is made.
pub(super) const AUDIT_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Result of a check call.
#[derive(Debug)]
pub enum CheckEnd {
    /// WeChat honours the token.
    Honoured,
    /// WeChat refuses it: 40001, 40014 or 42001.
    Refused,
    /// The check was inconclusive.
    Inconclusive(Fault),
}

impl AccountState {
    /// Applies the result of a check of the current token.
    pub fn end_check(&mut self, end: &CheckEnd, account: &Account, now: Moment) {
        self.ignores_down_hosts = false;
        // A check that was asked for began while the token was served, too early to rule out a lost mint.
        let followed = self.following.take();
        // Whatever asked for this check, it answers a hint that still waits for one.
        self.hint = None;
        let unasked = self.want.is_none() && followed.is_none();
        let is_conclusive = unasked && self.doubt.is_some_and(|doubt| doubt.check_at.has_come(now));
        let audits = unasked && self.audit_at.is_some_and(|at| at.has_come(now));
        // A refresh asked for in the meantime stays on the list.
        let asked_for = followed.is_none() && self.want.take_if(|want| *want == WantedCall::Check).is_some();
        self.pause_audits_after(end, now);
        match end {
            CheckEnd::Honoured => {
                if is_conclusive {
                    self.doubt = None;
                }
                self.honoured_at = Some(now);
                self.rejections = self.rejections.checked(Verdict::Honoured, account, now);
            }
            CheckEnd::Refused => {
                self.rejections = self.rejections.refused();
                self.set_validity(Validity::Refused);
                // Readers from now on wait for its successor, which is due at once.
                self.next_at = Some(now);
                if let Some(last_failure) = &mut self.last_failure {
                    last_failure.clear_wait(now);
                }
            }
            CheckEnd::Inconclusive(_) => {
                if let Some(doubt) = self.doubt.as_mut().filter(|_| is_conclusive) {
                    doubt.checked = true;
                }
                if followed.is_some() {
                    // Whoever reports the token now is answered as after a check of its own. But this one must
                    // not make that report's check the second inconclusive one, which costs a token.
                    let cool_until = Some(now + account.settings.rejection_cooldown);
                    self.rejections = Rejections { cool_until, verdict: None, ..self.rejections };
                }
                if asked_for {
                    let second = self.rejections.verdict == Some(Verdict::Inconclusive);
                    self.rejections = self.rejections.checked(Verdict::Inconclusive, account, now);
                    // On `token` a call ends the token: only a second inconclusive check is worth that.
                    if account.settings.endpoint == Endpoint::StableToken
                        || second && !self.is_mint_too_soon(now)
                    {
                        self.want = Some(WantedCall::Fetch(Reason::Unverified));
                    }
                }
            }
        }
        if audits {
            let is_settled = !matches!(end, CheckEnd::Inconclusive(_));
            self.audit_at = (!is_settled).then_some(now + AUDIT_AGAIN);
        }
    }

    /// Postpones a due audit that was not made because all hosts are down. Returns whether one was due.
    pub fn put_off_audit(&mut self, now: Moment) -> bool {
        let is_due = self.is_audit_due(now);
        if is_due {
            self.audit_at = Some(now + AUDIT_AGAIN);
        }
        is_due
    }

    /// Recovers from a crash between an intent and its outcome: the call may have been sent and may have
    /// minted.
    pub fn recover(&mut self, account: &Account, rules: Rules, now: Moment) {
        if let Some(intent) = self.intent.take() {
            // If it was sent at all, that was right after the intent, and it was tried on a second host at
            // most once. WeChat may still be at work on it, even if we are back at once.
            let over_by = intent.at.min(now) + 2 * rules.timeout;
            self.cast_doubt(intent, over_by, account.settings.endpoint, rules);
        }
    }

    /// Adds a call that was given up by `given_up_by` to what may have ended the current token.
    pub(super) fn cast_doubt(
        &mut self,
        intent: Intent,
        given_up_by: Moment,
        endpoint: Endpoint,
        rules: Rules,
    ) {
        let late = given_up_by + LATE;
        // A forced call takes the token out of service as long as it may be at work. Such rare cases do not
        // justify being without a token for longer than WeChat takes; only the audit allows for them.
        let over_by = if endpoint == Endpoint::Token { late } else { given_up_by };
        let check_at = over_by + shows_after(rules);
        self.doubt = Some(match self.doubt {
            None => Doubt { until: intent.trusted_until, check_at, checked: false },
            Some(doubt) => Doubt {
                until: doubt.until.min(intent.trusted_until),
                check_at: doubt.check_at.max(check_at),
                checked: false,
            },
        });
        let audit_at = late + shows_after(rules);
        self.audit_at = Some(self.audit_at.map_or(audit_at, |at| at.max(audit_at)));
    }
}
