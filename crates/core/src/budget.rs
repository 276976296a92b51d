//! The daily budget: governor's GCRA over state that we keep ourselves.
//!
//! A bucket's whole state is one instant, its theoretical arrival time, kept as a [`Moment`] in the account's
//! state and so persisted with it. Half of the budget may be spent at once (the burst); the other half comes
//! back evenly over 24 h, so no 24 h window can hold more calls than the budget. Checks are made at an even
//! pace, so of their budget an eighth is the burst, and the rest comes back. The instant is kept when the
//! budget changes: a bucket refills in the same time whatever its size, so it still means the same share.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// WeChat counts token calls per day.
pub const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The calls that an account has spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// All token calls.
    main: Option<Moment>,
    /// Rejections, and refreshes that were requested. Limited to a quarter of the budget, so that they cannot
    /// starve scheduled calls.
    on_request: Option<Moment>,
    /// Checks that nobody asked for, which have a budget of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checks: Option<Moment>,
}

/// Which bucket to take from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// Charged for every token call.
    Calls,
    /// Charged for each rejection that is investigated and each forced refresh, in addition to the calls that
    /// follow.
    ClientRequests,
    /// Charged for each check that nobody asked for. Its budget is `check_budget`, not `daily_budget`.
    Checks,
}

impl Bucket {
    /// How many units may be spent at once.
    fn size(self, budget: u32) -> NonZeroU32 {
        let share = match self {
            Self::Calls => budget / 2,
            Self::ClientRequests | Self::Checks => budget / 8,
        };
        NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN)
    }

    /// How long it takes for one unit to come back. Rounded up to whole milliseconds, which is what a
    /// [`Moment`] can hold: a ledger read back from disk means exactly what was written.
    fn period(self, budget: u32) -> Duration {
        let size = self.size(budget).get();
        let in_a_day = match self {
            Self::Calls | Self::ClientRequests => size,
            Self::Checks => budget.saturating_sub(size).max(1),
        };
        whole_ms_up(WINDOW / in_a_day)
    }
}

impl Ledger {
    /// Takes one unit out of `bucket`.
    ///
    /// # Errors
    /// If the bucket is empty, returns the instant at which it will hold a unit; nothing is taken then.
    pub fn charge(&mut self, bucket: Bucket, budget: u32, now: Moment) -> Result<(), Moment> {
        let limiter = limiter(bucket, budget, *self.cell(bucket), now);
        match limiter.check() {
            Ok(()) => {
                let spent = limiter.into_state_store().0.get().map(Nanos::as_u64);
                *self.cell(bucket) = spent.map(|tat| moment_of(tat, now));
                Ok(())
            }
            Err(not_yet) => Err(now + whole_ms_up(not_yet.wait_time_from(At(boot_ns(now))))),
        }
    }

    /// Returns one unit to the calls bucket, for a call of which no byte was sent. `charge_interval` is the
    /// [`interval`] of the budget it was taken from, since the budget may have changed in the meantime.
    pub fn refund(&mut self, charge_interval: Duration) {
        if let Some(spent_until) = &mut self.main {
            *spent_until = *spent_until - charge_interval;
        }
    }

    /// Returns one unit to the client-request bucket, for a request that was not carried out.
    pub fn refund_request(&mut self, daily_budget: u32) {
        if let Some(spent_until) = &mut self.on_request {
            *spent_until = *spent_until - Bucket::ClientRequests.period(daily_budget);
        }
    }

    /// Returns how many units `bucket` holds at `now`.
    #[must_use]
    pub fn remaining(&self, bucket: Bucket, budget: u32, now: Moment) -> u32 {
        let spent_until = match bucket {
            Bucket::Calls => self.main,
            Bucket::ClientRequests => self.on_request,
            Bucket::Checks => self.checks,
        };
        let owed = spent_until.map_or(Duration::ZERO, |tat| tat.until(now));
        let spent = owed.as_nanos().div_ceil(bucket.period(budget).as_nanos());
        bucket.size(budget).get().saturating_sub(u32::try_from(spent).unwrap_or(u32::MAX))
    }

    /// Converts the ledger to the clocks of another boot.
    #[must_use]
    pub fn rebased(&self, now: Moment) -> Self {
        // A wall clock that was set back while the machine was down must not starve the account for longer
        // than a full window.
        let rebase = |tat: Moment| tat.rebased(now).min(now + WINDOW);
        Self {
            main: self.main.map(rebase),
            on_request: self.on_request.map(rebase),
            checks: self.checks.map(rebase),
        }
    }

