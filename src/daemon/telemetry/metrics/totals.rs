//! Metrics summed over all accounts: for alerts, and the only ones of accounts without series of their own.

use std::collections::BTreeMap;
use std::io::Result;

use wxtokend_core::budget::burst;
use wxtokend_core::fault::errcode_label;
use wxtokend_core::phase::Phase;
use wxtokend_core::reference::metrics::{
    ACCOUNTS, FLEET_BUDGET_LOW, FLEET_BUDGET_REMAINING_MIN, FLEET_FAULTS, FLEET_REFRESH_FAILURES,
    FLEET_REFRESHES, FLEET_REJECTIONS, FLEET_TOKEN_AGE_MAX, FLEET_TOKEN_EXPIRY_MIN,
};

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
        if let Some(last_failure) = &row.snapshot.state.last_failure {
            let (fault, _) = last_failure.cause();
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
        text.family(&ACCOUNTS)?;
        for phase in Phase::ALL {
            text.sample(&ACCOUNTS, &[("state", phase.as_str())], self.states[phase as usize])?;
        }
        text.family(&FLEET_FAULTS)?;
        for ((kind, errcode), count) in &self.faults {
            let errcode = errcode_label(*errcode);
            text.sample(&FLEET_FAULTS, &[("kind", kind), ("errcode", &errcode)], count)?;
        }
        text.family(&FLEET_TOKEN_AGE_MAX)?;
        if let Some(age_ms) = self.max_age_ms {
            text.sample(&FLEET_TOKEN_AGE_MAX, &[], seconds(age_ms))?;
        }
        text.family(&FLEET_TOKEN_EXPIRY_MIN)?;
        if let Some(expiry_ms) = self.min_expiry_ms {
            text.sample(&FLEET_TOKEN_EXPIRY_MIN, &[], seconds(expiry_ms))?;
        }
        text.family(&FLEET_BUDGET_REMAINING_MIN)?;
        if let Some(left) = self.min_left {
            text.sample(&FLEET_BUDGET_REMAINING_MIN, &[], left)?;
        }
        text.family(&FLEET_BUDGET_LOW)?;
        text.sample(&FLEET_BUDGET_LOW, &[], self.low_on_budget)?;
        counts(text, tally)
    }
}

fn counts(text: &mut Exposition<'_>, tally: &Tally) -> Result<()> {
    text.family(&FLEET_REFRESHES)?;
    for (outcome, count) in tally.refreshes() {
        text.sample(&FLEET_REFRESHES, &[("outcome", outcome)], count)?;
    }
    text.family(&FLEET_REFRESH_FAILURES)?;
    for (kind, errcode, count) in tally.failures() {
        let labels = [("kind", kind), ("errcode", &*errcode_label(errcode))];
        text.sample(&FLEET_REFRESH_FAILURES, &labels, count)?;
    }
    text.family(&FLEET_REJECTIONS)?;
    for (outcome, count) in tally.rejections() {
        text.sample(&FLEET_REJECTIONS, &[("outcome", outcome)], count)?;
    }
    Ok(())
}
