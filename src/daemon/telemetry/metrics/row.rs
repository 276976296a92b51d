//! The data of one account for its series.

use std::sync::Arc;

use wxtokend_core::budget::Bucket;
use wxtokend_core::clock::Moment;
use wxtokend_core::phase::Phase;

use crate::fleet::{AccountCell, Snapshot};

/// A snapshot of one account, so that its series agree with each other. The fields that most families use are
/// copied: rendering then reads the rows sequentially, and does not follow pointers for each account.
pub(super) struct AccountRow {
    pub(super) appid: Box<str>,
    pub(super) phase: Phase,
    pub(super) failures: u32,
    pub(super) budget: u32,
    /// Token calls that are possible right now.
    pub(super) calls_left: u32,
    pub(super) token: Option<Served>,
    pub(super) cell: Arc<AccountCell>,
    pub(super) snapshot: Arc<Snapshot>,
}

/// A token that may be served. Times are in milliseconds.
pub(super) struct Served {
    pub(super) age_ms: i64,
    pub(super) issued_at_ms: i64,
    pub(super) expires_at_ms: i64,
    pub(super) next_at_ms: Option<i64>,
    pub(super) version: u64,
}

impl AccountRow {
    pub(super) fn of(cell: Arc<AccountCell>, now: Moment) -> Self {
        let snapshot = cell.load();
        let Snapshot { account, state } = &*snapshot;
        let token = state.token.as_deref().filter(|_| state.is_usable(now)).map(|token| Served {
            age_ms: i64::try_from(token.issued_at.elapsed(now).as_millis()).unwrap_or(i64::MAX),
            issued_at_ms: token.issued_at.wall_ms,
            expires_at_ms: token.expires_at.wall_ms,
            next_at_ms: state.next_at.map(|next_at| (now + next_at.until(now)).wall_ms),
            version: token.version,
        });
        Self {
            appid: account.appid.as_str().into(),
            phase: state.phase(now),
            failures: state.failures(),
            budget: account.settings.daily_budget,
            calls_left: state.ledger.remaining(Bucket::Calls, account.settings.daily_budget, now),
            token,
            cell,
            snapshot,
        }
    }

    /// Whether the account counts as troubled, as defined by `PerAccount::Troubled`.
    pub(super) fn is_troubled(&self) -> bool {
        self.phase.is_trouble() || self.failures > 0
    }
}