    fn cell(&mut self, bucket: Bucket) -> &mut Option<Moment> {
        match bucket {
            Bucket::Calls => &mut self.main,
            Bucket::ClientRequests => &mut self.on_request,
            Bucket::Checks => &mut self.checks,
        }
    }
}

/// How long it takes for one call to come back to the calls bucket.
#[must_use]
pub fn interval(daily_budget: u32) -> Duration {
    Bucket::Calls.period(daily_budget)
}

/// How many calls may be made at once out of a full calls bucket.
#[must_use]
pub fn burst(daily_budget: u32) -> u32 {
    Bucket::Calls.size(daily_budget).get()
}

/// Whether the budget has a call to spare for a trial while all hosts count as down. The last quarter is
/// reserved for when they are back.
#[must_use]
pub fn can_afford_trial(ledger: &Ledger, daily_budget: u32, now: Moment) -> bool {
    // At least two, in case there is another host to try.
    ledger.remaining(Bucket::Calls, daily_budget, now) > burst(daily_budget).div_ceil(4).max(2)
}

type Limiter = RateLimiter<NotKeyed, Spent, Fixed, NoOpMiddleware<At>>;

/// Builds a limiter over one bucket, fixed at `now`. It starts at the boot clock's zero, which makes
/// governor's relative state absolute.
fn limiter(bucket: Bucket, budget: u32, spent_until: Option<Moment>, now: Moment) -> Limiter {
    let size = bucket.size(budget);
    let quota = Quota::with_period(bucket.period(budget))
        .map_or_else(|| Quota::per_second(size), |q| q.allow_burst(size));
    let clock = Fixed { started: Cell::new(false), now: At(boot_ns(now)) };
    RateLimiter::new(quota, Spent(Cell::new(spent_until.map(|tat| Nanos::new(boot_ns(tat))))), clock)
}

fn boot_ns(moment: Moment) -> u64 {
    u64::try_from(moment.boot_ms).unwrap_or(0).saturating_mul(1_000_000)
}

fn moment_of(tat_ns: u64, now: Moment) -> Moment {
    let ahead = Duration::from_nanos(tat_ns.saturating_sub(boot_ns(now)));
    now + whole_ms_up(ahead)
}

fn whole_ms_up(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// Nanoseconds since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At(u64);

impl Add<Nanos> for At {
    type Output = Self;
    fn add(self, later: Nanos) -> Self {
        Self(self.0.saturating_add(later.as_u64()))
    }
}

impl Reference for At {
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::new(self.0.saturating_sub(earlier.0))
    }
    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.as_u64()).unwrap_or(self.0))
    }
}

/// A clock that reads zero first (the start of the limiter), then `now`.
#[derive(Debug)]
struct Fixed {
    started: Cell<bool>,
    now: At,
}

impl Clock for Fixed {
    type Instant = At;
    fn now(&self) -> At {
        if self.started.replace(true) { self.now } else { At(0) }
    }
}

/// State of one bucket, taken out of a [`Ledger`] and put back.
#[derive(Debug)]
struct Spent(Cell<Option<Nanos>>);

