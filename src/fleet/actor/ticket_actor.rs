//! The actor of one ticket: fetches it when its state says so, with the account's token, and stores it.
//!
//! A call for a ticket mints nothing that would end another credential, so it needs none of a token call's
//! precautions: it ends with its actor and is made again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kameo::error::Infallible;
use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::prelude::*;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, info_span};
use wxtokend_core::account::Account;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::ticket::{TicketActivity, TicketCallEnd, TicketState, TicketStep};
use wxtokend_core::token::HeldToken;

use super::call::queue;
use super::context::ActorContext;
use super::pending::{Due, Pending, PendingHandler, alarm, next};
use crate::fleet::cells::cell::AccountCell;
use crate::fleet::cells::mailbox::{Recheck, RefreshRequest, Trial};
use crate::fleet::cells::tally::RejectionOutcome;
use crate::fleet::cells::ticket_cell::TicketCell;
use crate::fleet::cells::wanted_settings::NewSettings;
use crate::fleet::journal::event_log::TicketEventLog;
use crate::wechat::{Permit, Require};

/// How long the actor waits for the account's token before it decides again.
const TOKEN_WAIT: Duration = Duration::from_secs(60);

/// Keeps one ticket fresh.
pub(crate) struct TicketActor {
    cell: Arc<TicketCell>,
    /// The account that the ticket belongs to.
    account: Arc<AccountCell>,
    settings: Arc<Account>,
    shared: Arc<ActorContext>,
    state: TicketState,
    /// The wake-up, the place in the call queue or the call that it waits for.
    pending: Pending<TicketCallEnd>,
    /// How many recoveries of the hosts it has taken into account.
    recoveries: u64,
    call_started: Instant,
    /// The version of the token that WeChat last refused for this ticket although a check found it honoured;
    /// 0 for none. Reporting it again would spend budget that clients need for their reports.
    honoured: Arc<AtomicU64>,
}

/// Changed settings are in the cell.
pub(crate) struct Reconfigured;

impl Actor for TicketActor {
    type Args = (Arc<TicketCell>, Arc<AccountCell>, Arc<ActorContext>);
    type Error = Infallible;

    fn name() -> &'static str {
        "ticket"
    }

    async fn on_start((cell, account, shared): Self::Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        let state = cell.load().resumed();
        let settings = Arc::clone(&account.load().account);
        let (pending, call_started) = (Pending::on(async { Due::Recheck }), Instant::now());
        let recoveries = shared.wechat().hosts().observe().0.recoveries;
        let honoured = Arc::default();
        let mut actor =
            Self { cell, account, settings, shared, state, pending, recoveries, call_started, honoured };
        actor.configure().await;
        Ok(actor)
    }

    async fn next(
        &mut self,
        _: WeakActorRef<Self>,
        mailbox: &mut MailboxReceiver<Self>,
    ) -> Result<Option<Signal<Self>>, Infallible> {
        Ok(next(self, mailbox).await)
    }

    /// Ends the actor with its supervisor.
    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        Ok(ControlFlow::Break(ActorStopReason::Normal))
    }
}

impl Message<Recheck> for TicketActor {
    type Reply = ();
    async fn handle(&mut self, _: Recheck, _: &mut Context<Self, ()>) {
        self.advance();
    }
}

impl Message<Trial> for TicketActor {
    type Reply = ();
    async fn handle(&mut self, _: Trial, _: &mut Context<Self, ()>) {
        self.run_trial();
    }
}

impl PendingHandler for TicketActor {
    type End = TicketCallEnd;

    fn pending(&mut self) -> &mut Pending<TicketCallEnd> {
        &mut self.pending
    }

    async fn take_in(&mut self, due: Due<TicketCallEnd>) {
        match due {
            Due::Recheck => self.advance(),
            Due::Admitted(admitted) => {
                debug_assert_eq!(
                    self.state.activity,
                    Some(TicketActivity::Queued),
                    "whatever ends that cancels this"
                );
                self.state.activity = None;
                match admitted {
                    Ok(permit) => self.ask(permit).await,
                    Err(host_down) => {
                        self.ended(TicketCallEnd { sent_at: None, result: Err(host_down) }).await
                    }
                }
            }
            Due::Ended(end) => self.ended(end).await,
        }
    }
}

