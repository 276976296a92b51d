//! Behaviours of WeChat that are unknown, and limits that it may change; they can be set at any time.
//!
//! Where the documentation is silent the real WeChat may behave either way, so a client is right only if it
//! is right under both positions of a switch.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Behaviour where sources disagree, and limits. In JSON every key is optional in a patch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Tokens and tickets contain `+`, `/` and `=`, which break clients that do not URL-encode them. Samples
    /// of WeChat's have only letters, digits, `-` and `_`.
    pub hostile_tokens: bool,
    /// On `stable_token`, a call in normal mode replaces a token that died early. Otherwise the same dead one
    /// comes back until its last part of life, and only a forced call replaces it.
    pub dead_stable_replaced: bool,
    /// On `token`, a mint kills the token before the previous one at once. Otherwise that one lives out its
    /// own overlap.
    pub second_mint_kills_first: bool,
    /// On `stable_token`, a forced mint kills the previous token at once. Otherwise that one lives for the
    /// overlap.
    pub forced_kills_at_once: bool,
    /// Token calls that end in an errcode count against the day's limit.
    pub failed_calls_count: bool,
    /// Tokens have 600 to 1000 characters instead of 136 to 512.
    pub long_tokens: bool,
    /// Calls of `token` per account and day, then 45009. WeChat allows 2000; for test accounts, 200.
    pub daily_limit: u32,
    /// Calls of `stable_token` per account and day, then 45009. WeChat documents 500 000.
    pub stable_daily_limit: u32,
    /// Calls of `stable_token` per account and minute, then 45011. WeChat documents 10 000.
    pub minute_limit: u32,
    /// Forced mints per account and day (WeChat: 20); beyond that the same token comes back.
    pub forced_per_day: u32,
    /// Shortest time between forced mints (WeChat: 30 s); within it the same token comes back.
    #[serde(rename = "forced_spacing_s", with = "seconds")]
    pub forced_spacing: Duration,
    /// When WeChat's day begins, in seconds after midnight UTC. Default: midnight in China, 16:00 UTC.
    pub day_begins_at_s: u32,
    /// Calls of `clear_quota` per account and calendar month in China (WeChat: 10), then 48006.
    pub clear_quota_per_month: u32,
    /// How much longer than its `expires_in` a ticket is honoured and handed out unchanged. Users have seen
    /// one that lived for 3 h.
    #[serde(rename = "tickets_outlive_s", with = "seconds")]
    pub tickets_outlive: Duration,
    /// How long it takes for freezing or unfreezing a secret to take effect. WeChat: 10 min.
    #[serde(rename = "freezing_takes_s", with = "seconds")]
    pub freezing_takes: Duration,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            hostile_tokens: false,
            dead_stable_replaced: false,
            second_mint_kills_first: false,
            forced_kills_at_once: false,
            failed_calls_count: false,
            long_tokens: false,
            daily_limit: 2000,
            stable_daily_limit: 500_000,
            minute_limit: 10_000,
            forced_per_day: 20,
            forced_spacing: Duration::from_secs(30),
            day_begins_at_s: 16 * 3600,
            clear_quota_per_month: 10,
            tickets_outlive: Duration::ZERO,
            freezing_takes: Duration::from_secs(600),
        }
    }
}

impl Switches {
    /// Returns `self` with the keys of the JSON object `patch` applied.
    ///
    /// # Errors
    /// Returns a sentence about the key that is unknown or has a wrong value.
    pub fn patched(&self, patch: &serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let mut all = serde_json::to_value(self).map_err(|error| error.to_string())?;
        if let Some(all) = all.as_object_mut() {
            all.extend(patch.clone());
        }
        serde_json::from_value(all).map_err(|error| error.to_string())
    }
}

/// Serialises a duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_sets_its_keys_and_leaves_the_others() {
        let patch = json!({"forced_spacing_s": 0.5, "long_tokens": true});
        let patched = Switches::default().patched(patch.as_object().unwrap()).unwrap();
        let expected =
            Switches { forced_spacing: Duration::from_millis(500), long_tokens: true, ..Switches::default() };
        assert_eq!(patched, expected);
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_refused() {
        for bad in [json!({"dayly_limit": 1}), json!({"daily_limit": -1}), json!({"forced_spacing_s": -1.0})]
        {
            assert!(Switches::default().patched(bad.as_object().unwrap()).is_err(), "{bad}");
        }
    }
}
