//! Starts one actor per account and per ticket, restarts those that crash, applies a reload and ends them in
//! order.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kameo::error::Infallible;
use kameo::mailbox;
use kameo::prelude::*;
use metrics::counter;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::error;
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::reference::metrics::ACTOR_RESTARTS;
use wxtokend_core::ticket::{Credential, TicketKind, TicketKinds};

use super::child::{Child, Running};
use super::context::ActorContext;
use super::ticket_actor::{Reconfigured, TicketActor};
use super::token_actor::TokenActor;
use crate::fleet::cells::cell::AccountCell;
use crate::fleet::cells::directory::Directory;
use crate::fleet::cells::mailbox::{ApplySettings, Mailbox};
use crate::fleet::cells::wanted_settings::NewSettings;
use crate::store::Stored;

/// The delay before a crashed actor is restarted doubles from this,
const MIN_RESTART_DELAY: Duration = Duration::from_millis(100);
/// up to this,
const MAX_RESTART_DELAY: Duration = Duration::from_secs(30);
/// and starts over once the actor has run for this long.
const STABLE_AFTER: Duration = Duration::from_secs(300);
/// How many actors are started in one go, before the supervisor handles other messages.
const START_BATCH: usize = 500;

/// Owns the actors.
pub(crate) struct Supervisor {
    me: ActorRef<Self>,
    shared: Arc<ActorContext>,
    /// Sorted, so that whatever visits all of them does so in the same order each time.
    children: BTreeMap<Credential, Child>,
    by_actor: HashMap<ActorId, Credential>,
}

impl Actor for Supervisor {
    type Args = Arc<ActorContext>;
    type Error = Infallible;

    fn name() -> &'static str {
        "supervisor"
    }

    async fn on_start(shared: Arc<ActorContext>, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let directory = shared.directory.load_full();
        let tokens = directory.in_order.iter().cloned().map(Credential::token);
        let cells = directory.in_order.iter().filter_map(|appid| directory.by_appid.get(appid));
        // Tokens first: a ticket cannot be had without one.
        let all = tokens.chain(cells.flat_map(|cell| cell.tickets().map(|ticket| ticket.of.clone())));
        let all = all.filter(|of| !shared.withheld.has(of)).collect();
        let _ = me.tell(Start(all)).try_send();
        Ok(Self { me, shared, children: BTreeMap::new(), by_actor: HashMap::new() })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        if let Some(of) = self.by_actor.remove(&id) {
            if reason.is_normal() { drop(self.children.remove(&of)) } else { self.crashed(of) }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Starts the actors of these credentials.
pub(crate) struct Start(pub(crate) Vec<Credential>);
/// Restarts a crashed actor.
struct Restart(Credential);
/// Makes the fleet consist of these accounts.
pub(crate) struct Apply {
    pub(crate) accounts: Vec<Arc<Account>>,
    /// The accounts of the previous configuration. An account's cell holds them only once its actor has run.
    pub(crate) before: Vec<Arc<Account>>,
    /// The upstream has been replaced, so the stored tokens do not belong to it.
    pub(crate) forget_tokens: bool,
}
/// A clock has jumped or the machine has slept: every actor decides again.
pub(crate) struct RecheckAll;

/// All hosts count as down: this actor is to make a trial, or to get one later if it is being restarted.
pub(crate) struct RunTrial(pub(crate) Credential);

/// What a reload has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) added: usize,
    pub(crate) removed: usize,
    pub(crate) changed: usize,
}

impl Message<Start> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, Start(mut all): Start, _: &mut Context<Self, ()>) {
        let later = all.split_off(all.len().min(START_BATCH));
        for of in all {
            self.start(of).await;
        }
        if !later.is_empty() {
            let _ = self.me.tell(Start(later)).try_send();
        }
    }
}

impl Message<Restart> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, Restart(of): Restart, _: &mut Context<Self, ()>) {
        self.start(of).await;
    }
}

impl Message<RecheckAll> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, _: RecheckAll, _: &mut Context<Self, ()>) {
        for actor in self.children.values().filter_map(|child| child.actor.as_ref()) {
            actor.wake().await;
        }
    }
}

impl Message<RunTrial> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, RunTrial(of): RunTrial, _: &mut Context<Self, ()>) {
        if let Some(actor) = self.children.get(&of).and_then(|child| child.actor.as_ref()) {
            actor.run_trial().await;
        }
    }
}

