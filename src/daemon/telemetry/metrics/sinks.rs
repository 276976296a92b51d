//! Metrics of publishing to Redis; absent if there is no sink.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use wxtokend_core::reference::metrics::{REDIS_DRIFT, REDIS_PENDING, REDIS_UP, REDIS_WRITES};

use super::text::Exposition;
use crate::fleet::Outbox;

pub(super) fn write(text: &mut Exposition<'_>, sinks: &[Arc<Outbox>]) -> io::Result<()> {
    if sinks.is_empty() {
        return Ok(());
    }
    text.family(&REDIS_UP)?;
    for sink in sinks {
        text.sample(&REDIS_UP, &[("sink", sink.name())], u8::from(sink.tally.up.load(Relaxed)))?;
    }
    text.family(&REDIS_PENDING)?;
    for sink in sinks {
        text.sample(&REDIS_PENDING, &[("sink", sink.name())], sink.tally.pending.load(Relaxed))?;
    }
    text.family(&REDIS_WRITES)?;
    for sink in sinks {
        for (outcome, count) in [("ok", &sink.tally.written), ("failed", &sink.tally.failed)] {
            let labels = [("sink", sink.name()), ("outcome", outcome)];
            text.sample(&REDIS_WRITES, &labels, count.load(Relaxed))?;
        }
    }
    text.family(&REDIS_DRIFT)?;
    for sink in sinks {
        text.sample(&REDIS_DRIFT, &[("sink", sink.name())], sink.tally.drifted.load(Relaxed))?;
    }
    Ok(())
}
