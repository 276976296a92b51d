//! One call to WeChat, made outside the actor that asked for it.
//!
//! A handler never awaits the network. The call runs in its own task, which stores its end in the account's
//! cell. An actor that crashed meanwhile finds it there after its restart, and an account never has two token
//! or check calls in flight.

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

/// The call that a task is to make.
pub(crate) enum Call {
    Fetch {
        reason: Reason,
        force: bool,
        /// Whether a second call is charged, for another host.
        spare: bool,
        /// Whether it is made even while all hosts count as down.
        ignores_down_hosts: bool,
    },
    Check {
        token: Secret,
        /// Whether a refusal is checked a second time. Some refusals pass, and a token that no client has
        /// rejected is served meanwhile.
        recheck_refusal: bool,
    },
}

impl Call {
    /// The span that ties the call's log lines to the account.
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

/// How long after a refusal of a token that no client has rejected it is checked again.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// Waits for a turn in the call queue.
pub(crate) fn queue<E>(shared: &Arc<ActorContext>, urgency_ms: i64, require: Require) -> Pending<E> {
    let wechat = shared.wechat();
    Pending::on(async move { Due::Admitted(wechat.admit(urgency_ms, require).await) })
}

/// Waits for a concurrency slot before the intent is written to disk.
pub(crate) fn acquire_slot<E>(mut permit: Permit) -> Pending<E> {
    Pending::on(async move {
        permit.acquire_slot().await;
        Due::Admitted(Ok(permit))
    })
}

/// Waits until the account's call has ended.
pub(crate) fn call_end(cell: &Arc<AccountCell>) -> Pending<()> {
    let cell = Arc::clone(cell);
    Pending::on(async move {
        cell.until_call_ended().await;
        Due::Ended(())
    })
}

/// Calls WeChat and stores how the call ended in the cell, even if it panics.
pub(crate) fn spawn_call(
    cell: &Arc<AccountCell>,
    shared: &Arc<ActorContext>,
    account: Arc<Account>,
    permit: Permit,
    call: Call,
) {
    cell.begin_call();
    let (cell, wechat, started_at) = (Arc::clone(cell), shared.wechat(), shared.now());
    shared.calls_in_flight.spawn(async move {
        let force = matches!(call, Call::Fetch { force: true, .. });
        let is_fetch = matches!(call, Call::Fetch { .. });
        // A task of its own catches a panic in the HTTP client as well as one in our code.
        let span = call.span(&account.appid);
        let task = tokio::spawn(run(wechat, account, permit, call).instrument(span));
        let end = task.await.unwrap_or_else(|_panic| panicked_end(is_fetch, force, started_at));
        cell.end_call(end);
    });
}

async fn run(wechat: Arc<WeChat>, account: Arc<Account>, mut permit: Permit, call: Call) -> CallEnd {
    permit.acquire_slot().await;
    match call {
        Call::Fetch { force, spare, ignores_down_hosts, .. } => {
            let calls_to_spare = u32::from(spare);
            let FetchReport { end, calls_sent } = if ignores_down_hosts {
                wechat.fetch_for_trial(&account, force, calls_to_spare).await
            } else {
                wechat.fetch(&account, force, calls_to_spare).await
            };
            CallEnd::Fetch { end, spare_left: spare && calls_sent < 2 }
        }
        Call::Check { token, recheck_refusal } => {
            let mut end = wechat.check(&token).await;
            if recheck_refusal && matches!(end, CheckEnd::Refused) {
                sleep(RECHECK_AFTER).await;
                if let honoured @ CheckEnd::Honoured = wechat.check(&token).await {
                    end = honoured;
                }
            }
            CallEnd::Check(end)
        }
    }
}

/// The end of a call that panicked: it may have been sent and may have minted.
fn panicked_end(is_fetch: bool, force: bool, started_at: Moment) -> CallEnd {
    let fault = Fault::internal("the call to WeChat panicked");
    if is_fetch {
        let end = FetchEnd { force, sent_at: Some(started_at), may_have_minted: true, result: Err(fault) };
        CallEnd::Fetch { end, spare_left: false }
    } else {
        CallEnd::Check(CheckEnd::Inconclusive(fault))
    }
}
