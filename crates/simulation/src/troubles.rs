//! Troubles of the whole fleet that come for a while: requests that are delivered long after they were given up, a check
//! call that alone is ill, addresses that are not whitelisted, a wall clock that is slewed.

use std::sync::Arc;

use rand::RngExt as _;
use wxtokend_core::token::schedule::LATE;

use super::fault_rates::{FaultRates, HOUR, MINUTE, SECOND};
use super::sim::Sim;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    LateDelivery,
    IllCheck,
    RefusedAddresses,
    Slew,
}

impl Trouble {
    pub(super) const ALL: [Self; 4] =
        [Self::LateDelivery, Self::IllCheck, Self::RefusedAddresses, Self::Slew];

    /// How often a day it comes.
    pub(super) fn rate(self, rates: &FaultRates) -> f64 {
        match self {
            Self::LateDelivery => rates.late_deliveries,
            Self::IllCheck => rates.ill_checks,
            Self::RefusedAddresses => rates.refused_addresses,
            Self::Slew => rates.slews,
        }
    }

    /// It begins; how long it lasts.
    pub(super) fn begin(self, sim: &Arc<Sim>) -> i64 {
        match self {
            Self::LateDelivery => {
                sim.count("times of late deliveries");
                sim.oracle().troubles.late = sim.draw(|rng| [0.05, 0.3][rng.random_range(0..2)]);
                sim.between(MINUTE, 3 * HOUR)
            }
            Self::IllCheck => {
                sim.count("times of an ill check call");
                sim.oracle().troubles.check_is_ill = true;
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
                    // A token seems to end earlier than it does, or was promised for longer than is thought now.
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
            Self::IllCheck => troubles.check_is_ill = false,
            Self::RefusedAddresses => troubles.refused = 0.0,
            Self::Slew => {}
        }
    }
}

/// How long after it was sent a request that was given up after `within_ms` arrives: as late as is reckoned with, less
/// what lies between the program's own note of the call and its sending.
pub(super) fn late_ms(sim: &Sim, within_ms: i64) -> i64 {
    let late = i64::try_from(LATE.as_millis()).unwrap();
    sim.between(0, within_ms + late - SECOND)
}
