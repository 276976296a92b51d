//! What the actor does with what it is told and asked.

use kameo::prelude::*;
use wxtokend_core::account::Account;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::rejection::{Judgement, judge_refresh, judge_rejection};

use super::TokenActor;
use crate::fleet::cells::mailbox::{Answer, Configure, NoValidToken, Prompt, RefreshRequest, Trial, Wake};
use crate::fleet::cells::tally::RejectionOutcome;

impl Message<Wake> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Wake, _: &mut Context<Self, ()>) {
        self.advance();
    }
}

impl Message<Configure> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Configure, _: &mut Context<Self, ()>) {
        self.configure().await;
    }
}

impl Message<Trial> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Trial, _: &mut Context<Self, ()>) {
        self.try_despite_down();
    }
}

impl Message<Prompt> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, prompt: Prompt, _: &mut Context<Self, ()>) {
        match prompt {
            Prompt::Hurry => self.move_up(),
            Prompt::RefreshEarly => {
                self.state.refresh_early(self.shared.now());
                self.advance();
            }
            #[cfg(any(test, feature = "internals"))]
            Prompt::Crash => panic!("asked to"),
        }
    }
}

impl Message<RefreshRequest> for TokenActor {
    type Reply = DelegatedReply<Answer>;
    async fn handle(&mut self, request: RefreshRequest, ctx: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let now = self.shared.now();
        let (judgement, presented) = match request {
            RefreshRequest::Reject(presented) => {
                (judge_rejection(&mut self.state, &self.account, &presented, now), Some(presented))
            }
            RefreshRequest::Doubted(presented) => {
                let verifying = Account { verify_rejections: true, ..Account::clone(&self.account) };
                (judge_rejection(&mut self.state, &verifying, &presented, now), Some(presented))
            }
            RefreshRequest::Refresh { force } => {
                (judge_refresh(&mut self.state, &self.account, force, now), None)
            }
        };
        self.answer_or_wait(judgement, presented, ctx).await
    }
}

impl TokenActor {
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
                let hopeless = !self.state.activity.is_busy() && !soon;
                hopeless.then_some(Err(NoValidToken))
            }
        };
        if let Some(answer) = at_once {
            return ctx.reply(answer);
        }
        let (delegated, reply) = ctx.reply_sender();
        if let Some(reply) = reply {
            self.waiters.add(presented, reply);
        }
        delegated
    }
}
