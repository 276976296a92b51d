//! Decides what an account does next: a pure function of its state and the clock.
//!
//! The actor asks [`next_step`] after everything that happens to its account, and does what it says; no other
//! code decides to call WeChat for a token. `TicketState::next_step` is the counterpart for tickets.

use std::time::Duration;

use crate::account::{Account, Endpoint};
use crate::budget;
use crate::clock::Moment;
use crate::fault::FaultKind;
use crate::last_failure::LastFailure;
use crate::token::schedule::force_allowed_at;
use crate::token::state::{AccountState, Reason, WantedCall};
use crate::token::{HeldToken, Validity};

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this instant.
    Wait(Moment),
    /// Nothing until the host answers again.
    AwaitHost,
    /// Call the endpoint that mints tokens.
    Fetch {
        /// Why it is called.
        reason: Reason,
        /// Whether to set `force_refresh` (`stable_token` only).
        force: bool,
    },
    /// Find out whether WeChat honours the current token.
    Check,
    /// The same because of a hint, as long as nothing else is due; that is so from this instant on.
    FollowHint(Moment),
}

/// Returns what `account` does next, given that it is idle.
#[must_use]
pub fn next_step(state: &AccountState, account: &Account, host_up: bool, now: Moment) -> Step {
    match state.want {
        Some(WantedCall::Check) if state.is_usable(now) => return Step::Check,
        Some(WantedCall::Check) | None => {}
        Some(WantedCall::Fetch(reason)) => return Step::Fetch { reason, force: false },
        Some(WantedCall::Force(reason)) => return Step::Fetch { reason, force: true },
    }
    let (step, due) = scheduled(state, account, now);
    let last_failure = state.last_failure.as_deref();
    if last_failure.is_some_and(|failure| failure.awaits_host) && !host_up && !state.ignores_down_hosts {
        // An expiring token is no reason for every account to call a host that is known to be down: see
        // `trial_urgency`.
        return Step::AwaitHost;
    }
    let due = match (step, last_failure) {
        (Step::Fetch { .. }, Some(last_failure)) if should_repeat_early(state, last_failure, now) => {
            last_failure.retry_at.max(now + spacing_left(state, now))
        }
        (Step::Fetch { .. }, Some(last_failure)) => due.max(last_failure.retry_at),
        _ => due,
    };
    match due.has_come(now) {
        true => as_retry(step, last_failure),
        false if state.is_audit_due(now) => Step::Check,
        false if state.hint.is_some() && state.is_usable(now) => Step::FollowHint(due),
        false => Step::Wait(due),
    }
}

/// Marks a call after a failed one as a retry, whatever the failed one was for. The exception is a refused
/// token that WeChat handed out again: it counts as a failure, and its reason says more.
fn as_retry(step: Step, failed: Option<&LastFailure>) -> Step {
    match (step, failed) {
        (Step::Fetch { reason, force }, Some(_)) if reason != Reason::RefusedAgain => {
            Step::Fetch { reason: Reason::Retry, force }
        }
        _ => step,
    }
}

/// Whether a failed call is repeated before the token needs it. An operator must learn soon that a parked
/// account has recovered.
fn should_repeat_early(state: &AccountState, last_failure: &LastFailure, now: Moment) -> bool {
    last_failure.fault.kind == FaultKind::Parked && state.doubt.is_none() && state.is_usable(now)
}

/// How long until a mint on `token` would no longer end a token that a reader may still rely on.
fn spacing_left(state: &AccountState, now: Moment) -> Duration {
    let token = state.token.as_deref().filter(|token| token.endpoint == Endpoint::Token);
    token.map_or(Duration::ZERO, |token| (token.issued_at + token.overlap).until(now))
}

/// How urgently an account needs a trial while all hosts count as down, as the remaining life of its token.
/// `None` if the call would be of no use, if losing its answer would cost the account a live token, or if the
/// account will need the call itself when the hosts are back.
#[must_use]
pub fn trial_urgency(state: &AccountState, account: &Account, now: Moment) -> Option<Duration> {
    let left = state.usable_for(now);
    let affords = budget::can_afford_trial(&state.ledger, account.settings.daily_budget, now);
    let overlap = state.token.as_deref().map_or(Duration::ZERO, |token| token.overlap);
    let is_useful = match next_step(state, account, true, now) {
        Step::Fetch { .. } => {
            affords && (account.settings.endpoint == Endpoint::StableToken || left <= overlap)
        }
        Step::Check => left.is_zero(),
        Step::Wait(_) | Step::AwaitHost | Step::FollowHint(_) => false,
    };
    (!state.activity.is_busy() && !state.ignores_down_hosts && is_useful).then_some(left)
}

/// Returns the next scheduled step and its time, regardless of how the last call went.
fn scheduled(state: &AccountState, account: &Account, now: Moment) -> (Step, Moment) {
    let fetch = |reason| Step::Fetch { reason, force: false };
    let Some(token) = state.token.as_deref() else { return (fetch(Reason::NoToken), now) };
    if token.endpoint != account.settings.endpoint {
        return (fetch(Reason::EndpointChanged), now);
    }
    match token.validity {
        Validity::Good => {}
        Validity::Refused => return (fetch(Reason::Refused), now),
        Validity::RefusedAgain => return replace_by_force(state, token, now),
    }
    let usable_for = state.usable_for(now);
    if usable_for > Duration::ZERO {
        // On `token`, another mint now could at once end what may already be the token before the last.
        let (reason, due) = if state.doubt.is_some() {
            (Reason::InDoubt, usable_for)
        } else {
            (Reason::Due, token.refresh_at.until_by_either(now).min(usable_for))
        };
        return (fetch(reason), now + due);
    }
    match state.doubt {
        // The token is served to no one but may be alive: a check settles that, once a mint would have shown.
        Some(doubt) if token.endpoint == Endpoint::Token && !doubt.checked => {
            let life = token.expires_at.until_by_either(now).saturating_sub(token.margin());
            let until_check = doubt.check_at.until(now);
            // If its successor is due anyway, or it came after the lost call, the token is not worth the wait
            // without one until the check: by now another mint ends nothing that is served.
            let soon = if token.refresh_at.is_over(now) || doubt.is_older_than(token) {
                state.last_failure.as_deref().map_or(Duration::ZERO, |failure| failure.retry_at.until(now))
            } else {
                Duration::MAX
            };
            if until_check < life.min(soon) {
                (Step::Check, now + until_check)
            } else {
                (fetch(Reason::InDoubt), now)
            }
        }
        Some(_) => (fetch(Reason::InDoubt), now),
        None => (fetch(Reason::NoToken), now),
    }
}

/// Replaces a dead token that WeChat keeps handing out: by force, or in the window in which WeChat mints by
/// itself, whichever is sooner.
fn replace_by_force(state: &AccountState, token: &HeldToken, now: Moment) -> (Step, Moment) {
    let forced = force_allowed_at(&state.forced, now);
    let window = now + token.refresh_at.until_by_either(now);
    // At a tie we have just asked in normal mode: only a forced call is sure to end the loop.
    if window.boot_ms < forced.boot_ms {
        (Step::Fetch { reason: Reason::RefusedAgain, force: false }, window)
    } else {
        (Step::Fetch { reason: Reason::RefusedAgain, force: true }, forced)
    }
}

#[cfg(test)]
mod tests;
