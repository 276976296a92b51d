//! What the supervisor holds for each actor.

use kameo::prelude::*;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::ticket_actor::TicketActor;
use super::token_actor::TokenActor;
use crate::fleet::cells::mailbox::{Recheck, Trial};

/// An actor, or the wait for its restart.
#[derive(Default)]
pub(crate) struct Child {
    pub(crate) actor: Option<Running>,
    pub(crate) crashes: u32,
    pub(crate) started: Option<Instant>,
    pub(crate) restart: Option<AbortOnDropHandle<()>>,
}

/// A running actor.
#[derive(Clone)]
pub(crate) enum Running {
    Token(ActorRef<TokenActor>),
    Ticket(ActorRef<TicketActor>),
}

impl Running {
    pub(crate) fn id(&self) -> ActorId {
        match self {
            Self::Token(actor) => actor.id(),
            Self::Ticket(actor) => actor.id(),
        }
    }

    pub(crate) async fn wake(&self) {
        match self {
            Self::Token(actor) => drop(actor.tell(Recheck).await),
            Self::Ticket(actor) => drop(actor.tell(Recheck).await),
        }
    }

    pub(crate) async fn run_trial(&self) {
        match self {
            Self::Token(actor) => drop(actor.tell(Trial).await),
            Self::Ticket(actor) => drop(actor.tell(Trial).await),
        }
    }

    pub(crate) async fn stop(&self) {
        match self {
            Self::Token(actor) => drop(actor.stop_gracefully().await),
            Self::Ticket(actor) => drop(actor.stop_gracefully().await),
        }
    }

    pub(crate) async fn stopped(&self) {
        match self {
            Self::Token(actor) => actor.wait_for_shutdown().await,
            Self::Ticket(actor) => actor.wait_for_shutdown().await,
        }
    }
}
