//! Faults that affect the whole fleet for a while: requests delivered long after they were given up, a check
//! call that alone fails, addresses that are not whitelisted, a wall clock that is slewed.

use std::sync::Arc;

use rand::RngExt as _;
use wxtokend_core::token::schedule::LATE;

use super::fault_rates::{FaultRates, HOUR, MINUTE, SECOND};
use super::sim::Sim;

/// A kind of fault that affects the whole fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    LateDelivery,
    FailingCheck,
    RefusedAddresses,
    Slew,
}

impl Trouble {
    pub(super) const ALL: [Self; 4] =
        [Self::LateDelivery, Self::FailingCheck, Self::RefusedAddresses, Self::Slew];

    /// Returns how often a day it begins.
    pub(super) fn rate(self, rates: &FaultRates) -> f64 {
        match self {
            Self::LateDelivery => rates.late_deliveries,
            Self::FailingCheck => rates.failing_checks,
            Self::RefusedAddresses => rates.refused_addresses,
            Self::Slew => rates.slews,
        }
    }

    /// Begins it, and returns how long it lasts.
    pub(super) fn begin(self, sim: &Arc<Sim>) -> i64 {
        match self {
            Self::LateDelivery => {
                sim.count("times of late deliveries");
                sim.oracle().troubles.late = sim.draw(|rng| [0.05, 0.3][rng.random_range(0..2)]);
                sim.between(MINUTE, 3 * HOUR)
            }
            Self::FailingCheck => {
                sim.count("times of failing checks");
                sim.oracle().troubles.check_fails = true;
                sim.between(MINUTE, 8 * HOUR)
            }
            Self::RefusedAddresses => {
                sim.count("times of refused addresses");
                sim.oracle().troubles.refused = sim.draw(|rng| [0.1, 0.25][rng.random_range(0..2)]);
                sim.between(MINUTE, 12 * HOUR)
            }
            Self::Slew => {
                sim.count("slewed clocks");
                let lasts = sim.between(MINUTE, 2 * HOUR);
                sim.time.slew(lasts, sim.chance(0.5));
                let now = sim.now();
                let mut oracle = sim.oracle();
                oracle.wall_set_at = now + lasts;
                for checker in &mut oracle.checkers {
                    // A token seems to end earlier than it does, or was promised for longer than it now seems
                    // to live.
                    checker.may_call_until = checker.may_call_until.max(now + lasts + 3 * HOUR);
                    checker.excuse_promises();
                    checker.slewed_until = now + lasts;
                }
                lasts
            }
        }
    }

    pub(super) fn end(self, sim: &Arc<Sim>) {
        let troubles = &mut sim.oracle().troubles;
        match self {
            Self::LateDelivery => troubles.late = 0.0,
            Self::FailingCheck => troubles.check_fails = false,
            Self::RefusedAddresses => troubles.refused = 0.0,
            Self::Slew => {}
        }
    }
}

/// How long after its sending a request that was given up after `within_ms` arrives. At most as late as the
/// program allows for, less the time between its own record of the call and the sending.
pub(super) fn late_ms(sim: &Sim, within_ms: i64) -> i64 {
    let late = i64::try_from(LATE.as_millis()).unwrap();
    sim.between(0, within_ms + late - SECOND)
}
