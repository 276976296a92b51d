//! Has tokens checked that are in use and that nobody has looked at for a while.
//!
//! On `token` whoever else holds the AppSecret ends our token by a call of its own, and clients that keep a
//! token report nothing. Whether an account is in use is known only to its readers, who must not have to wake
//! its actor; so one task looks at all accounts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use wxtokend_core::clock::Moment;
use wxtokend_core::token::hint::needs_audit;
use wxtokend_core::token::state::{Hint, HintSource, SourceId};

use super::context::ActorContext;
use crate::fleet::cells::mailbox::Notice;

/// The accounts are looked at this many times in the shortest interval between audits,
const ROUNDS: u32 = 20;
/// but no more often than this,
const SHORTEST: Duration = Duration::from_millis(50);
/// and no less.
const LONGEST: Duration = Duration::from_secs(15);

/// Has the tokens audited that are due. Never returns.
pub(crate) async fn audit_tokens(shared: Arc<ActorContext>) {
    loop {
        let period = period(&shared);
        sleep(period).await;
        // What falls due before the next round is due now, so that no token goes unchecked for longer.
        audit_due(&shared, shared.now() + period);
    }
}

/// How long until the next round.
fn period(shared: &ActorContext) -> Duration {
    let directory = shared.directory.load();
    let audits = directory
        .by_appid
        .values()
        .map(|cell| cell.published.with(|snapshot| snapshot.account.settings.audit));
    let shortest = audits.filter(|audit| !audit.is_zero()).min().unwrap_or(Duration::MAX);
    (shortest / ROUNDS).clamp(SHORTEST, LONGEST)
}

fn audit_due(shared: &ActorContext, now: Moment) {
    let directory = shared.directory.load_full();
    for cell in directory.in_order.iter().filter_map(|appid| directory.by_appid.get(appid)) {
        let unused_for = cell.unused_for(now);
        let version = cell.published.with(|snapshot| {
            let is_due = needs_audit(&snapshot.state, &snapshot.account, unused_for, now);
            is_due.then_some(snapshot.state.version)
        });
        if let (Some(version), Some(actor)) = (version, cell.mailbox()) {
            actor.tell(Notice::Hint(Hint { source: HintSource::Audit, from: SourceId(0), version }));
        }
    }
}
