//! What an account's actor is told and asked, and the handle by which it is sent.
//!
//! The handle does not name the actor's type: the cell that holds it stands below the actor.

use kameo::prelude::*;
use wxtokend_core::secret::Secret;

use super::tally::RejectionOutcome;

/// Look at the clock and do what is due.
pub(crate) struct Recheck;
/// Changed settings are wanted.
pub(crate) struct ApplySettings;
/// All hosts count as down: try whether they are.
pub(crate) struct Trial;

/// What an account's actor is told, and nobody waits for.
pub(crate) enum Notice {
    /// Somebody waits for the token.
    Prioritise,
    /// The refresh that is due in the token's last part is to be now.
    RefreshEarly,
    /// Panic in a handler.
    #[cfg(any(test, feature = "internals"))]
    Crash,
}

/// Asks for the token to be checked or refreshed.
pub(crate) enum RefreshRequest {
    /// A client says that WeChat refused this token.
    Reject(Secret),
    /// The same of a call of our own, which is looked into even where clients are believed.
    Doubted(Secret),
    /// An operator wants a refresh now.
    Refresh {
        /// Even where the token still lives.
        force: bool,
    },
}

/// How a rejection or a wish to refresh ended; the error when there is no valid token.
pub(crate) type RefreshReply = Result<RejectionOutcome, NoValidToken>;

/// A replacement was tried and there is no valid token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoValidToken;

/// An account's actor, as others reach it.
pub(crate) struct Mailbox {
    prompts: Recipient<Notice>,
    requests: ReplyRecipient<RefreshRequest, RejectionOutcome, NoValidToken>,
}

impl Mailbox {
    pub(crate) fn of<A>(actor: &ActorRef<A>) -> Self
    where
        A: Message<Notice> + Message<RefreshRequest, Reply = DelegatedReply<RefreshReply>>,
    {
        Self { prompts: actor.clone().recipient(), requests: actor.clone().reply_recipient() }
    }

    /// Tells it that, and whether it will hear of it.
    pub(crate) fn tell(&self, prompt: Notice) -> bool {
        self.prompts.tell(prompt).try_send().is_ok()
    }

    /// Asks it that. One that crashes has no valid token to offer.
    pub(crate) async fn ask(&self, request: RefreshRequest) -> RefreshReply {
        self.requests.ask(request).into_future().await.map_err(|_| NoValidToken)
    }

    /// Has it end once it has read what was sent before.
    pub(crate) async fn stop(&self) {
        let _ = self.prompts.stop_gracefully().await;
    }

    /// Returns when it has ended.
    pub(crate) async fn stopped(&self) {
        self.prompts.wait_for_shutdown().await;
    }

    #[cfg(test)]
    pub(crate) fn id(&self) -> ActorId {
        self.prompts.id()
    }

    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.prompts.kill();
    }
}
