//! The actor of one account: asks [`next_step`] what to do, does it, and takes in how it ended.
//!
//! [`take_in`](PendingHandler::take_in) is one iteration of that cycle, and [`Activity`] says where in it the
//! account is. Every change goes to disk and into the cell in the order that the invariants require: a charge
//! and an intent before the call, a token before any reader sees it, the fact that a token is dead before
//! anything else.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kameo::error::Infallible;
use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::prelude::*;
use tokio::time::Instant;
use wxtokend_core::account::Account;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::token::decide::{Step, next_step};
use wxtokend_core::token::state::{AccountState, Activity};
use wxtokend_core::token::transition::FetchEnd;

use super::call::{call_end, queue};
use super::context::ActorContext;
use super::pending::{Due, Pending, PendingHandler, alarm, either, next};
use super::waiters::Waiters;
use crate::fleet::cells::cell::AccountCell;
use crate::fleet::cells::wanted_settings::NewSettings;
use crate::fleet::journal::event_log::EventLog;
use crate::wechat::{Require, UNASKED};

mod end;
mod finish;
mod handlers;
mod hints;
mod turn;

use end::TokenCallEnd;

/// Keeps one account's token fresh.
pub(crate) struct TokenActor {
    cell: Arc<AccountCell>,
    pub(crate) shared: Arc<ActorContext>,
    pub(crate) account: Arc<Account>,
    /// Boxed, since an actor's task holds it more than once.
    pub(crate) state: Box<AccountState>,
    waiters: Waiters,
    /// What ends the state's activity: see [`enter`](Self::enter).
    pending: Pending<()>,
    /// How many recoveries of the hosts it has taken into account.
    recoveries: u64,
    call_started: Instant,
}

impl Actor for TokenActor {
    type Args = (Arc<AccountCell>, Arc<ActorContext>);
    type Error = Infallible;

