//! Calls that are tried although all hosts count as down.
//!
//! They count so by failed probes, and it may be the probe's own call that is ill: a gateway's rule for it, a fault of
//! WeChat's. So the most urgent account makes a real call now and then, whose answer is the recovery.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::mailbox::Prompt;
use super::shared::Shared;
use crate::account::Appid;
use crate::policy::trial_urgency;

/// How long after the hosts went down the first call is tried;
const FIRST_TRIAL: Duration = Duration::from_secs(5);
/// the wait for the next doubles up to this, within which a budget of 2000 calls a day gives one back.
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Has a call tried now and then while all hosts count as down. Never ends.
pub(super) async fn try_while_down(shared: Arc<Shared>) {
    loop {
        let mut hosts = shared.wechat().hosts().watch();
        // An error means that these hosts were given up for others.
        if hosts.wait_for(|overall| !overall.up).await.is_err() {
            continue;
        }
        let (mut wait, mut tried) = (FIRST_TRIAL, HashSet::new());
        while timeout(wait, hosts.wait_for(|overall| overall.up)).await.is_err() {
            let next = if try_one(&shared, &mut tried) { wait * 2 } else { FIRST_TRIAL };
            wait = next.min(LAST_WAIT);
        }
    }
}

/// Lets the most urgent account try that needs a call, one after the other: who fails may do so for a reason of its own.
fn try_one(shared: &Shared, tried: &mut HashSet<Appid>) -> bool {
    let (now, directory) = (shared.now(), shared.directory.load_full());
    let cells = directory.in_order.iter().filter_map(|appid| Some((appid, directory.by_appid.get(appid)?)));
    let most_urgent = cells
        .filter_map(|(appid, cell)| {
            let left = cell.slot.look(|seen| trial_urgency(&seen.state, &seen.account, now))?;
            Some(((tried.contains(appid), !cell.is_awaited(), left), appid, cell))
        })
        .min_by_key(|(urgency, ..)| *urgency);
    let Some(((was_tried, ..), appid, cell)) = most_urgent else { return false };
    if was_tried {
        tried.clear();
    }
    tried.insert(appid.clone());
    // An actor that is being started again has its turn the next time.
    cell.mailbox().is_some_and(|actor| actor.tell(Prompt::Trial))
}
