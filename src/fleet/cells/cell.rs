//! What readers load of an account, and what must outlive its actor.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use wxtokend_core::account::Account;
use wxtokend_core::clock::{Clock, Moment};
use wxtokend_core::phase::Phase;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::Token;
use wxtokend_core::token::hint::is_worth_a_check;
use wxtokend_core::token::hint_sources::HintSources;
use wxtokend_core::token::state::{AccountState, EarlyRefreshes, Hint, HintSource, HintVerdict, SourceId};

use super::call_state::{CallEnd, CallState};
use super::mailbox::{Mailbox, Notice};
use super::tally::{Tally, count_hint};
use super::ticket_cell::TicketCell;
use super::wanted_settings::WantedSettings;
use super::watched::{Progress, Watched};

/// A unit of the last use is 2^16 ms, about a minute.
const USE_UNIT_BITS: u32 = 16;

/// One account, as seen by everything but its actor.
pub(crate) struct AccountCell {
    pub(crate) published: Watched<Snapshot>,
    tickets: [ArcSwapOption<TicketCell>; TicketKind::ALL.len()],
    pub(crate) wanted: WantedSettings,
    /// The upstream that its token comes from, by the store's count.
    upstream: AtomicU64,
    call: Mutex<CallState>,
    call_ended: Notify,
    mailbox: ArcSwapOption<Mailbox>,
    /// A reader waits for a token and there is none.
    awaited: AtomicBool,
    /// How often its refresh was brought forward.
    pub(crate) early: Mutex<EarlyRefreshes>,
    /// Who has given hints that its token may be dead.
    hint_sources: Mutex<HintSources>,
    /// When it was last read or seen in a Redis, in units of the boot-time clock; negative before the first.
    last_used: AtomicI64,
    pub(crate) tally: Tally,
    /// The id of its newest event in the journal; 0 before the first.
    pub(crate) last_event: AtomicU64,
    /// The phase that the journal last recorded, and how many calls in a row had failed by then.
    pub(crate) noted: Mutex<Option<(Phase, u32)>>,
}

/// An account and its state at one instant. Immutable; a newer snapshot replaces it.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) account: Arc<Account>,
    pub(crate) state: AccountState,
}

/// Why a read got no token.
#[derive(Debug)]
pub(crate) struct NoToken(pub(crate) Arc<Snapshot>);

impl AccountCell {
    pub(crate) fn new(account: Arc<Account>, state: AccountState) -> Arc<Self> {
        Arc::new(Self {
            published: Watched::new(Snapshot { account, state }),
            tickets: Default::default(),
            wanted: WantedSettings::default(),
            upstream: AtomicU64::new(0),
            call: Mutex::default(),
            call_ended: Notify::new(),
            mailbox: ArcSwapOption::empty(),
            awaited: AtomicBool::new(false),
            early: Mutex::default(),
            hint_sources: Mutex::default(),
            last_used: AtomicI64::new(-1),
            tally: Tally::default(),
            last_event: AtomicU64::new(0),
            noted: Mutex::default(),
        })
    }

