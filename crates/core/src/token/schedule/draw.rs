//! Random choice of refresh instants. A refresh takes, of two instants close to each other, the one with
//! fewer refreshes planned. If each draws only one, the busiest second of a large fleet comes to more than
//! twice the mean; with two, to 1.6 times.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Moment;

/// Maximum distance of the second instant from the first, either way, as a share of the whole range. If the
/// two were drawn from anywhere, the later would mostly win: fewer refreshes have been planned for it yet.
const NEAR: f64 = 0.05;

/// Two numbers in [0, 1), drawn by the caller when a call ends, and what its fleet has already planned.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    jitter: [f64; 2],
    planned_refreshes: Option<&'a PlannedRefreshes>,
}

impl<'a> Draw<'a> {
    /// Two numbers in [0, 1), for an account of a fleet with these `planned_refreshes`.
    #[must_use]
    pub fn new(jitter: [f64; 2], planned_refreshes: &'a PlannedRefreshes) -> Self {
        Self { jitter, planned_refreshes: Some(planned_refreshes) }
    }

    /// One number in [0, 1), for an account on its own.
    #[must_use]
    pub fn alone(jitter: f64) -> Self {
        Self { jitter: [jitter; 2], planned_refreshes: None }
    }

    /// Returns a number in [0, 1).
    #[must_use]
    pub fn jitter(self) -> f64 {
        self.jitter[0]
    }

    /// Picks an instant: `at` of the first number, or `at` of a number near it, taken from the second, if
    /// fewer refreshes are planned there. Counts the picked instant as planned.
    #[must_use]
    pub fn instant(self, at: impl Fn(f64) -> Moment) -> Moment {
        let [drawn, aside] = self.jitter;
        let first = at(drawn);
        let Some(planned_refreshes) = self.planned_refreshes else { return first };
        // Wraps around at the ends, so that no part of the range is likelier than another.
        let second = at((1.0 + drawn + NEAR * (2.0 * aside - 1.0)).fract());
        let taken =
            if planned_refreshes.planned(second) < planned_refreshes.planned(first) { second } else { first };
        planned_refreshes.plan(taken);
        taken
    }
}

/// Counts the refreshes that a fleet has planned for each quarter of a second. A refresh that then comes at
/// another time, because the token was rejected, the account removed or WeChat down, stays counted where it
/// was planned. That costs evenness, and nothing else depends on it.
#[derive(Debug)]
pub struct PlannedRefreshes {
    /// A ring. Each slot holds a count in its lower half, and in its upper half the round that it belongs to.
    quarters: Box<[AtomicU32]>,
}

/// What is further away than the ring is long shares its slot with what comes sooner; the ring is longer than
/// a token lives (7200 s).
const QUARTERS: usize = 4 * 8192;
const QUARTER_MS: i64 = 250;

impl Default for PlannedRefreshes {
    fn default() -> Self {
        Self { quarters: (0..QUARTERS).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl PlannedRefreshes {
    /// Returns how many are planned for the quarter second of `at`.
    #[must_use]
    pub fn planned(&self, at: Moment) -> u16 {
        let (round, place) = self.place(at);
        of(round, place.load(Ordering::Relaxed))
    }

    /// Plans one more for the quarter second of `at`.
    pub fn plan(&self, at: Moment) {
        let (round, place) = self.place(at);
        let more = |kept| Some(round << 16 | u32::from(of(round, kept).saturating_add(1)));
        // Cannot fail: the closure always returns a new value.
        let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Returns the round, of which 16 bits are kept, and the slot in it.
    fn place(&self, at: Moment) -> (u32, &AtomicU32) {
        let quarter = usize::try_from(at.boot_ms / QUARTER_MS).unwrap_or(0);
        (u32::from((quarter / QUARTERS) as u16), &self.quarters[quarter % QUARTERS])
    }
}

/// Returns the count in `kept` if it belongs to `round`.
fn of(round: u32, kept: u32) -> u16 {
    if kept >> 16 == round { kept as u16 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment { wall_ms: 1_790_000_000_000, boot_ms: seconds * 1000 + 123 }
    }

    fn instant(jitter: [f64; 2], planned_refreshes: &PlannedRefreshes) -> Moment {
        Draw::new(jitter, planned_refreshes).instant(|jitter| at((jitter * 1000.0) as i64))
    }

    #[test]
    fn of_two_instants_the_one_with_less_planned_is_taken_and_of_two_alike_the_first() {
        let planned_refreshes = PlannedRefreshes::default();
        // 0.25, and 0.05 × 0.8 away from it.
        assert_eq!(instant([0.25, 0.9], &planned_refreshes), at(250));
        assert_eq!(instant([0.25, 0.9], &planned_refreshes), at(290));
        assert_eq!(instant([0.25, 0.9], &planned_refreshes), at(250));
        assert_eq!([250, 290, 270].map(|second| planned_refreshes.planned(at(second))), [2, 1, 0]);
    }

    #[test]
    fn near_one_end_the_second_instant_may_lie_near_the_other() {
        for (jitter, second) in [([0.0, 0.25], 975), ([0.99, 0.75], 14)] {
            let planned_refreshes = PlannedRefreshes::default();
            let _ = instant(jitter, &planned_refreshes);
            let second_ms = instant(jitter, &planned_refreshes).boot_ms;
            assert!((second_ms / 1000 - second).abs() <= 1, "{jitter:?}: {second_ms}");
        }
    }

    #[test]
    fn alone_nothing_is_weighed() {
        let draw = Draw::alone(0.5);
        assert_eq!((draw.jitter(), draw.instant(|jitter| at((jitter * 8.0) as i64))), (0.5, at(4)));
    }

    #[test]
    fn a_quarter_is_forgotten_once_another_takes_its_place() {
        let planned_refreshes = PlannedRefreshes::default();
        let later = at(7 + 8192);
        planned_refreshes.plan(at(7));
        assert_eq!((planned_refreshes.planned(at(7)), planned_refreshes.planned(later)), (1, 0));
        planned_refreshes.plan(later);
        assert_eq!((planned_refreshes.planned(at(7)), planned_refreshes.planned(later)), (0, 1));
        assert_eq!(planned_refreshes.planned(Moment { boot_ms: later.boot_ms + QUARTER_MS, ..later }), 0);
    }

    #[test]
    fn counting_ends_at_what_fits() {
        let planned_refreshes = PlannedRefreshes::default();
        for _ in 0..70_000 {
            planned_refreshes.plan(at(9000));
        }
        assert_eq!(planned_refreshes.planned(at(9000)), u16::MAX);
    }

    #[test]
    fn instants_before_the_boot_and_at_the_end_of_time_are_planned_for_like_others() {
        let planned_refreshes = PlannedRefreshes::default();
        for boot_ms in [i64::MIN, -1_000_000, i64::MAX] {
            let at = Moment { wall_ms: 0, boot_ms };
            let before = planned_refreshes.planned(at);
            planned_refreshes.plan(at);
            assert_eq!(planned_refreshes.planned(at), before + 1, "{boot_ms}");
        }
    }
}
