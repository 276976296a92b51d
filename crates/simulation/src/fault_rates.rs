//! The parameters of a run: how long, how many accounts, and how often things go wrong. Drawn from the seed
//! such that some runs have one kind of fault, and some have all of them at once.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub(super) const SECOND: i64 = 1000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Hosts that `upstream.base_urls` may name; all of them lead to the same WeChat.
pub(super) const HOSTS: [&str; 2] = ["https://api.test/", "https://api2.test/"];
pub(super) const NAMES: [&str; 2] = ["api.test", "api2.test"];

/// The size of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) accounts: usize,
    pub(super) days: i64,
    /// Mean time between two reads of every account.
    pub(super) read_every_ms: i64,
}

/// How often things happen, in times a day; per account where stated, otherwise in total.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FaultRates {
    /// Per account: a period of faults begins.
    pub(super) faults: f64,
    /// Per account: an outsider ends its tokens, or mints.
    pub(super) outsiders: f64,
    /// Per account: a client starts to reject tokens, rightly or wrongly.
    pub(super) rejections: f64,
    /// Per account: an operator refreshes.
    pub(super) refreshes: f64,
    /// Per account: its actor panics.
    pub(super) panics: f64,
    /// A host, or all of them, go down.
    pub(super) outages: f64,
    /// The network loses packets for a while.
    pub(super) losses: f64,
    /// The process is killed and starts again.
    pub(super) crashes: f64,
    /// The process is asked to stop, and starts again.
    pub(super) restarts: f64,
    /// The machine reboots.
    pub(super) reboots: f64,
    /// The machine is suspended.
    pub(super) suspends: f64,
    /// The wall clock is set, up to an hour wrong.
    pub(super) jumps: f64,
    /// The disk fails, or is slow, for a while.
    pub(super) disk: f64,
    /// The configuration is reloaded.
    pub(super) reloads: f64,
    /// A behaviour of WeChat that is unknown changes.
    pub(super) switches: f64,
    /// Calls that were given up are delivered late, for a while.
    pub(super) late_deliveries: f64,
    /// Only the check call fails, for a while.
    pub(super) failing_checks: f64,
    /// Some of the source addresses of calls are refused, for a while.
    pub(super) refused_addresses: f64,
    /// The wall clock is slewed for a while.
    pub(super) slews: f64,
}

impl FaultRates {
    /// Draws the fault rates of `seed`.
    pub(super) fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x00c1_1a7e);
        let mut rate = |usual: f64| usual * [0.0, 0.3, 1.0, 1.0, 6.0][rng.random_range(0..5)];
        Self {
            faults: rate(1.5),
            outsiders: rate(0.3),
            rejections: rate(1.0),
            refreshes: rate(1.0),
            panics: rate(1.0),
            outages: rate(0.7),
            losses: rate(0.3),
            crashes: rate(4.0),
            restarts: rate(0.5),
            reboots: rate(0.3),
            suspends: rate(0.5),
            jumps: rate(1.0),
            disk: rate(0.6),
            reloads: rate(2.0),
            switches: rate(1.0),
            late_deliveries: rate(0.7),
            failing_checks: rate(0.5),
            refused_addresses: rate(0.7),
            slews: rate(0.5),
        }
    }
}
