//! What all actors of a fleet share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::clock::{Clock, Moment};
use wxtokend_core::fault::Fault;
use wxtokend_core::ticket::{Credential, TicketKind, TicketKinds, TicketState};
use wxtokend_core::token::schedule::{Draw, PlannedRefreshes, Rules};
use wxtokend_core::token::state::{AccountState, Activity};
use wxtokend_core::token::transition::Fetched;

use super::environment::{Environment, Jitter, MakeTransport};
use super::withheld::Withheld;
use crate::config::UpstreamConfig;
use crate::fleet::cells::cell::AccountCell;
use crate::fleet::cells::directory::Directory;
use crate::fleet::cells::tally::{RejectionOutcome, Tally};
use crate::fleet::cells::ticket_cell::TicketCell;
use crate::fleet::cells::token_index::TokenIndex;
use crate::fleet::journal::event::EventKind;
use crate::fleet::journal::ring::Journal;
use crate::fleet::publish::Publishers;
use crate::store::{StoreHandle, Stored};
use crate::wechat::{TransportError, WeChat, upstream_label};

/// What an actor needs apart from its own account.
pub(crate) struct ActorContext {
    pub(crate) clock: Clock,
    /// A number in [0, 1), drawn when a call has ended or failed.
    pub(crate) jitter: Jitter,
    planned_refreshes: PlannedRefreshes,
    pub(crate) store: StoreHandle,
    pub(crate) journal: Arc<Journal>,
    pub(crate) publishers: Publishers,
    pub(crate) token_index: TokenIndex,
    /// Calls in flight; a fleet that stops waits for their ends.
    pub(crate) calls_in_flight: TaskTracker,
    pub(crate) directory: Arc<ArcSwap<Directory>>,
    /// Counts over all accounts, removed ones included.
    pub(crate) tally: Tally,
    /// Counts over all tickets, removed ones included.
    pub(crate) ticket_tally: Tally,
    upstream: ArcSwap<ActiveUpstream>,
    /// How long earlier tokens are known; see [`Rules::stale`].
    stale: ArcSwap<Duration>,
    make_transport: MakeTransport,
    /// Accounts that are not configured; their versions and budgets are kept for their return.
    pub(crate) removed: Mutex<BTreeMap<Appid, RemovedAccount>>,
    /// Tickets that are not kept, for the same reason.
    pub(crate) removed_tickets: Mutex<BTreeMap<Credential, TicketState>>,
    /// What another boot has stored and is not judged yet.
    pub(crate) withheld: Withheld,
    draining: CancellationToken,
}

/// What is left of an account that is no longer configured.
#[derive(Default)]
pub(crate) struct RemovedAccount {
    pub(crate) state: AccountState,
    /// Where its call in flight, which alone still holds the cell, leaves its end; of none if there is none.
    cell: Weak<AccountCell>,
}

pub(crate) struct ActiveUpstream {
    wechat: Arc<WeChat>,
    settings: UpstreamConfig,
}

impl ActorContext {
    pub(crate) async fn new(
        settings: UpstreamConfig,
        stale: Duration,
        directory: Directory,
        store: StoreHandle,
        removed: Stored,
        withheld: Withheld,
        Environment { clock, jitter, make_transport, .. }: Environment,
    ) -> Result<Arc<Self>, TransportError> {
        let journal = Arc::new(Journal::new(clock.now()));
        let upstream = ActiveUpstream::new(settings, &make_transport, &clock, &journal).await?;
        let (token_index, planned_refreshes) = (TokenIndex::default(), PlannedRefreshes::default());
        for (appid, cell) in &directory.by_appid {
            token_index.note(appid, &AccountState::default(), &cell.load().state, clock.now());
        }
        let directory = Arc::new(ArcSwap::from_pointee(directory));
        let shared = Self {
            journal,
            publishers: Publishers::new(Arc::clone(&directory), Arc::clone(&clock)),
            token_index,
            clock,
            jitter,
            planned_refreshes,
            store,
            calls_in_flight: TaskTracker::new(),
            directory,
            tally: Tally::default(),
            ticket_tally: Tally::default(),
            upstream: ArcSwap::from_pointee(upstream),
            stale: ArcSwap::from_pointee(stale),
            make_transport,
            removed: Mutex::new(stored(removed.accounts)),
            removed_tickets: Mutex::new(removed.tickets),
            withheld,
            draining: CancellationToken::new(),
        };
        for cell in shared.directory.load().by_appid.values() {
            shared.plan(&cell.load().state);
        }
        Ok(Arc::new(shared))
    }

