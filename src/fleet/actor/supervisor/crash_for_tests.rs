//! Makes a ticket's actor panic, for tests.

use kameo::prelude::*;
use wxtokend_core::ticket::Credential;

use super::{Running, Supervisor};

/// Makes a ticket's actor panic in a handler.
pub(crate) struct CrashTicket(pub(crate) Credential);

impl Message<CrashTicket> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, CrashTicket(of): CrashTicket, _: &mut Context<Self, ()>) {
        let Some(Running::Ticket(actor)) = self.children[&of].actor.clone() else { panic!("no actor") };
        let _ = actor.tell(crate::fleet::actor::ticket_actor::Crash).await;
    }
}
