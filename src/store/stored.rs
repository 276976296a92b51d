//! What is known of accounts and tickets, whole: as it is read, told on the clocks of another boot, written.

use std::collections::BTreeMap;

use wxtokend_core::account::Appid;
use wxtokend_core::clock::Moment;
use wxtokend_core::ticket::{Credential, TicketState};
use wxtokend_core::token::state::AccountState;

use super::record::{self, Record};

/// What is known of accounts and tickets.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// By appid.
    pub accounts: BTreeMap<Appid, AccountState>,
    /// By whose they are and of which kind.
    pub tickets: BTreeMap<Credential, TicketState>,
}

impl Stored {
    /// Whether nothing is known.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.tickets.is_empty()
    }

    /// What all this is of.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = Credential> {
        let accounts = self.accounts.keys().cloned().map(Credential::token);
        accounts.chain(self.tickets.keys().cloned())
    }

    /// The same without the tokens and tickets.
    pub(super) fn forgotten(&self) -> Self {
        let accounts = self.accounts.iter().map(|(appid, state)| (appid.clone(), state.forgotten()));
        let tickets = self.tickets.iter().map(|(of, state)| (of.clone(), state.forgotten()));
        Self { accounts: accounts.collect(), tickets: tickets.collect() }
    }

    /// The same told on the clocks of this boot, at which it is `now`. The time is later than the wall clock tells by
    /// `later_ms` at least and at most: tokens, of which nobody knows too early that they have ended, are judged by the
    /// latest, tickets by the earliest, since one that seems to have ended and comes again is of unknown age. What was spent
    /// is judged by the wall clock as it is, so that a wrong `Date` frees no budget.
    #[must_use]
    pub(crate) fn rebased(self, now: Moment, (at_least_ms, at_most_ms): (i64, i64)) -> Self {
        let later = |by_ms| Moment { wall_ms: now.wall_ms.saturating_add(by_ms), ..now };
        let accounts = self.accounts.into_iter().map(|(appid, state)| {
            let ledger = state.ledger.rebased(now);
            (appid, AccountState { ledger, ..state.rebased(later(at_most_ms)) })
        });
        let tickets = self.tickets.into_iter().map(|(of, state)| {
            let ledger = state.ledger.rebased(now);
            (of, TicketState { ledger, ..state.rebased(later(at_least_ms)) })
        });
        Self { accounts: accounts.collect(), tickets: tickets.collect() }
    }

    pub(super) fn encoded(&self, boot: &str) -> Vec<(Credential, Vec<u8>)> {
        let accounts = self.accounts.iter();
        let accounts =
            accounts.map(|(appid, state)| (Credential::token(appid.clone()), record::encode(state, boot)));
        let tickets = self.tickets.iter().map(|(of, state)| (of.clone(), record::encode(state, boot)));
        accounts.chain(tickets).collect()
    }
}