impl StateStore for Spent {
    type Key = NotKeyed;
    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, spent) = decide(self.0.get())?;
        self.0.set(Some(spent));
        Ok(outcome)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000 };
    const HOUR: Duration = Duration::from_secs(3600);

    fn spend_all(ledger: &mut Ledger, budget: u32, now: Moment) -> u32 {
        std::iter::from_fn(|| ledger.charge(Bucket::Calls, budget, now).ok()).count() as u32
    }

    #[test]
    fn half_the_budget_may_be_spent_at_once_and_the_rest_over_a_day() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.remaining(Bucket::Calls, 2000, START), 1000);
        assert_eq!(spend_all(&mut ledger, 2000, START), 1000);
        assert_eq!(ledger.remaining(Bucket::Calls, 2000, START), 0);
        let mut later = 0;
        for minute in 1..24 * 60 {
            later += spend_all(&mut ledger, 2000, START + Duration::from_secs(60 * minute));
        }
        assert_eq!(later, 999, "one every 86.4 s");
    }

    #[test]
    fn an_empty_bucket_says_when_it_will_hold_something() {
        let mut ledger = Ledger::default();
        spend_all(&mut ledger, 4, START);
        let free_at = ledger.charge(Bucket::Calls, 4, START).unwrap_err();
        assert_eq!(free_at, START + 12 * HOUR);
        assert!(ledger.charge(Bucket::Calls, 4, free_at - Duration::from_millis(1)).is_err());
        assert!(ledger.charge(Bucket::Calls, 4, free_at).is_ok());
    }

    #[test]
    fn a_call_that_sent_nothing_is_given_back() {
        let mut ledger = Ledger::default();
        spend_all(&mut ledger, 10, START);
        ledger.refund(interval(10));
        assert_eq!(spend_all(&mut ledger, 10, START), 1);
    }

    #[test]
    fn what_is_spent_on_request_leaves_three_quarters_untouched() {
        let mut ledger = Ledger::default();
        let spent = std::iter::from_fn(|| ledger.charge(Bucket::ClientRequests, 2000, START).ok()).count();
        assert_eq!(spent, 250);
        assert_eq!(ledger.remaining(Bucket::ClientRequests, 2000, START), 0);
        assert_eq!(ledger.remaining(Bucket::Calls, 2000, START), 1000);
    }

    #[test]
    fn checks_have_a_budget_of_their_own_that_pays_for_one_every_five_minutes() {
        let mut ledger: Ledger = serde_json::from_str(r#"{"main":null,"on_request":null}"#).unwrap();
        assert_eq!(ledger.remaining(Bucket::Checks, 400, START), 50, "written before there were checks");
        for check in 0..3 * 288 {
            let now = START + Duration::from_secs(300 * check);
            assert!(ledger.charge(Bucket::Checks, 400, now).is_ok(), "after {check}");
        }
        let now = START + 3 * 24 * HOUR;
        let at_once = std::iter::from_fn(|| ledger.charge(Bucket::Checks, 400, now).ok()).count();
        assert!((45..=50).contains(&at_once), "{at_once} are left for hints");
        assert_eq!(ledger.remaining(Bucket::Calls, 2000, now), 1000);
        assert_eq!(ledger.remaining(Bucket::ClientRequests, 2000, now), 250);
    }

    #[test]
    fn a_jump_of_the_wall_clock_neither_refills_nor_starves() {
        let mut ledger = Ledger::default();
        spend_all(&mut ledger, 100, START);
        for jump_ms in [86_400_000, -86_400_000] {
            let jumped = Moment { wall_ms: START.wall_ms + jump_ms, ..START };
            assert_eq!(ledger.remaining(Bucket::Calls, 100, jumped), 0);
            assert!(ledger.charge(Bucket::Calls, 100, jumped).is_err());
        }
    }

    #[test]
    fn another_boot_goes_on_where_the_last_one_stopped() {
        let mut ledger = Ledger::default();
        spend_all(&mut ledger, 100, START);
        let after_boot = Moment { wall_ms: START.wall_ms + 12 * 3_600_000, boot_ms: 40 };
        assert_eq!(ledger.rebased(after_boot).remaining(Bucket::Calls, 100, after_boot), 25);
        let set_back = Moment { wall_ms: START.wall_ms - 1_000_000_000, boot_ms: 40 };
        let mut starved_for_a_day_at_most = ledger.rebased(set_back);
        assert!(starved_for_a_day_at_most.charge(Bucket::Calls, 100, set_back + WINDOW).is_ok());
    }

    #[test]
    fn a_changed_budget_keeps_the_share_that_is_spent() {
        let mut ledger = Ledger::default();
        for _ in 0..500 {
            ledger.charge(Bucket::Calls, 2000, START).unwrap();
        }
        assert_eq!(ledger.remaining(Bucket::Calls, 200, START), 50);
        assert_eq!(ledger.remaining(Bucket::Calls, 4000, START), 1000);
    }

    proptest! {
        #[test]
        fn no_window_of_24_hours_holds_more_than_the_budget(
            budget in 4_u32..60,
            steps in prop::collection::vec((0_u64..7_200_000, 0_u8..8), 1..400),
        ) {
            let mut ledger = Ledger::default();
            let mut now = START;
            let mut charged: Vec<Moment> = Vec::new();
            for (wait_ms, action) in steps {
                now = now + Duration::from_millis(wait_ms);
                if action == 0 {
                    // A crash: only what is on disk remains.
                    ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
                }
                for _ in 0..action {
                    if ledger.charge(Bucket::Calls, budget, now).is_ok() {
                        charged.push(now);
                    }
                }
                let in_window = charged.iter().filter(|at| at.elapsed(now) < WINDOW).count();
                prop_assert!(in_window <= budget as usize, "{in_window} of {budget}");
            }
        }

        #[test]
        fn what_remains_can_be_spent_and_not_one_more(budget in 4_u32..3000, spent in 0_u32..1500, wait_s in 0_u64..90_000) {
            let mut ledger = Ledger::default();
            for _ in 0..spent {
                let _ = ledger.charge(Bucket::Calls, budget, START);
            }
            let now = START + Duration::from_secs(wait_s);
            let remaining = ledger.remaining(Bucket::Calls, budget, now);
            prop_assert_eq!(spend_all(&mut ledger, budget, now), remaining);
        }
    }
}
