//! The messages that an account's actor receives, and the handle that sends them.
//!
//! The handle does not name the actor's type, since the cell that holds it is in a lower layer than the
//! actor.

use kameo::prelude::*;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::state::Hint;

use super::tally::RejectionOutcome;

/// Check the clock and do what is due.
pub(crate) struct Recheck;
/// Changed settings are in the cell.
pub(crate) struct ApplySettings;
/// All hosts count as down: make a trial.
pub(crate) struct Trial;

/// A message to an account's actor that has no reply.
pub(crate) enum Notice {
    /// A reader waits for the token.
    Prioritise,
    /// The refresh that is due in the token's last minutes is to be made now.
    RefreshEarly,
    /// The token may be dead.
    Hint(Hint),
    /// Panic in a handler.
    #[cfg(any(test, feature = "internals"))]
    Crash,
}

/// Asks for the token to be checked or refreshed.
pub(crate) enum RefreshRequest {
    /// A client says that WeChat refused this token.
    Reject(Secret),
    /// One of our own calls was refused; the token is checked even where clients are believed.
    OwnRejection(Secret),
    /// An operator wants a refresh now.
    Refresh {
        /// Even if the token still lives.
        force: bool,
    },
}

/// How a rejection or a request to refresh ended; an error when there is no valid token.
pub(crate) type RefreshReply = Result<RejectionOutcome, NoValidToken>;

/// A replacement was attempted and there is no valid token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoValidToken;

/// A handle to an account's actor.
pub(crate) struct Mailbox {
    notices: Recipient<Notice>,
    requests: ReplyRecipient<RefreshRequest, RejectionOutcome, NoValidToken>,
}

impl Mailbox {
    pub(crate) fn of<A>(actor: &ActorRef<A>) -> Self
    where
        A: Message<Notice> + Message<RefreshRequest, Reply = DelegatedReply<RefreshReply>>,
    {
        Self { notices: actor.clone().recipient(), requests: actor.clone().reply_recipient() }
    }

    /// Sends a notice; returns whether the actor will receive it.
    pub(crate) fn tell(&self, notice: Notice) -> bool {
        self.notices.tell(notice).try_send().is_ok()
    }

    /// Sends a request and waits for the reply. An actor that crashes over it has no valid token to offer.
    pub(crate) async fn ask(&self, request: RefreshRequest) -> RefreshReply {
        self.requests.ask(request).into_future().await.map_err(|_| NoValidToken)
    }

    /// Asks the actor to stop once it has read the messages sent before.
    pub(crate) async fn stop(&self) {
        let _ = self.notices.stop_gracefully().await;
    }

    /// Returns when the actor has stopped.
    pub(crate) async fn stopped(&self) {
        self.notices.wait_for_shutdown().await;
    }

    #[cfg(test)]
    pub(crate) fn id(&self) -> ActorId {
        self.notices.id()
    }

    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.notices.kill();
    }
}
