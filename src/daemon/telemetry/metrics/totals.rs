//! Metrics summed over all accounts: for alerts, and the only ones of accounts without series of their own.

use std::collections::BTreeMap;
use std::io::Result;

use wxtokend_core::budget::burst;
use wxtokend_core::fault::errcode_label;
use wxtokend_core::phase::Phase;

use super::row::AccountRow;
use super::text::{Exposition, seconds};
use crate::fleet::Tally;

/// A budget is low if less than this share of a full one is left.
const LOW: f64 = 0.1;

/// Sums over accounts, accumulated row by row.
#[derive(Default)]
pub(super) struct Totals {
    states: [u64; Phase::ALL.len()],
    faults: BTreeMap<(&'static str, Option<i64>), u64>,
    max_age_ms: Option<i64>,
    min_expiry_ms: Option<i64>,
    min_left: Option<f64>,
    low_on_budget: u64,
}

impl Totals {
    pub(super) fn add(&mut self, row: &AccountRow) {
        self.states[row.phase as usize] += 1;
        if let Some(trouble) = &row.snapshot.state.trouble {
            let (fault, _) = trouble.cause();
            *self.faults.entry((fault.kind.as_str(), fault.errcode)).or_default() += 1;
        }
        if let Some(token) = &row.token {
            self.max_age_ms = self.max_age_ms.max(Some(token.age_ms));
            let expiry_ms = token.expires_at_ms;
            self.min_expiry_ms = Some(self.min_expiry_ms.map_or(expiry_ms, |min| min.min(expiry_ms)));
        }
        let left = f64::from(row.calls_left) / f64::from(burst(row.budget));
        self.min_left = Some(self.min_left.map_or(left, |min| min.min(left)));
        self.low_on_budget += u64::from(left < LOW);
    }

    /// Writes the totals. The counts in `tally` belong to the fleet, so they go on when accounts are removed.
    pub(super) fn write(&self, text: &mut Exposition<'_>, tally: &Tally) -> Result<()> {
        text.family("wxtokend_accounts", "gauge", "Accounts by state.")?;
        for phase in Phase::ALL {
            text.sample("wxtokend_accounts", &[("state", phase.as_str())], self.states[phase as usize])?;
        }
        let name = "wxtokend_fleet_faults";
        text.family(name, "gauge", "Accounts whose last call has failed, by what was wrong.")?;
        for ((kind, errcode), count) in &self.faults {
            let errcode = errcode_label(*errcode);
            text.sample(name, &[("kind", kind), ("errcode", &errcode)], count)?;
        }
        let name = "wxtokend_fleet_token_age_max_seconds";
        text.family(name, "gauge", "Time since the oldest of the valid tokens was asked for.")?;
        if let Some(age_ms) = self.max_age_ms {
            text.sample(name, &[], seconds(age_ms))?;
        }
        let name = "wxtokend_fleet_token_expiry_min_timestamp_seconds";
        text.family(name, "gauge", "When the first of the valid tokens ends, in unix time.")?;
        if let Some(expiry_ms) = self.min_expiry_ms {
            text.sample(name, &[], seconds(expiry_ms))?;
        }
        let name = "wxtokend_fleet_budget_remaining_min_ratio";
        text.family(name, "gauge", "The least budget that an account has left; 1 is a full one.")?;
        if let Some(left) = self.min_left {
            text.sample(name, &[], left)?;
        }
        let name = "wxtokend_fleet_budget_low_accounts";
        text.family(name, "gauge", "Accounts with less than a tenth of a full budget left.")?;
        text.sample(name, &[], self.low_on_budget)?;
        counts(text, tally)
    }
}

fn counts(text: &mut Exposition<'_>, tally: &Tally) -> Result<()> {
    let name = "wxtokend_fleet_refreshes_total";
    text.family(
        name,
        "counter",
        "Token calls of all accounts, those that are gone included, by how they ended.",
    )?;
    for (outcome, count) in tally.refreshes() {
        text.sample(name, &[("outcome", outcome)], count)?;
    }
    let name = "wxtokend_fleet_refresh_failures_total";
    text.family(name, "counter", "Failed token calls of all accounts, those that are gone included.")?;
    for (kind, errcode, count) in tally.failures() {
        text.sample(name, &[("kind", kind), ("errcode", &errcode_label(errcode))], count)?;
    }
    let name = "wxtokend_fleet_rejections_total";
    let help =
        "Reports of refused tokens, and wishes to refresh, of all accounts, those that are gone included.";
    text.family(name, "counter", help)?;
    for (outcome, count) in tally.rejections() {
        text.sample(name, &[("outcome", outcome)], count)?;
    }
    Ok(())
}
