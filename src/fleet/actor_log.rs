//! The lines an account's actor writes: one for each thing that matters, where it is handled.

use tracing::{info, warn};

use crate::account::Account;
use crate::clock::Moment;
use crate::fault::{Fault, FaultKind};
use crate::outcome::{CheckEnd, Fetched};
use crate::state::AccountState;

/// A token call has ended and its account's next step is known.
pub(super) fn fetch_ended(
    account: &Account,
    state: &AccountState,
    fetched: Fetched,
    took_ms: u64,
    now: Moment,
) {
    let appid = account.appid.as_str();
    match (fetched, &state.trouble) {
        (Fetched::New, _) => info!(
            event = "token",
            appid,
            version = state.version,
            endpoint = account.endpoint.as_str(),
            expires_in_s = state.token.as_ref().map_or(0, |token| token.expires_at.until(now).as_secs()),
            duration_ms = took_ms,
            next_refresh_in_s = seconds_to_next(state, now),
            "token refreshed"
        ),
        (Fetched::Same, None) => info!(
            event = "token_unchanged",
            appid,
            version = state.version,
            duration_ms = took_ms,
            next_refresh_in_s = seconds_to_next(state, now),
            "WeChat handed out the same token"
        ),
        (_, Some(trouble)) => failed(account, &trouble.fault, state, Some(took_ms), now),
        (Fetched::Failed, None) => {}
    }
}

/// The token call failed, or was not made.
pub(super) fn failed(
    account: &Account,
    fault: &Fault,
    state: &AccountState,
    took_ms: Option<u64>,
    now: Moment,
) {
    warn!(
        event = "fault",
        appid = account.appid.as_str(),
        name = account.name,
        fault = fault.kind.as_str(),
        errcode = fault.errcode_label(),
        rid = fault.rid.as_deref(),
        failures = state.failures(),
        duration_ms = took_ms,
        next_refresh_in_s = seconds_to_next(state, now),
        valid_for_s = state.usable_for(now).as_secs(),
        advice = fault.advice,
        "{}: {}",
        if fault.kind == FaultKind::Parked { "account needs a person" } else { "refresh failed" },
        fault.message
    );
}

/// A check has told something.
pub(super) fn check_ended(account: &Account, end: &CheckEnd) {
    let appid = account.appid.as_str();
    match end {
        CheckEnd::Honoured => info!(event = "check", appid, told = "honoured", "WeChat honours the token"),
        CheckEnd::Refused => {
            warn!(event = "check", appid, told = "refused", "WeChat refuses the token; it is replaced")
        }
        CheckEnd::Inconclusive(fault) => warn!(
            event = "check",
            appid,
            told = "inconclusive",
            errcode = fault.errcode_label(),
            rid = fault.rid.as_deref(),
            "the check of the token tells nothing: {}",
            fault.message
        ),
    }
}

fn seconds_to_next(state: &AccountState, now: Moment) -> Option<u64> {
    state.next_at.map(|at| at.until(now).as_secs())
}
