//! What is left to chance. Of two instants drawn for a refresh, the one in the emptier second is taken: drawn once, the
//! busiest second of a large fleet comes to more than twice the mean; of two, to half as much again.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

/// Two numbers in [0, 1), drawn by the caller for one decision, and what the fleet has planned already.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    jitter: [f64; 2],
    agenda: Option<&'a Agenda>,
}

impl<'a> Draw<'a> {
    /// Two numbers in [0, 1) for one account of a fleet with this agenda.
    #[must_use]
    pub fn new(jitter: [f64; 2], agenda: &'a Agenda) -> Self {
        Self { jitter, agenda: Some(agenda) }
    }

    /// One number in [0, 1), for an account on its own.
    #[must_use]
    pub fn alone(jitter: f64) -> Self {
        Self { jitter: [jitter; 2], agenda: None }
    }

    /// A number in [0, 1).
    #[must_use]
    pub fn jitter(self) -> f64 {
        self.jitter[0]
    }

    /// Of the two instants that `at` makes of the two numbers, the one that falls into the emptier second, in which one
    /// more is planned from now on.
    #[must_use]
    pub fn instant(self, at: impl Fn(f64) -> Moment) -> Moment {
        let [first, second] = self.jitter.map(at);
        let Some(agenda) = self.agenda else { return first };
        let drawn = if agenda.planned(second) < agenda.planned(first) { second } else { first };
        agenda.plan(drawn);
        drawn
    }
}

/// How many refreshes a fleet has planned, by the second of the boot-time clock. What comes otherwise, for a rejection or
/// after an outage, stays counted where it was planned: it evens a fleet out and decides nothing else.
#[derive(Debug)]
pub struct Agenda {
    /// A ring: the second that was planned for last, and how many then.
    seconds: Box<[AtomicU64]>,
}

/// More than a token lives (7200). What lies further ahead shares its place with a second that comes sooner.
const SECONDS: usize = 8192;

impl Default for Agenda {
    fn default() -> Self {
        Self { seconds: (0..SECONDS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Agenda {
    /// How many are planned for the second of `at`.
    #[must_use]
    pub fn planned(&self, at: Moment) -> u64 {
        let (second, place) = self.place(at);
        Self::of(second, place.load(Ordering::Relaxed))
    }

    /// Plans one more for the second of `at`.
    pub fn plan(&self, at: Moment) {
        let (second, place) = self.place(at);
        let more = |kept| Some(second << 32 | (Self::of(second, kept) + 1));
        // Never refused: there is always one more.
        let _ = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// What is kept of `second`: it stands above how many, 32 bits each.
    fn of(second: u64, kept: u64) -> u64 {
        if kept >> 32 == second { kept & u64::from(u32::MAX) } else { 0 }
    }

    fn place(&self, at: Moment) -> (u64, &AtomicU64) {
        let second = u64::from(u32::try_from(at.boot_ms / 1000).unwrap_or(0));
        (second, &self.seconds[second as usize % SECONDS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment { wall_ms: 1_790_000_000_000, boot_ms: seconds * 1000 + 123 }
    }

    fn instant(jitter: [f64; 2], agenda: &Agenda) -> Moment {
        Draw::new(jitter, agenda).instant(|jitter| at((jitter * 100.0) as i64))
    }

    #[test]
    fn the_emptier_of_two_seconds_is_taken_and_of_two_alike_the_first() {
        let agenda = Agenda::default();
        assert_eq!(instant([0.25, 0.75], &agenda), at(25));
        assert_eq!(instant([0.25, 0.75], &agenda), at(75));
        assert_eq!(instant([0.25, 0.75], &agenda), at(25));
        assert_eq!(instant([0.25, 0.25], &agenda), at(25));
        assert_eq!([25, 75, 50].map(|second| agenda.planned(at(second))), [3, 1, 0]);
    }

    #[test]
    fn alone_nothing_is_weighed() {
        let draw = Draw::alone(0.5);
        assert_eq!((draw.jitter(), draw.instant(|jitter| at((jitter * 8.0) as i64))), (0.5, at(4)));
    }

    #[test]
    fn a_second_is_forgotten_once_another_takes_its_place() {
        let agenda = Agenda::default();
        let later = at(7 + SECONDS as i64);
        agenda.plan(at(7));
        assert_eq!((agenda.planned(at(7)), agenda.planned(later)), (1, 0));
        agenda.plan(later);
        assert_eq!((agenda.planned(at(7)), agenda.planned(later)), (0, 1));
    }

    #[test]
    fn instants_beyond_what_it_can_tell_are_counted_as_one() {
        let agenda = Agenda::default();
        for boot_ms in [i64::MIN, -1_000_000, i64::MAX] {
            agenda.plan(Moment { wall_ms: 0, boot_ms });
        }
        assert_eq!(agenda.planned(Moment { wall_ms: 0, boot_ms: 0 }), 3);
    }
}
