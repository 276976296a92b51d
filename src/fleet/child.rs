//! What the supervisor holds of each actor.

use kameo::prelude::*;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::mailbox::{Trial, Wake};
use super::ticket_actor::TicketActor;
use super::token_actor::TokenActor;

/// An actor, or the wait for its restart.
#[derive(Default)]
pub(super) struct Child {
    pub(super) actor: Option<Running>,
    pub(super) crashes: u32,
    pub(super) started: Option<Instant>,
    pub(super) restart: Option<AbortOnDropHandle<()>>,
}

/// An actor at work.
#[derive(Clone)]
pub(super) enum Running {
    Token(ActorRef<TokenActor>),
    Ticket(ActorRef<TicketActor>),
}

impl Running {
    pub(super) fn id(&self) -> ActorId {
        match self {
            Self::Token(actor) => actor.id(),
            Self::Ticket(actor) => actor.id(),
        }
    }

    pub(super) async fn wake(&self) {
        match self {
            Self::Token(actor) => drop(actor.tell(Wake).await),
            Self::Ticket(actor) => drop(actor.tell(Wake).await),
        }
    }

    pub(super) async fn try_despite_down(&self) {
        match self {
            Self::Token(actor) => drop(actor.tell(Trial).await),
            Self::Ticket(actor) => drop(actor.tell(Trial).await),
        }
    }

    pub(super) async fn stop(&self) {
        match self {
            Self::Token(actor) => drop(actor.stop_gracefully().await),
            Self::Ticket(actor) => drop(actor.stop_gracefully().await),
        }
    }

    pub(super) async fn stopped(&self) {
        match self {
            Self::Token(actor) => actor.wait_for_shutdown().await,
            Self::Ticket(actor) => actor.wait_for_shutdown().await,
        }
    }
}
