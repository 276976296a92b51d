use std::fmt::Display;
use std::io::Result;

use wxtokend_core::fault::errcode_label;
use wxtokend_core::phase::Phase;
use wxtokend_core::reference::metrics::{
    ACCOUNT_FAULT, ACCOUNT_INFO, ACCOUNT_STATE, BUDGET_LIMIT, BUDGET_REMAINING, CONSECUTIVE_FAILURES, Metric,
    REFRESH_FAILURES, REFRESHES, REJECTIONS, TOKEN_AGE, TOKEN_EXPIRY, TOKEN_ISSUED, TOKEN_NEXT_REFRESH,
    TOKEN_VERSION,
};

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
    let mut values = |metric: &Metric, ms: fn(&Served) -> Option<i64>| {
        each(text, rows, metric, |row| row.token.as_ref().and_then(ms).map(seconds))
    };
    values(&TOKEN_AGE, |token| Some(token.age_ms))?;
    values(&TOKEN_ISSUED, |token| Some(token.issued_at_ms))?;
    values(&TOKEN_EXPIRY, |token| Some(token.expires_at_ms))?;
    values(&TOKEN_NEXT_REFRESH, |token| token.next_at_ms)?;
    each(text, rows, &TOKEN_VERSION, |row| row.token.as_ref().map(|token| token.version))
}

fn states(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    text.family(&ACCOUNT_STATE)?;
    for row in rows {
        for phase in Phase::ALL {
            let is = u8::from(row.phase == phase);
            text.sample(&ACCOUNT_STATE, &[("appid", &*row.appid), ("state", phase.as_str())], is)?;
        }
    }
    text.family(&ACCOUNT_FAULT)?;
    for row in rows {
        if let Some(last_failure) = &row.snapshot.state.last_failure {
            let (fault, _) = last_failure.cause();
            let errcode = fault.errcode_label();
            let labels = [("appid", &*row.appid), ("kind", fault.kind.as_str()), ("errcode", &*errcode)];
            text.sample(&ACCOUNT_FAULT, &labels, 1)?;
        }
    }
    text.family(&ACCOUNT_INFO)?;
    for row in rows {
        let account = &row.snapshot.account;
        let labels = [
            ("appid", &*row.appid),
            ("name", &*account.name),
            ("endpoint", account.settings.endpoint.as_str()),
        ];
        text.sample(&ACCOUNT_INFO, &labels, 1)?;
    }
    each(text, rows, &CONSECUTIVE_FAILURES, |row| Some(row.failures))
}

fn budgets(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    each(text, rows, &BUDGET_LIMIT, |row| Some(row.budget))?;
    each(text, rows, &BUDGET_REMAINING, |row| Some(row.calls_left))
}

fn counts(text: &mut Exposition<'_>, rows: &[AccountRow]) -> Result<()> {
    text.family(&REFRESHES)?;
    for row in rows {
        for (outcome, count) in row.cell.tally.refreshes() {
            text.sample(&REFRESHES, &[("appid", &*row.appid), ("outcome", outcome)], count)?;
        }
    }
    text.family(&REFRESH_FAILURES)?;
    for row in rows {
        for (kind, errcode, count) in row.cell.tally.failures() {
            let errcode = errcode_label(errcode);
            let labels = [("appid", &*row.appid), ("kind", kind), ("errcode", &*errcode)];
            text.sample(&REFRESH_FAILURES, &labels, count)?;
        }
    }
    text.family(&REJECTIONS)?;
    for row in rows {
        for (outcome, count) in row.cell.tally.rejections() {
            text.sample(&REJECTIONS, &[("appid", &*row.appid), ("outcome", outcome)], count)?;
        }
    }
    Ok(())
}

/// Writes a gauge for each account that has a value.
fn each<V: Display>(
    text: &mut Exposition<'_>,
    rows: &[AccountRow],
    gauge: &Metric,
    value: impl Fn(&AccountRow) -> Option<V>,
) -> Result<()> {
    text.family(gauge)?;
    for row in rows {
        if let Some(value) = value(row) {
            text.sample(gauge, &[("appid", &*row.appid)], value)?;
        }
    }
    Ok(())
}
