//! What the outcome of a call does to its account: transitions of [`AccountState`]. They are pure, except
//! that they count a new token's refresh in the fleet's planned refreshes ([`Draw`]).

use std::sync::Arc;
use std::time::Duration;

use crate::account::{Account, Endpoint};
use crate::budget::{self, Bucket};
use crate::clock::Moment;
use crate::fault::Fault;
use crate::last_failure::LastFailure;
use crate::token::handed_out::HandedOut;
use crate::token::schedule::{self, DAY, Draw, HERD_SIZE, Rules, force_allowed_at, overlap_of};
use crate::token::state::{AccountState, Doubt, Intent, Reason, Rejections, WantedCall, next_version};
use crate::token::{HeldToken, Validity};

mod answer;
mod doubt;
mod minting;

pub use answer::{Answer, USUAL_LIFETIME, is_strangely_long};
pub use doubt::CheckEnd;
pub use minting::{Reply, may_try_next_host};

/// The end of a token call.
#[derive(Debug)]
pub struct FetchEnd {
    /// Whether it used `force_refresh`.
    pub force: bool,
    /// When its last try was sent; `None` if no byte was.
    pub sent_at: Option<Moment>,
    /// Whether a token may have been minted that did not reach us.
    pub may_have_minted: bool,
    /// The answer.
    pub result: Result<Answer, Fault>,
}

/// What a token call has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// A token with a new value.
    New,
    /// The same token as before.
    Same,
    /// The call failed; see [`AccountState::last_failure`].
    Failed,
}

impl AccountState {
    /// Charges a token call and notes what it puts at risk. Must be on disk before the call is sent.
    ///
    /// # Errors
    /// If the daily budget allows no call now, returns the instant at which it will.
    pub fn begin_fetch(&mut self, account: &Account, force: bool, now: Moment) -> Result<(), Moment> {
        self.ledger.charge(Bucket::Calls, account.settings.daily_budget, now)?;
        self.charge_interval = budget::interval(account.settings.daily_budget);
        self.ignores_down_hosts = false;
        // Anything asked for from here on is for the next call. So is a forced call, if this call is not one.
        self.serving = self.want.take_if(|want| force || !matches!(want, WantedCall::Force(_)));
        if force {
            self.forced.retain(|at| at.elapsed(now) < DAY);
            self.forced.push(now);
        }
        let trusted_until = match (account.settings.endpoint, self.token.as_deref()) {
            (Endpoint::StableToken, _) if !force => None,
            // The next token is at risk: this call may end it if it reaches WeChat after the call that brings
            // that token.
            (_, None) => Some(now),
            (_, Some(token)) if token.endpoint != account.settings.endpoint => Some(token.expires_at),
            // If a lost call has minted, this one may at once end what is then the token before the last.
            (Endpoint::Token, _) if self.doubt.is_some() => Some(now),
            (Endpoint::Token, Some(token)) => Some(now + token.overlap),
            // How long the previous token lives after a forced call is not known.
            (Endpoint::StableToken, _) => Some(now),
        };
        self.intent = trusted_until.map(|trusted_until| Intent { at: now, trusted_until });
        Ok(())
    }

    /// Charges a second call, for a try at another host where that is harmless. Returns whether the budget
    /// allows it.
    pub fn charge_spare(&mut self, account: &Account, now: Moment) -> bool {
        self.ledger.charge(Bucket::Calls, account.settings.daily_budget, now).is_ok()
    }

    /// Refunds the second call, which was not made.
    pub fn return_spare(&mut self) {
        self.ledger.refund(self.charge_interval);
    }

