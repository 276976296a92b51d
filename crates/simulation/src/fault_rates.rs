//! What a run is like: how long, how many accounts, and how often things go wrong. Drawn from the seed, such that
//! some runs have one kind of trouble, and some have all of them at once.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub(super) const SECOND: i64 = 1000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// What `upstream.base_urls` may name; all of them lead to the same WeChat.
pub(super) const HOSTS: [&str; 2] = ["http://api.test/", "http://api2.test/"];
pub(super) const NAMES: [&str; 2] = ["api.test", "api2.test"];

/// The size of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) accounts: usize,
    pub(super) days: i64,
    /// Between two looks at every account, on the average.
    pub(super) read_every_ms: i64,
}

/// How often things happen, in times a day; to each account where it says so, else to all together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FaultRates {
    /// Each account: a time of faults begins.
    pub(super) faults: f64,
    /// Each account: somebody else ends its tokens, or mints.
    pub(super) outsiders: f64,
    /// Each account: a client begins to reject tokens, rightly or wrongly.
    pub(super) rejections: f64,
    /// Each account: an operator refreshes.
    pub(super) refreshes: f64,
    /// Each account: its actor panics.
    pub(super) panics: f64,
    /// A host, or all of them, go down.
    pub(super) outages: f64,
    /// The network loses packets for a while.
    pub(super) losses: f64,
    /// The process is killed and starts again.
    pub(super) crashes: f64,
    /// It is asked to stop, and starts again.
    pub(super) restarts: f64,
    /// The machine starts anew.
    pub(super) reboots: f64,
    /// The machine sleeps.
    pub(super) suspends: f64,
    /// Somebody sets the wall clock, up to an hour wrong.
    pub(super) jumps: f64,
    /// The disk fails, or is slow, for a while.
    pub(super) disk: f64,
    /// The configuration is reloaded.
    pub(super) reloads: f64,
    /// What nobody knows of WeChat becomes otherwise.
    pub(super) switches: f64,
    /// Calls that were given up are delivered late, for a while.
    pub(super) late_deliveries: f64,
    /// The check call alone is ill for a while.
    pub(super) ill_checks: f64,
    /// Some of the addresses that calls leave by are refused for a while.
    pub(super) refused_addresses: f64,
    /// The wall clock is slewed for a while.
    pub(super) slews: f64,
}

impl FaultRates {
    /// The climate of `seed`.
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
            ill_checks: rate(0.5),
            refused_addresses: rate(0.7),
            slews: rate(0.5),
        }
    }
}
