//! One account's actor: asks the policy what is next, does it, takes in how it ended.
//!
//! Everything it knows is in its state; every change is put on disk and into the cell in the order that the
//! invariants ask for: a charge and an intent before the call, a token before any reader sees it, the news that
//! a token is dead before anything else.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kameo::error::Infallible;
use kameo::prelude::*;
use kameo::reply::ReplySender;
use tokio::time::{Instant, sleep};

use super::actor_log;
use super::cell::AccountCell;
use super::flight::{Call, End, fly, queue};
use super::pending::Pending;
use super::shared::Shared;
use super::tally::RejectionOutcome;
use crate::account::Account;
use crate::clock::Moment;
use crate::fault::Fault;
use crate::outcome::{CheckEnd, FetchEnd, Fetched};
use crate::policy::{Step, next_step};
use crate::rejection::{Judgement, Verdict, judge_refresh, judge_rejection};
use crate::secret::Secret;
use crate::state::{AccountState, Activity};
use crate::token::Standing;
use crate::wechat::Permit;

/// Sees to one account.
pub(crate) struct TokenActor {
    me: ActorRef<Self>,
    cell: Arc<AccountCell>,
    shared: Arc<Shared>,
    account: Arc<Account>,
    state: AccountState,
    waiters: Vec<Waiter>,
    /// A wake-up or a place in the queue; dropped, it is cancelled.
    pending: Option<Pending>,
    call_started: Instant,
}

/// Somebody waits for the account to settle.
struct Waiter {
    /// The token that was rejected; `None` for a wish to refresh.
    presented: Option<Secret>,
    reply: ReplySender<Answer>,
}

/// How a rejection or a wish to refresh ended; the error when there is no valid token.
pub(super) type Answer = Result<RejectionOutcome, NoValidToken>;

/// A replacement was tried and there is no valid token.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoValidToken;

impl Actor for TokenActor {
    type Args = (Arc<AccountCell>, Arc<Shared>);
    type Error = Infallible;

    fn name() -> &'static str {
        "token"
    }

    async fn on_start((cell, shared): Self::Args, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let snapshot = cell.load();
        let _ = me.tell(Wake).try_send();
        let mut actor = Self {
            me,
            account: Arc::clone(&snapshot.account),
            state: snapshot.state.clone(),
            cell,
            shared,
            waiters: Vec::new(),
            pending: None,
            call_started: Instant::now(),
        };
        actor.resume();
        Ok(actor)
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

/// Look at the clock and do what is due.
pub(super) struct Wake;
/// The global limits let a call through, or the host is down.
pub(super) struct Admitted(pub(super) Result<Permit, Fault>);
/// The call under way has ended; the cell has its end.
pub(super) struct Landed;
/// The host that was down answers again.
struct HostIsBack;
/// The account's settings have changed.
pub(super) struct Configure {
    pub(super) account: Arc<Account>,
    /// The upstream is another one now, whose tokens these are not.
    pub(super) forget_token: bool,
}
/// A client says that WeChat refused this token.
pub(super) struct Reject(pub(super) Secret);
/// An operator wants a refresh now.
pub(super) struct Refresh {
    pub(super) force: bool,
}

impl Message<Wake> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Wake, _: &mut Context<Self, ()>) {
        self.land().await;
        self.advance();
    }
}

impl Message<HostIsBack> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: HostIsBack, _: &mut Context<Self, ()>) {
        self.state.host_is_back(self.shared.now());
        self.advance();
    }
}

impl Message<Admitted> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, Admitted(admitted): Admitted, _: &mut Context<Self, ()>) {
        if self.state.activity == Some(Activity::Queued) {
            self.state.activity = None;
            match admitted {
                Ok(permit) => self.call(permit).await,
                Err(host_down) => self.refused(host_down).await,
            }
        }
    }
}

impl Message<Landed> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Landed, _: &mut Context<Self, ()>) {
        self.land().await;
        self.advance();
    }
}

impl Message<Configure> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, new: Configure, _: &mut Context<Self, ()>) {
        self.state.reconfigured(&self.account, &new.account, self.shared.now());
        self.account = new.account;
        if new.forget_token {
            self.state.forget_token();
            self.publish();
            self.commit().await;
        }
        // A call in the queue asks the policy again when its turn comes.
        self.advance();
        self.publish();
    }
}

