//! One call to WeChat, outside the actor that asked for it.
//!
//! A handler never awaits the network. The call runs in a task of its own and its end is put down in the
//! account's cell, where the actor waits for it: one that crashed meanwhile finds it there when it is back, and
//! the account never has two token or check calls under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{Instrument as _, Span, info_span};
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::state::Reason;
use wxtokend_core::token::transition::{CheckEnd, FetchEnd};

use super::context::ActorContext;
use super::pending::{Due, Pending};
use crate::fleet::cells::call_state::CallEnd;
use crate::fleet::cells::cell::AccountCell;
use crate::wechat::{FetchReport, Permit, Require, WeChat};

/// EventKind a task is to call.
pub(crate) enum Call {
    Fetch {
        reason: Reason,
        force: bool,
        /// Whether a second call is charged, for another host.
        spare: bool,
        /// Whether it is made even while all hosts count as down.
        is_trial: bool,
    },
    Check {
        token: Secret,
        /// Whether a refusal is looked at once more: some pass, and a token that nobody has complained of is served
        /// meanwhile.
        twice: bool,
    },
}

impl Call {
    /// EventKind ties the lines below it to the account.
    fn span(&self, appid: &Appid) -> Span {
        let appid = appid.as_str();
        match self {
            Self::Fetch { reason, .. } => {
                info_span!("call", appid, endpoint = "token", reason = reason.as_str())
            }
            Self::Check { .. } => info_span!("call", appid, endpoint = "check"),
        }
    }
}

/// How long after a refusal that nobody has complained of the token is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// AwaitsPending for a turn at the global limits.
pub(crate) fn queue<E>(shared: &Arc<ActorContext>, urgency_ms: i64, require: Require) -> Pending<E> {
    let wechat = shared.wechat();
    Pending::on(async move { Due::Admitted(wechat.admit(urgency_ms, require).await) })
}

/// AwaitsPending for room in flight before what has to be on disk is noted.
pub(crate) fn acquire_slot<E>(mut permit: Permit) -> Pending<E> {
    Pending::on(async move {
        permit.acquire_slot().await;
        Due::Admitted(Ok(permit))
    })
}

/// AwaitsPending until the account's call has ended, if it has not yet.
pub(crate) fn landing(cell: &Arc<AccountCell>) -> Pending<()> {
    let cell = Arc::clone(cell);
    Pending::on(async move {
        cell.landed().await;
        Due::Ended(())
    })
}

/// Calls WeChat and puts down how it ended, whatever happens.
pub(crate) fn fly(
    cell: &Arc<AccountCell>,
    shared: &Arc<ActorContext>,
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
        let span = call.span(&account.appid);
        let flight = tokio::spawn(run(wechat, account, permit, call).instrument(span));
        let end = flight.await.unwrap_or_else(|_panic| broken(is_fetch, force, started_at));
        cell.land(end);
    });
}

async fn run(wechat: Arc<WeChat>, account: Arc<Account>, mut permit: Permit, call: Call) -> CallEnd {
    permit.acquire_slot().await;
    match call {
        Call::Fetch { force, spare, is_trial, .. } => {
            let calls_to_spare = u32::from(spare);
            let FetchReport { end, calls_sent } = if is_trial {
                wechat.fetch_for_trial(&account, force, calls_to_spare).await
            } else {
                wechat.fetch(&account, force, calls_to_spare).await
            };
            CallEnd::Fetch { end, spare_left: spare && calls_sent < 2 }
        }
        Call::Check { token, twice } => {
            let mut end = wechat.check(&token).await;
            if twice && matches!(end, CheckEnd::Refused) {
                sleep(LOOK_AGAIN).await;
                if let honoured @ CheckEnd::Honoured = wechat.check(&token).await {
                    end = honoured;
                }
            }
            CallEnd::Check(end)
        }
    }
}

/// A call that panicked may have been sent and may have minted.
fn broken(is_fetch: bool, force: bool, started_at: Moment) -> CallEnd {
    let fault = Fault::internal("the call to WeChat panicked");
    if is_fetch {
        let end = FetchEnd { force, sent_at: Some(started_at), may_have_minted: true, result: Err(fault) };
        CallEnd::Fetch { end, spare_left: false }
    } else {
        CallEnd::Check(CheckEnd::Inconclusive(fault))
    }
}
