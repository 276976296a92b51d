//! Metrics of publishing to Redis; absent if there is no sink.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::text::Exposition;
use crate::fleet::Outbox;

pub(super) fn write(text: &mut Exposition<'_>, sinks: &[Arc<Outbox>]) -> io::Result<()> {
    if sinks.is_empty() {
        return Ok(());
    }
    text.family("wxtokend_redis_up", "gauge", "Whether the Redis takes what is published.")?;
    for sink in sinks {
        text.sample("wxtokend_redis_up", &[("sink", sink.name())], u8::from(sink.tally.up.load(Relaxed)))?;
    }
    text.family(
        "wxtokend_redis_pending_accounts",
        "gauge",
        "Tokens and tickets whose change has not reached the Redis.",
    )?;
    for sink in sinks {
        let pending = sink.tally.pending.load(Relaxed);
        text.sample("wxtokend_redis_pending_accounts", &[("sink", sink.name())], pending)?;
    }
    let help = "Tokens and tickets written to the Redis, or taken back.";
    text.family("wxtokend_redis_writes_total", "counter", help)?;
    for sink in sinks {
        for (outcome, count) in [("ok", &sink.tally.written), ("failed", &sink.tally.failed)] {
            let labels = [("sink", sink.name()), ("outcome", outcome)];
            text.sample("wxtokend_redis_writes_total", &labels, count.load(Relaxed))?;
        }
    }
    let help = "Tokens and tickets whose keys somebody else had changed.";
    text.family("wxtokend_redis_drift_total", "counter", help)?;
    for sink in sinks {
        text.sample(
            "wxtokend_redis_drift_total",
            &[("sink", sink.name())],
            sink.tally.drifted.load(Relaxed),
        )?;
    }
    Ok(())
}
