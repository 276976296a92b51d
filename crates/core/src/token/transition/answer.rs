//! A token or ticket as WeChat answers it, and how much of its lifetime is believed.

use std::time::Duration;

use crate::account::Endpoint;
use crate::secret::Secret;
use crate::token::schedule::DAY;

/// A token as WeChat answered it.
#[derive(Debug)]
pub struct Answer {
    /// The access_token.
    pub value: Secret,
    /// Its remaining life, counted from when the request was sent.
    pub expires_in: Duration,
}

/// Lifetime of a token or ticket according to WeChat.
pub const USUAL_LIFETIME: Duration = Duration::from_secs(7200);

impl Answer {
    /// How much of `expires_in` is believed. One answer must not keep us from asking for days: on
    /// `stable_token` asking again costs nothing, on `token` it ends a token that may well be good.
    #[must_use]
    pub fn believed_life(&self, endpoint: Endpoint) -> Duration {
        self.expires_in.min(match endpoint {
            Endpoint::StableToken => USUAL_LIFETIME,
            Endpoint::Token => DAY,
        })
    }
}

/// Whether a lifetime is so far above the usual that it should be reported.
#[must_use]
pub fn is_strangely_long(expires_in: Duration) -> bool {
    expires_in > USUAL_LIFETIME + Duration::from_secs(5 * 60)
}
