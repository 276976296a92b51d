//! Invariants of an account's tickets, checked from outside.

use std::collections::VecDeque;

use wxtokend_core::ticket::{Ticket, TicketKind};

use super::fault_rates::{DAY, MINUTE, SECOND};

/// The invariant checker of one account's tickets.
#[derive(Default)]
pub(super) struct TicketChecker {
    kinds: [OneTicket; TicketKind::ALL.len()],
}

#[derive(Default)]
struct OneTicket {
    in_flight: u32,
    calls: VecDeque<i64>,
    seen: Option<(u64, String)>,
    served: bool,
    /// Since when reads have found a dead ticket.
    dead_since: Option<i64>,
}

/// How long a dead ticket may be served if its age is known. Its end is then known to within some minutes, in
/// which it is polled repeatedly.
const KNOWN_AGE: i64 = 2 * MINUTE;
/// How long a ticket of unknown age may be served after its latest possible end. That is counted from when it
/// was first seen. It is polled every five minutes, unless these calls fail or the budget is scarce, and is
/// trusted through one that fails.
const UNKNOWN_AGE: i64 = 12 * MINUTE;

/// What the check of a read depends on in addition to its checker.
#[derive(Clone, Copy)]
pub(super) struct TicketContext {
    pub(super) now: i64,
    /// Whether WeChat honours the one that is served.
    pub(super) is_alive: bool,
    /// How long ago it must have ended as far as the program knows, in milliseconds.
    pub(super) over_for: i64,
    /// The disk has lost what readers have seen, or the age of a stored ticket cannot be known.
    pub(super) excused: bool,
}

impl TicketChecker {
    /// Checks a read that returned `ticket`, or none.
    pub(super) fn look(
        &mut self,
        kind: TicketKind,
        ticket: Option<&Ticket>,
        context: TicketContext,
    ) -> Result<(), String> {
        let checker = &mut self.kinds[kind as usize];
        checker.served = ticket.is_some();
        let Some(ticket) = ticket else {
            checker.dead_since = None;
            return Ok(());
        };
        let (version, value) = (ticket.version(), ticket.value().to_owned());
        checker.dead_since = if context.is_alive { None } else { checker.dead_since.or(Some(context.now)) };
        let dead_for = checker.dead_since.map_or(0, |since| context.now - since);
        let is_over = if ticket.held().is_age_known {
            dead_for > KNOWN_AGE
        } else {
            dead_for > UNKNOWN_AGE && context.over_for > UNKNOWN_AGE
        };
        let seen = checker.seen.replace((version, value.clone())).filter(|_| !context.excused);
        match seen {
            _ if context.excused => Ok(()),
            _ if is_over => {
                Err(format!("served version {version} of {kind:?}, dead for {} s", dead_for / SECOND))
            }
            Some((before, _)) if version < before => {
                Err(format!("I5: version {version} of {kind:?} after version {before}"))
            }
            Some((before, other)) if version == before && value != other => {
                Err(format!("I5: version {version} of {kind:?} has two values"))
            }
            _ => Ok(()),
        }
    }

    /// Checks a ticket call that is about to be sent; tolerates `slack` calls beyond `budget`.
    pub(super) fn note_call_sent(&mut self, kind: TicketKind, budget: usize, now: i64) -> Result<(), String> {
        let checker = &mut self.kinds[kind as usize];
        checker.in_flight += 1;
        if checker.in_flight > 1 {
            return Err(format!("I2: two calls for {kind:?} in flight"));
        }
        checker.calls.push_back(now);
        while checker.calls.front().is_some_and(|at| *at <= now - DAY) {
            checker.calls.pop_front();
        }
        match checker.calls.len() {
            calls if calls > budget => Err(format!("I3: {calls} calls for {kind:?} in 24 h, not {budget}")),
            _ => Ok(()),
        }
    }

    /// Records the end of the call.
    pub(super) fn note_call_ended(&mut self, kind: TicketKind) {
        let checker = &mut self.kinds[kind as usize];
        checker.in_flight = checker.in_flight.saturating_sub(1);
    }

    /// Records that no byte of it was sent after all.
    pub(super) fn unsent(&mut self, kind: TicketKind) {
        self.kinds[kind as usize].calls.pop_back();
    }

    /// Records the death of the process. If the disk `forgets`, the program knows of no call.
    pub(super) fn process_died(&mut self, forgets: bool) {
        for checker in &mut self.kinds {
            checker.in_flight = 0;
            if forgets {
                checker.calls.clear();
                checker.seen = None;
            }
        }
    }

    /// Whether the last read found one.
    pub(super) fn is_served(&self, kind: TicketKind) -> bool {
        self.kinds[kind as usize].served
    }
}