    fn name() -> &'static str {
        "token"
    }

    async fn on_start((cell, shared): Self::Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        let snapshot = cell.load();
        let recoveries = shared.wechat().hosts().observe().0.recoveries;
        let mut actor = Self {
            account: Arc::clone(&snapshot.account),
            state: Box::new(snapshot.state.clone()),
            cell,
            shared,
            waiters: Waiters::default(),
            pending: Pending::nothing(),
            recoveries,
            call_started: Instant::now(),
        };
        actor.resume();
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

impl PendingHandler for TokenActor {
    type End = ();

    fn pending(&mut self) -> &mut Pending<()> {
        &mut self.pending
    }

    async fn take_in(&mut self, due: Due<()>) {
        match due {
            // From idle: decide.
            Due::Recheck => self.advance(),
            // From the queue, or with a slot: decide once more, charge, put the intent on disk, call.
            Due::Admitted(Ok(permit)) => self.call(permit).await,
            // The hosts went down while the call waited for one to answer; a trial is made anyway.
            Due::Admitted(Err(_)) if self.state.ignores_down_hosts => self.reconsider(),
            Due::Admitted(Err(_)) if !self.state.activity.is_busy() => self.skip_hint(),
            Due::Admitted(Err(host_down)) => self.finish(TokenCallEnd::Refused(host_down)).await,
            // From a call in flight: take in how it ended.
            Due::Ended(()) => {
                if let Some(end) = self.cell.take_end() {
                    self.finish(TokenCallEnd::Called(end)).await;
                }
            }
        }
    }
}

impl TokenActor {
    /// Resumes after a crash: the call in flight still is, or has ended, or its end was lost.
    fn resume(&mut self) {
        let (now, activity) = (self.shared.now(), self.state.activity.left_behind());
        if activity.is_busy() && !self.cell.has_no_call() {
            return self.enter(activity, call_end(&self.cell));
        }
        if activity == Activity::Fetching {
            let end = FetchEnd {
                force: false,
                sent_at: self.state.intent.map(|intent| intent.at).or(Some(now)),
                may_have_minted: true,
                result: Err(Fault::internal("the account's actor crashed over an answer")),
            };
            self.state.end_fetch(end, &self.account, self.shared.rules(), now, self.shared.draw());
        }
        self.state.following = None;
        self.enter(Activity::Idle, Pending::on(async { Due::Recheck }));
    }

    /// Applies changed settings, if there are any.
    pub(crate) async fn configure(&mut self) {
        let Some(NewSettings { settings, forget }) = self.cell.wanted.take() else { return };
        self.state.reconfigured(&self.account, &settings, self.shared.now());
        self.account = settings;
        if forget {
            self.cell.abandon_call();
            self.state.upstream_exchanged();
            self.cell.set_upstream(self.shared.store.upstream());
            // Readers from now on wait for the new upstream's first token.
            self.state.next_at = Some(self.shared.now());
            self.publish();
            self.commit().await;
        }
        // A call in the queue decides again at its turn.
        self.advance();
        self.publish();
        self.log(self.shared.now()).configured();
    }

    /// Does what the decision says, unless the account is busy.
    pub(crate) fn advance(&mut self) {
        if self.state.activity.is_busy() {
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
        let step = next_step(&self.state, &self.account, hosts.up, now);
        match step {
            Step::Wait(at) | Step::FollowHint(at) => {
                self.state.next_at = Some(at);
                let audit = self.state.audit_at.filter(|_| self.state.is_usable(now));
                let wait = audit.into_iter().chain([at]).map(|at| at.until(now)).min();
                let alarm = self.alarm(wait, now, recovery);
                let pending = match step {
                    // It may wait for minutes behind other accounts, and nothing waits for it.
                    Step::FollowHint(_) => either(alarm, queue(&self.shared, UNASKED, Require::NotDown)),
                    _ => alarm,
                };
                self.enter(Activity::Idle, pending);
            }
            Step::AwaitHost => {
                self.state.next_at = None;
                self.enter(Activity::Idle, self.alarm(None, now, recovery));
            }
            Step::Fetch { .. } | Step::Check => {
                if let Step::Fetch { reason, .. } = step {
                    self.state.reason = Some(reason);
                }
                self.state.next_at = Some(now);
                let turn = queue(&self.shared, self.urgency_ms(now), self.requires(step, hosts.up, now));
                self.enter(Activity::Queued, turn);
            }
        }
        self.publish();
    }

    /// Decides again, since what the account waited for is no longer to be done.
    pub(crate) fn reconsider(&mut self) {
        self.enter(Activity::Idle, Pending::nothing());
        self.advance();
    }

    /// Sets the activity and what ends it, `pending`; the previous pending future is cancelled.
    pub(crate) fn enter(&mut self, activity: Activity, pending: Pending<()>) {
        (self.state.activity, self.pending) = (activity, pending);
    }

    /// Fires after `wait` or when the token ends, which is an event. Where the host caused the failure, it
    /// also fires when the host recovers.
    fn alarm(
        &self,
        wait: Option<Duration>,
        now: Moment,
        recovery: impl Future<Output = ()> + Send + 'static,
    ) -> Pending<()> {
        let token_ends = Some(self.state.usable_for(now)).filter(|left| !left.is_zero());
        let wait = wait.into_iter().chain(token_ends).min();
        let awaits_host = self.state.last_failure.as_deref().is_some_and(|failure| failure.awaits_host);
        alarm(wait, awaits_host.then_some(recovery))
    }

    pub(crate) fn publish(&self) {
        self.shared.publish(&self.cell, &self.account, &self.state);
        self.log(self.shared.now()).record_phase();
    }

    pub(crate) fn log(&self, now: Moment) -> EventLog<'_> {
        let (journal, cell) = (&self.shared.journal, &*self.cell);
        EventLog { journal, cell, account: &self.account, state: &self.state, now }
    }

    /// Puts the state on disk. If that fails, the store logs it and memory serves on. Takes `&mut self`,
    /// since what it awaits cannot be shared between threads.
    pub(crate) async fn commit(&mut self) {
        let _ = self.shared.store.commit(&self.account.appid, &self.state, self.cell.upstream()).await;
    }
}
