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
use super::cell::AccountCell;
use super::flight::{Call, End, fly, landing, queue, take_off};
use super::pending::{Due, Pending, Waits, alarm, next};
use super::shared::Shared;
use super::waiters::{Settled, Waiter};
use super::wanted::NewSettings;
use crate::account::{Account, Endpoint};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::outcome::{CheckEnd, FetchEnd};
use crate::policy::{Step, next_step};
use crate::state::{AccountState, Activity};
use crate::wechat::Permit;

/// Sees to one account.
pub(crate) struct TokenActor {
    cell: Arc<AccountCell>,
    pub(super) shared: Arc<Shared>,
    pub(super) account: Arc<Account>,
    /// Boxed, since the task of an actor holds it more than once.
    pub(super) state: Box<AccountState>,
    pub(super) waiters: Vec<Waiter>,
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
            waiters: Vec::new(),
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
        self.state.next_at = match step {
            Step::Wait(at) => Some(at),
            Step::AwaitHost => None,
            Step::Fetch { .. } | Step::Check => Some(now),
        };
        self.pending = match step {
            Step::Wait(at) => self.alarm(Some(at.until(now)), now, recovery),
            Step::AwaitHost => self.alarm(None, now, recovery),
            Step::Fetch { .. } | Step::Check => {
                self.state.activity = Some(Activity::Queued);
                // A lost answer would leave the token trusted for the overlap only.
                let wary = self.account.endpoint == Endpoint::Token
                    && self.state.is_usable(now)
                    && matches!(step, Step::Fetch { .. });
                queue(&self.shared, self.urgency_ms(now), wary)
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
        let awaits_host = self.state.trouble.as_ref().is_some_and(|trouble| trouble.awaits_host);
        alarm(wait, awaits_host.then_some(recovery))
    }

    /// Less goes first: for whose token somebody waits, who has none, then whose token ends soonest.
    fn urgency_ms(&self, now: Moment) -> i64 {
        match self.state.usable_for(now) {
            Duration::ZERO if self.cell.is_awaited() => -1,
            left => i64::try_from(left.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Goes to the head of the queue, if it stands there without a token.
    pub(super) fn move_up(&mut self) {
        let now = self.shared.now();
        let stands = self.state.activity == Some(Activity::Queued) && !self.takes_off;
        if stands && self.urgency_ms(now) < 0 {
            // Without a token there is none to be wary for.
            self.pending = queue(&self.shared, self.urgency_ms(now), false);
        }
    }

    /// It is our turn: decide once more, charge, put the intent on disk, call.
    pub(super) async fn call(&mut self, permit: Permit) {
        // Counts as a flight from before the look: a stopping fleet waits for it.
        let _flight = self.shared.flights.token();
        if self.shared.is_draining() {
            return;
        }
        let now = self.shared.now();
        self.state.others_waiting = permit.others_waiting();
        let call = match next_step(&self.state, &self.account, true, now) {
            // It is reckoned with that a call goes out right after its intent.
            Step::Fetch { force }
                if (force || self.account.endpoint == Endpoint::Token) && !permit.is_in_flight() =>
            {
                self.state.activity = Some(Activity::Queued);
                self.takes_off = true;
                self.pending = take_off(permit);
                return;
            }
            Step::Fetch { force } => {
                if let Err(free_at) = self.state.begin_fetch(&self.account, force, now) {
                    let fault = Fault::budget_exhausted(self.account.daily_budget, free_at.until(now));
                    return self.refused(fault).await;
                }
                let several = self.shared.wechat().hosts().are_several();
                let spare = several && self.state.charge_spare(&self.account, now);
                self.state.activity = Some(Activity::Fetching);
                // Readers must stop trusting the token too long before the call can end it.
                self.publish();
                self.commit().await;
                Call::Fetch { force, spare }
            }
            Step::Check => {
                let Some(token) = self.state.token.clone() else { return self.advance() };
                self.state.activity = Some(Activity::Checking);
                self.publish();
                Call::Check(token.value.clone())
            }
            // What was due when we queued is not any more: a reload, or a jump of the clock.
            Step::Wait(_) | Step::AwaitHost => return self.advance(),
        };
        self.call_started = Instant::now();
        fly(&self.cell, &self.shared, Arc::clone(&self.account), permit, call);
        self.pending = landing(&self.cell);
    }

    /// The call was not made.
    pub(super) async fn refused(&mut self, fault: Fault) {
        let now = self.shared.now();
        let fetched = self.state.refuse_fetch(fault.clone(), &self.account, now, (self.shared.jitter)());
        self.shared.count_fetch(&self.cell, fetched, Some(&fault));
        self.cell.clear_awaited();
        self.advance();
        self.teller(self.shared.now()).failed(&Arc::new(fault), None);
        self.settle(Settled::Fetch(fetched));
    }

    /// Takes in how the call under way has ended, if it has.
    pub(super) async fn land(&mut self) {
        let Some(end) = self.cell.take_end() else { return };
        self.state.activity = None;
        match end {
            End::Fetch { end, spare_left } => {
                if spare_left {
                    self.state.return_spare();
                }
                self.fetch_ended(end).await;
            }
            End::Check(end) => self.check_ended(&end).await,
            End::Disowned { force, was_sent } => {
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
        let fault = self.state.trouble.as_ref().map(|trouble| &*trouble.fault);
        self.shared.count_fetch(&self.cell, fetched, fault);
        self.commit().await;
        self.cell.clear_awaited();
        self.advance();
        let teller = self.teller(self.shared.now());
        teller.fetch_ended(fetched, took_ms);
        told.into_iter().for_each(|told| teller.told_life(told));
        self.settle(Settled::Fetch(fetched));
    }

    async fn check_ended(&mut self, end: &CheckEnd) {
        self.state.end_check(end, &self.account, self.shared.now());
        self.teller(self.shared.now()).check_ended(end);
        // A token found dead is out of every answer before the disk hears of it.
        self.publish();
        self.commit().await;
        self.advance();
        self.settle(Settled::Check);
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