impl Message<Reject> for TokenActor {
    type Reply = DelegatedReply<Answer>;
    async fn handle(
        &mut self,
        Reject(presented): Reject,
        ctx: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let judgement = judge_rejection(&mut self.state, &self.account, &presented, self.shared.now());
        self.answer_or_wait(judgement, Some(presented), ctx).await
    }
}

impl Message<Refresh> for TokenActor {
    type Reply = DelegatedReply<Answer>;
    async fn handle(
        &mut self,
        Refresh { force }: Refresh,
        ctx: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let judgement = judge_refresh(&mut self.state, &self.account, force, self.shared.now());
        self.answer_or_wait(judgement, None, ctx).await
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
                self.state.end_fetch(end, &self.account, rules, now, (self.shared.jitter)());
            }
            Some(Activity::Fetching | Activity::Checking) if !lost => {}
            _ => self.state.activity = None,
        }
    }

    /// Does what the policy says, unless something is being done already.
    fn advance(&mut self) {
        if self.state.activity.is_some() || self.shared.is_draining() {
            return;
        }
        let now = self.shared.now();
        let step = next_step(&self.state, &self.account, self.shared.wechat().hosts().is_up(), now);
        self.state.next_at = match step {
            Step::Wait(at) => Some(at),
            Step::AwaitHost => None,
            Step::Fetch { .. } | Step::Check => Some(now),
        };
        self.pending = Some(match step {
            Step::Wait(at) => self.alarm(Some(at.until(now))),
            Step::AwaitHost => self.alarm(None),
            Step::Fetch { .. } | Step::Check => {
                self.state.activity = Some(Activity::Queued);
                queue(self.me.clone(), &self.shared, self.urgency_ms(now))
            }
        });
        self.publish();
    }

    /// Wakes us after `wait`; and, where the host is to blame for our trouble, when it is back.
    fn alarm(&self, wait: Option<Duration>) -> Pending {
        let me = self.me.clone();
        let awaits_host = self.state.trouble.as_ref().is_some_and(|trouble| trouble.awaits_host);
        let host = awaits_host.then(|| self.shared.wechat().hosts().watch());
        Pending::spawn(async move {
            let time = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let back = async {
                let Some(mut host) = host else { return std::future::pending().await };
                let before = host.borrow().recoveries;
                // An error means that a reload has replaced the upstream: that too is worth a look.
                let _ = host.wait_for(|overall| overall.recoveries > before).await;
            };
            // A stopped actor needs no waking.
            tokio::select! {
                () = time => { let _ = me.tell(Wake).await; }
                () = back => { let _ = me.tell(HostIsBack).await; }
            }
        })
    }

    /// Less goes first: who has no token, then whose token ends soonest.
    fn urgency_ms(&self, now: Moment) -> i64 {
        i64::try_from(self.state.usable_for(now).as_millis()).unwrap_or(i64::MAX)
    }

    /// It is our turn: decide once more, charge, put the intent on disk, call.
    async fn call(&mut self, permit: Permit) {
        if self.shared.is_draining() {
            return;
        }
        let now = self.shared.now();
        let call = match next_step(&self.state, &self.account, true, now) {
            Step::Fetch { force } => {
                if let Err(free_at) = self.state.begin_fetch(&self.account, force, now) {
                    let fault = Fault::budget_exhausted(self.account.daily_budget, free_at.until(now));
                    return self.refused(fault).await;
                }
                self.state.activity = Some(Activity::Fetching);
                // Readers must stop trusting the token too long before the call can end it.
                self.publish();
                self.commit().await;
                Call::Fetch { force }
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
        self.pending = None;
        self.call_started = Instant::now();
        fly(&self.cell, &self.shared, Arc::clone(&self.account), permit, call);
    }

    /// The call was not made.
    async fn refused(&mut self, fault: Fault) {
        let now = self.shared.now();
        let fetched = self.state.refuse_fetch(fault.clone(), &self.account, now, (self.shared.jitter)());
        self.cell.tally.count_fetch(fetched, Some(&fault));
        self.advance();
        actor_log::failed(&self.account, &fault, &self.state, None, now);
        self.settle(Settled::Fetch(fetched));
    }

    /// Takes in how the call under way has ended, if it has.
    async fn land(&mut self) {
        let Some(end) = self.cell.take_end() else { return };
        self.state.activity = None;
        match end {
            End::Fetch(end) => self.fetch_ended(end).await,
            End::Check(end) => self.check_ended(&end).await,
        }
    }

    async fn fetch_ended(&mut self, end: FetchEnd) {
        let took_ms = u64::try_from(self.call_started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (rules, now) = (self.shared.rules(), self.shared.now());
        let fetched = self.state.end_fetch(end, &self.account, rules, now, (self.shared.jitter)());
        self.cell.tally.count_fetch(fetched, self.state.trouble.as_ref().map(|trouble| &*trouble.fault));
        self.commit().await;
        self.advance();
        actor_log::fetch_ended(&self.account, &self.state, fetched, took_ms, now);
        self.settle(Settled::Fetch(fetched));
    }

    async fn check_ended(&mut self, end: &CheckEnd) {
        self.state.end_check(end, &self.account, self.shared.now());
        actor_log::check_ended(&self.account, end);
        // A token found dead is out of every answer before the disk hears of it.
        self.publish();
        self.commit().await;
        self.advance();
        self.settle(Settled::Check);
    }

    fn publish(&self) {
        self.cell.publish(&self.account, &self.state);
    }

    /// Puts the state on disk. When that fails the store says so, loudly, and memory serves on.
    async fn commit(&self) {
        let _ = self.shared.store.commit(&self.account.appid, &self.state).await;
    }

    async fn answer_or_wait(
        &mut self,
        judgement: Judgement,
        presented: Option<Secret>,
        ctx: &mut Context<Self, DelegatedReply<Answer>>,
    ) -> DelegatedReply<Answer> {
        let at_once = match judgement {
            Judgement::Superseded => Some(Ok(RejectionOutcome::Superseded)),
            Judgement::StillValid => Some(Ok(RejectionOutcome::StillValid)),
            Judgement::Limited => Some(Ok(RejectionOutcome::Limited)),
            Judgement::Accepted => {
                // What it has drawn on the budget must not be forgotten.
                self.commit().await;
                self.advance();
                None
            }
            Judgement::Join => {
                let now = self.shared.now();
                let soon = self.state.next_at.is_some_and(|at| at.until(now) <= self.shared.rules().timeout);
                let hopeless = self.state.activity.is_none() && !soon;
                hopeless.then_some(Err(NoValidToken))
            }
        };
        if let Some(answer) = at_once {
            return ctx.reply(answer);
        }
        let (delegated, reply) = ctx.reply_sender();
        self.waiters.extend(reply.map(|reply| Waiter { presented, reply }));
        delegated
    }

    /// Answers those whose question is decided now.
    fn settle(&mut self, settled: Settled) {
        let (decided, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiters)
            .into_iter()
            .map(|waiter| (self.decide(&waiter, settled), waiter))
            .partition(|(answer, _)| answer.is_some());
        self.waiters = waiting.into_iter().map(|(_, waiter)| waiter).collect();
        for (answer, waiter) in decided {
            if let Some(answer) = answer {
                waiter.reply.send(answer);
            }
        }
    }

    /// The answer to one who waits; `None` while there is more to come.
    fn decide(&self, waiter: &Waiter, settled: Settled) -> Option<Answer> {
        let state = &self.state;
        let replaced = waiter.presented.as_ref().is_some_and(|presented| !state.is_current(presented));
        if replaced || settled == Settled::Fetch(Fetched::New) {
            return Some(Ok(RejectionOutcome::Refreshed));
        }
        let about_to_call = state.want.is_some()
            || state.token.as_ref().is_some_and(|token| token.standing != Standing::Good)
                && state.activity.is_some();
        let usable = state.is_usable(self.shared.now());
        match settled {
            Settled::Fetch(_) if about_to_call => None,
            Settled::Fetch(Fetched::Failed) if waiter.presented.is_some() && usable => {
                Some(Ok(RejectionOutcome::Limited))
            }
            Settled::Fetch(_) if usable => Some(Ok(RejectionOutcome::StillValid)),
            Settled::Fetch(_) => Some(Err(NoValidToken)),
            // One who wants a refresh, or whose token is dead, waits for the fetch.
            Settled::Check if waiter.presented.is_none() || about_to_call || !usable => None,
            Settled::Check if state.rejections.verdict == Some(Verdict::Honoured) => {
                Some(Ok(RejectionOutcome::StillValid))
            }
            Settled::Check => Some(Ok(RejectionOutcome::Limited)),
        }
    }
}

/// What has just come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Check,
    Fetch(Fetched),
}

/// Makes the actor panic in a handler.
#[cfg(test)]
pub(super) struct Crash;

#[cfg(test)]
impl Message<Crash> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Crash, _: &mut Context<Self, ()>) {
        panic!("asked to");
    }
}
