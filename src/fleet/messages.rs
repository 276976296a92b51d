//! What an account's actor is told and asked.

use kameo::prelude::*;

use super::token_actor::TokenActor;
use super::waiters::Answer;
use crate::account::Account;
use crate::rejection::{judge_refresh, judge_rejection};
use crate::secret::Secret;

/// Look at the clock and do what is due.
pub(super) struct Wake;
/// Somebody waits for the token.
pub(super) struct Hurry;
/// All hosts count as down: try whether they are.
pub(super) struct Trial;
/// The refresh that is due in the token's last part is to be now.
pub(super) struct RefreshEarly;
/// Changed settings are wanted.
pub(super) struct Configure;
/// A client says that WeChat refused this token.
pub(super) struct Reject(pub(super) Secret);
/// The same of a call of our own, which is looked into even where clients are believed.
pub(super) struct Doubted(pub(super) Secret);
/// An operator wants a refresh now.
pub(super) struct Refresh {
    pub(super) force: bool,
}

impl Message<Wake> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Wake, _: &mut Context<Self, ()>) {
        self.advance();
    }
}

impl Message<Hurry> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Hurry, _: &mut Context<Self, ()>) {
        self.move_up();
    }
}

impl Message<Trial> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Trial, _: &mut Context<Self, ()>) {
        self.try_despite_down();
    }
}

impl Message<RefreshEarly> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: RefreshEarly, _: &mut Context<Self, ()>) {
        self.state.refresh_early(self.shared.now());
        self.advance();
    }
}

impl Message<Configure> for TokenActor {
    type Reply = ();
    async fn handle(&mut self, _: Configure, _: &mut Context<Self, ()>) {
        self.configure().await;
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

impl Message<Doubted> for TokenActor {
    type Reply = DelegatedReply<Answer>;
    async fn handle(
        &mut self,
        Doubted(presented): Doubted,
        ctx: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let verifying = Account { verify_rejections: true, ..Account::clone(&self.account) };
        let judgement = judge_rejection(&mut self.state, &verifying, &presented, self.shared.now());
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
