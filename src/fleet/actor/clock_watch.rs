//! Notices that a clock has jumped or that the machine has slept.

use std::sync::Arc;
use std::time::Duration;

use kameo::prelude::*;
use tokio::time::{Instant, sleep};

use super::context::ActorContext;
use super::supervisor::{RecheckAll, Supervisor};

/// How often the clocks are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How far a clock must have jumped for all actors to be woken.
const CLOCK_JUMP_MS: i64 = 2_000;

/// Wakes every actor once either clock has moved away from the timers since the actors were last woken.
///
/// Timers stand still while the machine sleeps, and do not follow the wall clock. A clock that chrony slews
/// at its maximum, 416 ms in 5 s, never jumps but ends up minutes off; hence the comparison with the last
/// time the actors were woken rather than with the last comparison.
pub(crate) async fn watch_clocks(shared: Arc<ActorContext>, supervisor: ActorRef<Supervisor>) {
    let mut woken = (shared.now(), Instant::now());
    loop {
        sleep(COMPARE_EVERY).await;
        let now = (shared.now(), Instant::now());
        let ticked = i64::try_from((now.1 - woken.1).as_millis()).unwrap_or(i64::MAX);
        let off_ms = |from: i64, to: i64| to - from - ticked;
        let wall_ms = off_ms(woken.0.wall_ms, now.0.wall_ms);
        let boot_ms = off_ms(woken.0.boot_ms, now.0.boot_ms);
        if wall_ms.abs() > CLOCK_JUMP_MS || boot_ms.abs() > CLOCK_JUMP_MS {
            tracing::warn!(
                event = "clock_jumped",
                wall_ms,
                boot_ms,
                "a clock jumped or is being slewed, or the machine slept; every account looks at its token again"
            );
            let _ = supervisor.tell(RecheckAll).await;
            woken = now;
        }
    }
}
