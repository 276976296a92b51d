//! The true time, which goes on whatever happens to the program, and the two clocks that the program reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::clock::{ClockSource, Moment};

/// What the wall clock reads at the true time zero, which is also the simulated WeChat's.
pub(super) const EPOCH_MS: i64 = 1_790_000_000_000;

/// The true time, in milliseconds since the simulation began. WeChat and the events follow it.
pub(super) struct TrueTime(Mutex<Inner>);

struct Inner {
    /// When the current runtime began, or the current time while there is none.
    base_ms: i64,
    runtime: Option<Instant>,
    wall_error_ms: i64,
    slew: Option<Slew>,
    boot_offset_ms: i64,
    boots: u32,
}

/// The wall clock is slewed at chrony's maximum rate: 416 ms in 5 s.
#[derive(Clone, Copy)]
struct Slew {
    from_ms: i64,
    until_ms: i64,
    forward: bool,
}

impl TrueTime {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner {
            base_ms: 0,
            runtime: None,
            wall_error_ms: 0,
            slew: None,
            boot_offset_ms: 300_000_000,
            boots: 1,
        }))
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.lock().now_ms()
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now_ms()).unwrap())
    }

    /// Lets the runtime's clock drive the true time.
    pub(super) fn enter_runtime(&self) {
        self.lock().runtime = Some(Instant::now());
    }

    /// Stops the true time before the runtime is dropped; it stands until it is moved.
    pub(super) fn leave_runtime(&self) {
        let mut inner = self.lock();
        inner.base_ms = inner.now_ms();
        inner.runtime = None;
    }

    /// Advances the true time to `at_ms` while no program runs.
    pub(super) fn pass_until(&self, at_ms: i64) {
        let mut inner = self.lock();
        assert!(inner.runtime.is_none());
        inner.base_ms = inner.base_ms.max(at_ms);
    }

    /// Suspends the machine: tokio's time stands, the world's and both clocks go on.
    pub(super) fn suspend(&self, time: Duration) {
        self.lock().base_ms += i64::try_from(time.as_millis()).unwrap();
    }

    /// Sets the wall clock so that it is wrong by `error_ms`.
    pub(super) fn set_wall(&self, error_ms: i64) {
        let mut inner = self.lock();
        (inner.wall_error_ms, inner.slew) = (error_ms, None);
    }

    /// Slews the wall clock for `lasts_ms` from now on.
    pub(super) fn slew(&self, lasts_ms: i64, forward: bool) {
        let mut inner = self.lock();
        inner.wall_error_ms = inner.error_ms();
        let now_ms = inner.now_ms();
        inner.slew = Some(Slew { from_ms: now_ms, until_ms: now_ms + lasts_ms, forward });
    }

    /// Returns by how much the wall clock is wrong.
    pub(super) fn wall_error_ms(&self) -> i64 {
        self.lock().error_ms()
    }

    /// Reboots the machine: the boot-time clock starts at `boot_ms`.
    pub(super) fn reboot(&self, boot_ms: i64) {
        let mut inner = self.lock();
        inner.boots += 1;
        inner.boot_offset_ms = boot_ms - inner.now_ms();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn error_ms(&self) -> i64 {
        let slewed = self.slew.map_or(0, |Slew { from_ms, until_ms, forward }| {
            let off_ms = (self.now_ms().min(until_ms) - from_ms) * 416 / 5000;
            if forward { off_ms } else { -off_ms }
        });
        self.wall_error_ms + slewed
    }

    fn now_ms(&self) -> i64 {
        let in_runtime = self.runtime.map_or(0, |start| start.elapsed().as_millis());
        self.base_ms + i64::try_from(in_runtime).unwrap()
    }
}

/// The machine's clocks as the program reads them.
pub(super) struct MachineClock {
    time: Arc<TrueTime>,
    boot_id: String,
}

impl MachineClock {
    pub(super) fn of_this_boot(time: &Arc<TrueTime>) -> Self {
        Self { time: Arc::clone(time), boot_id: format!("boot-{}", time.lock().boots) }
    }
}

impl ClockSource for MachineClock {
    fn now(&self) -> Moment {
        let inner = self.time.lock();
        let now_ms = inner.now_ms();
        Moment { wall_ms: EPOCH_MS + now_ms + inner.error_ms(), boot_ms: now_ms + inner.boot_offset_ms }
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}
