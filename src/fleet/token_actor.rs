//! One account's actor: asks the policy what is next, does it, takes in how it ended.
//!
//! Everything it knows is in its state; every change is put on disk and into the cell in the order that the
//! invariants ask for: a charge and an intent before the call, a token before any reader sees it, the news that
//! a token is dead before anything else.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kameo::error::Infallible;
use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::prelude::*;
use tokio::time::Instant;

use super::actor_log::Teller;
use super::call_state::CallEnd;
use super::cell::AccountCell;
use super::flight::{landing, queue};
use super::pending::{Due, Pending, Waits, alarm, next};
use super::shared::Shared;
use super::waiters::{Settled, Waiters};
use super::wanted::NewSettings;
use crate::account::Account;
use crate::clock::Moment;
use crate::fault::Fault;
use crate::outcome::{CheckEnd, FetchEnd};
use crate::policy::{Step, next_step};
use crate::state::{AccountState, Activity};

mod handlers;
mod turn;

/// Sees to one account.
pub(crate) struct TokenActor {
    cell: Arc<AccountCell>,
    pub(super) shared: Arc<Shared>,
    pub(super) account: Arc<Account>,
    /// Boxed, since the task of an actor holds it more than once.
    pub(super) state: Box<AccountState>,
    waiters: Waiters,
    /// A wake-up, a place in the queue, or the end of a call.
    pending: Pending<()>,
    /// It has had its turn, and waits for room in flight.
    takes_off: bool,
    /// How many of the hosts' recoveries it has reckoned with.
    recoveries: u64,
    call_started: Instant,
}

impl Actor for TokenActor {
    type Args = (Arc<AccountCell>, Arc<Shared>);
    type Error = Infallible;

    fn name() -> &'static str {
        "token"
    }

    async fn on_start((cell, shared): Self::Args, _: ActorRef<Self>) -> Result<Self, Infallible> {
        let snapshot = cell.load();
        let recoveries = shared.wechat().hosts().look().0.recoveries;
        let mut actor = Self {
            account: Arc::clone(&snapshot.account),
            state: Box::new(snapshot.state.clone()),
            cell,
            shared,
            waiters: Waiters::default(),
            pending: Pending::on(async { Due::Wake }),
            takes_off: false,
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

    /// The supervisor is gone: so are we.
    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        _: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        Ok(ControlFlow::Break(ActorStopReason::Normal))
    }
}

impl Waits for TokenActor {
    type End = ();

    fn pending(&mut self) -> &mut Pending<()> {
        &mut self.pending
    }

    async fn take_in(&mut self, due: Due<()>) {
        match due {
            Due::Wake => self.advance(),
            Due::Ended(()) => self.land().await,
            Due::Admitted(admitted) => {
                debug_assert_eq!(
                    self.state.activity,
                    Some(Activity::Queued),
                    "whatever ends that cancels this"
                );
                self.state.activity = None;
                self.takes_off = false;
                match admitted {
                    Ok(permit) => self.call(permit).await,
                    // They went down while it waited to hear of them; it is wanted all the same.
                    Err(_) if self.state.despite_down => self.advance(),
                    Err(host_down) => self.refused(host_down).await,
                }
            }
        }
    }
}

impl TokenActor {
    /// After a crash: what was under way is either still under way, or over, or it was lost in the crash.
    fn resume(&mut self) {
        let lost = self.cell.is_clear();
        match self.state.activity {
            Some(Activity::Fetching) if lost => {
                let end = FetchEnd {
                    force: false,
                    sent_at: self.state.intent.map(|intent| intent.at).or(Some(self.shared.now())),
                    may_have_minted: true,
                    result: Err(Fault::internal("the account's actor crashed over an answer")),
                };
                self.state.activity = None;
                let (rules, now) = (self.shared.rules(), self.shared.now());
                self.state.end_fetch(end, &self.account, rules, now, self.shared.draw());
            }
            Some(Activity::Fetching | Activity::Checking) if !lost => self.pending = landing(&self.cell),
            _ => self.state.activity = None,
        }
    }

    /// Takes in changed settings, if some are wanted.
    pub(super) async fn configure(&mut self) {
        let Some(NewSettings { settings, forget }) = self.cell.wanted.take() else { return };
        self.state.reconfigured(&self.account, &settings, self.shared.now());
        self.account = settings;
        if forget {
            self.cell.disown();
            self.state.upstream_exchanged();
            self.cell.set_upstream(self.shared.store.upstream());
            // Who reads now waits for the first of the new one.
            self.state.next_at = Some(self.shared.now());
            self.publish();
            self.commit().await;
        }
        // A call in the queue asks the policy again when its turn comes.
        self.advance();
        self.publish();
        self.teller(self.shared.now()).configured();
    }

