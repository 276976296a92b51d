//! Calls whose outcome nobody knows, and the checks that tell what they did to the token.

use std::time::Duration;

use crate::account::{Account, Endpoint};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::token::Validity;
use crate::token::schedule::{LATE, Rules};
use crate::token::state::{AccountState, Doubt, Intent, Reason, Verdict, WantedCall, shows_after};

/// How long after an audit that did not tell the next one is made.
pub(super) const AUDIT_AGAIN: Duration = Duration::from_secs(5 * 60);

/// What a check call told.
#[derive(Debug)]
pub enum CheckEnd {
    /// WeChat honours the token.
    Honoured,
    /// It refuses it: 40001, 40014 or 42001.
    Refused,
    /// No way to tell.
    Inconclusive(Fault),
}

impl AccountState {
    /// Takes in what a check of the current token told.
    pub fn end_check(&mut self, end: &CheckEnd, account: &Account, now: Moment) {
        self.is_trial = false;
        // A check that somebody asked for began while the token was served, too early to tell of a lost mint.
        let unasked = self.want.is_none();
        let tells = unasked && self.doubt.is_some_and(|doubt| doubt.check_at.has_come(now));
        let audits = unasked && self.audit_at.is_some_and(|at| at.has_come(now));
        // A refresh asked for meanwhile stays on the list.
        let asked_for = self.want.take_if(|want| *want == WantedCall::Check).is_some();
        match end {
            CheckEnd::Honoured => {
                if tells {
                    self.doubt = None;
                }
                self.rejections = self.rejections.checked(Verdict::Honoured, account, now);
            }
            CheckEnd::Refused => {
                self.rejections = self.rejections.refused();
                self.set_standing(Validity::Rejected);
                if let Some(trouble) = &mut self.trouble {
                    trouble.clear_wait(now);
                }
            }
            CheckEnd::Inconclusive(_) => {
                if let Some(doubt) = self.doubt.as_mut().filter(|_| tells) {
                    doubt.checked = true;
                }
                if asked_for {
                    let second = self.rejections.verdict == Some(Verdict::Inconclusive);
                    self.rejections = self.rejections.checked(Verdict::Inconclusive, account, now);
                    // On `token` a call ends the token: only a second doubtful check is worth that.
                    if account.endpoint == Endpoint::StableToken || second && !self.is_mint_too_soon(now) {
                        self.want = Some(WantedCall::Fetch(Reason::Unverified));
                    }
                }
            }
        }
        if audits {
            let told = !matches!(end, CheckEnd::Inconclusive(_));
            self.audit_at = (!told).then_some(now + AUDIT_AGAIN);
        }
    }

    /// The check that was due of a token that is served was not made, since all hosts are down: it is made later. Whether
    /// it was that check.
    pub fn put_off_audit(&mut self, now: Moment) -> bool {
        let is_due = self.is_audit_due(now);
        if is_due {
            self.audit_at = Some(now + AUDIT_AGAIN);
        }
        is_due
    }

    /// A crash between an intent and its outcome: the call may have been sent and may have minted.
    pub fn recover(&mut self, account: &Account, rules: Rules, now: Moment) {
        if let Some(intent) = self.intent.take() {
            // It was sent, if at all, right after the intent, and tried on a second host at the most once more.
            // WeChat may be at work on it still, even if we are back at once.
            let over_by = intent.at.min(now) + 2 * rules.timeout;
            self.cast_doubt(intent, over_by, account.endpoint, rules);
        }
    }

    /// Adds to what may have ended the current token a call that was given up by `given_up_by`.
    pub(super) fn cast_doubt(
        &mut self,
        intent: Intent,
        given_up_by: Moment,
        endpoint: Endpoint,
        rules: Rules,
    ) {
        let late = given_up_by + LATE;
        // A forced call takes the token out of service as long as it may be at work. To be without one for longer than
        // WeChat takes is no answer to so rare a case: there the audit alone reckons with more.
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
