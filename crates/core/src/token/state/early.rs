//! Brings a refresh forward within the window in which it is due.
//!
//! WeChat's own `stable_token` never answers with less than 300 s: a call in a token's last 5 minutes returns
//! a new one. SDKs rely on that, and some fail every call with less. So a request in that window is a reason
//! to call a little sooner.

use std::sync::Arc;
use std::time::Duration;

use super::AccountState;
use crate::account::Endpoint;
use crate::clock::Moment;
use crate::token::Validity;

/// How often an account's refresh was recently brought forward.
#[derive(Debug, Clone, Copy, Default)]
pub struct EarlyRefreshes {
    version: u64,
    times: u32,
    at: Moment,
}

impl EarlyRefreshes {
    /// Whether the refresh may be brought forward once more for the token of that `version`; if so, records
    /// it. Where WeChat hands out the same token again, as it does if its clock or overlap differs from ours,
    /// the pause before each further one doubles, starting at `apart`.
    pub fn admit(&mut self, version: u64, apart: Duration, now: Moment) -> bool {
        if self.version != version {
            *self = Self { version, ..Self::default() };
        }
        let wait = apart.saturating_mul(2_u32.saturating_pow(self.times.saturating_sub(1)));
        if self.times > 0 && self.at.elapsed(now) < wait {
            return false;
        }
        self.times = self.times.saturating_add(1);
        self.at = now;
        true
    }
}

impl AccountState {
    /// Whether WeChat would mint now if asked in normal mode, and our refresh is scheduled for later. Starts
    /// a margin after the window opens, since WeChat reports whole seconds.
    #[must_use]
    pub fn may_refresh_early(&self, now: Moment) -> bool {
        let fits = |token: &&super::HeldToken| {
            token.endpoint == Endpoint::StableToken && token.validity == Validity::Good
        };
        let Some(token) = self.token.as_deref().filter(fits) else { return false };
        let opens = token.expires_at - token.overlap.saturating_sub(token.margin());
        !self.activity.is_busy() && opens.has_come(now) && !token.refresh_at.has_come(now)
    }

    /// Sets the token's refresh instant to `now`. The refresh is like any other: budget, back-off and hosts
    /// that are down delay it.
    pub fn refresh_early(&mut self, now: Moment) {
        if !self.may_refresh_early(now) {
            return;
        }
        if let Some(token) = &mut self.token {
            Arc::make_mut(token).refresh_at = now;
        }
    }
}
