//! Runs one publisher per sink, notifies them of changes and restarts those that crash.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::error;
use wxtokend_core::account::Appid;
use wxtokend_core::clock::Clock;
use wxtokend_core::ticket::{Credential, TicketKind};

use super::outbox::Outbox;
use super::publisher::Publisher;
use crate::config::Sink;
use crate::fleet::cells::directory::Directory;

/// The delay before a crashed publisher is restarted.
const RESTART: Duration = Duration::from_secs(1);

/// One task for each sink.
pub(crate) struct Publishers {
    all: ArcSwap<Vec<Arc<Outbox>>>,
    tasks: TaskTracker,
    directory: Arc<ArcSwap<Directory>>,
    clock: Clock,
}

impl Publishers {
    pub(crate) fn new(directory: Arc<ArcSwap<Directory>>, clock: Clock) -> Self {
        Self { all: ArcSwap::default(), tasks: TaskTracker::new(), directory, clock }
    }

    /// Whether these sinks can be published to; without the feature `redis` none can.
    pub(crate) fn can_publish_to(_: &[Sink]) -> bool {
        true
    }

    /// Makes `sinks` the ones that are published to, unless all are stopping. Accounts that have changed are noted
    /// elsewhere. The keys in a sink that is removed are left to expire.
    pub(crate) fn set(&self, sinks: &[Sink]) {
        if self.tasks.is_closed() {
            return;
        }
        let old = self.all.load_full();
        let same = |outbox: &&Arc<Outbox>, sink: &Sink| {
            let kept = &outbox.sink;
            (&kept.name, &kept.url, &kept.layout) == (&sink.name, &sink.url, &sink.layout)
        };
        let new: Vec<_> = sinks
            .iter()
            .map(|sink| match old.iter().find(|outbox| same(outbox, sink)) {
                Some(outbox) => {
                    if **outbox.accounts.load() != sink.accounts {
                        outbox.accounts.store(Arc::new(sink.accounts.clone()));
                        outbox.note_all();
                    }
                    Arc::clone(outbox)
                }
                None => self.start(sink),
            })
            .collect();
        for outbox in old.iter().filter(|outbox| !new.iter().any(|kept| Arc::ptr_eq(kept, outbox))) {
            outbox.stop.cancel();
        }
        self.all.store(Arc::new(new));
    }

    /// Marks an account, and with it its token, as changed.
    pub(crate) fn note(&self, appid: &Appid) {
        self.note_credential(&Credential::token(appid.clone()));
    }

    /// Marks one of its tickets as changed.
    pub(crate) fn note_ticket(&self, appid: &Appid, kind: TicketKind) {
        self.note_credential(&Credential::ticket(appid.clone(), kind));
    }

    fn note_credential(&self, credential: &Credential) {
        for outbox in self.all.load().iter() {
            outbox.note(credential);
        }
    }

    /// The sinks, in the order of the configuration file.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Outbox>>> {
        self.all.load_full()
    }

    /// Asks all to stop, once changes are written to each Redis that answers.
    pub(crate) fn stop(&self) {
        self.all.load().iter().for_each(|outbox| outbox.stop.cancel());
        self.tasks.close();
    }

    /// Returns when all have stopped.
    pub(crate) async fn stopped(&self) {
        self.tasks.wait().await;
    }

    fn start(&self, sink: &Sink) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(sink));
        let (directory, clock) = (Arc::clone(&self.directory), Arc::clone(&self.clock));
        self.tasks.spawn(keep_running(Arc::clone(&outbox), directory, clock));
        outbox
    }
}

async fn keep_running(outbox: Arc<Outbox>, directory: Arc<ArcSwap<Directory>>, clock: Clock) {
    loop {
        let publisher = Publisher::new(Arc::clone(&outbox), Arc::clone(&directory), Arc::clone(&clock));
        if tokio::spawn(publisher.run()).await.is_ok() {
            return;
        }
        let sink = outbox.sink.name.as_str();
        error!(
            event = "publisher_crashed",
            sink, "publishing to a Redis crashed, a bug of ours; it starts again"
        );
        outbox.note_all();
        sleep(RESTART).await;
    }
}

#[cfg(test)]
mod tests {
    use wxtokend_core::clock::SystemClock;
    use wxtokend_core::sdk::layout::Layout;
    use wxtokend_core::secret::Secret;

    use super::*;
    use crate::config::Grants;

    #[tokio::test]
    async fn a_reload_notes_all_accounts_only_where_others_are_published() {
        let publishers = Publishers::new(Arc::default(), Arc::new(SystemClock::new()));
        let set = |accounts: &str| {
            let url = Secret::new("redis://127.0.0.1:1");
            let sink = Sink::new(url, Layout::Wechatpy, Grants::new([accounts]).unwrap()).unwrap();
            publishers.set(&[sink]);
            publishers.all()[0].take_changes().of_all
        };
        assert!(set("wx1"), "it is new");
        assert!(!set("wx1"), "nothing has changed");
        assert!(set("wx2"));
    }
}
