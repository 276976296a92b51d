//! What is known of one ticket, what is to be done about it, and what a call's end changes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HeldTicket, SHORTEST_PAUSE, Ticket, look};
use crate::account::Account;
use crate::budget::{self, Bucket, Ledger};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::last_failure::LastFailure;
use crate::phase::Phase;
use crate::token::margin;
use crate::token::state::next_version;
use crate::token::transition::{Answer, Fetched, USUAL_LIFETIME};

/// Everything that is known of one ticket. The first half is persisted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TicketState {
    /// The version of the newest; 0 before the first. Never goes back.
    pub version: u64,
    /// The newest, which may have ended.
    pub ticket: Option<Arc<HeldTicket>>,
    /// What has been spent of the budget, which each ticket has for itself.
    pub ledger: Ledger,

    /// The last call's failure, until one succeeds.
    #[serde(skip)]
    pub trouble: Option<Box<LastFailure>>,
    /// What is being done right now.
    #[serde(skip)]
    pub activity: Option<TicketActivity>,
    /// What the call under way was charged.
    #[serde(skip)]
    pub price: Duration,
    /// How many attempts have ended, well or badly: those who wait for one watch this.
    #[serde(skip)]
    pub attempts_ended: u64,
    /// When something will be done next; `None` while it depends on the host or on the token.
    #[serde(skip)]
    pub next_at: Option<Moment>,
}

/// What is being done about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketActivity {
    /// Waits for the account's token.
    AwaitsToken,
    /// Waits for its turn at the global limits.
    Queued,
    /// The call is under way.
    Asking,
}

/// What to do about a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketStep {
    /// Nothing before this instant.
    Wait(Moment),
    /// Nothing before the host answers again.
    AwaitHost,
    /// Nothing before the account has a token.
    AwaitToken,
    /// Ask WeChat for it.
    Ask,
}

/// A call for a ticket has ended.
#[derive(Debug)]
pub struct TicketCallEnd {
    /// When it was sent; `None` when no byte was.
    pub sent_at: Option<Moment>,
    /// The answer.
    pub result: Result<Answer, Fault>,
}

impl TicketState {
    /// What is to be done next if nothing is being done now.
    #[must_use]
    pub fn next_step(&self, account: &Account, has_token: bool, host_up: bool, now: Moment) -> TicketStep {
        let trouble = self.trouble.as_deref();
        if trouble.is_some_and(|trouble| trouble.awaits_host) && !host_up {
            return TicketStep::AwaitHost;
        }
        let scheduled = self.ticket.as_ref().map_or(now, |ticket| {
            // To look after a ticket that serves is no reason to spend the calls that its successor will need.
            let half = budget::burst(account.daily_budget) / 2;
            let spare = self.ledger.remaining(Bucket::Calls, account.daily_budget, now) > half;
            let due = if spare || !self.is_usable(now) { ticket.ask_at } else { ticket.expires_at };
            now + due.until_by_either(now)
        });
        let due = trouble.map_or(scheduled, |trouble| scheduled.max(trouble.retry_at));
        match due.has_come(now) {
            false => TicketStep::Wait(due),
            true if has_token => TicketStep::Ask,
            true => TicketStep::AwaitToken,
        }
    }

    /// How urgently it needs that a call is tried although all hosts count as down, as what is left of it; `None` while a
    /// call would be of no use to it, or one that it will need when they are back.
    #[must_use]
    pub fn trial_urgency(&self, account: &Account, has_token: bool, now: Moment) -> Option<Duration> {
        let is_idle = !matches!(self.activity, Some(TicketActivity::Queued | TicketActivity::Asking));
        let tries = is_idle
            && budget::can_afford_trial(&self.ledger, account.daily_budget, now)
            && self.next_step(account, has_token, true, now) == TicketStep::Ask;
        tries.then(|| self.usable_for(now))
    }

    /// Charges a call. To be on disk before it is sent.
    ///
    /// # Errors
    /// The instant at which the budget allows a call, when it allows none now.
    pub fn begin_ask(&mut self, account: &Account, now: Moment) -> Result<(), Moment> {
        self.ledger.charge(Bucket::Calls, account.daily_budget, now)?;
        self.price = budget::interval(account.daily_budget);
        Ok(())
    }

    /// Takes in how a call ended, or why none was made.
    pub fn end_ask(&mut self, end: TicketCallEnd, account: &Account, now: Moment, jitter: f64) -> Fetched {
        self.attempts_ended += 1;
        let price = std::mem::take(&mut self.price);
        match (end.result, end.sent_at) {
            (Ok(answer), Some(sent_at)) => {
                self.trouble = None;
                self.take_in(answer, sent_at, account, now, jitter)
            }
            (Ok(_), None) => {
                self.fail(Fault::internal("an answer to a call that was not sent"), account, now, jitter)
            }
            (Err(fault), sent_at) => {
                if sent_at.is_none() {
                    self.ledger.refund(price);
                }
                self.fail(fault, account, now, jitter)
            }
        }
    }

