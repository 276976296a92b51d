//! Releases what another boot has stored, withheld until WeChat's clock has shown how old it is.
//!
//! Across a reboot only the wall clock says how much time has passed, and a machine can come up with that
//! clock behind: its battery is empty, it was restored from an image, or NTP has not answered yet. By such a
//! clock, expired tokens would be served as good until the clock is set. So one harmless call for all
//! accounts reads WeChat's `Date` first. Without an answer in time, only the wall clock is left. A fleet with
//! nothing stored that may still live does not wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use kameo::prelude::*;
use tokio::time::timeout;
use tracing::warn;

use super::context::ActorContext;
use super::supervisor::{Start, Supervisor};
use crate::store::Stored;

/// Smaller differences are ignored: `Date` has whole seconds, WeChat's hosts differ, and an answer takes
/// time.
const NOTABLE_MS: i64 = 5_000;

/// Judges what is withheld, serves it and has it kept fresh. If this is cut off, the disk is unchanged and
/// the next start asks again.
pub(crate) async fn release(shared: Arc<ActorContext>, supervisor: ActorRef<Supervisor>, stored: Stored) {
    if stored.is_empty() {
        return;
    }
    let later_ms = query_time(&shared).await;
    let (now, rules) = (shared.now(), shared.rules());
    let stored = stored.rebased(now, later_ms);
    // At once, since the wall clock may be set before this boot's next start.
    shared.store.rewrite(&stored);
    let directory = shared.directory.load_full();
    for (appid, mut state) in stored.accounts {
        let Some(cell) = directory.by_appid.get(&appid) else { continue };
        let account = Arc::clone(&cell.load().account);
        state.recover(&account, rules, now);
        state.next_at = Some(now);
        shared.plan(&state);
        shared.publish(cell, &account, &state);
    }
    for (of, mut state) in stored.tickets {
        let cell = directory.by_appid.get(&of.appid);
        let Some(ticket) = cell.and_then(|cell| cell.ticket(of.ticket?)) else { continue };
        state.next_at = Some(now);
        ticket.published.store(state);
        shared.publishers.note_ticket(&of.appid, ticket.kind);
    }
    // Tokens first: a ticket cannot be had without one.
    let (tokens, tickets): (Vec<_>, Vec<_>) =
        shared.withheld.all().iter().cloned().partition(|of| of.ticket.is_none());
    let _ = supervisor.tell(Start([tokens, tickets].concat())).await;
    shared.withheld.release();
}

/// How far WeChat's `Date` says that the wall clock is behind, at least and at most, in milliseconds.
async fn query_time(shared: &ActorContext) -> (i64, i64) {
    let accounts = shared.withheld.all().iter().map(|of| &of.appid).collect::<BTreeSet<_>>().len();
    let asked = timeout(shared.rules().timeout, shared.wechat().ahead_ms()).await;
    let Some((ahead_ms, at_most_ms)) = asked.ok().flatten() else {
        warn!(
            event = "clock_unverified",
            accounts,
            "the machine was rebooted and WeChat's time could not be read: stored tokens are served by this \
             machine's clock; make sure that it is right"
        );
        return (0, 0);
    };
    let off_s = ahead_ms / 1_000;
    if ahead_ms > NOTABLE_MS {
        warn!(
            event = "clock_behind",
            accounts,
            behind_s = off_s,
            "this machine's clock is behind WeChat's: stored tokens are judged by WeChat's; set the clock by NTP"
        );
    } else if ahead_ms < -NOTABLE_MS {
        warn!(
            event = "clock_ahead",
            accounts,
            ahead_s = -off_s,
            "this machine's clock is ahead of WeChat's: stored tokens are replaced before their time; set the clock by NTP"
        );
    }
    if ahead_ms > 0 { (ahead_ms, at_most_ms) } else { (0, 0) }
}
