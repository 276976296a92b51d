//! Decides whether a hint is worth a check: somebody else may have ended a token, and no client reports it.
//!
//! Of 19 SDKs, none reports a refused token by itself, and most ask again, delete our key, or go on failing.
//! So what they do is taken as a hint. A hint leads to one check and never straight to a mint: most are wrong.
//! What such a check finds counts as if a client had reported the token, except that an inconclusive one leads
//! nowhere.

use std::time::Duration;

use crate::account::{Account, Endpoint};
use crate::budget::Bucket;
use crate::clock::Moment;
use crate::token::state::{AccountState, Activity, Hint, HintVerdict};
use crate::token::transition::CheckEnd;

/// For how long after it was read, or seen in a Redis, a token counts as in use.
const IN_USE: Duration = Duration::from_secs(15 * 60);
/// The least time between attempts at an audit.
const AUDIT_AGAIN: Duration = Duration::from_secs(60);
/// How long no audit is made once WeChat says that the account's calls of the day are used up.
const PAUSE: Duration = Duration::from_secs(60 * 60);
/// The errcode that says so.
const DAILY_QUOTA: i64 = 45009;

/// Whether a token on `token` that was not used for `unused_for`, or never, is due for an audit at `now`.
#[must_use]
pub fn needs_audit(
    state: &AccountState,
    account: &Account,
    unused_for: Option<Duration>,
    now: Moment,
) -> bool {
    let audit = account.settings.audit;
    if audit.is_zero() || account.settings.endpoint != Endpoint::Token {
        return false;
    }
    let Some(token) = state.token.as_deref().filter(|token| token.endpoint == Endpoint::Token) else {
        return false;
    };
    let looked_at = state.honoured_at.map_or(token.issued_at, |at| at.max(token.issued_at));
    unused_for.is_some_and(|unused_for| unused_for < IN_USE)
        && looked_at.elapsed(now) >= audit
        && state.no_audit_before.is_none_or(|at| at.has_come(now))
        && state.is_usable(now)
}

/// Whether `hint` is worth a check at `now`.
#[must_use]
pub fn is_worth_a_check(state: &AccountState, account: &Account, hint: Hint, now: Moment) -> bool {
    let idle = state.want.is_none() && state.hint.is_none() && state.activity == Activity::Idle;
    // A report would not be followed either: the token was checked, or replaced, a moment ago.
    let cool = state.rejections.cool_until.is_none_or(|until| until.has_come(now));
    idle && cool
        && hint.version == state.version
        && state.is_usable(now)
        && state.ledger.remaining(Bucket::Checks, account.settings.check_budget, now) > 0
}

impl AccountState {
    /// Charges the check that the hint asks for, and returns whether the budget allows it. Must be on disk
    /// before the check is sent.
    pub fn begin_hinted_check(&mut self, account: &Account, now: Moment) -> bool {
        let Some(hint) = self.hint.take() else { return false };
        if self.ledger.charge(Bucket::Checks, account.settings.check_budget, now).is_err() {
            return false;
        }
        self.following = Some(hint);
        true
    }

    /// Notes an attempt at an audit, which may come to nothing.
    pub fn note_audit(&mut self, account: &Account, now: Moment) {
        self.no_audit_before = Some(now + AUDIT_AGAIN.min(account.settings.audit));
    }

    /// Stops audits for a while if a check has shown that the day's calls are used up.
    pub(super) fn pause_audits_after(&mut self, end: &CheckEnd, now: Moment) {
        if let CheckEnd::Inconclusive(fault) = end
            && fault.errcode == Some(DAILY_QUOTA)
        {
            self.no_audit_before = Some(now + PAUSE);
        }
    }
}

impl CheckEnd {
    /// What the check says about the hint that it followed.
    #[must_use]
    pub fn verdict(&self) -> HintVerdict {
        match self {
            Self::Honoured => HintVerdict::Alive,
            Self::Refused => HintVerdict::Dead,
            Self::Inconclusive(_) => HintVerdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
