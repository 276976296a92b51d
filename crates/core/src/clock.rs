//! The two clocks that decide whether a token is still alive.
//!
//! The wall clock can jump. The boot-time clock (Linux's `CLOCK_BOOTTIME`) cannot; it includes the time that
//! a machine is suspended, and starts again with each boot. A token is served only while both clocks say that
//! it is alive. This is the only file that reads the wall clock: everything else takes a [`Moment`] as an
//! argument.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An instant on both clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Moment {
    /// Milliseconds since 1970-01-01T00:00:00Z, by the wall clock.
    pub wall_ms: i64,
    /// Milliseconds since this machine's boot, including suspends.
    pub boot_ms: i64,
}

impl Moment {
    /// Time until `self`, by whichever clock gets there sooner; zero if either says it has passed. For
    /// deadlines, such as a token's expiry or a promise to a client.
    #[must_use]
    pub fn until_by_either(self, now: Self) -> Duration {
        millis(self.wall_ms.saturating_sub(now.wall_ms).min(self.boot_ms.saturating_sub(now.boot_ms)))
    }

    /// Time until `self` by the boot-time clock; zero if it has passed. For waits and back-off, which a jump
    /// of the wall clock must neither lengthen nor cut short.
    #[must_use]
    pub fn until(self, now: Self) -> Duration {
        millis(self.boot_ms.saturating_sub(now.boot_ms))
    }

    /// Time since `self` by the boot-time clock; zero if `self` is in the future.
    #[must_use]
    pub fn elapsed(self, now: Self) -> Duration {
        now.until(self)
    }

    /// Whether `self` has been reached by the boot-time clock.
    #[must_use]
    pub fn has_come(self, now: Self) -> bool {
        self.boot_ms <= now.boot_ms
    }

    /// Whether `self` has been reached by either clock. For deadlines.
    #[must_use]
    pub fn is_over(self, now: Self) -> bool {
        self.until_by_either(now).is_zero()
    }

    /// Returns the later of the two by the boot-time clock.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if self.boot_ms >= other.boot_ms { self } else { other }
    }

    /// Returns the earlier of the two by the boot-time clock.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if self.boot_ms <= other.boot_ms { self } else { other }
    }

    /// Converts an instant of another boot to this boot's clocks; only the wall clock connects the two.
    #[must_use]
    pub fn rebased(self, now: Self) -> Self {
        let ahead_ms = self.wall_ms.saturating_sub(now.wall_ms);
        Self { wall_ms: self.wall_ms, boot_ms: now.boot_ms.saturating_add(ahead_ms) }
    }

    /// Returns the wall-clock reading as a timestamp, to the millisecond.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millisecond(self.wall_ms).unwrap_or(Timestamp::MAX)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        let ms = whole_ms(later);
        Self { wall_ms: self.wall_ms.saturating_add(ms), boot_ms: self.boot_ms.saturating_add(ms) }
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, earlier: Duration) -> Self {
        let ms = whole_ms(earlier);
        Self { wall_ms: self.wall_ms.saturating_sub(ms), boot_ms: self.boot_ms.saturating_sub(ms) }
    }
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Source of the current time: the machine, or a test that controls it.
pub trait ClockSource: Send + Sync + 'static {
    /// Reads both clocks.
    fn now(&self) -> Moment;
    /// Identifies the boot that [`Moment::boot_ms`] counts from.
    fn boot_id(&self) -> &str;
}

/// A shared [`ClockSource`].
pub type Clock = Arc<dyn ClockSource>;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: String,
}

impl SystemClock {
    /// Reads the ID of the current boot.
    #[must_use]
    pub fn new() -> Self {
        // On anything but Linux, every start of the process counts as a new boot: stored instants are then
        // judged by the wall clock alone, as after a real reboot.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| format!("{:032x}", rand::random::<u128>()), |id| id.trim().to_owned());
        Self { boot_id }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl ClockSource for SystemClock {
    fn now(&self) -> Moment {
        let read = |clock| {
            let time = rustix::time::clock_gettime(clock);
            time.tv_sec * 1000 + time.tv_nsec / 1_000_000
        };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let boot = rustix::time::ClockId::Boottime;
        // On macOS this includes suspends; the BSDs have nothing better.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let boot = rustix::time::ClockId::Monotonic;
        // Raw system calls rather than a time library, whose overhead every read of a token would pay.
        Moment { wall_ms: read(rustix::time::ClockId::Realtime), boot_ms: read(boot) }
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: i64, boot_ms: i64) -> Moment {
        Moment { wall_ms, boot_ms }
    }

    #[test]
    fn what_ends_ends_by_whichever_clock_says_so_first() {
        let end = at(10_000, 5_000);
        assert_eq!(end.until_by_either(at(9_000, 1_000)), Duration::from_secs(1));
        assert_eq!(end.until_by_either(at(1_000, 4_500)), Duration::from_millis(500));
        assert_eq!(end.until_by_either(at(11_000, 0)), Duration::ZERO, "the wall clock alone suffices");
        assert_eq!(end.until_by_either(at(0, 6_000)), Duration::ZERO, "the boot clock alone suffices");
    }

    #[test]
    fn a_wait_does_not_care_for_the_wall_clock() {
        let due = at(10_000, 5_000);
        assert_eq!(due.until(at(99_000, 2_000)), Duration::from_secs(3));
        assert!(!due.has_come(at(99_000, 4_999)));
        assert!(due.has_come(at(0, 5_000)));
    }

    #[test]
    fn another_boot_is_bridged_by_the_wall_clock() {
        let before = at(100_000, 90_000);
        assert_eq!(before.rebased(at(130_000, 7_000)), at(100_000, -23_000));
    }

    #[test]
    fn the_earliest_and_the_latest_instant_can_be_compared() {
        let (first, last) = (at(i64::MIN, i64::MIN), at(i64::MAX, i64::MAX));
        let longest = Duration::from_millis(i64::MAX.unsigned_abs());
        assert_eq!((last.until_by_either(first), last.until(first)), (longest, longest));
        assert_eq!((first.until_by_either(last), first.until(last)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(first.rebased(last), at(i64::MIN, -1));
        assert_eq!(last.rebased(first), at(i64::MAX, -1));
    }

    #[test]
    fn the_machines_clocks_move_and_know_their_boot() {
        let clock = SystemClock::new();
        let now = clock.now();
        assert!(now.wall_ms > 1_700_000_000_000 && now.boot_ms > 0);
        assert!(!clock.boot_id().is_empty() && clock.boot_id() == SystemClock::new().boot_id());
    }
}
