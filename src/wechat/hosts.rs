//! Tracks the health of WeChat's hosts, separate from any account's.
//!
//! A failure that may be the host's makes it a suspect and is followed by a probe: the harmless check call,
//! which even with an invalid token shows whether the host answers. Only a failed probe takes a host down, so
//! that one account's hang is never taken for a failure of all. While all hosts are down, accounts wait and
//! the probe continues for all of them; its first answer wakes them. The check call alone may fail: while all
//! hosts count as down, a real call (a trial) is made now and then, and once that is answered, failed probes
//! are ignored until one is answered, too.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use reqwest::Url;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use wxtokend_core::clock::{Clock, Moment};
use wxtokend_core::fault::LONGEST_HOST_PAUSE;

use super::answers::host_trouble;
use super::requests::probe;
use super::transport::{Lost, Response, Transport};

mod host;

pub(crate) use host::HostState;
pub(super) use host::{Evidence, host_label};
use host::{Health, Host};

/// A host that failed is tried last for this long.
const SUSPECT_FOR: Duration = Duration::from_secs(60);
/// A host that has answered within this time is assumed to be still up.
const RECENT_ANSWER: Duration = Duration::from_secs(1);
/// The time between two probes of a host that is down. Short compared to the minute in which a fleet should
/// be fresh again.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// All of `upstream.base_urls`.
pub(crate) struct Hosts {
    hosts: Vec<Arc<Host>>,
    overall: watch::Sender<UpstreamHealth>,
    /// Notified when a probe has ended or a call was answered.
    updated: Notify,
    /// Called when a host goes down or recovers.
    on_change: OnceLock<OnChange>,
    transport: Arc<dyn Transport>,
    clock: Clock,
}

type OnChange = Box<dyn Fn(HostState, Moment) + Send + Sync>;

/// The state of all hosts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpstreamHealth {
    /// Whether at least one host is not known to be down.
    pub up: bool,
    /// How many times a host has recovered while all were down.
    pub recoveries: u64,
}

impl Hosts {
    pub(super) fn new(urls: &[Url], transport: Arc<dyn Transport>, clock: Clock) -> Arc<Self> {
        let overall = watch::Sender::new(UpstreamHealth { up: true, recoveries: 0 });
        let hosts = urls.iter().map(|url| Arc::new(Host::new(url))).collect();
        Arc::new(Self {
            hosts,
            overall,
            updated: Notify::new(),
            on_change: OnceLock::new(),
            transport,
            clock,
        })
    }

    /// Changes whenever the fleet should stop calling or may start again.
    #[must_use]
    pub(crate) fn watch(&self) -> watch::Receiver<UpstreamHealth> {
        self.overall.subscribe()
    }

    /// The current state, and a future that ends with the first recovery after this moment, however late it
    /// is polled. It also ends when these hosts are replaced.
    pub(crate) fn observe(&self) -> (UpstreamHealth, impl Future<Output = ()> + Send + use<>) {
        let mut hosts = self.overall.subscribe();
        let seen = *hosts.borrow_and_update();
        let recovery = async move {
            // An error means that the hosts have been dropped.
            let _ = hosts.wait_for(|overall| overall.recoveries > seen.recoveries).await;
        };
        (seen, recovery)
    }

    /// Whether a call that was sent to one host can be tried at another.
    pub(crate) fn are_several(&self) -> bool {
        self.hosts.len() > 1
    }

    /// The state of each host, in the order of the configuration file.
    #[must_use]
    pub(crate) fn states(&self) -> Vec<HostState> {
        self.hosts.iter().map(|host| host.state(&host.lock())).collect()
    }