impl Message<Reconfigured> for TicketActor {
    type Reply = ();
    async fn handle(&mut self, _: Reconfigured, _: &mut Context<Self, ()>) {
        self.configure().await;
    }
}

impl TicketActor {
    /// Applies changed settings, if there are any.
    async fn configure(&mut self) {
        let Some(NewSettings { settings, forget }) = self.cell.wanted.take() else { return };
        // Not from the account's cell, which has them only once the account's own actor has applied them.
        self.settings = settings;
        self.state.reconfigured(self.shared.now());
        if forget {
            (self.state, self.pending) = (self.state.tombstone(), Pending::nothing());
            self.cell.upstream.store(self.shared.store.upstream(), Ordering::SeqCst);
            // Readers from now on wait for the new upstream's first ticket.
            self.state.next_at = Some(self.shared.now());
            self.publish();
            self.commit().await;
        }
        self.advance();
    }

    /// Does what the state says, unless the actor is busy.
    fn advance(&mut self) {
        let is_busy = matches!(self.state.activity, Some(TicketActivity::Queued | TicketActivity::Asking));
        if is_busy {
            return;
        }
        if self.shared.is_draining() {
            // No call is begun, but what has arrived is published, to Redis too.
            return self.publish();
        }
        let now = self.shared.now();
        // Before the decision, so that a recovery right after it is not missed.
        let (hosts, recovery) = self.shared.wechat().hosts().observe();
        if std::mem::replace(&mut self.recoveries, hosts.recoveries) != hosts.recoveries {
            self.state.host_is_back(now);
        }
        let has_token = self.account.read(now).is_some();
        let step = self.state.next_step(&self.settings, has_token, hosts.up, now);
        let awaits_host = self.state.last_failure.as_deref().is_some_and(|failure| failure.awaits_host);
        let recovery = awaits_host.then_some(recovery);
        let (activity, next_at, pending) = match step {
            TicketStep::Wait(at) => (None, Some(at), alarm(Some(at.until(now)), recovery)),
            TicketStep::AwaitHost => (None, None, alarm(None, recovery)),
            TicketStep::AwaitToken => (Some(TicketActivity::AwaitsToken), None, self.await_token()),
            TicketStep::Ask => return self.queue(Require::NotDown, now),
        };
        (self.state.activity, self.state.next_at, self.pending) = (activity, next_at, pending);
        self.publish();
    }

    /// Makes a trial while all hosts count as down, if the ticket still needs a call.
    fn run_trial(&mut self) {
        let now = self.shared.now();
        let has_token = self.account.read(now).is_some();
        if !self.shared.is_draining() && self.state.trial_urgency(&self.settings, has_token, now).is_some() {
            self.queue(Require::Nothing, now);
        }
    }

    fn queue(&mut self, require: Require, now: Moment) {
        let left_ms = i64::try_from(self.state.usable_for(now).as_millis()).unwrap_or(i64::MAX);
        (self.state.activity, self.state.next_at) = (Some(TicketActivity::Queued), Some(now));
        self.pending = queue(&self.shared, left_ms, require);
        self.publish();
    }

    fn await_token(&self) -> Pending<TicketCallEnd> {
        let (account, clock) = (Arc::clone(&self.account), Arc::clone(&self.shared.clock));
        Pending::on(async move {
            let deadline = Instant::now() + TOKEN_WAIT;
            if account
                .published
                .wait_until(deadline, |snapshot| snapshot.state.read(clock.now()))
                .await
                .is_none()
            {
                // For a removed account the wait ends at once; looping on it would keep us from receiving our
                // own stop.
                sleep_until(deadline).await;
            }
            Due::Recheck
        })
    }

    /// Uses the permit: decides once more, puts the charge on disk, calls.
    async fn ask(&mut self, permit: Permit) {
        let (now, account) = (self.shared.now(), Arc::clone(&self.settings));
        let token = self.account.read(now).map(|token| Arc::clone(token.held()));
        let (Some(token), TicketStep::Ask) = (token, self.state.next_step(&account, true, true, now)) else {
            return self.advance();
        };
        if self.shared.is_draining() {
            return;
        }
        if let Err(free_at) = self.state.begin_ask(&account, now) {
            let fault = Fault::budget_exhausted(account.settings.daily_budget, free_at.until(now));
            return self.ended(TicketCallEnd { sent_at: None, result: Err(fault) }).await;
        }
        self.state.activity = Some(TicketActivity::Asking);
        self.publish();
        self.commit().await;
        self.call_started = Instant::now();
        self.pending = self.call(token, permit);
    }

