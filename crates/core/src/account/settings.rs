//! What may be different for each account: a key of `defaults` in `accounts.yaml`, and of an account.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reference::setting::{DefaultValue, Setting};
use crate::ticket::TicketKinds;

/// The WeChat call that mints the token. Tokens of the two endpoints are separate and do not invalidate each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /cgi-bin/stable_token`: returns the same token until its last 5 minutes.
    #[default]
    StableToken,
    /// `GET /cgi-bin/token`: returns a new token with each call; the previous one works for 5 more minutes.
    Token,
}

impl Endpoint {
    /// The endpoint's name in `accounts.yaml`, the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StableToken => "stable_token",
            Self::Token => "token",
        }
    }
}

/// How long before expiry an account on [`Endpoint::Token`] is refreshed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RefreshAhead {
    /// A share of the token's lifetime, greater than 0 and at most 0.5.
    Share(f64),
    /// A fixed time, capped at half of the lifetime.
    Fixed(Duration),
}

/// Bounds of the back-off after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The shortest wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
}

/// Declares [`AccountSettings`], its default and its table, with one entry for each setting:
/// `key: type = default, "the default in the file", "kind of value", "what it is for";`
macro_rules! account_settings {
    ($($key:ident: $type:ty = $default:expr, $written:literal, $kind:literal, $doc:literal;)*) => {
        /// The settings of an account. Their defaults are those of the file.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct AccountSettings {
            $(
                #[doc = $doc]
                pub $key: $type,
            )*
        }

        impl Default for AccountSettings {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl AccountSettings {
            /// The settings as keys of `accounts.yaml`.
            pub const TABLE: &[Setting] = &[$(
                Setting {
                    key: stringify!($key),
                    kind: $kind,
                    default: DefaultValue::Literal($written),
                    doc: $doc,
                },
            )*];
        }
    };
}

account_settings! {
    endpoint: Endpoint = Endpoint::StableToken, "stable_token",
        "`stable_token` or `token`",
        "The WeChat call that mints the token.\n\
         `stable_token` (recommended) has tokens of its own: no call to the classic endpoint ends them.\n\
         `token` is the classic `/cgi-bin/token`: each call ends the token before, so nobody else may call \
         it.";
    daily_budget: u32 = 2000, "2000",
        "number, at least 4",
        "Token calls in any 24 hours. WeChat allows 2000 a day on the classic endpoint.";
    refresh_ahead: RefreshAhead = RefreshAhead::Share(0.25), "25%",
        "share of the lifetime, up to 50%, or duration",
        "On `token`: how long before expiry a new one is fetched. A share of the lifetime, up to 50%, or a \
         duration.\n\
         Each account draws its own instant, up to a third of that sooner or later. Where thousands begin \
         together, without a token, each draws its first refresh from the whole time before.";
    retry: Retry = Retry { initial: Duration::from_secs(2), max: Duration::from_secs(60) },
        "{ initial: 2s, max: 60s }",
        "two durations",
        "The wait after a failed call grows from `initial` to `max`; either may be left out.";
    verify_rejections: bool = true, "true",
        "`true` or `false`",
        "Whether a token that a client reports as refused is checked with WeChat before it is replaced. \
         `false`: the client is believed.";
    rejection_cooldown: Duration = Duration::from_secs(5), "5s",
        "duration",
        "The least time between the decision on a client's report and the check of the next one for the same account.";
    audit: Duration = Duration::from_secs(5 * 60), "5m",
        "duration, or `0s`",
        "On `token`: a token in use is checked once nothing has shown for this long that WeChat honours it. \
         `0s`: never.\n\
         In use is what was read, or stood in a Redis, within the last 15 minutes.";
    check_budget: u32 = 400, "400",
        "number, at least 8",
        "Checks in any 24 hours that nobody asked for: audits, and those after a hint that a token may be dead. \
         They cost none of `daily_budget`.";
    tickets: TicketKinds = TicketKinds::default(), "[]",
        "list of `jsapi`, `wx_card`",
        "Tickets that are kept fresh, too: `jsapi` signs pages for the JS-SDK, `wx_card` card coupons. Each \
         has a `daily_budget` of its own.";
}
