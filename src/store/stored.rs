//! The state of accounts and tickets as a whole: read, converted to another boot's clocks, written.

use std::collections::BTreeMap;

use wxtokend_core::account::Appid;
use wxtokend_core::clock::Moment;
use wxtokend_core::ticket::{Credential, TicketState};
use wxtokend_core::token::state::AccountState;

use super::record::{self, Record};

/// The state of accounts and tickets.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// By appid.
    pub accounts: BTreeMap<Appid, AccountState>,
    /// By account and kind.
    pub tickets: BTreeMap<Credential, TicketState>,
}

impl Stored {
    /// Whether it is empty.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.tickets.is_empty()
    }

    /// The credentials that it holds state of.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = Credential> {
        let accounts = self.accounts.keys().cloned().map(Credential::token);
        accounts.chain(self.tickets.keys().cloned())
    }

    /// The same without tokens and tickets.
    pub(super) fn forgotten(&self) -> Self {
        let accounts = self.accounts.iter().map(|(appid, state)| (appid.clone(), state.forgotten()));
        let tickets = self.tickets.iter().map(|(of, state)| (of.clone(), state.forgotten()));
        Self { accounts: accounts.collect(), tickets: tickets.collect() }
    }

    /// Converts it to the clocks of this boot, where it is `now`.
    ///
    /// The true time is ahead of the wall clock by between `at_least_ms` and `at_most_ms`. Tokens are judged
    /// by the later bound, since ending one too early does no harm; tickets by the earlier, since one that
    /// seems to have ended and is handed out again is of unknown age. What was spent is judged by the wall
    /// clock alone, so that a wrong `Date` frees no budget.
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