    /// Notes when a stored token is refreshed, so that other refreshes keep away from that instant.
    pub(crate) fn plan(&self, state: &AccountState) {
        if let Some(token) = &state.token {
            self.planned_refreshes.plan(token.refresh_at);
        }
    }

    pub(crate) fn wechat(&self) -> Arc<WeChat> {
        Arc::clone(&self.upstream.load().wechat)
    }

    pub(crate) fn rules(&self) -> Rules {
        rules_of(&self.upstream.load().settings, **self.stale.load())
    }

    /// Changes how long earlier tokens are known.
    pub(crate) fn set_stale(&self, stale: Duration) {
        self.stale.store(Arc::new(stale));
    }

    /// The random numbers for a call that has ended.
    pub(crate) fn draw(&self) -> Draw<'_> {
        Draw::new([(self.jitter)(), (self.jitter)()], &self.planned_refreshes)
    }

    /// Builds the argument of [`ActorContext::set_upstream`]. `None` where the settings are unchanged, which
    /// keeps the connections and what is known of the hosts.
    pub(crate) async fn new_upstream(
        &self,
        settings: &UpstreamConfig,
    ) -> Result<Option<ActiveUpstream>, TransportError> {
        if self.upstream.load().settings == *settings {
            return Ok(None);
        }
        let upstream =
            ActiveUpstream::new(settings.clone(), &self.make_transport, &self.clock, &self.journal);
        Ok(Some(upstream.await?))
    }

    /// Replaces the upstream; calls in flight end on the old one.
    pub(crate) fn set_upstream(&self, upstream: ActiveUpstream) {
        self.upstream.store(Arc::new(upstream));
    }

    /// Begins no more calls from now on.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Returns when nothing is withheld any more, or when the fleet begins to stop. It takes no longer than a
    /// call.
    pub(crate) async fn until_released(&self) {
        tokio::select! {
            () = self.withheld.until_released() => {}
            () = self.until_draining() => {}
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Is cancelled when the fleet begins to stop.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Returns when the fleet begins to stop.
    pub(crate) async fn until_draining(&self) {
        self.draining.cancelled().await;
    }

    /// The cell of an added account, with its version and what it has spent if it was configured before.
    pub(crate) fn cell_of_new(&self, account: Arc<Account>) -> Arc<AccountCell> {
        let left = self.removed.lock().unwrap_or_else(PoisonError::into_inner).remove(&account.appid);
        let RemovedAccount { mut state, cell } = left.unwrap_or_default();
        let upstream = self.store.upstream();
        state.next_at = Some(self.now());
        if let Some(cell) = cell.upgrade() {
            // A call that outlived the removal must end before the next begins.
            drop(cell.take_end());
            if !cell.has_no_call() {
                cell.set_upstream(upstream);
                self.publish(&cell, &account, &state);
                cell.published.set_gone(false);
                return cell;
            }
        }
        state.activity = Activity::Idle;
        let cell = AccountCell::new(account, state);
        cell.set_upstream(upstream);
        cell
    }

    /// Keeps exactly the tickets that an account is to have. Returns those that are new, and what is left of
    /// those that are no longer kept.
    pub(crate) fn keep_tickets(
        &self,
        cell: &AccountCell,
        appid: &Appid,
        kinds: TicketKinds,
    ) -> (Vec<Credential>, BTreeMap<Credential, TicketState>) {
        let (mut added, mut gone) = (Vec::new(), BTreeMap::new());
        for kind in TicketKind::ALL {
            let of = Credential::ticket(appid.clone(), kind);
            let mut removed = self.removed_tickets.lock().unwrap_or_else(PoisonError::into_inner);
            match (cell.ticket(kind), kinds.has(kind)) {
                (None, true) => {
                    let mut state = removed.remove(&of).unwrap_or_default();
                    state.next_at = Some(self.now());
                    cell.set_ticket(
                        kind,
                        Some(TicketCell::new(of.clone(), kind, state, self.store.upstream())),
                    );
                    added.push(of);
                }
                (Some(ticket), false) => {
                    let left = ticket.load().tombstone();
                    removed.insert(of.clone(), left.clone());
                    cell.set_ticket(kind, None);
                    ticket.published.set_gone(true);
                    self.publishers.note_ticket(appid, kind);
                    gone.insert(of, left);
                }
                (Some(_), true) | (None, false) => {}
            }
        }
        (added, gone)
    }

    /// Replaces what readers see, in the cell and in Redis.
    pub(crate) fn publish(&self, cell: &AccountCell, account: &Arc<Account>, state: &AccountState) {
        let old = cell.load();
        self.token_index.note(&account.appid, &old.state, state, self.now());
        cell.publish(account, state);
        self.publishers.note(&account.appid);
        if !Arc::ptr_eq(&old.account, account) {
            // Its settings say whether and where its tickets are published, too.
            cell.tickets().for_each(|ticket| self.publishers.note_ticket(&account.appid, ticket.kind));
        }
    }

    pub(crate) fn keep_removed(&self, appid: &Appid, cell: &Arc<AccountCell>, state: AccountState) {
        drop(cell.take_end());
        let cell = if cell.has_no_call() { Weak::new() } else { Arc::downgrade(cell) };
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        removed.insert(appid.clone(), RemovedAccount { state, cell });
    }

    /// Counts how a token call ended, for the account and for the fleet.
    pub(crate) fn count_fetch(&self, cell: &AccountCell, fetched: Fetched, fault: Option<&Fault>) {
        cell.tally.count_fetch(fetched, fault);
        self.tally.count_fetch(fetched, fault);
    }

    /// Counts how a rejection was decided, for the account and for the fleet.
    pub(crate) fn count_rejection(&self, cell: &AccountCell, outcome: RejectionOutcome) {
        cell.tally.count_rejection(outcome);
        self.tally.count_rejection(outcome);
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }
}

fn stored(states: BTreeMap<Appid, AccountState>) -> BTreeMap<Appid, RemovedAccount> {
    let stored = |state| RemovedAccount { state, ..RemovedAccount::default() };
    states.into_iter().map(|(appid, state)| (appid, stored(state))).collect()
}

impl ActiveUpstream {
    async fn new(
        settings: UpstreamConfig,
        make_transport: &MakeTransport,
        clock: &Clock,
        journal: &Arc<Journal>,
    ) -> Result<Self, TransportError> {
        let transport = make_transport(&settings).await?;
        let wechat = WeChat::new(
            &settings.base_urls,
            settings.max_in_flight,
            settings.max_per_second,
            transport,
            Arc::clone(clock),
        );
        let journal = Arc::clone(journal);
        wechat.hosts().on_change(move |host, now| journal.note_of_all(now, EventKind::Host(host)));
        Ok(Self { wechat: Arc::new(wechat), settings })
    }
}

/// The part of the settings that decisions depend on.
pub(crate) fn rules_of(settings: &UpstreamConfig, stale: Duration) -> Rules {
    Rules { overlap: settings.overlap, timeout: settings.timeout, stale }
}

/// The hosts that tokens come from, with their paths, as the store remembers them.
pub(crate) fn hosts_of(settings: &UpstreamConfig) -> Vec<String> {
    settings.base_urls.iter().map(upstream_label).collect()
}
