//! Handles a client's report "WeChat refused this token": compare, check, then replace.
//!
//! Clients also get 40001 for reasons unrelated to the token, and a hundred of them report the same death at
//! once. So only rejections of the current token matter, and one check serves everyone who reports it. A
//! cool-down that doubles while fresh tokens keep being refused keeps a war over the account from burning its
//! budget.

use crate::account::{Account, Endpoint};
use crate::budget::Bucket;
use crate::clock::Moment;
use crate::secret::Secret;
use crate::token::Validity;
use crate::token::schedule::force_allowed_at;
use crate::token::state::{AccountState, Activity, Reason, Verdict, WantedCall};

/// What to do with a rejection or a refresh request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestDecision {
    /// The reported token is not the current one: hand out the current one.
    Superseded,
    /// WeChat honoured it a moment ago.
    StillValid,
    /// Not now: the cool-down, the spacing or the budget forbids it.
    Limited,
    /// Wait for what is under way or due.
    WaitForCurrent,
    /// A call was put on the account's list; wait for it.
    Accepted,
}

/// Decides on a rejection of `presented`, and notes in `state` what is to be done.
pub fn decide_rejection(
    state: &mut AccountState,
    account: &Account,
    presented: &Secret,
    now: Moment,
) -> RequestDecision {
    if !state.is_current(presented) {
        return RequestDecision::Superseded;
    }
    let dead = state.token.as_ref().is_some_and(|token| token.validity != Validity::Good);
    if dead || state.activity.is_busy() || state.want.is_some() || !state.is_usable(now) {
        return RequestDecision::WaitForCurrent;
    }
    if state.rejections.cool_until.is_some_and(|until| !until.has_come(now)) {
        let honoured = state.rejections.verdict == Some(Verdict::Honoured);
        return if honoured { RequestDecision::StillValid } else { RequestDecision::Limited };
    }
    if state.ledger.charge(Bucket::ClientRequests, account.settings.daily_budget, now).is_err() {
        return RequestDecision::Limited;
    }
    if account.settings.verify_rejections {
        state.want = Some(WantedCall::Check);
    } else {
        state.rejections = state.rejections.refused();
        state.want = Some(WantedCall::Fetch(Reason::Reported));
    }
    RequestDecision::Accepted
}

/// Decides on an operator's refresh request, and notes in `state` what is to be done.
pub fn decide_refresh(
    state: &mut AccountState,
    account: &Account,
    force: bool,
    now: Moment,
) -> RequestDecision {
    let force = force && account.settings.endpoint == Endpoint::StableToken;
    let is_due = matches!(state.want, Some(WantedCall::Fetch(_) | WantedCall::Force(_)));
    let fetching = state.activity == Activity::Fetching;
    let forcing = matches!(state.serving, Some(WantedCall::Force(_)));
    // A normal call under way does not satisfy a request to force.
    if fetching && (forcing || !force) || is_due && !force {
        // A call that is already waiting counts as the operator's from now on.
        state.ignores_down_hosts |= is_due;
        return RequestDecision::WaitForCurrent;
    }
    if force && !force_allowed_at(&state.forced, now).has_come(now) {
        return RequestDecision::Limited;
    }
    if account.settings.endpoint == Endpoint::Token && state.is_mint_too_soon(now) {
        return RequestDecision::Limited;
    }
    if state.ledger.charge(Bucket::ClientRequests, account.settings.daily_budget, now).is_err() {
        return RequestDecision::Limited;
    }
    let want = if force { WantedCall::Force } else { WantedCall::Fetch };
    state.want = Some(want(Reason::Operator));
    state.ignores_down_hosts = true;
    RequestDecision::Accepted
}

#[cfg(test)]
mod tests;
