//! Metrics of tickets: series of each ticket if its account has series, and totals.

use std::collections::BTreeMap;
use std::io::Result;
use std::sync::Arc;

use wxtokend_core::account::Account;
use wxtokend_core::budget::Bucket;
use wxtokend_core::clock::Moment;
use wxtokend_core::phase::Phase;
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
            let in_trouble = phase.is_trouble() || state.trouble.is_some();
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
        text.family("wxtokend_tickets", "gauge", "Tickets by state.")?;
        for kind in TicketKind::ALL {
            for phase in Phase::ALL {
                let count = self.states.get(&(kind, phase)).copied().unwrap_or_default();
                let labels = [("type", kind.as_str()), ("state", phase.as_str())];
                text.sample("wxtokend_tickets", &labels, count)?;
            }
        }
        let name = "wxtokend_fleet_ticket_refreshes_total";
        let help = "Calls for tickets of all accounts, those that are gone included, by how they ended.";
        text.family(name, "counter", help)?;
        for (outcome, count) in tally.refreshes() {
            text.sample(name, &[("outcome", outcome)], count)?;
        }
        self.lives(text, now)?;
        self.states(text)?;
        self.calls(text, now)
    }

    fn lives(&self, text: &mut Exposition<'_>, now: Moment) -> Result<()> {
        let name = "wxtokend_ticket_age_seconds";
        text.family(name, "gauge", "Time since the ticket was made, as far as is known.")?;
        for row in &self.rows {
            if let Some(ticket) = row.ticket() {
                let age_ms = i64::try_from(ticket.issued_at.elapsed(now).as_millis()).unwrap_or(i64::MAX);
                text.sample(name, &row.labels(), seconds(age_ms))?;
            }
        }
        let name = "wxtokend_ticket_expiry_timestamp_seconds";
        text.family(name, "gauge", "Until when the ticket is trusted, in unix time.")?;
        for row in &self.rows {
            if let Some(ticket) = row.ticket() {
                text.sample(name, &row.labels(), seconds(ticket.expires_at.wall_ms))?;
            }
        }
        Ok(())
    }

    fn states(&self, text: &mut Exposition<'_>) -> Result<()> {
        let name = "wxtokend_ticket_state";
        text.family(name, "gauge", "1 for the state that the ticket is in.")?;
        for row in &self.rows {
            for phase in Phase::ALL {
                let is = u8::from(row.phase == phase);
                text.sample(name, &row.with(&[("state", phase.as_str())]), is)?;
            }
        }
        let name = "wxtokend_ticket_fault";
        text.family(name, "gauge", "1 while the last call for the ticket has failed in this way.")?;
        for row in &self.rows {
            if let Some(trouble) = &row.state.trouble {
                let (fault, _) = trouble.cause();
                let (kind, errcode) = (fault.kind.as_str(), fault.errcode_label());
                text.sample(name, &row.with(&[("kind", kind), ("errcode", &errcode)]), 1)?;
            }
        }
        Ok(())
    }

    fn calls(&self, text: &mut Exposition<'_>, now: Moment) -> Result<()> {
        let name = "wxtokend_ticket_budget_remaining_calls";
        text.family(
            name,
            "gauge",
            "Calls for the ticket that may be made right now; of a full budget, half.",
        )?;
        for row in &self.rows {
            let left = row.state.ledger.remaining(Bucket::Calls, row.account.settings.daily_budget, now);
            text.sample(name, &row.labels(), left)?;
        }
        let name = "wxtokend_ticket_refreshes_total";
        text.family(name, "counter", "Calls for the ticket by how they ended.")?;
        for row in &self.rows {
            for (outcome, count) in row.refreshes {
                text.sample(name, &row.with(&[("outcome", outcome)]), count)?;
            }
        }
        Ok(())
    }
}
