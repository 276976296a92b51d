//! What is left to chance. Of two instants that lie near each other, a refresh takes the one for which less is planned:
//! with one that is drawn, the busiest second of a large fleet comes to more than twice the mean; so, to 1.6 times.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::clock::Moment;

/// How far the second instant lies from the first at most, either way, as a share of all from which they are drawn. Of
/// two that lay anywhere, the later would mostly be taken: fewer have planned for it yet.
const NEAR: f64 = 0.05;

/// Two numbers in [0, 1), drawn by the caller when a call ends, and what its fleet has planned already.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    jitter: [f64; 2],
    planned_refreshes: Option<&'a PlannedRefreshes>,
}

impl<'a> Draw<'a> {
    /// Two numbers in [0, 1) for one account of a fleet with this planned_refreshes.
    #[must_use]
    pub fn new(jitter: [f64; 2], planned_refreshes: &'a PlannedRefreshes) -> Self {
        Self { jitter, planned_refreshes: Some(planned_refreshes) }
    }

    /// One number in [0, 1), for an account on its own.
    #[must_use]
    pub fn alone(jitter: f64) -> Self {
        Self { jitter: [jitter; 2], planned_refreshes: None }
    }

    /// A number in [0, 1).
    #[must_use]
    pub fn jitter(self) -> f64 {
        self.jitter[0]
    }

    /// The instant that `at` makes of the first number, or of one near it that the second number tells, if less is
    /// planned for that one. From now on one more is planned for the one that is taken.
    #[must_use]
    pub fn instant(self, at: impl Fn(f64) -> Moment) -> Moment {
        let [drawn, aside] = self.jitter;
        let first = at(drawn);
        let Some(planned_refreshes) = self.planned_refreshes else { return first };
        // Round the ends, so that no part of the whole is more likely than another.
        let second = at((1.0 + drawn + NEAR * (2.0 * aside - 1.0)).fract());
        let taken =
            if planned_refreshes.planned(second) < planned_refreshes.planned(first) { second } else { first };
        planned_refreshes.plan(taken);
        taken
    }
}

/// How many refreshes a fleet has planned for each quarter of a second. What then comes at another time, since the token
/// was rejected, the account removed or WeChat down, stays counted where it was planned: that costs evenness, and nothing
/// else depends on it.
#[derive(Debug)]
pub struct PlannedRefreshes {
    /// A ring: how many, in the lower half, and in which round that was, in the upper.
    quarters: Box<[AtomicU32]>,
}

/// What lies further ahead shares its place with what comes sooner: more than a token lives (7200 s).
const QUARTERS: usize = 4 * 8192;
const QUARTER_MS: i64 = 250;

impl Default for PlannedRefreshes {
    fn default() -> Self {
        Self { quarters: (0..QUARTERS).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl PlannedRefreshes {
    /// How many are planned for the quarter of `at`.
    #[must_use]
    pub fn planned(&self, at: Moment) -> u16 {
        let (round, place) = self.place(at);
        of(round, place.load(Ordering::Relaxed))
    }

    /// Plans one more for the quarter of `at`.
    pub fn plan(&self, at: Moment) {
        let (round, place) = self.place(at);
        let more = |kept| Some(round << 16 | u32::from(of(round, kept).saturating_add(1)));
        // Never refused: it always has a new value.
        let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The round, of which 16 bits are kept, and the place in it.
    fn place(&self, at: Moment) -> (u32, &AtomicU32) {
        let quarter = usize::try_from(at.boot_ms / QUARTER_MS).unwrap_or(0);
        (u32::from((quarter / QUARTERS) as u16), &self.quarters[quarter % QUARTERS])
    }
}

/// What is kept of `round`.
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
