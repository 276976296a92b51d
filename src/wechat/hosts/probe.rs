//! The harmless call that tells whether anybody answers.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{Host, Hosts};
use crate::fault::LONGEST_HOST_PAUSE;
use crate::wechat::answers::host_trouble;
use crate::wechat::client::probe;
use crate::wechat::transport::{Lost, Response};

/// Between two probes of a host that is down: short beside the minute in which a fleet should be fresh again.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Probes until the host answers, or until what it does is known to say nothing.
pub(super) async fn probe_until_it_answers(hosts: Weak<Hosts>, host: Arc<Host>) {
    loop {
        let Some(hosts) = hosts.upgrade() else { return };
        // In a task of its own: while a host is down nobody else calls it, and a probe that ended by a panic would
        // leave it down for ever.
        let sent = AbortOnDropHandle::new(tokio::spawn(hosts.transport.send(&host.url, probe())));
        let told = sent.await.unwrap_or_else(|_| Err(Lost::Cut("the probe panicked".to_owned())));
        let pause = told.as_ref().ok().and_then(Response::asked_pause).unwrap_or(PROBE_EVERY);
        let why = match told.map(|answer| host_trouble(&answer)) {
            Ok(None) => return hosts.probe_answered(&host),
            Ok(Some(trouble)) => trouble,
            Err(lost) => lost.to_string(),
        };
        if !hosts.probe_failed(&host, &why) {
            return;
        }
        drop(hosts);
        sleep(pause.clamp(PROBE_EVERY, LONGEST_HOST_PAUSE)).await;
    }
}
