//! The time in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::clock::{ClockSource, Moment};

/// A clock that follows tokio's, so that paused time drives it. A test can make its wall clock jump.
#[derive(Debug)]
pub struct TokioClock {
    start: Instant,
    wall_offset_ms: AtomicI64,
    boot_offset_ms: AtomicI64,
    boot_id: String,
}

impl TokioClock {
    /// Creates the clock of a machine that has been up for a while.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            wall_offset_ms: 1_790_000_000_000.into(),
            boot_offset_ms: 1_000_000.into(),
            boot_id: "test".to_owned(),
        })
    }

    /// Reboots the machine, which takes 20 s. Its wall clock comes up `wall_ms` further off.
    pub fn rebooted(&self, wall_ms: i64) -> Arc<Self> {
        let before = self.wall_offset_ms.load(Ordering::SeqCst);
        Arc::new(Self {
            start: self.start,
            wall_offset_ms: (before + wall_ms).into(),
            boot_offset_ms: (20_000 - ms_of(self.start.elapsed())).into(),
            boot_id: format!("after {}", self.boot_id),
        })
    }

    /// Moves the wall clock by `ms`.
    pub fn jump_wall(&self, ms: i64) {
        self.wall_offset_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Suspends the machine: both clocks go on, tokio's does not.
    pub fn suspend(&self, time: Duration) {
        self.jump_wall(ms_of(time));
        self.boot_offset_ms.fetch_add(ms_of(time), Ordering::SeqCst);
    }
}

impl ClockSource for TokioClock {
    fn now(&self) -> Moment {
        let ms = ms_of(self.start.elapsed());
        let read = |offset: &AtomicI64| offset.load(Ordering::SeqCst);
        Moment { wall_ms: read(&self.wall_offset_ms) + ms, boot_ms: read(&self.boot_offset_ms) + ms }
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

fn ms_of(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
