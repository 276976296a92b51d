//! What must outlive an actor, and what readers load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use kameo::actor::ActorRef;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::flight::{End, Landing};
use super::tally::Tally;
use super::token_actor::TokenActor;
use crate::account::Account;
use crate::clock::{Clock, Moment};
use crate::state::{AccountState, Phase};
use crate::token::Token;

/// One account, as everybody but its actor sees it.
pub(crate) struct AccountCell {
    snapshot: ArcSwap<Snapshot>,
    changed: Notify,
    landing: Mutex<Landing>,
    actor: ArcSwapOption<ActorRef<TokenActor>>,
    pub(crate) tally: Tally,
    /// The newest of its events in the journal; 0 before the first.
    pub(super) last_event: AtomicU64,
    /// The state that the journal has last noted, and how many calls had failed in a row by then.
    pub(super) noted: Mutex<Option<(Phase, u32)>>,
    gone: AtomicBool,
}

/// An account and its state at one instant. Never changes; a newer one takes its place.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) account: Arc<Account>,
    pub(crate) state: AccountState,
}

/// Why a read got no token.
#[derive(Debug)]
pub(crate) struct NoToken(pub(crate) Arc<Snapshot>);

impl AccountCell {
    pub(super) fn new(account: Arc<Account>, state: AccountState) -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(Snapshot { account, state }),
            changed: Notify::new(),
            landing: Mutex::default(),
            actor: ArcSwapOption::empty(),
            tally: Tally::default(),
            last_event: AtomicU64::new(0),
            noted: Mutex::default(),
            gone: AtomicBool::new(false),
        })
    }

    /// The account is removed, and there is nothing to wait for any more; or it has come back.
    pub(super) fn set_gone(&self, gone: bool) {
        self.gone.store(gone, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Whether the account was removed.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// What is known now.
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The token, if one may be served now. No lock, no allocation, no wait.
    pub(crate) fn read(&self, now: Moment) -> Option<Token> {
        self.snapshot.load().state.read(now)
    }

    /// Replaces what readers see, and tells those who wait.
    pub(super) fn publish(&self, account: &Arc<Account>, state: &AccountState) {
        self.snapshot.store(Arc::new(Snapshot { account: Arc::clone(account), state: state.clone() }));
        self.changed.notify_waiters();
    }

    /// Waits for the next publication after `look` was called, or until `deadline`; `look` decides whether it is
    /// worth waiting. `None` at once when the account is removed.
    pub(super) async fn wait_until<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&Arc<Snapshot>) -> Option<T>,
    ) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking: a publication in between must not be missed.
            changed.as_mut().enable();
            if let Some(found) = look(&self.load()) {
                return Some(found);
            }
            if self.is_gone() {
                return None;
            }
            timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// The token, waiting for an attempt that is running or due within `timeout`: at most `timeout` + 1 s. All
    /// who wait share that attempt's end, its failure included; nobody starts one.
    pub(super) async fn read_or_wait(&self, clock: &Clock, timeout: Duration) -> Result<Token, NoToken> {
        let deadline = Instant::now() + timeout + Duration::from_secs(1);
        let mut attempts_before = None;
        let outcome = self.wait_until(deadline, |snapshot| {
            let (state, now) = (&snapshot.state, clock.now());
            if let Some(token) = state.read(now) {
                return Some(Ok(token));
            }
            let ended = state.attempts_ended != *attempts_before.get_or_insert(state.attempts_ended);
            let soon = state.activity.is_some() || state.next_at.is_some_and(|at| at.until(now) <= timeout);
            (ended || !soon).then(|| Err(NoToken(Arc::clone(snapshot))))
        });
        outcome.await.unwrap_or_else(|| Err(NoToken(self.load())))
    }

    pub(super) fn actor(&self) -> Option<Arc<ActorRef<TokenActor>>> {
        self.actor.load_full()
    }

    pub(super) fn set_actor(&self, actor: Option<ActorRef<TokenActor>>) {
        self.actor.store(actor.map(Arc::new));
    }

    /// A call is under way from now on.
    pub(super) fn depart(&self) {
        *self.lock_landing() = Landing::UnderWay;
    }

    /// The call under way has ended.
    pub(super) fn land(&self, end: End) {
        let mut landing = self.lock_landing();
        let end = if matches!(*landing, Landing::Disowned) { end.disowned() } else { end };
        *landing = Landing::Ended(end);
    }

    /// What a call under way brings, or one that has ended unnoticed has brought, is not wanted any more.
    pub(super) fn disown(&self) {
        let mut landing = self.lock_landing();
        *landing = match std::mem::take(&mut *landing) {
            Landing::Clear => Landing::Clear,
            Landing::UnderWay | Landing::Disowned => Landing::Disowned,
            Landing::Ended(end) => Landing::Ended(end.disowned()),
        };
    }

    /// Whether no call is under way and none has ended unnoticed.
    pub(super) fn is_clear(&self) -> bool {
        matches!(*self.lock_landing(), Landing::Clear)
    }

    /// How the call under way ended, if it has; once.
    pub(super) fn take_end(&self) -> Option<End> {
        let mut landing = self.lock_landing();
        match std::mem::take(&mut *landing) {
            Landing::Ended(end) => Some(end),
            other => {
                *landing = other;
                None
            }
        }
    }

    fn lock_landing(&self) -> MutexGuard<'_, Landing> {
        self.landing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
