use std::fmt::Display;
use std::io::Result;

use wxtokend_core::fault::errcode_label;
use wxtokend_core::phase::Phase;

use super::row::{AccountRow, Served};
use super::text::{Exposition, seconds};
use super::tickets::Tickets;
use super::totals::Totals;
use crate::config::PerAccount;
use crate::fleet::Fleet;

pub(super) fn write(text: &mut Exposition<'_>, fleet: &Fleet, per_account: PerAccount) -> Result<()> {
    let now = fleet.now();
    let mut totals = Totals::default();
    let mut rows = Vec::new();
    let mut tickets = Tickets::default();
    for cell in fleet.cells() {
        let row = AccountRow::of(cell, now);
        totals.add(&row);
        let has_troubled_ticket = tickets.add(&row.snapshot.account, &row.cell, per_account, now);
        let has_series = match per_account {
            PerAccount::All => true,
            PerAccount::Troubled => row.is_troubled() || has_troubled_ticket,
            PerAccount::None => false,
        };
        if has_series {
            rows.push(row);
        }
    }
    totals.write(text, fleet.tally())?;
    tokens(text, &rows)?;
    states(text, &rows)?;
    budgets(text, &rows)?;
    counts(text, &rows)?;
    tickets.write(text, fleet.ticket_tally(), now)
}

fn tokens(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    let mut values = |name: &str, help: &str, ms: fn(&Served) -> Option<i64>| {
        each(text, rows, name, help, |row| row.token.as_ref().and_then(ms).map(seconds))
    };
    values("wxtokend_token_age_seconds", "Time since the token was asked for.", |token| Some(token.age_ms))?;
    let name = "wxtokend_token_issued_timestamp_seconds";
    values(name, "When the token was asked for, in unix time.", |token| Some(token.issued_at_ms))?;
    let name = "wxtokend_token_expiry_timestamp_seconds";
    values(name, "When the token ends, in unix time.", |token| Some(token.expires_at_ms))?;
    let name = "wxtokend_token_next_refresh_timestamp_seconds";
    let help = "When WeChat is asked next, in unix time; absent while nobody knows.";
    values(name, help, |token| token.next_at_ms)?;
    each(text, rows, "wxtokend_token_version", "Counts the account's tokens.", |row| {
        row.token.as_ref().map(|token| token.version)
    })
}

fn states(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    let name = "wxtokend_account_state";
    text.family(name, "gauge", "1 for the state that the account is in.")?;
    for row in rows {
        for phase in Phase::ALL {
            let is = u8::from(row.phase == phase);
            text.sample(name, &[("appid", &*row.appid), ("state", phase.as_str())], is)?;
        }
    }
    let name = "wxtokend_account_fault";
    text.family(name, "gauge", "1 while the account's last call has failed in this way.")?;
    for row in rows {
        if let Some(trouble) = &row.snapshot.state.trouble {
            let (fault, _) = trouble.cause();
            let errcode = fault.errcode_label();
            let labels = [("appid", &*row.appid), ("kind", fault.kind.as_str()), ("errcode", &*errcode)];
            text.sample(name, &labels, 1)?;
        }
    }
    let name = "wxtokend_account_info";
    text.family(name, "gauge", "What the account is called and which call mints its token.")?;
    for row in rows {
        let account = &row.snapshot.account;
        let labels = [
            ("appid", &*row.appid),
            ("name", &*account.name),
            ("endpoint", account.settings.endpoint.as_str()),
        ];
        text.sample(name, &labels, 1)?;
    }
    each(text, rows, "wxtokend_consecutive_failures", "Calls that have failed in a row.", |row| {
        Some(row.failures)
    })
}

fn budgets(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    each(text, rows, "wxtokend_budget_limit_calls", "Token calls that may be made in any 24 h.", |row| {
        Some(row.budget)
    })?;
    let name = "wxtokend_budget_remaining_calls";
    let help = "Token calls that may be made right now; of a full budget, half.";
    each(text, rows, name, help, |row| Some(row.calls_left))
}

fn counts(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    let name = "wxtokend_refreshes_total";
    text.family(name, "counter", "Token calls by how they ended.")?;
    for row in rows {
        for (outcome, count) in row.cell.tally.refreshes() {
            text.sample(name, &[("appid", &*row.appid), ("outcome", outcome)], count)?;
        }
    }
    let name = "wxtokend_refresh_failures_total";
    text.family(name, "counter", "Failed token calls by what was wrong.")?;
    for row in rows {
        for (kind, errcode, count) in row.cell.tally.failures() {
            let errcode = errcode_label(errcode);
            let labels = [("appid", &*row.appid), ("kind", kind), ("errcode", &*errcode)];
            text.sample(name, &labels, count)?;
        }
    }
    let name = "wxtokend_rejections_total";
    text.family(
        name,
        "counter",
        "Reports of refused tokens, and wishes to refresh, by how they were decided.",
    )?;
    for row in rows {
        for (outcome, count) in row.cell.tally.rejections() {
            text.sample(name, &[("appid", &*row.appid), ("outcome", outcome)], count)?;
        }
    }
    Ok(())
}

/// Writes a gauge for each account that has a value.
fn each<V: Display>(
    text: &mut Exposition<'_>,
    rows: &[AccountRow],
    name: &str,
    help: &str,
    value: impl Fn(&AccountRow) -> Option<V>,
) -> Result<()> {
    text.family(name, "gauge", help)?;
    for row in rows {
        if let Some(value) = value(row) {
            text.sample(name, &[("appid", &*row.appid)], value)?;
        }
    }
    Ok(())
}
