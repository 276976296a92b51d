//! The accounts' series, from what is true of each at this instant.

use std::fmt::Display;
use std::sync::Arc;

use super::text::{Text, seconds};
use crate::budget::Purse;
use crate::clock::Moment;
use crate::fleet::{AccountCell, Fleet, Snapshot};
use crate::state::Phase;
use crate::token::HeldToken;

/// What an account's series take, roughly.
const BYTES_PER_ACCOUNT: usize = 2560;

/// One account, looked at once: its series agree with each other.
struct Row {
    cell: Arc<AccountCell>,
    snapshot: Arc<Snapshot>,
    phase: Phase,
    usable: bool,
}

impl Row {
    fn appid(&self) -> &str {
        self.snapshot.account.appid.as_str()
    }

    /// The token, while it may be served.
    fn token(&self) -> Option<&HeldToken> {
        self.snapshot.state.token.as_deref().filter(|_| self.usable)
    }
}

/// How much text is to come.
pub(super) fn room_for(fleet: &Fleet) -> usize {
    fleet.size() * BYTES_PER_ACCOUNT + 16 * 1024
}

pub(super) fn write(text: &mut Text, fleet: &Fleet) {
    let now = fleet.now();
    let look = |cell: Arc<AccountCell>| {
        let snapshot = cell.load();
        Row { phase: snapshot.state.phase(now), usable: snapshot.state.is_usable(now), cell, snapshot }
    };
    let rows: Vec<Row> = fleet.cells().into_iter().map(look).collect();
    tokens(text, &rows, now);
    states(text, &rows);
    budgets(text, &rows, now);
    counts(text, &rows);
}

fn tokens(text: &mut Text, rows: &[Row], now: Moment) {
    each(text, rows, "wxtokend_token_age_seconds", "Time since the token was asked for.", |row| {
        let age_ms = row.token()?.issued_at.elapsed(now).as_millis();
        Some(seconds(i64::try_from(age_ms).unwrap_or(i64::MAX)))
    });
    let name = "wxtokend_token_issued_timestamp_seconds";
    each(text, rows, name, "When the token was asked for, in unix time.", |row| {
        Some(seconds(row.token()?.issued_at.wall_ms))
    });
    let name = "wxtokend_token_expiry_timestamp_seconds";
    each(text, rows, name, "When the token ends, in unix time.", |row| {
        Some(seconds(row.token()?.expires_at.wall_ms))
    });
    let name = "wxtokend_token_next_refresh_timestamp_seconds";
    each(text, rows, name, "When WeChat is asked next, in unix time; absent while nobody knows.", |row| {
        let next_at = row.snapshot.state.next_at.filter(|_| row.usable)?;
        Some(seconds((now + next_at.until(now)).wall_ms))
    });
    each(text, rows, "wxtokend_token_version", "Counts the account's tokens.", |row| {
        Some(row.token()?.version)
    });
}

fn states(text: &mut Text, rows: &[Row]) {
    let name = "wxtokend_account_state";
    text.family(name, "gauge", "1 for the state that the account is in.");
    let mut counts = [0_u64; Phase::ALL.len()];
    for row in rows {
        for (count, phase) in counts.iter_mut().zip(Phase::ALL) {
            let is = row.phase == phase;
            *count += u64::from(is);
            text.sample(name, &[("appid", row.appid()), ("state", phase.as_str())], u8::from(is));
        }
    }
    text.family("wxtokend_accounts", "gauge", "Accounts by state.");
    for (count, phase) in counts.iter().zip(Phase::ALL) {
        text.sample("wxtokend_accounts", &[("state", phase.as_str())], count);
    }
    let name = "wxtokend_account_fault";
    text.family(name, "gauge", "1 while the account's last call has failed in this way.");
    for row in rows {
        if let Some(trouble) = &row.snapshot.state.trouble {
            let errcode = trouble.fault.errcode_label();
            let labels =
                [("appid", row.appid()), ("kind", trouble.fault.kind.as_str()), ("errcode", &*errcode)];
            text.sample(name, &labels, 1);
        }
    }
    let name = "wxtokend_account_info";
    text.family(name, "gauge", "What the account is called and which call mints its token.");
    for row in rows {
        let account = &row.snapshot.account;
        let labels =
            [("appid", row.appid()), ("name", &*account.name), ("endpoint", account.endpoint.as_str())];
        text.sample(name, &labels, 1);
    }
    each(text, rows, "wxtokend_consecutive_failures", "Calls that have failed in a row.", |row| {
        Some(row.snapshot.state.failures())
    });
}

fn budgets(text: &mut Text, rows: &[Row], now: Moment) {
    each(text, rows, "wxtokend_budget_limit_calls", "Token calls that may be made in any 24 h.", |row| {
        Some(row.snapshot.account.daily_budget)
    });
    let name = "wxtokend_budget_remaining_calls";
    each(text, rows, name, "Token calls that may be made right now; of a full budget, half.", |row| {
        let limit = row.snapshot.account.daily_budget;
        Some(row.snapshot.state.ledger.remaining(Purse::Main, limit, now))
    });
}

fn counts(text: &mut Text, rows: &[Row]) {
    let name = "wxtokend_refreshes_total";
    text.family(name, "counter", "Token calls by how they ended.");
    for row in rows {
        for (outcome, count) in row.cell.tally.refreshes() {
            text.sample(name, &[("appid", row.appid()), ("outcome", outcome)], count);
        }
    }
    let name = "wxtokend_refresh_failures_total";
    text.family(name, "counter", "Failed token calls by what was wrong.");
    for row in rows {
        for (kind, errcode, count) in row.cell.tally.failures() {
            let errcode = errcode.map_or_else(|| "none".to_owned(), |code| code.to_string());
            let labels = [("appid", row.appid()), ("kind", kind), ("errcode", &*errcode)];
            text.sample(name, &labels, count);
        }
    }
    let name = "wxtokend_rejections_total";
    text.family(
        name,
        "counter",
        "Reports of refused tokens, and wishes to refresh, by how they were decided.",
    );
    for row in rows {
        for (outcome, count) in row.cell.tally.rejections() {
            text.sample(name, &[("appid", row.appid()), ("outcome", outcome)], count);
        }
    }
}

/// A gauge of those accounts that have it.
fn each<V: Display>(
    text: &mut Text,
    rows: &[Row],
    name: &str,
    help: &str,
    value: impl Fn(&Row) -> Option<V>,
) {
    text.family(name, "gauge", help);
    for row in rows {
        if let Some(value) = value(row) {
            text.sample(name, &[("appid", row.appid())], value);
        }
    }
}
