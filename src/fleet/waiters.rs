//! Those who have rejected a token or asked for a refresh, and wait for their account to settle.

use kameo::prelude::*;
use kameo::reply::ReplySender;

use super::tally::RejectionOutcome;
use super::token_actor::TokenActor;
use crate::outcome::Fetched;
use crate::rejection::{Judgement, Verdict};
use crate::secret::Secret;
use crate::token::Standing;

/// Somebody waits for the account to settle.
pub(super) struct Waiter {
    /// The token that was rejected; `None` for a wish to refresh.
    presented: Option<Secret>,
    reply: ReplySender<Answer>,
}

/// How a rejection or a wish to refresh ended; the error when there is no valid token.
pub(super) type Answer = Result<RejectionOutcome, NoValidToken>;

/// A replacement was tried and there is no valid token.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoValidToken;

/// What has just come to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Check,
    Fetch(Fetched),
}

impl TokenActor {
    pub(super) async fn answer_or_wait(
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
    pub(super) fn settle(&mut self, settled: Settled) {
        for waiter in std::mem::take(&mut self.waiters) {
            match self.decide(&waiter, settled) {
                Some(answer) => waiter.reply.send(answer),
                None => self.waiters.push(waiter),
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
