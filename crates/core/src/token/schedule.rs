//! When: the refresh instant of a new token, and the wait after a failure. Pure; the jitter, a number in
//! [0, 1), is passed in. What of a large fleet's jitter is taken: [`Draw`].

use std::time::Duration;

use crate::account::{Account, Endpoint, RefreshAhead};
use crate::budget::{self, Bucket, Ledger};
use crate::clock::Moment;
use crate::fault::{Fault, FaultKind, Wait};

mod draw;

pub use draw::{Draw, PlannedRefreshes};

/// What of the configuration of the upstream the decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long WeChat keeps the previous token alive after minting a new one (5 min).
    pub overlap: Duration,
    /// How long a try of a call may take.
    pub timeout: Duration,
}

/// How long after our time-out a call on `token` that was sent may still reach WeChat: a slow backend takes its time, and
/// a kernel goes on sending what an abandoned socket holds.
pub const LATE: Duration = Duration::from_secs(30);

/// WeChat forgets a day's forced refreshes, and our own record of them, after this long.
pub const DAY: Duration = budget::WINDOW;
/// WeChat obeys `force_refresh` at most this often in a day.
pub const FORCED_A_DAY: usize = 20;
/// WeChat does not obey a `force_refresh` sooner than this after another.
pub const FORCED_SPACING: Duration = Duration::from_secs(30);

/// The overlap to count on for a token that lives `lifetime`: never more than a quarter of it.
#[must_use]
pub fn overlap_of(lifetime: Duration, rules: Rules) -> Duration {
    rules.overlap.min(lifetime / 4)
}

/// An account that had no token to serve, and left this many waiting for a turn as it got its own, came with a crowd:
/// thousands began together, with an empty store or after a long outage.
pub const CROWD: usize = 1000;

/// When to ask for the successor of a token that arrived with `lifetime` left, in a call sent at `sent_at`. A crowd
/// that began together would ask together, again and again: on `token`, where that is no wasted call, each of it draws
/// from the whole time until the others' latest instant, once, and they stay apart from then on.
#[must_use]
pub fn refresh_at(
    account: &Account,
    sent_at: Moment,
    lifetime: Duration,
    overlap: Duration,
    crowded: bool,
    jitter: f64,
) -> Moment {
    let expires_at = sent_at + lifetime;
    let drawn = match account.endpoint {
        // A third either way: at 25 % of 7200 s there are at least 20 min left to ride out an outage.
        Endpoint::Token => {
            let ahead = match account.refresh_ahead {
                RefreshAhead::Share(share) => lifetime.mul_f64(share),
                RefreshAhead::Fixed(time) => time.min(lifetime / 2),
            };
            let latest = expires_at - ahead.mul_f64(2.0 / 3.0);
            let usual = ahead.mul_f64(2.0 / 3.0);
            // Two calls closer than the overlap would end a token before its time.
            let window = if crowded { latest.until(sent_at + overlap).max(usual) } else { usual };
            latest - window.mul_f64(jitter)
        }
        // Before its last minutes WeChat hands out the same token again: a wasted call.
        Endpoint::StableToken => expires_at - overlap + overlap.mul_f64(0.02 + jitter * 0.33),
    };
    // With little life left the window lies behind us; asking at once would be a loop.
    drawn.max((sent_at + account.retry.initial).min(expires_at))
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
    let wait = match fault.wait {
        // A probe of a parked account is a call like any other; quotas say themselves when they are free.
        Wait::For(time) if fault.kind == FaultKind::Parked => time,
        Wait::For(time) => return time,
        Wait::Every(time) => near_end(time, account, usable_for),
        Wait::UpTo(longest) => {
            near_end(full_jitter(account.retry.initial, longest, failures, jitter), account, usable_for)
        }
        Wait::BackOff => back_off(failures, account, usable_for, jitter),
        // All who were asked for the same pause do not end it in the same instant.
        Wait::NotBefore(pause) => {
            let least = pause + account.retry.initial.mul_f64(jitter);
            back_off(failures, account, usable_for, jitter).max(least)
        }
    };
    // The last quarter of the burst is spent no faster than it comes back, so that there is still a call to be
    // made when the trouble ends.
    let scarce = ledger.remaining(Bucket::Calls, account.daily_budget, now)
        < budget::burst(account.daily_budget).div_ceil(4);
    if scarce { wait.max(budget::interval(account.daily_budget)) } else { wait }
}

fn back_off(failures: u32, account: &Account, usable_for: Duration, jitter: f64) -> Duration {
    near_end(full_jitter(account.retry.initial, account.retry.max, failures, jitter), account, usable_for)
}

/// Several tries must fit into what is left of the token; one that has ended is no deadline.
fn near_end(wait: Duration, account: &Account, usable_for: Duration) -> Duration {
    if usable_for.is_zero() { wait } else { wait.min((usable_for / 4).max(account.retry.initial)) }
}

/// Between `initial` and `initial × 2^failures`, never above `max`.
fn full_jitter(initial: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    let ceiling = initial.saturating_mul(2_u32.saturating_pow(failures)).min(max).max(initial);
    initial + (ceiling - initial).mul_f64(jitter)
}

/// The earliest instant at which WeChat would obey another `force_refresh`.
#[must_use]
pub fn force_allowed_at(forced: &[Moment], now: Moment) -> Moment {
    let spaced = forced.last().map_or(now, |last| *last + FORCED_SPACING);
    let within_day = forced.len().checked_sub(FORCED_A_DAY).map_or(now, |oldest| forced[oldest] + DAY);
    spaced.max(within_day).max(now)
}

#[cfg(any(test, feature = "test-util"))]
impl Rules {
    /// The file's defaults: what WeChat documents, and 5 s for a call.
    pub const EXAMPLE: Self = Self { overlap: Duration::from_secs(300), timeout: Duration::from_secs(5) };
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
