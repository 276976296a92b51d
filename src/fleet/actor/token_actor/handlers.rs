//! Handles the messages that an account's actor receives.

use kameo::prelude::*;
use wxtokend_core::account::{Account, AccountSettings};
use wxtokend_core::secret::Secret;
use wxtokend_core::token::rejection::{RequestDecision, decide_refresh, decide_rejection};

use super::TokenActor;
use crate::fleet::cells::mailbox::{
    ApplySettings, NoValidToken, Notice, Recheck, RefreshReply, RefreshRequest, Trial,
};
use crate::fleet::cells::tally::RejectionOutcome;

impl Message<Recheck> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Recheck, _: &mut Context<Self, ()>) {
        self.advance();
    }
}

impl Message<ApplySettings> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: ApplySettings, _: &mut Context<Self, ()>) {
        self.configure().await;
    }
}

impl Message<Trial> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Trial, _: &mut Context<Self, ()>) {
        self.run_trial();
    }
}

impl Message<Notice> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, notice: Notice, _: &mut Context<Self, ()>) {
        match notice {
            Notice::Prioritise => self.move_up(),
            Notice::RefreshEarly => {
                self.state.refresh_early(self.shared.now());
                self.advance();
            }
            Notice::Hint(hint) => self.take_hint(hint),
            #[cfg(any(test, feature = "internals"))]
            Notice::Crash => panic!("asked to"),
        }
    }
}

impl Message<RefreshRequest> for TokenActor {
    type Reply = DelegatedReply<RefreshReply>;
    async fn handle(&mut self, request: RefreshRequest, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let now = self.shared.now();
        let (decision, presented) = match request {
            RefreshRequest::Reject(presented) => {
                (decide_rejection(&mut self.state, &self.account, &presented, now), Some(presented))
            }
            RefreshRequest::OwnRejection(presented) => {
                let settings = AccountSettings { verify_rejections: true, ..self.account.settings };
                let verifying = Account { settings, ..Account::clone(&self.account) };
                (decide_rejection(&mut self.state, &verifying, &presented, now), Some(presented))
            }
            RefreshRequest::Refresh { force } => {
                (decide_refresh(&mut self.state, &self.account, force, now), None)
            }
        };
        self.answer_or_wait(decision, presented, ctx).await
    }
}

impl TokenActor {
    async fn answer_or_wait(
        &mut self,
        decision: RequestDecision,
        presented: Option<Secret>,
        ctx: &mut Context<Self, DelegatedReply<RefreshReply>>,
    ) -> DelegatedReply<RefreshReply> {
        let immediate = match decision {
            RequestDecision::Superseded => Some(Ok(RejectionOutcome::Superseded)),
            RequestDecision::StillValid => Some(Ok(RejectionOutcome::StillValid)),
            RequestDecision::Limited => Some(Ok(RejectionOutcome::Limited)),
            RequestDecision::Accepted => {
                // What it has drawn from the budget must survive a crash.
                self.commit().await;
                self.advance();
                None
            }
            RequestDecision::WaitForCurrent => {
                let now = self.shared.now();
                let soon = self.state.next_at.is_some_and(|at| at.until(now) <= self.shared.rules().timeout);
                let hopeless = !self.state.activity.is_busy() && !soon;
                hopeless.then_some(Err(NoValidToken))
            }
        };
        if let Some(answer) = immediate {
            return ctx.reply(answer);
        }
        let (delegated, reply) = ctx.reply_sender();
        if let Some(reply) = reply {
            self.waiters.add(presented, reply);
        }
        delegated
    }
}
