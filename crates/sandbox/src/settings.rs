//! Initial settings of a simulated WeChat.

use std::time::Duration;

use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::switches::Switches;

/// Initial settings of a simulated WeChat.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long tokens and tickets live. WeChat: 7200 s.
    pub token_lifetime: Duration,
    /// How long the previous token works after a mint; also the last part of a token's life, in which
    /// `stable_token` mints. WeChat: 300 s.
    pub overlap: Duration,
    /// Behaviours and limits that can be switched.
    pub switches: Switches,
    /// Seed for tokens, rids and wordings.
    pub seed: u64,
    /// The accounts with their AppSecrets.
    pub accounts: Vec<(Appid, Secret)>,
    /// Unix time of the start, in seconds; days, minutes, rids and `Date` headers count from it.
    pub epoch_wall_s: u64,
}

impl Default for Settings {
    /// WeChat's numbers, no accounts, and a start on 2026-09-21 at 14:13:20 UTC.
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_secs(7200),
            overlap: Duration::from_secs(300),
            switches: Switches::default(),
            seed: 0,
            accounts: Vec::new(),
            epoch_wall_s: 1_790_000_000,
        }
    }
}