    /// Sets the callback for a host that goes down or recovers; it is called in the order of these changes.
    /// To be called once.
    pub(crate) fn on_change(&self, callback: impl Fn(HostState, Moment) + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(callback));
    }

    /// Calls the callback. `health` is locked, so that changes are reported in their order.
    fn report_change(&self, host: &Host, health: &Health) {
        if let Some(callback) = self.on_change.get() {
            callback(host.state(health), self.clock.now());
        }
    }

    /// Why the hosts are down, in a sentence without secrets.
    pub(super) fn down_reason(&self) -> String {
        let reasons: Vec<_> =
            self.hosts.iter().map(|host| format!("{}: {}", host.label, host.lock().why)).collect();
        format!("the host is down; {}", reasons.join("; "))
    }

    /// The hosts in the order in which a call tries them.
    pub(crate) fn order(&self) -> Vec<(usize, Url)> {
        let now = self.clock.now();
        let mut order: Vec<_> = self.hosts.iter().enumerate().collect();
        order.sort_by_key(|(_, host)| {
            let health = host.lock();
            (health.down, health.failed_at.is_some_and(|at| at.elapsed(now) < SUSPECT_FOR))
        });
        order.into_iter().map(|(index, host)| (index, host.url.clone())).collect()
    }

    /// Waits until the host that a call would try first has answered within the last second, or all hosts are
    /// down. Probes it if needed.
    pub(super) async fn until_recent_answer(self: &Arc<Self>) {
        let mut probed = false;
        loop {
            let updated = self.updated.notified();
            tokio::pin!(updated);
            // Before the check, so that an answer in between is not missed.
            updated.as_mut().enable();
            let now = self.clock.now();
            let Some((index, _)) =
                self.order().into_iter().find(|(index, _)| !self.hosts[*index].lock().down)
            else {
                return;
            };
            {
                let health = self.hosts[index].lock();
                let has_answered = health.answered_at.is_some_and(|at| at.elapsed(now) < RECENT_ANSWER);
                if has_answered || probed && health.distrusts_probes() {
                    return;
                }
            }
            self.probe(index);
            updated.await;
            probed = true;
        }
    }

    /// The host has answered as WeChat does.
    pub(super) fn answered(&self, index: usize, by: Evidence) {
        let host = &self.hosts[index];
        let was_down = {
            let mut health = host.lock();
            health.failed_at = None;
            health.answered_at = Some(self.clock.now());
            let was_down = self.mark_up(host, &mut health);
            health.probes_misled = by == Evidence::Call && (was_down || health.probes_misled);
            was_down
        };
        if was_down {
            self.recovered(host);
        }
        self.updated.notify_waiters();
    }

    /// A call to the host failed in a way that may be the host's fault.
    pub(super) fn failed(self: &Arc<Self>, index: usize, by: Evidence, why: &str) {
        {
            let mut health = self.hosts[index].lock();
            if by == Evidence::Check && health.distrusts_probes() {
                return;
            }
            health.failed_at = Some(self.clock.now());
            health.answered_at = None;
            why.clone_into(&mut health.why);
        }
        self.probe(index);
    }

    /// Starts to probe the host, unless it is being probed.
    fn probe(self: &Arc<Self>, index: usize) {
        let host = &self.hosts[index];
        let mut health = host.lock();
        if health.probe.is_none() {
            let task = tokio::spawn(probe_until_it_answers(Arc::downgrade(self), Arc::clone(host)));
            health.probe = Some(task.abort_handle());
        }
    }

    fn probe_answered(&self, host: &Host) {
        let was_down = {
            let mut health = host.lock();
            health.probe = None;
            health.probes_misled = false;
            health.answered_at = Some(self.clock.now());
            self.mark_up(host, &mut health)
        };
        if was_down {
            self.recovered(host);
        }
        self.updated.notify_waiters();
    }

    /// Takes in a failed probe; returns whether the host now counts as down.
    fn probe_failed(&self, host: &Host, why: &str) -> bool {
        let is_ignored = {
            let mut health = host.lock();
            let is_ignored = health.distrusts_probes();
            if is_ignored {
                health.probe = None;
            }
            is_ignored
        };
        if !is_ignored {
            self.went_down(host, why);
        }
        self.updated.notify_waiters();
        !is_ignored
    }

    fn went_down(&self, host: &Host, why: &str) {
        let was_down = {
            let mut health = host.lock();
            why.clone_into(&mut health.why);
            let was_down = std::mem::replace(&mut health.down, true);
            if !was_down {
                health.down_at = Some(self.clock.now());
                self.report_change(host, &health);
            }
            was_down
        };
        if !was_down {
            let host = &host.label;
            warn!(event = "host", host, up = false, reason = why, "upstream host is down; it is probed");
        }
        // Checked inside the closure, where `recovered` has to wait: a host that answers meanwhile must have
        // the last word.
        self.overall.send_if_modified(|overall| {
            let all_down = self.hosts.iter().all(|host| host.lock().down);
            all_down && std::mem::replace(&mut overall.up, false)
        });
    }

    /// Marks the host as not down; returns whether it was.
    fn mark_up(&self, host: &Host, health: &mut Health) -> bool {
        let was_down = std::mem::take(&mut health.down);
        if was_down {
            self.report_change(host, health);
        }
        was_down
    }

    fn recovered(&self, host: &Host) {
        info!(event = "host", host = host.label, up = true, "upstream host answers again");
        self.overall.send_if_modified(|overall| {
            let back = !overall.up;
            *overall = UpstreamHealth { up: true, recoveries: overall.recoveries + u64::from(back) };
            back
        });
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.hosts {
            if let Some(probe) = host.lock().probe.take() {
                probe.abort();
            }
        }
    }
}

/// Probes until the host answers, or until failed probes of it are ignored.
async fn probe_until_it_answers(hosts: Weak<Hosts>, host: Arc<Host>) {
    loop {
        let Some(hosts) = hosts.upgrade() else { return };
        // In a task of its own: while a host is down nothing else calls it, and a probe that ended in a panic
        // would leave it down forever.
        let sent = AbortOnDropHandle::new(tokio::spawn(hosts.transport.send(&host.url, probe())));
        let outcome = sent.await.unwrap_or_else(|_| Err(Lost::Cut("the probe panicked".to_owned())));
        let pause = outcome.as_ref().ok().and_then(Response::asked_pause).unwrap_or(PROBE_EVERY);
        let why = match outcome.map(|answer| host_trouble(&answer)) {
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

/// `host/` or `host:port/path`: what tokens come from, as the store remembers it. Two gateways may differ in
/// the path only.
#[must_use]
pub(crate) fn upstream_label(url: &Url) -> String {
    format!("{}{}/", host_label(url), url.path().trim_end_matches('/'))
}
