//! Metrics of tickets: series of each ticket if its account has series, and totals.

use std::collections::BTreeMap;
use std::io::Result;
use std::sync::Arc;

use wxtokend_core::account::Account;
use wxtokend_core::budget::Bucket;
use wxtokend_core::clock::Moment;
use wxtokend_core::phase::Phase;
use wxtokend_core::reference::metrics::{
    FLEET_TICKET_REFRESHES, TICKET_AGE, TICKET_BUDGET_REMAINING, TICKET_EXPIRY, TICKET_FAULT,
    TICKET_REFRESHES, TICKET_STATE, TICKETS,
};
use wxtokend_core::ticket::{HeldTicket, TicketKind, TicketState};

use super::text::{Exposition, seconds};
use crate::config::PerAccount;
use crate::fleet::{AccountCell, Tally};

/// A snapshot of one ticket.
struct TicketRow {
    account: Arc<Account>,
    kind: TicketKind,
    state: Arc<TicketState>,
    phase: Phase,
    usable: bool,
    refreshes: [(&'static str, u64); 3],
}

impl TicketRow {
    fn labels(&self) -> [(&str, &str); 2] {
        [("appid", self.account.appid.as_str()), ("type", self.kind.as_str())]
    }

    fn with<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        self.labels().into_iter().chain(more.iter().copied()).collect()
    }

    /// The ticket, if it may be served.
    fn ticket(&self) -> Option<&HeldTicket> {
        self.state.ticket.as_deref().filter(|_| self.usable)
    }
}

/// Rows and totals of tickets, accumulated account by account.
#[derive(Default)]
pub(super) struct Tickets {
    states: BTreeMap<(TicketKind, Phase), u64>,
    rows: Vec<TicketRow>,
}

impl Tickets {
    /// Adds the account's tickets, and returns whether one of them is in trouble.
    pub(super) fn add(
        &mut self,
        account: &Arc<Account>,
        cell: &AccountCell,
        of: PerAccount,
        now: Moment,
    ) -> bool {
        let mut any_in_trouble = false;
        for ticket in cell.tickets() {
            let (kind, state) = (ticket.kind, ticket.load());
            let (phase, usable) = (state.phase(now), state.is_usable(now));
            *self.states.entry((kind, phase)).or_default() += 1;
            let in_trouble = phase.is_trouble() || state.last_failure.is_some();
            any_in_trouble |= in_trouble;
            let has_series = match of {
                PerAccount::All => true,
                PerAccount::Troubled => in_trouble,
                PerAccount::None => false,
            };
            if has_series {
                let (account, refreshes) = (Arc::clone(account), ticket.tally.refreshes());
                self.rows.push(TicketRow { account, kind, state, phase, usable, refreshes });
            }
        }
        any_in_trouble
    }

    /// Writes all series of tickets. The counts in `tally` belong to the fleet, so they go on when tickets
    /// are removed.
    pub(super) fn write(&self, text: &mut Exposition<'_>, tally: &Tally, now: Moment) -> Result<()> {
        text.family(&TICKETS)?;
        for kind in TicketKind::ALL {
            for phase in Phase::ALL {
                let count = self.states.get(&(kind, phase)).copied().unwrap_or_default();
                let labels = [("type", kind.as_str()), ("state", phase.as_str())];
                text.sample(&TICKETS, &labels, count)?;
            }
        }
        text.family(&FLEET_TICKET_REFRESHES)?;
        for (outcome, count) in tally.refreshes() {
            text.sample(&FLEET_TICKET_REFRESHES, &[("outcome", outcome)], count)?;
        }
        self.lives(text, now)?;
        self.states(text)?;
        self.calls(text, now)
    }

    fn lives(&self, text: &mut Exposition<'_>, now: Moment) -> Result<()> {
        text.family(&TICKET_AGE)?;
        for row in &self.rows {
            if let Some(ticket) = row.ticket() {
                let age_ms = i64::try_from(ticket.issued_at.elapsed(now).as_millis()).unwrap_or(i64::MAX);
                text.sample(&TICKET_AGE, &row.labels(), seconds(age_ms))?;
            }
        }
        text.family(&TICKET_EXPIRY)?;
        for row in &self.rows {
            if let Some(ticket) = row.ticket() {
                text.sample(&TICKET_EXPIRY, &row.labels(), seconds(ticket.expires_at.wall_ms))?;
            }
        }
        Ok(())
    }

    fn states(&self, text: &mut Exposition<'_>) -> Result<()> {
        text.family(&TICKET_STATE)?;
        for row in &self.rows {
            for phase in Phase::ALL {
                let is = u8::from(row.phase == phase);
                text.sample(&TICKET_STATE, &row.with(&[("state", phase.as_str())]), is)?;
            }
        }
        text.family(&TICKET_FAULT)?;
        for row in &self.rows {
            if let Some(last_failure) = &row.state.last_failure {
                let (fault, _) = last_failure.cause();
                let (kind, errcode) = (fault.kind.as_str(), fault.errcode_label());
                text.sample(&TICKET_FAULT, &row.with(&[("kind", kind), ("errcode", &errcode)]), 1)?;
            }
        }
        Ok(())
    }

    fn calls(&self, text: &mut Exposition<'_>, now: Moment) -> Result<()> {
        text.family(&TICKET_BUDGET_REMAINING)?;
        for row in &self.rows {
            let left = row.state.ledger.remaining(Bucket::Calls, row.account.settings.daily_budget, now);
            text.sample(&TICKET_BUDGET_REMAINING, &row.labels(), left)?;
        }
        text.family(&TICKET_REFRESHES)?;
        for row in &self.rows {
            for (outcome, count) in row.refreshes {
                text.sample(&TICKET_REFRESHES, &row.with(&[("outcome", outcome)]), count)?;
            }
        }
        Ok(())
    }
}
