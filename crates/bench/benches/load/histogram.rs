//! Latencies, counted in buckets whose width is a hundredth of what they hold.

use std::time::Duration;

/// So many buckets to each doubling.
const STEPS: u32 = 64;

/// How often each latency was met.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    most: Duration,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; (64 * STEPS) as usize], count: 0, most: Duration::ZERO }
    }

    pub(crate) fn note(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(u64::from(STEPS));
        let doubling = ns.ilog2() - STEPS.ilog2();
        let step = (ns >> doubling) as u32 - STEPS;
        self.buckets[(doubling * STEPS + step) as usize] += 1;
        self.count += 1;
        self.most = self.most.max(latency);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
        self.count += other.count;
        self.most = self.most.max(other.most);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn most(&self) -> Duration {
        self.most
    }

    /// The latency that `share` of all do not exceed.
    pub(crate) fn at(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in (0_u32..).zip(&self.buckets) {
            seen += count;
            if seen >= wanted {
                let (doubling, step) = (index / STEPS, index % STEPS);
                return Duration::from_nanos(u64::from(STEPS + step + 1) << doubling);
            }
        }
        self.most
    }
}