    fn take_in(
        &mut self,
        answer: Answer,
        sent_at: Moment,
        account: &Account,
        now: Moment,
        jitter: f64,
    ) -> Fetched {
        // Asking again costs nothing: one answer must not keep us from it for days.
        let lifetime = answer.expires_in.min(USUAL_LIFETIME);
        let look = look(lifetime);
        let soon = look.mul_f64(0.5 + jitter / 2.0);
        // By its end at the latest: nothing would be there to serve.
        let not_at_once = |at: Moment| at.max(sent_at + SHORTEST_PAUSE);
        let next_look = |expires_at: Moment| not_at_once((sent_at + soon).min(expires_at));
        let last = self.ticket.as_deref();
        let (fetched, held) = match last.filter(|last| last.value == answer.value) {
            // As expected. Less than we thought is believed.
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
            // It may end any time, and lives as yet: asked again soon, so that its successor's age is known well.
            Some(held) if held.is_age_known && !held.ends_by.is_over(sent_at) => {
                let pause = (held.ends_from.elapsed(held.ends_by) / 8).max(account.retry.initial);
                let expires_at = sent_at + pause + margin(look);
                (Fetched::Same, HeldTicket { expires_at, ask_at: sent_at + pause, ..held.clone() })
            }
            // The same, but nothing tells when that ends.
            Some(held) => {
                let ends_from = held.ends_from.min(sent_at + lifetime);
                let expires_at = if ends_from.is_over(sent_at) { sent_at + 2 * look } else { ends_from };
                // Unless WeChat's last longer than it says, it has another by then.
                let by_now = Some(held.ends_by).filter(|by| !by.is_over(sent_at));
                let ask_at = not_at_once(next_look(expires_at).min(by_now.unwrap_or(expires_at)));
                let held = HeldTicket { expires_at, ends_from, ask_at, is_age_known: false, ..held.clone() };
                (Fetched::Same, held)
            }
            None => {
                let is_relapse = last.is_some_and(|last| last.before == Some(answer.value.sha256()));
                if let Some(last) = last.filter(|last| is_relapse && !last.expires_at.is_over(sent_at)) {
                    // From a part of WeChat that has not heard of its successor yet, which is no news.
                    let ask_at = next_look(last.expires_at);
                    self.ticket = Some(Arc::new(HeldTicket { ask_at, ..last.clone() }));
                    return Fetched::Same;
                }
                let made_at =
                    last.filter(|_| !is_relapse).and_then(|last| made_after(last, sent_at, 2 * look));
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
                    // Once shortly before its end, should WeChat have its successor by then.
                    ask_at: if made_at.is_some() {
                        not_at_once(ends_from - soon)
                    } else {
                        next_look(ends_from)
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
        let earlier = self.trouble.as_deref();
        let trouble = LastFailure::after(earlier, fault, account, usable_for, &self.ledger, now, jitter);
        self.trouble = Some(Box::new(trouble));
        Fetched::Failed
    }

    /// How long the ticket may still be served as good.
    #[must_use]
    pub fn usable_for(&self, now: Moment) -> Duration {
        self.ticket.as_deref().map_or(Duration::ZERO, |ticket| {
            ticket.expires_at.until_by_either(now).saturating_sub(margin(ticket.look()))
        })
    }

    /// Whether the ticket may be served at `now`.
    #[must_use]
    pub fn is_usable(&self, now: Moment) -> bool {
        !self.usable_for(now).is_zero()
    }

    /// The ticket for a reader, if one may be served.
    #[must_use]
    pub fn read(&self, now: Moment) -> Option<Ticket> {
        let usable_for = self.usable_for(now);
        let held = self.ticket.as_ref().filter(|_| !usable_for.is_zero())?;
        // One of unknown age may have a successor any time; that is seen with the next look.
        let expires_in = if held.is_age_known { usable_for } else { usable_for.min(held.look()) };
        Some(Ticket { held: Arc::clone(held), expires_in })
    }

    /// What it looks like at `now`.
    #[must_use]
    pub fn phase(&self, now: Moment) -> Phase {
        let is_busy = matches!(self.activity, Some(TicketActivity::Queued | TicketActivity::Asking));
        Phase::of(self.trouble.as_deref(), self.is_usable(now), is_busy, self.attempts_ended)
    }

    /// The host that was down answers again.
    pub fn host_is_back(&mut self, now: Moment) {
        if let Some(trouble) = &mut self.trouble {
            trouble.host_is_back(now);
        }
    }

    /// The account's settings have changed: whatever was wrong may be right now.
    pub fn reconfigured(&mut self, now: Moment) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry_at = now;
        }
    }

    /// What is left when it is not kept any more, or is another upstream's: its version and budget.
    #[must_use]
    pub fn tombstone(&self) -> Self {
        Self { version: self.version, ledger: self.ledger, ..Self::default() }
    }

    /// The same for an actor that starts again: a call that was under way ended with the one that crashed, and what it was
    /// charged is spent.
    #[must_use]
    pub fn resumed(&self) -> Self {
        Self { activity: None, price: Duration::ZERO, ..self.clone() }
    }

    /// The same ticket told on the clocks of another boot, which only the wall clock connects with the last.
    #[must_use]
    pub fn rebased(mut self, now: Moment) -> Self {
        self.ledger = self.ledger.rebased(now);
        // Seen in the future: the wall clock was set back, and nothing tells how old it is.
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

/// When the successor of `last` that a call sent at `sent_at` has brought was made at the earliest, if that is known to
/// within `precision`: not before WeChat last handed out `last`, nor before that had ended.
fn made_after(last: &HeldTicket, sent_at: Moment, precision: Duration) -> Option<Moment> {
    let since = |earliest: Moment| earliest.elapsed(sent_at) <= precision;
    let ended = Some(last.ends_from).filter(|end| last.is_age_known && end.has_come(sent_at));
    Some(last.seen_at).filter(|seen| since(*seen)).or(ended.filter(|end| since(*end)))
}
