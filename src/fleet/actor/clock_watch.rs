//! Notices that a clock has jumped or that the machine has slept.

use std::sync::Arc;
use std::time::Duration;

use kameo::prelude::*;
use tokio::time::{Instant, sleep};

use super::context::ActorContext;
use super::supervisor::{RecheckAll, Supervisor};

/// How often the clocks are compared.
const CLOCK_WATCH: Duration = Duration::from_secs(5);
/// By how much a clock must have jumped to be worth waking everybody.
const CLOCK_JUMP_MS: i64 = 2_000;

/// Timers stand still while the machine sleeps and know nothing of the wall clock: when either clock has moved away
/// from them since everybody looked last, everybody looks again. A clock that is slewed by chrony's most, 416 ms in
/// 5 s, never jumps, and is minutes off in the end: hence since then, and not since the clocks were compared last.
pub(crate) async fn watch_clocks(shared: Arc<ActorContext>, supervisor: ActorRef<Supervisor>) {
    let mut woken = (shared.now(), Instant::now());
    loop {
        sleep(CLOCK_WATCH).await;
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