impl Message<Apply> for Supervisor {
    type Reply = Result<Applied, Infallible>;
    async fn handle(&mut self, new: Apply, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let old = self.shared.directory.load_full();
        let before: HashMap<_, _> = new.before.iter().map(|account| (&account.appid, account)).collect();
        let mut applied = Applied::default();
        let mut cells = Vec::with_capacity(new.accounts.len());
        let (mut added, mut added_tickets, mut left) = (Vec::new(), Vec::new(), Stored::default());
        self.stop_all(tickets_not_kept(&old, &new.accounts)).await;
        for account in new.accounts {
            let appid = account.appid.clone();
            if let Some(cell) = old.by_appid.get(&appid) {
                let changed = before.get(&appid).is_none_or(|before| **before != account);
                applied.changed += usize::from(changed);
                if changed || new.forget_tokens {
                    self.configure(&appid, cell, Arc::clone(&account), new.forget_tokens).await;
                    let added = self.configure_tickets(cell, &account, new.forget_tokens, &mut left).await;
                    added_tickets.extend(added);
                }
                cells.push((appid, Arc::clone(cell)));
            } else {
                let kinds = account.settings.tickets;
                let cell = self.shared.cell_of_new(account);
                added_tickets.extend(self.shared.keep_tickets(&cell, &appid, kinds).0);
                cells.push((appid.clone(), cell));
                added.push(Credential::token(appid));
            }
        }
        applied.added = added.len();
        let directory = Directory::new(cells);
        let gone: Vec<_> =
            old.in_order.iter().filter(|appid| !directory.by_appid.contains_key(*appid)).cloned().collect();
        applied.removed = gone.len();
        self.shared.directory.store(Arc::new(directory));
        let gone = gone.into_iter().filter_map(|appid| old.by_appid.get_key_value(&appid)).collect();
        self.remove(gone, left).await;
        added.extend(added_tickets);
        let _ = self.me.tell(Start(added)).try_send();
        Ok(applied)
    }
}

impl Supervisor {
    async fn start(&mut self, of: Credential) {
        let Some(cell) = self.shared.directory.load().by_appid.get(&of.appid).cloned() else { return };
        let is_running = self.children.get(&of).is_some_and(|child| child.actor.is_some());
        if is_running || self.shared.is_draining() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let actor = match of.ticket {
            None => {
                let args = (Arc::clone(&cell), shared);
                let actor = TokenActor::spawn_link_with_mailbox(&self.me, args, mailbox::unbounded()).await;
                cell.set_mailbox(Some(Mailbox::of(&actor)));
                Running::Token(actor)
            }
            Some(kind) => {
                let Some(ticket) = cell.ticket(kind) else { return };
                let args = (ticket, cell, shared);
                let actor = TicketActor::spawn_link_with_mailbox(&self.me, args, mailbox::unbounded()).await;
                Running::Ticket(actor)
            }
        };
        self.by_actor.insert(actor.id(), of.clone());
        let child = self.children.entry(of).or_default();
        child.actor = Some(actor);
        child.started = Some(Instant::now());
    }