    /// Applies the outcome of a token call.
    pub fn end_fetch(
        &mut self,
        end: FetchEnd,
        account: &Account,
        rules: Rules,
        now: Moment,
        draw: Draw<'_>,
    ) -> Fetched {
        let intent = self.intent.take();
        let want = self.serving.take();
        if end.sent_at.is_none() {
            self.give_back(end.force);
        } else if let Some(last) = self.forced.last_mut().filter(|_| end.force) {
            // WeChat counts from when the call reached it.
            *last = now;
        }
        if let (true, Some(intent)) = (end.may_have_minted, intent) {
            // A call that was cut short may still be at work.
            self.cast_doubt(intent, now.max(intent.at + rules.timeout), account.settings.endpoint, rules);
        }
        let fetched = match (end.result, end.sent_at) {
            (Ok(answer), Some(sent_at)) => {
                let mut earlier = self.last_failure.take();
                let fetched = self.apply_answer(answer, sent_at, want, account, rules, now, draw);
                if self.last_failure.is_none() && !self.is_usable(now) {
                    // Asking again at once would be a loop without delay.
                    if let Some(last_failure) = &mut earlier {
                        last_failure.parked = None;
                    }
                    self.last_failure = earlier;
                    let message = match self.doubt {
                        Some(_) => "an earlier call may still end the token that arrived",
                        None => "the token arrived with no life left",
                    };
                    self.fail(Fault::unreadable(message), account, now, draw.jitter());
                }
                fetched
            }
            (Ok(_), None) => {
                let fault = Fault::internal("an answer to a call that was not sent");
                self.fail(fault, account, now, draw.jitter())
            }
            (Err(fault), _) => self.fail_asked(want, fault, account, now, draw.jitter()),
        };
        // Requests that wait for a token keep waiting if a forced call follows immediately.
        if fetched != Fetched::Same || !self.is_about_to_force(now) {
            self.attempts_ended += 1;
        }
        fetched
    }

