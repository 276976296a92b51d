//! What is known of one ticket, what to do about it, and what a call changes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HeldTicket, SHORTEST_PAUSE, Ticket, poll_interval};
use crate::account::Account;
use crate::budget::{self, Bucket, Ledger};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::last_failure::LastFailure;
use crate::phase::Phase;
use crate::token::margin;
use crate::token::state::next_version;
use crate::token::transition::{Answer, Fetched, USUAL_LIFETIME};

/// Everything known of one ticket. The first half is persisted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TicketState {
    /// Version of the newest ticket; 0 before the first. Never decreases.
    pub version: u64,
    /// The newest ticket, which may have ended.
    pub ticket: Option<Arc<HeldTicket>>,
    /// What has been spent of the budget; each ticket has its own.
    pub ledger: Ledger,

    /// The last call's failure; cleared by the next success.
    #[serde(skip)]
    pub last_failure: Option<Box<LastFailure>>,
    /// What is being done right now.
    #[serde(skip)]
    pub activity: Option<TicketActivity>,
    /// What the call under way was charged.
    #[serde(skip)]
    pub charge_interval: Duration,
    /// How many attempts have ended, successfully or not. Requests that wait for a ticket watch this.
    #[serde(skip)]
    pub attempts_ended: u64,
    /// When the next step is due; `None` while that depends on the host or the token.
    #[serde(skip)]
    pub next_at: Option<Moment>,
}

/// What is being done about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketActivity {
    /// Waits for the account's token.
    AwaitsToken,
    /// Waits in the call queue for its turn at the global limits.
    Queued,
    /// The call is under way.
    Asking,
}

/// What to do next about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketStep {
    /// Nothing before this instant.
    Wait(Moment),
    /// Nothing until the host answers again.
    AwaitHost,
    /// Nothing until the account has a token.
    AwaitToken,
    /// Ask WeChat for it.
    Ask,
}

/// The end of a ticket call.
#[derive(Debug)]
pub struct TicketCallEnd {
    /// When it was sent; `None` if no byte was.
    pub sent_at: Option<Moment>,
    /// The answer.
    pub result: Result<Answer, Fault>,
}

impl TicketState {
    /// Returns what to do next, given that nothing is being done now.
    #[must_use]
    pub fn next_step(&self, account: &Account, has_token: bool, host_up: bool, now: Moment) -> TicketStep {
        let last_failure = self.last_failure.as_deref();
        if last_failure.is_some_and(|failure| failure.awaits_host) && !host_up {
            return TicketStep::AwaitHost;
        }
        let scheduled = self.ticket.as_ref().map_or(now, |ticket| {
            // Polling a ticket that still serves must not spend the calls that its successor will need.
            let half = budget::burst(account.settings.daily_budget) / 2;
            let spare = self.ledger.remaining(Bucket::Calls, account.settings.daily_budget, now) > half;
            let due = if spare || !self.is_usable(now) { ticket.ask_at } else { ticket.expires_at };
            now + due.until_by_either(now)
        });
        let due = last_failure.map_or(scheduled, |failure| scheduled.max(failure.retry_at));
        match due.has_come(now) {
            false => TicketStep::Wait(due),
            true if has_token => TicketStep::Ask,
            true => TicketStep::AwaitToken,
        }
    }

    /// How urgently the ticket needs a trial while all hosts count as down, as its remaining life. `None` if
    /// the call would be of no use, or if the ticket will need it when the hosts are back.
    #[must_use]
    pub fn trial_urgency(&self, account: &Account, has_token: bool, now: Moment) -> Option<Duration> {
        let is_idle = !matches!(self.activity, Some(TicketActivity::Queued | TicketActivity::Asking));
        let is_useful = is_idle
            && budget::can_afford_trial(&self.ledger, account.settings.daily_budget, now)
            && self.next_step(account, has_token, true, now) == TicketStep::Ask;
        is_useful.then(|| self.usable_for(now))
    }

    /// Charges a call. Must be on disk before it is sent.
    ///
    /// # Errors
    /// If the budget allows no call now, returns the instant at which it will.
    pub fn begin_ask(&mut self, account: &Account, now: Moment) -> Result<(), Moment> {
        self.ledger.charge(Bucket::Calls, account.settings.daily_budget, now)?;
        self.charge_interval = budget::interval(account.settings.daily_budget);
        Ok(())
    }

