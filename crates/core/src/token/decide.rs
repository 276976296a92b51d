//! What an account does next: a pure function of its state and the clock.
//!
//! The actor asks [`next_step`] after everything that happens to its account and does what it says; no other
//! place decides to call WeChat for a token. For a ticket `TicketState::next_step` does.

use std::time::Duration;

use crate::account::{Account, Endpoint};
use crate::budget;
use crate::clock::Moment;
use crate::fault::FaultKind;
use crate::last_failure::LastFailure;
use crate::token::schedule::force_allowed_at;
use crate::token::state::{AccountState, Reason, WantedCall};
use crate::token::{HeldToken, Validity};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this instant.
    Wait(Moment),
    /// Nothing before the host answers again.
    AwaitHost,
    /// Call the endpoint that mints tokens.
    Fetch {
        /// Why.
        reason: Reason,
        /// With `force_refresh` (`stable_token` only).
        force: bool,
    },
    /// Find out whether WeChat honours the current token.
    Check,
}

/// What `account` does next if it is doing nothing now.
#[must_use]
pub fn next_step(state: &AccountState, account: &Account, host_up: bool, now: Moment) -> Step {
    match state.want {
        Some(WantedCall::Check) if state.is_usable(now) => return Step::Check,
        Some(WantedCall::Check) | None => {}
        Some(WantedCall::Fetch(reason)) => return Step::Fetch { reason, force: false },
        Some(WantedCall::Force(reason)) => return Step::Fetch { reason, force: true },
    }
    let (step, due) = scheduled(state, account, now);
    let held_back = state.trouble.as_deref();
    if held_back.is_some_and(|trouble| trouble.awaits_host) && !host_up && !state.is_trial {
        // A token about to end is no reason for everybody to call a host that is known to be down: see `trial_urgency`.
        return Step::AwaitHost;
    }
    let due = match (step, held_back) {
        (Step::Fetch { .. }, Some(trouble)) if is_to_be_repeated(state, trouble, now) => {
            trouble.retry_at.max(now + spacing_left(state, now))
        }
        (Step::Fetch { .. }, Some(trouble)) => due.max(trouble.retry_at),
        _ => due,
    };
    match due.has_come(now) {
        true => repeated(step, held_back),
        false if state.is_audit_due(now) => Step::Check,
        false => Step::Wait(due),
    }
}

/// A call that follows on one that failed is a retry, whatever the first was for; that WeChat hands out a refused token
/// again counts as a failure, and says more.
fn repeated(step: Step, failed: Option<&LastFailure>) -> Step {
    match (step, failed) {
        (Step::Fetch { reason, force }, Some(_)) if reason != Reason::RefusedAgain => {
            Step::Fetch { reason: Reason::Retry, force }
        }
        _ => step,
    }
}

/// Whether what failed is tried again before the token needs it: a person must hear soon that a parked account is well.
fn is_to_be_repeated(state: &AccountState, trouble: &LastFailure, now: Moment) -> bool {
    trouble.fault.kind == FaultKind::Parked && state.doubt.is_none() && state.is_usable(now)
}

/// How long until a mint on `token` would end no token that somebody may count on still.
fn spacing_left(state: &AccountState, now: Moment) -> Duration {
    let token = state.token.as_deref().filter(|token| token.endpoint == Endpoint::Token);
    token.map_or(Duration::ZERO, |token| (token.issued_at + token.overlap).until(now))
}

/// How urgently an account needs that a call is tried although all hosts count as down, as what is left of its token;
/// `None` while a call would be of no use to it, or one whose answer is lost would cost it a token that lives, or a call that
/// it will need when they are back.
#[must_use]
pub fn trial_urgency(state: &AccountState, account: &Account, now: Moment) -> Option<Duration> {
    let left = state.usable_for(now);
    let affords = budget::can_afford_trial(&state.ledger, account.daily_budget, now);
    let in_hand = state.token.as_deref().map_or(Duration::ZERO, |token| token.overlap);
    let tries = match next_step(state, account, true, now) {
        Step::Fetch { .. } => affords && (account.endpoint == Endpoint::StableToken || left <= in_hand),
        Step::Check => left.is_zero(),
        Step::Wait(_) | Step::AwaitHost => false,
    };
    (!state.activity.is_busy() && !state.is_trial && tries).then_some(left)
}

/// The next thing on the schedule and its time, whatever happened to the last call.
fn scheduled(state: &AccountState, account: &Account, now: Moment) -> (Step, Moment) {
    let fetch = |reason| Step::Fetch { reason, force: false };
    let Some(token) = state.token.as_deref() else { return (fetch(Reason::NoToken), now) };
    if token.endpoint != account.endpoint {
        return (fetch(Reason::EndpointChanged), now);
    }
    match token.standing {
        Validity::Unchallenged => {}
        Validity::Rejected => return (fetch(Reason::Refused), now),
        Validity::RejectedTwice => return replace_by_force(state, token, now),
    }
    let usable_for = state.usable_for(now);
    if usable_for > Duration::ZERO {
        // On `token` another mint now could end, at once, what may already be the token before the last.
        let (reason, due) = if state.doubt.is_some() {
            (Reason::InDoubt, usable_for)
        } else {
            (Reason::Due, token.refresh_at.until_by_either(now).min(usable_for))
        };
        return (fetch(reason), now + due);
    }
    match state.doubt {
        // Served by nobody, perhaps alive: a check tells, once a mint would have shown.
        Some(doubt) if token.endpoint == Endpoint::Token && !doubt.checked => {
            let life = token.expires_at.until_by_either(now).saturating_sub(token.margin());
            let until_check = doubt.check_at.until(now);
            // A token whose successor is due anyway, or that came after the lost call, is not worth being without one
            // until then: by now another mint ends nothing that is served.
            let soon = if token.refresh_at.is_over(now) || doubt.is_older_than(token) {
                state.trouble.as_deref().map_or(Duration::ZERO, |trouble| trouble.retry_at.until(now))
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

/// WeChat keeps handing out a token that is dead: force a new one, or wait for the window in which it mints by
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
mod simulation;
#[cfg(test)]
mod tests;