    /// How many calls have failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.last_failure.as_deref().map_or(0, |failure| failure.failures)
    }

    /// Erases the token and what is known of those before it. Keeps its version, its budget, and what is known of
    /// calls that may be at work.
    pub fn forget_token(&mut self) {
        // A lost call may still arrive, and puts the next token in doubt as much as this one.
        (self.token, self.intent, self.hint, self.honoured_at) = (None, None, None, None);
        self.handed_out = HandedOut::default();
    }

    /// Discards a token call made to another upstream, or before the account was removed and added again. Its
    /// token must not be used, and what it was asked for is left to the next call.
    pub fn drop_fetch(&mut self, force: bool, was_sent: bool) {
        self.intent = None;
        self.want = self.want.or(self.serving.take());
        if !was_sent {
            self.give_back(force);
        }
    }

    /// Refunds a call of which no byte was sent.
    fn give_back(&mut self, force: bool) {
        self.ledger.refund(self.charge_interval);
        if force {
            self.forced.pop();
        }
    }

    /// Records that the call was not made: the host is down or the budget is spent.
    pub fn refuse_fetch(&mut self, fault: Fault, account: &Account, now: Moment, jitter: f64) -> Fetched {
        let want = self.want.take();
        self.ignores_down_hosts = false;
        self.attempts_ended += 1;
        if want == Some(WantedCall::Check) {
            // The report was not investigated: it costs nothing, and the next one waits as long as after a
            // check.
            self.ledger.refund_request(account.settings.daily_budget);
            self.rejections = Rejections {
                cool_until: Some(now + account.settings.rejection_cooldown),
                verdict: None,
                ..self.rejections
            };
        }
        self.fail_asked(want, fault, account, now, jitter)
    }

    #[expect(clippy::too_many_arguments, reason = "everything an arriving token depends on")]
    fn apply_answer(
        &mut self,
        answer: Answer,
        sent_at: Moment,
        want: Option<WantedCall>,
        account: &Account,
        rules: Rules,
        now: Moment,
        draw: Draw<'_>,
    ) -> Fetched {
        let again = self.token.as_deref().filter(|token| token.value == answer.value);
        let life = answer.believed_life(account.settings.endpoint);
        // For a token that we know, the window is known too, as long as it is in the future.
        let overlap = again
            .map(|token| token.overlap)
            .filter(|window| *window < life)
            .unwrap_or_else(|| overlap_of(life, rules));
        let in_herd = self.others_waiting >= HERD_SIZE && !self.is_usable(sent_at);
        let refresh_at =
            draw.instant(|jitter| schedule::refresh_at(account, sent_at, life, overlap, in_herd, jitter));
        let expires_at = sent_at + life;
        // A call cut short, or one of a process that has crashed, may still be at work and mint after this
        // one.
        let at_work = self.doubt.filter(|doubt| !doubt.over_by(rules).has_come(sent_at));
        let until = match account.settings.endpoint {
            Endpoint::Token => sent_at + overlap,
            Endpoint::StableToken => sent_at,
        };
        self.doubt = at_work.map(|doubt| Doubt { until, checked: false, ..doubt });
        if let Some(token) = again {
            // The overlap was measured when the token was young; its remaining life says nothing about it.
            let again =
                HeldToken { expires_at, refresh_at, endpoint: account.settings.endpoint, ..token.clone() };
            self.token = Some(Arc::new(again));
            self.keep_same(want, account, now, draw.jitter());
            return Fetched::Same;
        }
        let refused = self.token.as_ref().is_some_and(|token| token.validity != Validity::Good);
        self.rejections = match want {
            _ if refused || is_replacement(want) => self.rejections.replaced(account, now),
            Some(_) => Rejections { verdict: None, ..self.rejections },
            None => Rejections::default(),
        };
        self.version = next_version(self.version, now);
        self.hint = None;
        let token = HeldToken {
            value: answer.value,
            version: self.version,
            endpoint: account.settings.endpoint,
            issued_at: sent_at,
            expires_at,
            overlap,
            refresh_at,
            validity: Validity::Good,
        };
        self.replace_token(token, rules.stale, now);
        Fetched::New
    }

    /// Puts `token` in the place of the newest, which is remembered until `stale` after its end.
    pub fn replace_token(&mut self, token: HeldToken, stale: Duration, now: Moment) {
        if let Some(earlier) = self.token.replace(Arc::new(token)) {
            self.handed_out.add(&earlier, stale, now);
        }
    }

    /// WeChat handed out the token we hold: fine, unless it is dead or was reported dead.
    fn keep_same(&mut self, want: Option<WantedCall>, account: &Account, now: Moment, jitter: f64) {
        let validity = self.token.as_ref().map_or(Validity::Good, |token| token.validity);
        let force_allowed = force_allowed_at(&self.forced, now).has_come(now);
        if validity != Validity::Good {
            self.set_validity(Validity::RefusedAgain);
            self.fail(Fault::dead_token_issued(), account, now, jitter);
        } else if want == Some(WantedCall::Fetch(Reason::Reported))
            && account.settings.endpoint == Endpoint::StableToken
            && force_allowed
        {
            self.want = Some(WantedCall::Force(Reason::Reported));
        } else if is_replacement(want) {
            self.rejections = self.rejections.replaced(account, now);
        }
    }

    /// Starts the cool-down after a failure as after a success: calls for a believed client skip the
    /// back-off.
    fn fail_asked(
        &mut self,
        want: Option<WantedCall>,
        fault: Fault,
        account: &Account,
        now: Moment,
        jitter: f64,
    ) -> Fetched {
        if is_replacement(want) {
            self.rejections = self.rejections.replaced(account, now);
        }
        self.fail(fault, account, now, jitter)
    }

    fn fail(&mut self, fault: Fault, account: &Account, now: Moment, jitter: f64) -> Fetched {
        let (earlier, usable_for) = (self.last_failure.as_deref(), self.usable_for(now));
        let last_failure = LastFailure::after(earlier, fault, account, usable_for, &self.ledger, now, jitter);
        self.last_failure = Some(Box::new(last_failure));
        Fetched::Failed
    }

    fn is_about_to_force(&self, now: Moment) -> bool {
        let dead = self.token.as_ref().is_some_and(|token| token.validity == Validity::RefusedAgain);
        matches!(self.want, Some(WantedCall::Force(_)))
            || dead && force_allowed_at(&self.forced, now).has_come(now)
    }

    fn set_validity(&mut self, validity: Validity) {
        if let Some(token) = &mut self.token {
            Arc::make_mut(token).validity = validity;
        }
    }
}

/// Whether the call was made for a client whose report was believed.
fn is_replacement(want: Option<WantedCall>) -> bool {
    matches!(want, Some(WantedCall::Fetch(Reason::Reported) | WantedCall::Force(Reason::Reported)))
}

#[cfg(test)]
mod tests;
