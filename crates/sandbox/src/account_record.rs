//! WeChat's record of one account: its secret, its quotas, its tickets, and the counters that tests read.

use std::time::Duration;

use serde::Serialize;
use wxtokend_core::secret::Secret;

use super::call::Call;
use super::whitelist::Whitelist;

/// How often each thing happened to an account. A call cut off by a fault or a limit counts as a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls of `token`.
    pub token_calls: u64,
    /// Tokens minted by those calls.
    pub token_mints: u64,
    /// Calls of `stable_token`.
    pub stable_token_calls: u64,
    /// Tokens minted by those calls, including forced ones.
    pub stable_token_mints: u64,
    /// Forced mints.
    pub forced_mints: u64,
    /// Check calls with a token of this account.
    pub checks: u64,
    /// Checks whose token was refused.
    pub checks_refused: u64,
    /// Ticket calls with a token of this account.
    pub ticket_calls: u64,
    /// Tickets minted by those calls.
    pub ticket_mints: u64,
    /// Calls about quotas.
    pub quota_calls: u64,
    /// Other business calls with a token of this account.
    pub business_calls: u64,
    /// Business calls whose token was refused.
    pub business_refused: u64,
}

impl Counters {
    pub(super) fn count(&mut self, call: Call) {
        *match call {
            Call::Token => &mut self.token_calls,
            Call::StableToken => &mut self.stable_token_calls,
            Call::Check => &mut self.checks,
            Call::Ticket => &mut self.ticket_calls,
            Call::Quota => &mut self.quota_calls,
            Call::Business => &mut self.business_calls,
        } += 1;
    }
}

/// A count that starts over with each day, minute or month.
#[derive(Debug, Default)]
pub(super) struct Quota {
    window: u64,
    used: u32,
}

impl Quota {
    /// Returns how much has been used in `window`.
    pub(super) fn used(&self, window: u64) -> u32 {
        if self.window == window { self.used } else { 0 }
    }

    /// Uses one unit, whatever the limit.
    pub(super) fn charge(&mut self, window: u64) {
        *self = Self { window, used: self.used(window).saturating_add(1) };
    }

    /// Uses one unit and returns true, or returns false if `limit` is reached.
    pub(super) fn admit(&mut self, window: u64, limit: u32) -> bool {
        let free = self.used(window) < limit;
        if free {
            self.charge(window);
        }
        free
    }

    /// Resets the count.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A jsapi or wx_card ticket.
pub(super) struct Ticket {
    pub(super) value: String,
    /// When it would end according to its `expires_in`.
    pub(super) ends_at: Duration,
}

impl Ticket {
    /// Whether it is handed out and honoured, if tickets live `extra` longer than promised.
    pub(super) fn is_alive(&self, now: Duration, extra: Duration) -> bool {
        now < self.ends_at.saturating_add(extra)
    }
}

/// One account.
pub(super) struct AccountRecord {
    pub(super) secret: Secret,
    pub(super) counters: Counters,
    pub(super) token_day: Quota,
    pub(super) stable_token_day: Quota,
    pub(super) stable_token_minute: Quota,
    pub(super) forced_day: Quota,
    pub(super) last_forced: Option<Duration>,
    pub(super) cleared_month: Quota,
    pub(super) jsapi: Option<Ticket>,
    pub(super) wx_card: Option<Ticket>,
    pub(super) whitelist: Option<Whitelist>,
    pub(super) freeze: Freeze,
}

/// Whether the secret is frozen. A change takes effect only some time after it was made.
#[derive(Debug, Default)]
pub(super) struct Freeze {
    before: bool,
    after: bool,
    changes_at: Duration,
}

impl Freeze {
    pub(super) fn is_on(&self, now: Duration) -> bool {
        if now < self.changes_at { self.before } else { self.after }
    }

    pub(super) fn set(&mut self, on: bool, now: Duration, takes: Duration) {
        *self = Self { before: self.is_on(now), after: on, changes_at: now.saturating_add(takes) };
    }
}

impl AccountRecord {
    pub(super) fn new(secret: Secret) -> Self {
        Self {
            secret,
            counters: Counters::default(),
            token_day: Quota::default(),
            stable_token_day: Quota::default(),
            stable_token_minute: Quota::default(),
            forced_day: Quota::default(),
            last_forced: None,
            cleared_month: Quota::default(),
            jsapi: None,
            wx_card: None,
            whitelist: None,
            freeze: Freeze::default(),
        }
    }
}
