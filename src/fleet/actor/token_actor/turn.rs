//! An account's turn in the call queue: what it requires, and what the account does with the permit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::account::Endpoint;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::token::decide::{Step, next_step, trial_urgency};
use wxtokend_core::token::state::{Activity, HintVerdict, Reason, WantedCall};

use super::TokenActor;
use super::end::TokenCallEnd;
use crate::fleet::actor::call::{Call, acquire_slot, call_end, queue, spawn_call};
use crate::fleet::actor::pending::Pending;
use crate::wechat::{Permit, Require};

impl TokenActor {
    /// How urgent a call is; smaller goes first: an awaited token, then no token, then the token that ends
    /// soonest.
    pub(super) fn urgency_ms(&self, now: Moment) -> i64 {
        match self.state.usable_for(now) {
            Duration::ZERO if self.cell.is_awaited() => -1,
            left => i64::try_from(left.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// What the call in `step` requires of the hosts.
    pub(super) fn requires(&self, step: Step, hosts_up: bool, now: Moment) -> Require {
        let fetches = matches!(step, Step::Fetch { .. });
        if self.state.ignores_down_hosts && !hosts_up {
            Require::Nothing
        } else if fetches && self.account.settings.endpoint == Endpoint::Token && self.state.is_usable(now) {
            // A lost answer would leave the token trusted for the overlap only.
            Require::RecentAnswer
        } else {
            Require::NotDown
        }
    }

    /// Makes a trial while all hosts count as down, if the account still needs a call.
    pub(super) fn run_trial(&mut self) {
        let now = self.shared.now();
        if trial_urgency(&self.state, &self.account, now).is_none() {
            return;
        }
        if next_step(&self.state, &self.account, true, now) != Step::Check {
            self.state.want.get_or_insert(WantedCall::Fetch(Reason::Trial));
        }
        self.state.ignores_down_hosts = true;
        self.advance();
    }

    /// Moves to the head of the call queue, if the account waits there without a token.
    pub(super) fn move_up(&mut self) {
        let now = self.shared.now();
        if self.state.activity == Activity::Queued && self.urgency_ms(now) < 0 {
            // Without a token there is none that a lost answer could cost, so no probe is required.
            self.enter(Activity::Queued, queue(&self.shared, self.urgency_ms(now), Require::NotDown));
        }
    }

    /// Uses the permit: decides once more, charges, puts the intent on disk, calls.
    pub(super) async fn call(&mut self, permit: Permit) {
        // Counted as in flight before the check below, so that a fleet that stops waits for it.
        let _in_flight = self.shared.calls_in_flight.token();
        if self.shared.is_draining() {
            return self.enter(Activity::Idle, Pending::nothing());
        }
        let now = self.shared.now();
        self.state.others_waiting = permit.others_waiting();
        let call = match next_step(&self.state, &self.account, true, now) {
            // Recovery assumes that a call is sent right after its intent is written, so the slot comes
            // first.
            Step::Fetch { reason, force }
                if (force || self.account.settings.endpoint == Endpoint::Token) && !permit.is_in_flight() =>
            {
                let hosts_up = self.shared.wechat().hosts().observe().0.up;
                let requires = self.requires(Step::Fetch { reason, force }, hosts_up, now);
                if requires == Require::RecentAnswer {
                    // It queued for another call, which required less of the hosts.
                    drop(permit);
                    self.enter(Activity::Queued, queue(&self.shared, self.urgency_ms(now), requires));
                } else {
                    self.enter(Activity::AwaitingSlot, acquire_slot(permit));
                }
                return;
            }
            Step::Fetch { reason, force } => {
                self.state.reason = Some(reason);
                let ignores_down_hosts = self.state.ignores_down_hosts;
                if let Err(free_at) = self.state.begin_fetch(&self.account, force, now) {
                    let fault =
                        Fault::budget_exhausted(self.account.settings.daily_budget, free_at.until(now));
                    return self.finish(TokenCallEnd::Refused(fault)).await;
                }
                let several = self.shared.wechat().hosts().are_several();
                let spare = several && self.state.charge_spare(&self.account, now);
                self.enter(Activity::Fetching, call_end(&self.cell));
                // Readers must stop trusting the token too long before the call can end it.
                self.publish();
                self.commit().await;
                Call::Fetch { reason, force, spare, ignores_down_hosts }
            }
            Step::Check => {
                let Some(token) = self.state.token.clone() else { return self.reconsider() };
                self.enter(Activity::Checking, call_end(&self.cell));
                self.publish();
                // A client that rejected the token waits for the answer; a served token that no one has
                // rejected can wait for a second check.
                let recheck_refusal = self.state.want.is_none() && self.state.is_usable(now);
                Call::Check { token: token.value.clone(), recheck_refusal }
            }
            Step::FollowHint(_) => {
                let (hint, token) = (self.state.hint, self.state.token.clone());
                let (Some(hint), Some(token)) = (hint, token) else { return self.reconsider() };
                if !self.state.begin_hinted_check(&self.account, now) {
                    self.settle_hint(hint, HintVerdict::Skipped, now);
                    return self.reconsider();
                }
                self.enter(Activity::Checking, call_end(&self.cell));
                self.publish();
                // Its charge must survive a crash.
                self.commit().await;
                Call::Check { token: token.value.clone(), recheck_refusal: false }
            }
            // What was due when we queued no longer is: settings were reloaded, or the clock jumped.
            Step::Wait(_) | Step::AwaitHost => return self.reconsider(),
        };
        self.call_started = Instant::now();
        spawn_call(&self.cell, &self.shared, Arc::clone(&self.account), permit, call);
    }
}
