//! Who has given hints about an account's token, and how often they were wrong.
//!
//! Of the asks that looked like a client whose token had died, 7 in 558 were: many clients ask for each call,
//! and several processes look like one. So a source that was wrong is not believed again for a minute, and for
//! twice as long after each further time.

use std::time::Duration;

use crate::clock::Moment;
use crate::token::state::{HintVerdict, SourceId};

/// How many sources are remembered for an account. Where there are more, the one not seen for longest goes.
const MAX_SOURCES: usize = 64;
/// The interval after a wrong hint, which doubles,
const FIRST_INTERVAL: Duration = Duration::from_secs(60);
/// up to this.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// For how long a hint is not repeated that has been passed on and whose check has not ended.
const PENDING: Duration = Duration::from_secs(1);

/// The sources of hints about one account.
#[derive(Debug, Default)]
pub struct HintSources(Vec<KnownSource>);

#[derive(Debug)]
struct KnownSource {
    id: SourceId,
    seen_at: Moment,
    /// What it was given last, and for how long it may count on it.
    given: Option<(u64, Moment, Duration)>,
    wrong_in_a_row: u32,
    quiet_until: Option<Moment>,
}

impl HintSources {
    /// Notes that a client gets the token of that `version`, with a promise. Returns whether it asks again for
    /// a token of which less than half of the promise that it was given is over.
    pub fn asks_again(&mut self, id: SourceId, version: u64, promise: Duration, now: Moment) -> bool {
        let known = self.known(id, now);
        let before = known.given.replace((version, now, promise));
        before.is_some_and(|(given, at, promise)| given == version && at.elapsed(now) < promise / 2)
    }

    /// Whether a hint of this source is to be followed now. If so, the next one is not until the check ends.
    pub fn admit(&mut self, id: SourceId, now: Moment) -> bool {
        let known = self.known(id, now);
        let is_quiet = known.quiet_until.is_some_and(|until| !until.has_come(now));
        if !is_quiet {
            known.quiet_until = Some(now + PENDING);
        }
        !is_quiet
    }

    /// Takes in what became of a hint.
    pub fn settle(&mut self, id: SourceId, verdict: HintVerdict, now: Moment) {
        let known = self.known(id, now);
        match verdict {
            HintVerdict::Dead => (known.wrong_in_a_row, known.quiet_until) = (0, None),
            HintVerdict::Alive => {
                known.wrong_in_a_row = known.wrong_in_a_row.saturating_add(1);
                known.quiet_until = Some(now + known.interval());
            }
            HintVerdict::Unknown => known.quiet_until = Some(now + known.interval()),
            HintVerdict::Skipped => {}
        }
    }

    /// The entry of a source, new if it is not known.
    fn known(&mut self, id: SourceId, now: Moment) -> &mut KnownSource {
        let index = self.0.iter().position(|known| known.id == id).unwrap_or_else(|| {
            if self.0.len() >= MAX_SOURCES {
                let seen_at = |(_, known): &(usize, &KnownSource)| known.seen_at.boot_ms;
                let oldest = self.0.iter().enumerate().min_by_key(seen_at).map(|(index, _)| index);
                oldest.map(|index| self.0.swap_remove(index));
            }
            self.0.push(KnownSource { id, seen_at: now, given: None, wrong_in_a_row: 0, quiet_until: None });
            self.0.len() - 1
        });
        let known = &mut self.0[index];
        known.seen_at = now;
        known
    }
}

impl KnownSource {
    /// How long it is not believed after this many wrong hints.
    fn interval(&self) -> Duration {
        let doublings = self.wrong_in_a_row.saturating_sub(1);
        FIRST_INTERVAL.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use HintVerdict::{Alive, Dead, Skipped, Unknown};

    const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000 };
    const A: SourceId = SourceId(1);
    const B: SourceId = SourceId(2);

    fn at(seconds: u64) -> Moment {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn who_asks_again_within_half_of_its_promise_for_the_same_token_is_suspected() {
        let promise = Duration::from_secs(1000);
        for (id, version, seconds, suspected) in
            [(A, 1, 499, true), (A, 1, 500, false), (A, 2, 10, false), (B, 1, 10, false)]
        {
            let mut sources = HintSources::default();
            assert!(!sources.asks_again(A, 1, promise, at(0)), "the first ask");
            assert_eq!(sources.asks_again(id, version, promise, at(seconds)), suspected, "{seconds}");
        }
    }

    #[test]
    fn what_counts_is_the_promise_that_was_given_last() {
        let mut sources = HintSources::default();
        assert!(!sources.asks_again(A, 1, Duration::from_secs(1000), at(0)));
        assert!(!sources.asks_again(A, 1, Duration::from_secs(400), at(600)));
        assert!(sources.asks_again(A, 1, Duration::from_secs(201), at(799)));
    }

    #[test]
    fn a_wrong_source_waits_twice_as_long_each_time_up_to_an_hour_and_a_right_one_not_at_all() {
        let mut sources = HintSources::default();
        let mut now = at(0);
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(sources.admit(A, now));
            sources.settle(A, Alive, now);
            let again = now + Duration::from_secs(60 * minutes);
            assert!(!sources.admit(A, again - Duration::from_millis(1)), "{minutes}");
            assert!(sources.admit(B, now), "another source");
            now = again;
        }
        assert!(sources.admit(A, now));
        sources.settle(A, Dead, now);
        assert!(sources.admit(A, now), "it was right");
        sources.settle(A, Alive, now);
        assert!(sources.admit(A, now + FIRST_INTERVAL), "its mistakes are forgotten");
    }

    #[test]
    fn a_hint_whose_check_said_nothing_waits_and_one_that_was_not_followed_does_not() {
        let mut sources = HintSources::default();
        assert!(sources.admit(A, at(0)) && !sources.admit(A, at(0)), "its check is under way");
        sources.settle(A, Unknown, at(0));
        assert!(!sources.admit(A, at(59)) && sources.admit(A, at(60)));
        sources.settle(A, Skipped, at(60));
        assert!(sources.admit(A, at(61)));
    }

    #[test]
    fn the_source_not_seen_for_longest_is_forgotten_first() {
        let mut sources = HintSources::default();
        for id in 0..MAX_SOURCES as u64 {
            sources.asks_again(SourceId(id), 1, Duration::from_secs(1000), at(id));
        }
        assert!(sources.asks_again(SourceId(0), 1, Duration::from_secs(1000), at(70)));
        sources.asks_again(SourceId(9999), 1, Duration::from_secs(1000), at(71));
        assert_eq!(sources.0.len(), MAX_SOURCES);
        assert!(sources.asks_again(SourceId(0), 1, Duration::from_secs(1000), at(72)));
        assert!(!sources.asks_again(SourceId(1), 1, Duration::from_secs(1000), at(72)), "forgotten");
    }

    proptest! {
        /// However often it gives hints, and whatever the checks find except that the token is dead.
        #[test]
        fn in_peace_no_source_costs_more_than_one_check_a_minute(
            steps in prop::collection::vec((0_u64..200_000, any::<bool>()), 1..300),
        ) {
            let (mut sources, mut now) = (HintSources::default(), START);
            let mut checks: Vec<Moment> = Vec::new();
            for (wait_ms, conclusive) in steps {
                now = now + Duration::from_millis(wait_ms);
                if sources.admit(A, now) {
                    prop_assert!(checks.last().is_none_or(|last| last.elapsed(now) >= FIRST_INTERVAL));
                    checks.push(now);
                    sources.settle(A, if conclusive { Alive } else { Unknown }, now);
                }
            }
        }
    }
}
