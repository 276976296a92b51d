//! Computes when a new token is refreshed, and how long to wait after a failure. Pure: the jitter, a number
//! in [0, 1), is passed in. [`Draw`] chooses it across a large fleet.

use std::time::Duration;

use crate::account::{Account, Endpoint, RefreshAhead, Retry};
use crate::budget::{self, Bucket, Ledger};
use crate::clock::Moment;
use crate::fault::{Fault, FaultKind, Wait};

mod draw;

pub use draw::{Draw, PlannedRefreshes};

/// The settings of all accounts that decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long WeChat keeps the previous token alive after minting a new one (5 min).
    pub overlap: Duration,
    /// Time limit for one try of a call.
    pub timeout: Duration,
    /// How long after its end a token is still known to have been the account's.
    pub stale: Duration,
}

/// How long after our timeout a call on `token` that was sent may still reach WeChat. A slow backend takes
/// its time, and a kernel keeps sending what an abandoned socket holds.
pub const LATE: Duration = Duration::from_secs(30);

/// How long forced refreshes count against a day's limit, at WeChat and in our own record.
pub const DAY: Duration = budget::WINDOW;
/// How many times a day WeChat obeys `force_refresh`.
pub const FORCED_A_DAY: usize = 20;
/// Shortest time between two `force_refresh` that WeChat obeys.
pub const FORCED_SPACING: Duration = Duration::from_secs(30);

/// Overlap to count on for a token that lives `lifetime`: never more than a quarter of it.
#[must_use]
pub fn overlap_of(lifetime: Duration, rules: Rules) -> Duration {
    rules.overlap.min(lifetime / 4)
}

/// How many accounts waiting in the call queue make a thundering herd. An account that had no token to serve,
/// and left this many behind when its own turn came, is part of one: thousands started together, with an
/// empty store or after a long outage.
pub const HERD_SIZE: usize = 1000;

/// When to fetch the successor of a token that arrived with `lifetime` left, in a call sent at `sent_at`.
/// Accounts that started together would refresh together, again and again. On `token`, where an early call is
/// not wasted, each of such a herd therefore draws once from the whole time until the others' latest instant;
/// from then on they stay apart.
#[must_use]
pub fn refresh_at(
    account: &Account,
    sent_at: Moment,
    lifetime: Duration,
    overlap: Duration,
    in_herd: bool,
    jitter: f64,
) -> Moment {
    let expires_at = sent_at + lifetime;
    let drawn = match account.settings.endpoint {
        // A third either way: at 25 % of 7200 s there are at least 20 min left to ride out an outage.
        Endpoint::Token => {
            let ahead = match account.settings.refresh_ahead {
                RefreshAhead::Share(share) => lifetime.mul_f64(share),
                RefreshAhead::Fixed(time) => time.min(lifetime / 2),
            };
            let latest = expires_at - ahead.mul_f64(2.0 / 3.0);
            let usual = ahead.mul_f64(2.0 / 3.0);
            // Two calls closer than the overlap would end a token early.
            let window = if in_herd { latest.until(sent_at + overlap).max(usual) } else { usual };
            latest - window.mul_f64(jitter)
        }
        // Before its last minutes WeChat hands out the same token again: a wasted call.
        Endpoint::StableToken => expires_at - overlap + overlap.mul_f64(0.02 + jitter * 0.33),
    };
    // With little life left, the window is already over; asking at once would be a loop.
    drawn.max((sent_at + account.settings.retry.initial).min(expires_at))
}

/// How long to wait after the `failures`-th failure in a row.
#[must_use]
pub fn wait_after(
    fault: &Fault,
    failures: u32,
    account: &Account,
    usable_for: Duration,
    ledger: &Ledger,
    now: Moment,
    jitter: f64,
) -> Duration {
    let (initial, daily_budget) = (account.settings.retry.initial, account.settings.daily_budget);
    let wait = match fault.wait {
        // Retrying a parked account is a call like any other; a quota says itself when it is free.
        Wait::For(time) if fault.kind == FaultKind::Parked => time,
        Wait::For(time) => return time,
        Wait::Every(time) => near_end(time, account, usable_for),
        Wait::UpTo(longest) => near_end(full_jitter(initial, longest, failures, jitter), account, usable_for),
        Wait::BackOff => back_off(failures, account, usable_for, jitter),
        // Jitter: accounts that were asked for the same pause must not all end it at the same instant.
        Wait::NotBefore(pause) => {
            let least = pause + initial.mul_f64(jitter);
            back_off(failures, account, usable_for, jitter).max(least)
        }
    };
    // The last quarter of the burst is spent no faster than it comes back, so that a call is left for when
    // the failures end.
    let scarce = ledger.remaining(Bucket::Calls, daily_budget, now) < budget::burst(daily_budget).div_ceil(4);
    if scarce { wait.max(budget::interval(daily_budget)) } else { wait }
}

fn back_off(failures: u32, account: &Account, usable_for: Duration, jitter: f64) -> Duration {
    let Retry { initial, max } = account.settings.retry;
    near_end(full_jitter(initial, max, failures, jitter), account, usable_for)
}

/// Shortens a wait so that several tries fit into the token's remaining life. An expired token sets no
/// deadline.
fn near_end(wait: Duration, account: &Account, usable_for: Duration) -> Duration {
    if usable_for.is_zero() { wait } else { wait.min((usable_for / 4).max(account.settings.retry.initial)) }
}

/// Between `initial` and `initial × 2^failures`, never above `max`.
fn full_jitter(initial: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    let ceiling = initial.saturating_mul(2_u32.saturating_pow(failures)).min(max).max(initial);
    initial + (ceiling - initial).mul_f64(jitter)
}

/// Returns the earliest instant at which WeChat would obey another `force_refresh`.
#[must_use]
pub fn force_allowed_at(forced: &[Moment], now: Moment) -> Moment {
    let spaced = forced.last().map_or(now, |last| *last + FORCED_SPACING);
    let within_day = forced.len().checked_sub(FORCED_A_DAY).map_or(now, |oldest| forced[oldest] + DAY);
    spaced.max(within_day).max(now)
}

#[cfg(any(test, feature = "test-util"))]
impl Rules {
    /// The file's defaults: WeChat's documented overlap, and 5 s for a call.
    pub const EXAMPLE: Self = Self {
        overlap: Duration::from_secs(300),
        timeout: Duration::from_secs(5),
        stale: Duration::from_secs(2 * 3600),
    };
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