    /// Does what the policy says, unless something is being done already.
    pub(super) fn advance(&mut self) {
        if self.state.activity.is_some() {
            return;
        }
        if self.shared.is_draining() {
            // Nothing is begun, and what has landed is seen, in Redis, too.
            return self.publish();
        }
        let now = self.shared.now();
        // Before the decision: a host that is back right after it must not be missed.
        let (hosts, recovery) = self.shared.wechat().hosts().look();
        if std::mem::replace(&mut self.recoveries, hosts.recoveries) != hosts.recoveries {
            self.state.host_is_back(now);
        }
        let step = next_step(&self.state, &self.account, hosts.up, now);
        if let Step::Fetch { reason, .. } = step {
            self.state.reason = Some(reason);
        }
        self.state.next_at = match step {
            Step::Wait(at) => Some(at),
            Step::AwaitHost => None,
            Step::Fetch { .. } | Step::Check => Some(now),
        };
        self.pending = match step {
            Step::Wait(at) => {
                let audit = self.state.audit_at.filter(|_| self.state.is_usable(now));
                self.alarm(audit.into_iter().chain([at]).map(|at| at.until(now)).min(), now, recovery)
            }
            Step::AwaitHost => self.alarm(None, now, recovery),
            Step::Fetch { .. } | Step::Check => {
                self.state.activity = Some(Activity::Queued);
                queue(&self.shared, self.urgency_ms(now), self.requires(step, hosts.up, now))
            }
        };
        self.publish();
    }

    /// Wakes us after `wait`, or when the token ends, which is news; and, where the host is to blame for our
    /// trouble, when it is back.
    fn alarm(
        &self,
        wait: Option<Duration>,
        now: Moment,
        recovery: impl Future<Output = ()> + Send + 'static,
    ) -> Pending<()> {
        let token_ends = Some(self.state.usable_for(now)).filter(|left| !left.is_zero());
        let wait = wait.into_iter().chain(token_ends).min();
        let awaits_host = self.state.trouble.as_deref().is_some_and(|trouble| trouble.awaits_host);
        alarm(wait, awaits_host.then_some(recovery))
    }

    /// Takes in how the call under way has ended, if it has.
    pub(super) async fn land(&mut self) {
        let Some(end) = self.cell.take_end() else { return };
        self.state.activity = None;
        match end {
            CallEnd::Fetch { end, spare_left } => {
                if spare_left {
                    self.state.return_spare();
                }
                self.fetch_ended(end).await;
            }
            CallEnd::Check(end) => self.check_ended(&end).await,
            CallEnd::Abandoned { force, was_sent } => {
                self.state.drop_fetch(force, was_sent);
                self.commit().await;
                self.advance();
            }
        }
    }

    async fn fetch_ended(&mut self, end: FetchEnd) {
        let took_ms = u64::try_from(self.call_started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (rules, now) = (self.shared.rules(), self.shared.now());
        let told = end.result.as_ref().ok().map(|answer| answer.expires_in);
        let fetched = self.state.end_fetch(end, &self.account, rules, now, self.shared.draw());
        let fault = self.state.trouble.as_deref().map(|trouble| &*trouble.fault);
        self.shared.count_fetch(&self.cell, fetched, fault);
        self.commit().await;
        self.cell.clear_awaited();
        self.advance();
        let teller = self.teller(self.shared.now());
        teller.fetch_ended(fetched, took_ms);
        told.into_iter().for_each(|told| teller.told_life(told));
        self.waiters.settle(&self.state, Settled::Fetch(fetched), self.shared.now());
    }

    async fn check_ended(&mut self, end: &CheckEnd) {
        self.state.end_check(end, &self.account, self.shared.now());
        self.teller(self.shared.now()).check_ended(end);
        // A token found dead is out of every answer before the disk hears of it.
        self.publish();
        self.commit().await;
        self.advance();
        self.waiters.settle(&self.state, Settled::Check, self.shared.now());
    }

    pub(super) fn publish(&self) {
        self.shared.publish(&self.cell, &self.account, &self.state);
        self.teller(self.shared.now()).looks();
    }

    pub(super) fn teller(&self, now: Moment) -> Teller<'_> {
        let (journal, cell) = (&self.shared.journal, &*self.cell);
        Teller { journal, cell, account: &self.account, state: &self.state, now }
    }

    /// Puts the state on disk. When that fails the store says so, loudly, and memory serves on. `&mut`, since what it
    /// waits for cannot be shared between threads.
    pub(super) async fn commit(&mut self) {
        let _ = self.shared.store.commit(&self.account.appid, &self.state, self.cell.upstream()).await;
    }
}
