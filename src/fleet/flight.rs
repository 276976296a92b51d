//! One call to WeChat, outside the actor that asked for it.
//!
//! A handler never awaits the network. The call runs in a task of its own and its end is put down in the
//! account's cell before the actor is told: an actor that crashed meanwhile finds it there when it is back, and
//! the account never has two calls under way.

use std::sync::Arc;

use kameo::prelude::*;

use super::cell::AccountCell;
use super::messages::{Admitted, Landed};
use super::pending::Pending;
use super::shared::Shared;
use crate::account::Account;
use crate::clock::Moment;
use crate::fault::Fault;
use crate::outcome::{CheckEnd, FetchEnd};
use crate::secret::Secret;
use crate::wechat::{Permit, WeChat};

/// Whether an account has a call under way, and how the last one ended until its actor has taken that in.
#[derive(Debug, Default)]
pub(super) enum Landing {
    /// Nothing is under way.
    #[default]
    Clear,
    /// Queued, or sent.
    UnderWay,
    /// The same, and what it brings is not wanted any more.
    Disowned,
    /// Over.
    Ended(End),
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum End {
    Fetch {
        end: FetchEnd,
        /// A second call was charged and not made.
        spare_left: bool,
    },
    Check(CheckEnd),
    /// A fetch, of which nothing counts but that it was made.
    Disowned {
        force: bool,
        was_sent: bool,
    },
}

impl End {
    /// That of a call whose upstream or account is not the one of then: a token that it brought is none of ours.
    pub(super) fn disowned(self) -> Self {
        match self {
            Self::Fetch { end, .. } => Self::Disowned { force: end.force, was_sent: end.sent_at.is_some() },
            told => told,
        }
    }
}

/// What a task is to call.
pub(super) enum Call {
    Fetch {
        force: bool,
        /// Whether a second call is charged, for another host.
        spare: bool,
    },
    Check(Secret),
}

/// Waits for a turn at the global limits.
pub(super) fn queue<A: Message<Admitted>>(
    me: ActorRef<A>,
    shared: &Arc<Shared>,
    urgency_ms: i64,
    wary: bool,
) -> Pending {
    let wechat = shared.wechat();
    Pending::spawn(async move {
        let admitted = wechat.admit(urgency_ms, wary).await;
        // A stopped actor needs no turn; the permit goes back by being dropped.
        let _ = me.tell(Admitted(admitted)).await;
    })
}

/// Waits for room in flight before what has to be on disk is noted.
pub(super) fn take_off<A: Message<Admitted>>(me: ActorRef<A>, mut permit: Permit) -> Pending {
    Pending::spawn(async move {
        permit.take_off().await;
        let _ = me.tell(Admitted(Ok(permit))).await;
    })
}

/// Calls WeChat and puts down how it ended, whatever happens.
pub(super) fn fly(
    cell: &Arc<AccountCell>,
    shared: &Arc<Shared>,
    account: Arc<Account>,
    permit: Permit,
    call: Call,
) {
    cell.depart();
    let (cell, wechat, started_at) = (Arc::clone(cell), shared.wechat(), shared.now());
    shared.flights.spawn(async move {
        let force = matches!(call, Call::Fetch { force: true, .. });
        let is_fetch = matches!(call, Call::Fetch { .. });
        // A task of its own catches a panic of the HTTP client's as well as one of ours.
        let flight = tokio::spawn(run(wechat, account, permit, call));
        let end = flight.await.unwrap_or_else(|_panic| broken(is_fetch, force, started_at));
        cell.land(end);
        if let Some(actor) = cell.actor() {
            // An actor that has just crashed looks at the landing when it starts again.
            let _ = actor.tell(Landed).await;
        }
    });
}

async fn run(wechat: Arc<WeChat>, account: Arc<Account>, mut permit: Permit, call: Call) -> End {
    permit.take_off().await;
    match call {
        Call::Fetch { force, spare } => {
            let (end, calls) = wechat.fetch(&account, force, spare).await;
            End::Fetch { end, spare_left: spare && calls < 2 }
        }
        Call::Check(token) => End::Check(wechat.check(&token).await),
    }
}

/// A call that panicked may have been sent and may have minted.
fn broken(is_fetch: bool, force: bool, started_at: Moment) -> End {
    let fault = Fault::internal("the call to WeChat panicked");
    if is_fetch {
        let end = FetchEnd { force, sent_at: Some(started_at), may_have_minted: true, result: Err(fault) };
        End::Fetch { end, spare_left: false }
    } else {
        End::Check(CheckEnd::Inconclusive(fault))
    }
}
