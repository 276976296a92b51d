//! Tells those who carry tokens to Redis what has changed, and gives up on none of them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::publisher::Publisher;
use super::shared::Shared;
use crate::account::Appid;
use crate::config::{Grants, Sink};
use crate::ticket::{Credential, TicketKind};

/// The wait before one that crashed is started again.
const RESTART: Duration = Duration::from_secs(1);

/// One task for each sink.
#[derive(Default)]
pub(super) struct Publishers {
    all: ArcSwap<Vec<Arc<Outbox>>>,
    tasks: TaskTracker,
}

/// What one sink's task has to see to. It holds what has changed, not what it has become: a Redis that
/// is down for hours costs no memory.
pub(crate) struct Outbox {
    pub(super) sink: Sink,
    pub(super) accounts: ArcSwap<Grants>,
    pub(super) stop: CancellationToken,
    pub(super) told: Notify,
    news: Mutex<News>,
    pub(crate) tally: SinkTally,
}

/// Which tokens and tickets have changed.
#[derive(Default)]
pub(super) struct News {
    pub(super) of_all: bool,
    pub(super) of: HashSet<Credential>,
}

/// How a sink is doing.
#[derive(Default)]
pub(crate) struct SinkTally {
    pub(crate) up: AtomicBool,
    /// Accounts whose keys were written or taken back.
    pub(crate) written: AtomicU64,
    /// Those for which that failed.
    pub(crate) failed: AtomicU64,
    /// Those whose keys somebody else had changed.
    pub(crate) drifted: AtomicU64,
    /// Those that have changed, and Redis has not heard of it.
    pub(crate) pending: AtomicUsize,
}

impl Publishers {
    /// Makes `sinks` the ones that are published to, unless all are to end. What stands in one that goes is left to its
    /// end.
    pub(super) fn set(&self, shared: &Arc<Shared>, sinks: &[Sink]) {
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
                    outbox.accounts.store(Arc::new(sink.accounts.clone()));
                    outbox.note_all();
                    Arc::clone(outbox)
                }
                None => self.start(shared, sink),
            })
            .collect();
        for outbox in old.iter().filter(|outbox| !new.iter().any(|kept| Arc::ptr_eq(kept, outbox))) {
            outbox.stop.cancel();
        }
        self.all.store(Arc::new(new));
    }

    /// An account, and with it its token, is not what it was.
    pub(super) fn note(&self, appid: &Appid) {
        self.note_credential(&Credential::token(appid.clone()));
    }

    /// One of its tickets is not what it was.
    pub(super) fn note_ticket(&self, appid: &Appid, kind: TicketKind) {
        self.note_credential(&Credential::ticket(appid.clone(), kind));
    }

    fn note_credential(&self, credential: &Credential) {
        for outbox in self.all.load().iter() {
            outbox.lock().of.insert(credential.clone());
            outbox.told.notify_one();
        }
    }

    /// The sinks in the order of the file.
    pub(super) fn all(&self) -> Arc<Vec<Arc<Outbox>>> {
        self.all.load_full()
    }

    /// Asks all to end, once what has changed is written where Redis answers.
    pub(super) fn stop(&self) {
        self.all.load().iter().for_each(|outbox| outbox.stop.cancel());
        self.tasks.close();
    }

    /// Returns when they have ended.
    pub(super) async fn stopped(&self) {
        self.tasks.wait().await;
    }

    fn start(&self, shared: &Arc<Shared>, sink: &Sink) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox {
            accounts: ArcSwap::from_pointee(sink.accounts.clone()),
            sink: sink.clone(),
            stop: CancellationToken::new(),
            told: Notify::new(),
            news: Mutex::new(News { of_all: true, ..News::default() }),
            tally: SinkTally::default(),
        });
        self.tasks.spawn(keep_running(Arc::clone(&outbox), Arc::clone(shared)));
        outbox
    }
}

async fn keep_running(outbox: Arc<Outbox>, shared: Arc<Shared>) {
    loop {
        let publisher = Publisher::new(Arc::clone(&outbox), Arc::clone(&shared));
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

impl Outbox {
    /// What logs and metrics call it.
    pub(crate) fn name(&self) -> &str {
        &self.sink.name
    }

    /// Whatever is known of the accounts is to be looked at again.
    pub(super) fn note_all(&self) {
        self.lock().of_all = true;
        self.told.notify_one();
    }

    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut *self.lock())
    }

    pub(super) fn count(counter: &AtomicU64, more: usize) {
        counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
