//! Whether a call to a token endpoint may have minted, and whether another host may be tried after it.
//!
//! These two rules keep us from minting twice. For what WeChat does in each case, see the tests' table.

use crate::account::Endpoint;

/// How one call to one host went, as far as minting is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// No byte of the request was sent.
    NotSent,
    /// It was sent, and no complete answer came in time.
    TimedOut,
    /// It was sent, and the connection ended before a complete answer had arrived.
    Cut,
    /// A token arrived.
    Token,
    /// WeChat refused, readably: an `errcode`, or HTTP 412.
    Refused,
    /// Answer of an access point that WeChat has retired, which does nothing.
    Retired,
    /// An answer that is not WeChat's, or not usable: a gateway's 5xx, HTML, half a token.
    Unclear,
}

impl Reply {
    /// Whether bytes of the request were sent, so that it counts as one of the day's calls.
    #[must_use]
    pub fn was_sent(self) -> bool {
        self != Self::NotSent
    }

    /// Whether a token may have been minted that did not reach us. A readable refusal rules that out; whether
    /// a gateway's 5xx does is not known.
    #[must_use]
    pub fn may_have_minted(self) -> bool {
        match self {
            Self::NotSent | Self::Refused | Self::Retired | Self::Token => false,
            Self::TimedOut | Self::Cut | Self::Unclear => true,
        }
    }
}

/// Whether another host may be tried after `reply` without minting twice or exceeding the budget.
/// `calls_sent` includes this call; the first and `spare` more are charged.
#[must_use]
pub fn may_try_next_host(endpoint: Endpoint, force: bool, reply: Reply, calls_sent: u32, spare: u32) -> bool {
    let cannot_mint_twice = match reply {
        Reply::NotSent => return true,
        Reply::Retired => true,
        // In normal mode `stable_token` hands out the token that the lost call minted.
        Reply::TimedOut => endpoint == Endpoint::StableToken && !force,
        Reply::Cut | Reply::Token | Reply::Refused | Reply::Unclear => false,
    };
    cannot_mint_twice && calls_sent <= spare
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What came, whether it was sent, whether it may have minted.
    const REPLIES: [(Reply, bool, bool); 7] = [
        (Reply::NotSent, false, false),
        (Reply::TimedOut, true, true),
        (Reply::Cut, true, true),
        (Reply::Token, true, false),
        (Reply::Refused, true, false),
        (Reply::Retired, true, false),
        (Reply::Unclear, true, true),
    ];

    #[test]
    fn what_may_have_minted_is_known_of_each_reply() {
        for (reply, was_sent, may_have_minted) in REPLIES {
            assert_eq!((reply.was_sent(), reply.may_have_minted()), (was_sent, may_have_minted), "{reply:?}");
        }
    }

    /// After which replies another host may be tried, with a call to spare.
    #[test]
    fn another_host_is_tried_only_where_that_cannot_mint_twice() {
        use Endpoint::{StableToken, Token};
        use Reply::{NotSent, Retired, TimedOut};
        for (endpoint, force, allowed) in [
            (Token, false, &[NotSent, Retired][..]),
            (StableToken, false, &[NotSent, Retired, TimedOut]),
            (StableToken, true, &[NotSent, Retired]),
        ] {
            for (reply, ..) in REPLIES {
                let may = may_try_next_host(endpoint, force, reply, u32::from(reply.was_sent()), 1);
                assert_eq!(may, allowed.contains(&reply), "{endpoint:?}, force {force}, {reply:?}");
            }
        }
    }

    #[test]
    fn no_more_calls_are_sent_than_were_charged() {
        for (calls_sent, spare, may) in [(1, 0, false), (1, 1, true), (2, 1, false), (2, 2, true)] {
            let allowed = may_try_next_host(Endpoint::StableToken, false, Reply::Retired, calls_sent, spare);
            assert_eq!(allowed, may, "{calls_sent} sent, {spare} spare");
            // A call that was not sent costs nothing.
            assert!(may_try_next_host(Endpoint::Token, false, Reply::NotSent, calls_sent, spare));
        }
    }
}