    /// Applies how a call ended, or why none was made.
    pub fn end_ask(&mut self, end: TicketCallEnd, account: &Account, now: Moment, jitter: f64) -> Fetched {
        self.attempts_ended += 1;
        let charge_interval = std::mem::take(&mut self.charge_interval);
        match (end.result, end.sent_at) {
            (Ok(answer), Some(sent_at)) => {
                self.last_failure = None;
                self.apply_answer(answer, sent_at, account, now, jitter)
            }
            (Ok(_), None) => {
                self.fail(Fault::internal("an answer to a call that was not sent"), account, now, jitter)
            }
            (Err(fault), sent_at) => {
                if sent_at.is_none() {
                    self.ledger.refund(charge_interval);
                }
                self.fail(fault, account, now, jitter)
            }
        }
    }

    fn apply_answer(
        &mut self,
        answer: Answer,
        sent_at: Moment,
        account: &Account,
        now: Moment,
        jitter: f64,
    ) -> Fetched {
        // Asking again costs nothing, so one answer must not keep us from it for days.
        let lifetime = answer.expires_in.min(USUAL_LIFETIME);
        let poll_interval = poll_interval(lifetime);
        let soon = poll_interval.mul_f64(0.5 + jitter / 2.0);
        // No later than the expiry, when there would be nothing left to serve.
        let not_at_once = |at: Moment| at.max(sent_at + SHORTEST_PAUSE);
        let next_poll = |expires_at: Moment| not_at_once((sent_at + soon).min(expires_at));
        let last = self.ticket.as_deref();
        let (fetched, held) = match last.filter(|last| last.value == answer.value) {
            // As expected. If WeChat reports less than we assumed, we believe it.
            Some(held) if held.is_age_known && !held.ends_from.is_over(sent_at) => {
                let ends_from = held.ends_from.min(sent_at + lifetime);
                let ends_by = held.ends_by.min(now + lifetime);
                let held = HeldTicket {
                    expires_at: ends_from,
                    ends_from,
                    ends_by,
                    ask_at: not_at_once(ends_from),
                    ..held.clone()
                };
                (Fetched::Same, held)
            }
            // It may end any time but is still alive: asked again soon, so that the age of its successor is
            // known precisely.
            Some(held) if held.is_age_known && !held.ends_by.is_over(sent_at) => {
                let pause = (held.ends_from.elapsed(held.ends_by) / 8).max(account.settings.retry.initial);
                let expires_at = sent_at + pause + margin(poll_interval);
                (Fetched::Same, HeldTicket { expires_at, ask_at: sent_at + pause, ..held.clone() })
            }
            // The same ticket, but its end is unknown.
            Some(held) => {
                let ends_from = held.ends_from.min(sent_at + lifetime);
                let expires_at =
                    if ends_from.is_over(sent_at) { sent_at + 2 * poll_interval } else { ends_from };
                // Unless WeChat's tickets last longer than it says, it has another by then.
                let by_now = Some(held.ends_by).filter(|by| !by.is_over(sent_at));
                let ask_at = not_at_once(next_poll(expires_at).min(by_now.unwrap_or(expires_at)));
                let held = HeldTicket { expires_at, ends_from, ask_at, is_age_known: false, ..held.clone() };
                (Fetched::Same, held)
            }
            None => {
                let is_relapse = last.is_some_and(|last| last.before == Some(answer.value.sha256()));
                if let Some(last) = last.filter(|last| is_relapse && !last.expires_at.is_over(sent_at)) {
                    // From a part of WeChat that has not seen the successor yet: not a new ticket.
                    let ask_at = next_poll(last.expires_at);
                    self.ticket = Some(Arc::new(HeldTicket { ask_at, ..last.clone() }));
                    return Fetched::Same;
                }
                let made_at = last
                    .filter(|_| !is_relapse)
                    .and_then(|last| made_after(last, sent_at, 2 * poll_interval));
                let ends_from = made_at.unwrap_or(sent_at) + lifetime;
                self.version = next_version(self.version, now);
                let held = HeldTicket {
                    value: answer.value,
                    version: self.version,
                    issued_at: made_at.unwrap_or(sent_at),
                    expires_at: ends_from,
                    ends_from,
                    ends_by: now + lifetime,
                    seen_at: sent_at,
                    is_age_known: made_at.is_some(),
                    lifetime,
                    // Once shortly before its end, in case WeChat has its successor by then.
                    ask_at: if made_at.is_some() {
                        not_at_once(ends_from - soon)
                    } else {
                        next_poll(ends_from)
                    },
                    before: last.map(|last| last.value.sha256()),
                };
                (Fetched::New, held)
            }
        };
        self.ticket = Some(Arc::new(HeldTicket { seen_at: sent_at, lifetime, ..held }));
        fetched
    }

