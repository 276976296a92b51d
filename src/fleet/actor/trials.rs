//! Trials: real calls that are made although all hosts count as down.
//!
//! Hosts count as down when probes fail, and the fault may lie in the probe's own call: a gateway may have a
//! rule against it, or WeChat a fault in it. So the token or ticket that needs a call most makes a real one
//! now and then; an answer to it is the recovery.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kameo::prelude::*;
use tokio::time::timeout;
use wxtokend_core::ticket::Credential;
use wxtokend_core::token::decide::trial_urgency;

use super::context::ActorContext;
use super::supervisor::{RunTrial, Supervisor};

/// How long after the hosts went down the first trial is made.
const FIRST_TRIAL: Duration = Duration::from_secs(5);
/// The wait between trials doubles up to this. In that time a budget of 2000 calls a day gives one call back.
const MAX_TRIAL_WAIT: Duration = Duration::from_secs(60);

/// Has a trial made now and then while all hosts count as down. Never returns.
pub(crate) async fn try_while_down(shared: Arc<ActorContext>, supervisor: ActorRef<Supervisor>) {
    loop {
        let mut hosts = shared.wechat().hosts().watch();
        // An error means that these hosts have been replaced.
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
            wait = next.min(MAX_TRIAL_WAIT);
        }
    }
}

/// The token or ticket that needs a call most. They take turns, since one that fails may do so for a reason
/// of its own.
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
