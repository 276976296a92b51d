//! Calls that are tried although all hosts count as down.
//!
//! They count so by failed probes, and it may be the probe's own call that is ill: a gateway's rule for it, a fault of
//! WeChat's. So what needs it most, a token or a ticket, makes a real call now and then, whose answer is the recovery.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kameo::prelude::*;
use tokio::time::timeout;
use wxtokend_core::ticket::Credential;
use wxtokend_core::token::decide::trial_urgency;

use super::context::ActorContext;
use super::supervisor::{RunTrial, Supervisor};

/// How long after the hosts went down the first call is tried;
const FIRST_TRIAL: Duration = Duration::from_secs(5);
/// the wait for the next doubles up to this, within which a budget of 2000 calls a day gives one back.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Has a call tried now and then while all hosts count as down. Never ends.
pub(crate) async fn try_while_down(shared: Arc<ActorContext>, supervisor: ActorRef<Supervisor>) {
    loop {
        let mut hosts = shared.wechat().hosts().watch();
        // An error means that these hosts were given up for others.
        if hosts.wait_for(|overall| !overall.up).await.is_err() {
            continue;
        }
        let (mut wait, mut tried) = (FIRST_TRIAL, HashSet::new());
        while timeout(wait, hosts.wait_for(|overall| overall.up)).await.is_err() {
            let next = match most_urgent(&shared, &mut tried) {
                Some(of) => {
                    let _ = supervisor.tell(RunTrial(of)).try_send();
                    wait * 2
                }
                None => FIRST_TRIAL,
            };
            wait = next.min(LAST_WAIT);
        }
    }
}

/// EventKind needs a call most, tokens and tickets, one after the other: what fails may do so for a reason of its own.
fn most_urgent(shared: &ActorContext, tried: &mut HashSet<Credential>) -> Option<Credential> {
    let (now, directory) = (shared.now(), shared.directory.load_full());
    let cells = directory.in_order.iter().filter_map(|appid| Some((appid, directory.by_appid.get(appid)?)));
    let ((was_tried, ..), of) = cells
        .flat_map(|(appid, cell)| {
            let seen = cell.load();
            let token = trial_urgency(&seen.state, &seen.account, now)
                .map(|left| (!cell.is_awaited(), left, Credential::token(appid.clone())));
            let has_token = seen.state.is_usable(now);
            let tickets = cell.tickets().filter_map(move |ticket| {
                let left = ticket.load().trial_urgency(&seen.account, has_token, now)?;
                Some((true, left, ticket.of.clone()))
            });
            token.into_iter().chain(tickets)
        })
        .map(|(no_reader, left, of)| ((tried.contains(&of), no_reader, left), of))
        .min_by_key(|(urgency, _)| *urgency)?;
    if was_tried {
        tried.clear();
    }
    tried.insert(of.clone());
    Some(of)
}