    fn fail(&mut self, fault: Fault, account: &Account, now: Moment, jitter: f64) -> Fetched {
        let usable_for = self.usable_for(now);
        let earlier = self.last_failure.as_deref();
        let last_failure = LastFailure::after(earlier, fault, account, usable_for, &self.ledger, now, jitter);
        self.last_failure = Some(Box::new(last_failure));
        Fetched::Failed
    }

    /// How long the ticket may still be served as good.
    #[must_use]
    pub fn usable_for(&self, now: Moment) -> Duration {
        self.ticket.as_deref().map_or(Duration::ZERO, |ticket| {
            ticket.expires_at.until_by_either(now).saturating_sub(margin(ticket.poll_interval()))
        })
    }

    /// Whether the ticket may be served at `now`.
    #[must_use]
    pub fn is_usable(&self, now: Moment) -> bool {
        !self.usable_for(now).is_zero()
    }

    /// Returns the ticket for a reader, if one may be served.
    #[must_use]
    pub fn read(&self, now: Moment) -> Option<Ticket> {
        let usable_for = self.usable_for(now);
        let held = self.ticket.as_ref().filter(|_| !usable_for.is_zero())?;
        // A ticket of unknown age may have a successor any time; the next poll shows it.
        let expires_in = if held.is_age_known { usable_for } else { usable_for.min(held.poll_interval()) };
        Some(Ticket { held: Arc::clone(held), expires_in })
    }

    /// Returns the ticket's phase at `now`.
    #[must_use]
    pub fn phase(&self, now: Moment) -> Phase {
        let is_busy = matches!(self.activity, Some(TicketActivity::Queued | TicketActivity::Asking));
        Phase::of(self.last_failure.as_deref(), self.is_usable(now), is_busy, self.attempts_ended)
    }

    /// Ends the wait for a host that was down and now answers again.
    pub fn host_is_back(&mut self, now: Moment) {
        if let Some(last_failure) = &mut self.last_failure {
            last_failure.host_is_back(now);
        }
    }

    /// Applies changed settings of the account: whatever was wrong may be right now.
    pub fn reconfigured(&mut self, now: Moment) {
        if let Some(last_failure) = &mut self.last_failure {
            last_failure.retry_at = now;
        }
    }

    /// What remains when it is no longer kept, or belongs to another upstream: its version and budget.
    #[must_use]
    pub fn tombstone(&self) -> Self {
        Self { version: self.version, ledger: self.ledger, ..Self::default() }
    }

    /// The state for an actor that starts again. A call under way ended with the actor that crashed, and its
    /// charge is spent.
    #[must_use]
    pub fn resumed(&self) -> Self {
        Self { activity: None, charge_interval: Duration::ZERO, ..self.clone() }
    }

    /// Converts the state to the clocks of another boot; only the wall clock connects the two.
    #[must_use]
    pub fn rebased(mut self, now: Moment) -> Self {
        self.ledger = self.ledger.rebased(now);
        // Seen in the future: the wall clock was set back, so the ticket's age is unknown.
        self.ticket = self.ticket.filter(|ticket| ticket.seen_at.wall_ms <= now.wall_ms);
        if let Some(ticket) = &mut self.ticket {
            let ticket = Arc::make_mut(ticket);
            let HeldTicket { issued_at, expires_at, ends_from, ends_by, seen_at, ask_at, .. } = ticket;
            for at in [issued_at, expires_at, ends_from, ends_by, seen_at, ask_at] {
                *at = at.rebased(now);
            }
        }
        self
    }
}

/// Earliest time at which the successor of `last` was issued, if known to within `precision`. The successor
/// was returned by a call sent at `sent_at`; it was not issued before WeChat last handed out `last`, nor
/// before `last` had ended.
fn made_after(last: &HeldTicket, sent_at: Moment, precision: Duration) -> Option<Moment> {
    let since = |earliest: Moment| earliest.elapsed(sent_at) <= precision;
    let ended = Some(last.ends_from).filter(|end| last.is_age_known && end.has_come(sent_at));
    Some(last.seen_at).filter(|seen| since(*seen)).or(ended.filter(|end| since(*end)))
}