    fn call(&self, token: Arc<HeldToken>, mut permit: Permit) -> Pending<TicketCallEnd> {
        let (kind, shared, honoured) = (self.cell.kind, Arc::clone(&self.shared), Arc::clone(&self.honoured));
        let (account, started_at) = (Arc::clone(&self.account), self.shared.now());
        let span = info_span!(
            "call",
            appid = self.cell.of.appid.as_str(),
            endpoint = "ticket",
            ticket = kind.as_str()
        );
        // A single refusal may pass.
        let again = self.state.last_failure.as_deref().is_some_and(|failure| failure.fault.blames_token());
        Pending::on(async move {
            permit.acquire_slot().await;
            let (wechat, sent) = (shared.wechat(), token.value.clone());
            // A task of its own catches a panic in the HTTP client as well as one in our code.
            let call = async move { wechat.ticket(kind, &sent).await };
            let call = AbortOnDropHandle::new(tokio::spawn(call.instrument(span)));
            let mut end = call.await.unwrap_or_else(|_panic| TicketCallEnd {
                sent_at: Some(started_at),
                result: Err(Fault::internal("the call to WeChat panicked")),
            });
            drop(permit);
            let refused = end.result.as_ref().err().filter(|fault| fault.is_bad_token_for_ticket());
            if let Some(errcode) = refused.and_then(|fault| fault.errcode) {
                if honoured.load(Ordering::SeqCst) != token.version
                    && let Some(actor) = account.mailbox()
                {
                    // As for any client that is refused: the token is checked, and this waits for the
                    // outcome.
                    let limit = shared.rules().timeout * 4;
                    let rejection = RefreshRequest::OwnRejection(token.value.clone());
                    let outcome = timeout(limit, actor.ask(rejection)).await;
                    if let Ok(Ok(RejectionOutcome::StillValid)) = outcome {
                        honoured.store(token.version, Ordering::SeqCst);
                    }
                }
                if again && honoured.load(Ordering::SeqCst) == token.version {
                    end.result = Err(Fault::ticket_not_allowed(errcode));
                }
            }
            Due::Ended(end)
        })
    }

    /// Takes in how a call ended, or why none was made. The state is on disk before any reader sees it.
    async fn ended(&mut self, end: TicketCallEnd) {
        let took_ms = end.sent_at.map(|_| self.call_started.elapsed());
        let took_ms = took_ms.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        self.state.activity = None;
        let was_failing = self.state.last_failure.is_some();
        let stated_lifetime = end.result.as_ref().ok().map(|answer| answer.expires_in);
        let fetched = self.state.end_ask(end, &self.settings, self.shared.now(), (self.shared.jitter)());
        let fault = self.state.last_failure.as_deref().map(|failure| &*failure.fault);
        self.cell.tally.count_fetch(fetched, fault);
        self.shared.ticket_tally.count_fetch(fetched, fault);
        self.commit().await;
        self.advance();
        let log = TicketEventLog {
            journal: &self.shared.journal,
            cell: &self.account,
            kind: self.cell.kind,
            state: &self.state,
            was_failing,
            now: self.shared.now(),
        };
        log.ended(fetched, took_ms);
        stated_lifetime.into_iter().for_each(|lifetime| log.note_stated_lifetime(lifetime));
    }

    fn publish(&self) {
        self.cell.published.store(self.state.clone());
        self.shared.publishers.note_ticket(&self.cell.of.appid, self.cell.kind);
    }

    /// Puts the state on disk. If that fails, the store logs it and memory serves on.
    async fn commit(&mut self) {
        let upstream = self.cell.upstream.load(Ordering::SeqCst);
        let _ = self.shared.store.commit_ticket(&self.cell.of, &self.state, upstream).await;
    }
}

/// Makes the actor panic in a handler.
#[cfg(test)]
pub(crate) struct Crash;

#[cfg(test)]
impl Message<Crash> for TicketActor {
    type Reply = ();
    async fn handle(&mut self, _: Crash, _: &mut Context<Self, ()>) {
        panic!("asked to");
    }
}