    /// The current snapshot.
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.published.load()
    }

    /// The token, if one may be served now. No lock, no allocation, no wait.
    pub(crate) fn read(&self, now: Moment) -> Option<Token> {
        self.note_use(now);
        self.published.with(|snapshot| snapshot.state.read(now))
    }

    /// Records that somebody may be using the token. Cheap, as it is done at every read: where reads are
    /// frequent, it writes once a minute.
    pub(crate) fn note_use(&self, now: Moment) {
        let unit = now.boot_ms >> USE_UNIT_BITS;
        if self.last_used.load(Ordering::Relaxed) != unit {
            self.last_used.store(unit, Ordering::Relaxed);
        }
    }

    /// How long the token has not been used, up to a minute less than that; `None` if it never was.
    pub(crate) fn unused_for(&self, now: Moment) -> Option<Duration> {
        let unit = self.last_used.load(Ordering::Relaxed);
        let ms = now.boot_ms.saturating_sub((unit + 1) << USE_UNIT_BITS);
        (unit >= 0).then(|| Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    }

    /// Takes in a hint that the token may be dead, which leads to a check if it is worth one.
    pub(crate) fn hint(&self, source: HintSource, from: SourceId, now: Moment) {
        let snapshot = self.load();
        let hint = Hint { source, from, version: snapshot.state.version };
        let is_followed = is_worth_a_check(&snapshot.state, &snapshot.account, hint, now)
            && self.hint_sources().admit(from, now)
            && self.mailbox().is_some_and(|actor| actor.tell(Notice::Hint(hint)));
        if !is_followed {
            count_hint(source, HintVerdict::Skipped);
        }
    }

    pub(crate) fn hint_sources(&self) -> MutexGuard<'_, HintSources> {
        self.hint_sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what readers see, and wakes those that wait.
    pub(crate) fn publish(&self, account: &Arc<Account>, state: &AccountState) {
        self.published.store(Snapshot { account: Arc::clone(account), state: state.clone() });
    }

    /// See [`Watched::read_or_wait`]. An account without a token goes before those that no reader waits for.
    pub(crate) async fn read_or_wait(&self, clock: &Clock, timeout: Duration) -> Result<Token, NoToken> {
        let progress = |snapshot: &Snapshot| {
            let AccountState { attempts_ended, activity, next_at, .. } = &snapshot.state;
            Progress { attempts_ended: *attempts_ended, is_busy: activity.is_busy(), next_at: *next_at }
        };
        let read = |snapshot: &Snapshot, now| snapshot.state.read(now);
        let now = clock.now();
        let is_waited_for =
            self.published.with(|seen| read(seen, now).is_none() && progress(seen).is_soon(now, timeout));
        if is_waited_for && !self.awaited.swap(true, Ordering::SeqCst) {
            // An actor that is not started yet sees the flag at its start.
            if let Some(actor) = self.mailbox() {
                actor.tell(Notice::Prioritise);
            }
        }
        self.published.read_or_wait(clock, timeout, read, progress).await.map_err(NoToken)
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
    }

    /// The waiting readers have been answered.
    pub(crate) fn clear_awaited(&self) {
        self.awaited.store(false, Ordering::SeqCst);
    }

    /// The cell of one of its tickets, if that is kept.
    pub(crate) fn ticket(&self, kind: TicketKind) -> Option<Arc<TicketCell>> {
        self.tickets[kind as usize].load_full()
    }

    /// The tickets that are kept.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Arc<TicketCell>> {
        self.tickets.iter().filter_map(ArcSwapOption::load_full)
    }

    pub(crate) fn set_ticket(&self, kind: TicketKind, cell: Option<Arc<TicketCell>>) {
        self.tickets[kind as usize].store(cell);
    }

    /// The mailbox of its actor; `None` while it has none.
    pub(crate) fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.mailbox.load_full()
    }

    pub(crate) fn set_mailbox(&self, mailbox: Option<Mailbox>) {
        self.mailbox.store(mailbox.map(Arc::new));
    }

    /// The upstream that its token comes from, by the store's count.
    pub(crate) fn upstream(&self) -> u64 {
        self.upstream.load(Ordering::SeqCst)
    }

    /// Records that the cell holds credentials of this upstream only, those of another having been dropped.
    pub(crate) fn set_upstream(&self, upstream: u64) {
        self.upstream.store(upstream, Ordering::SeqCst);
    }

    /// Records that a call is in flight.
    pub(crate) fn begin_call(&self) {
        *self.lock_call() = CallState::InFlight;
    }

    /// Records how the call in flight has ended.
    pub(crate) fn end_call(&self, end: CallEnd) {
        let mut call = self.lock_call();
        let end = if matches!(*call, CallState::Abandoned) { end.abandoned() } else { end };
        *call = CallState::Finished(end);
        drop(call);
        self.call_ended.notify_one();
    }

    /// Waits until a call has ended whose end is still to be taken in. For the account's actor only.
    pub(crate) async fn until_call_ended(&self) {
        while !matches!(*self.lock_call(), CallState::Finished(_)) {
            self.call_ended.notified().await;
        }
    }

    /// Marks the result of a call in flight, or of one whose end is not yet taken in, as unwanted.
    pub(crate) fn abandon_call(&self) {
        let mut call = self.lock_call();
        *call = match std::mem::take(&mut *call) {
            CallState::Idle => CallState::Idle,
            CallState::InFlight | CallState::Abandoned => CallState::Abandoned,
            CallState::Finished(end) => CallState::Finished(end.abandoned()),
        };
    }

    /// Whether no call is in flight and no end is waiting to be taken in.
    pub(crate) fn has_no_call(&self) -> bool {
        matches!(*self.lock_call(), CallState::Idle)
    }

    /// Takes how the call ended, if it has ended.
    pub(crate) fn take_end(&self) -> Option<CallEnd> {
        let mut call = self.lock_call();
        match std::mem::take(&mut *call) {
            CallState::Finished(end) => Some(end),
            other => {
                *call = other;
                None
            }
        }
    }

    fn lock_call(&self) -> MutexGuard<'_, CallState> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