    fn crashed(&mut self, of: Credential) {
        counter!(ACTOR_RESTARTS.name).increment(1);
        let Some(child) = self.children.get_mut(&of) else { return };
        if child.started.is_some_and(|started| started.elapsed() > STABLE_AFTER) {
            child.crashes = 0;
        }
        let wait =
            MIN_RESTART_DELAY.saturating_mul(2_u32.saturating_pow(child.crashes)).min(MAX_RESTART_DELAY);
        child.crashes = child.crashes.saturating_add(1);
        child.actor = None;
        if let (None, Some(cell)) = (of.ticket, self.shared.directory.load().by_appid.get(&of.appid)) {
            cell.set_mailbox(None);
        }
        error!(
            event = "actor_crashed",
            appid = of.appid.as_str(),
            ticket = of.ticket.map(TicketKind::as_str),
            crashes = child.crashes,
            restart_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "an actor crashed, a bug of ours; its token or ticket is still served, and the actor is restarted"
        );
        let me = self.me.clone();
        child.restart = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(wait).await;
            let _ = me.tell(Restart(of)).await;
        })));
    }

    /// Hands changed settings to an account's actor, or writes them to its cell while there is no actor.
    async fn configure(
        &self,
        appid: &Appid,
        cell: &Arc<AccountCell>,
        account: Arc<Account>,
        forget_token: bool,
    ) {
        let of = Credential::token(appid.clone());
        let actor = self.children.get(&of).and_then(|child| child.actor.clone());
        cell.wanted.put(account, forget_token);
        if let Some(Running::Token(actor)) = actor {
            return drop(actor.tell(ApplySettings).await);
        }
        let Some(NewSettings { settings, forget }) = cell.wanted.take() else { return };
        let snapshot = cell.load();
        let mut state = snapshot.state.clone();
        state.reconfigured(&snapshot.account, &settings, self.shared.now());
        if forget {
            cell.abandon_call();
            state.upstream_exchanged();
            // The new upstream has been on disk since before the supervisor received the reload.
            cell.set_upstream(self.shared.store.upstream());
        }
        self.shared.publish(cell, &settings, &state);
    }

    /// Ends the actors of removed accounts and erases their tokens, on disk too. What is `left` of removed
    /// tickets is written with them. Versions and what was spent are kept.
    async fn remove(&mut self, gone: Vec<(&Appid, &Arc<AccountCell>)>, mut left: Stored) {
        let tokens = gone.iter().map(|(appid, _)| Credential::token((*appid).clone()));
        let tickets = gone.iter().flat_map(|(_, cell)| cell.tickets().map(|ticket| ticket.of.clone()));
        self.stop_all(tokens.chain(tickets).collect()).await;
        for (appid, cell) in gone {
            left.tickets.extend(self.shared.keep_tickets(cell, appid, TicketKinds::default()).1);
            cell.set_mailbox(None);
            cell.abandon_call();
            drop(cell.wanted.take());
            let snapshot = cell.load();
            let state = snapshot.state.tombstone();
            self.shared.publish(cell, &snapshot.account, &state);
            cell.published.set_gone(true);
            self.shared.keep_removed(appid, cell, state.clone());
            left.accounts.insert(appid.clone(), state);
        }
        if !left.is_empty() {
            // In one commit: a sync for each would delay every other actor's restart for minutes.
            let _ = self.shared.store.commit_all(&left).await;
        }
    }

    /// Gives an account the tickets that it is to have now and returns the new ones. Adds what must be
    /// written to disk to `left`.
    async fn configure_tickets(
        &self,
        cell: &Arc<AccountCell>,
        account: &Arc<Account>,
        forget: bool,
        left: &mut Stored,
    ) -> Vec<Credential> {
        let (added, gone) = self.shared.keep_tickets(cell, &account.appid, account.settings.tickets);
        left.tickets.extend(gone);
        for ticket in cell.tickets().filter(|ticket| !added.contains(&ticket.of)) {
            ticket.wanted.put(Arc::clone(account), forget);
            if let Some(Running::Ticket(actor)) =
                self.children.get(&ticket.of).and_then(|child| child.actor.clone())
            {
                let _ = actor.tell(Reconfigured).await;
            } else if forget {
                let mut state = ticket.load().tombstone();
                state.next_at = Some(self.shared.now());
                ticket.upstream.store(self.shared.store.upstream(), Ordering::SeqCst);
                ticket.published.store(state.clone());
                left.tickets.insert(ticket.of.clone(), state);
            }
        }
        added
    }

    /// Ends these actors and waits until they have ended.
    async fn stop_all(&mut self, all: Vec<Credential>) {
        let mut actors = Vec::new();
        for of in all {
            if let Some(actor) = self.children.remove(&of).and_then(|child| child.actor) {
                self.by_actor.remove(&actor.id());
                actor.stop().await;
                actors.push(actor);
            }
        }
        for actor in actors {
            actor.stopped().await;
        }
    }
}

/// The tickets that accounts lose although the accounts stay.
fn tickets_not_kept(old: &Directory, accounts: &[Arc<Account>]) -> Vec<Credential> {
    let cells = accounts.iter().filter_map(|account| Some((account, old.by_appid.get(&account.appid)?)));
    let gone = cells.flat_map(|(account, cell)| {
        cell.tickets()
            .filter(|ticket| !account.settings.tickets.has(ticket.kind))
            .map(|ticket| ticket.of.clone())
    });
    gone.collect()
}

#[cfg(test)]
pub(crate) mod crash_for_tests;
