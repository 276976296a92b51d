//! Notices that a clock has jumped or that the machine has slept.

use std::sync::Arc;
use std::time::Duration;

use kameo::prelude::*;
use tokio::time::{Instant, sleep};

use super::shared::Shared;
use super::supervisor::{Supervisor, WakeAll};

/// How often the clocks are compared.
const CLOCK_WATCH: Duration = Duration::from_secs(5);
/// By how much a clock must have jumped to be worth waking everybody.
const CLOCK_JUMP_MS: i64 = 2_000;

/// Timers stand still while the machine sleeps and know nothing of the wall clock: when either clock has jumped
/// against them, everybody looks again.
pub(super) async fn watch_clocks(shared: Arc<Shared>, supervisor: ActorRef<Supervisor>) {
    let mut before = (shared.now(), Instant::now());
    loop {
        sleep(CLOCK_WATCH).await;
        let now = (shared.now(), Instant::now());
        let ticked = i64::try_from((now.1 - before.1).as_millis()).unwrap_or(i64::MAX);
        let jumped = |from: i64, to: i64| (to - from - ticked).abs() > CLOCK_JUMP_MS;
        if jumped(before.0.boot_ms, now.0.boot_ms) || jumped(before.0.wall_ms, now.0.wall_ms) {
            tracing::warn!(
                event = "clock_jumped",
                wall_ms = now.0.wall_ms - before.0.wall_ms - ticked,
                boot_ms = now.0.boot_ms - before.0.boot_ms - ticked,
                "a clock jumped, or the machine slept; every account looks at its token again"
            );
            let _ = supervisor.tell(WakeAll).await;
        }
        before = now;
    }
}
