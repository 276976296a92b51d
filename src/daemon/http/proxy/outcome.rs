//! What became of calls that were to be passed on, as a metric.

use metrics::Counter;

use crate::daemon::http::problem::Code;
use crate::daemon::telemetry::metrics::Metrics;

/// How a call ended. The labels are part of the contract with dashboards and alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// WeChat's answer was passed back, whatever it says of anything but the token.
    Passed,
    /// WeChat refused the token; it was replaced, and the call repeated.
    Repeated,
    /// The repeated call was refused, too.
    RefusedAgain,
    /// WeChat refused the token, which a check found alive, or which could not be replaced now.
    Refused,
    /// WeChat refused the token, which was replaced, but the body was too long to be kept.
    NotRepeated,
    /// The client had no right to the call, or it was none.
    Invalid,
    /// There was no valid token.
    NoToken,
    /// WeChat could not be reached, or broke off.
    BadGateway,
    /// WeChat did not answer in time.
    GatewayTimeout,
    /// The client hung up first.
    Cancelled,
}

impl Outcome {
    /// All of them, in their order.
    const ALL: [Self; 10] = [
        Self::Passed,
        Self::Repeated,
        Self::RefusedAgain,
        Self::Refused,
        Self::NotRepeated,
        Self::Invalid,
        Self::NoToken,
        Self::BadGateway,
        Self::GatewayTimeout,
        Self::Cancelled,
    ];

    /// The outcome of a call that is answered with a problem of this code.
    pub(super) fn of_problem(code: Code) -> Self {
        match code {
            Code::TokenUnavailable | Code::BudgetExhausted | Code::ShuttingDown => Self::NoToken,
            Code::BadGateway | Code::Internal => Self::BadGateway,
            Code::GatewayTimeout => Self::GatewayTimeout,
            Code::BadRequest
            | Code::Unauthorized
            | Code::Forbidden
            | Code::UnknownAccount
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::TooLarge
            | Code::UnsupportedMediaType
            | Code::PathNotAllowed => Self::Invalid,
        }
    }

    /// The value of the label `outcome`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Repeated => "repeated",
            Self::RefusedAgain => "refused_again",
            Self::Refused => "refused",
            Self::NotRepeated => "not_repeated",
            Self::Invalid => "invalid",
            Self::NoToken => "no_token",
            Self::BadGateway => "bad_gateway",
            Self::GatewayTimeout => "gateway_timeout",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Counts calls, by outcome.
pub(in crate::daemon::http) struct Outcomes([Counter; Outcome::ALL.len()]);

impl Outcomes {
    pub(in crate::daemon::http) fn new(metrics: &Metrics) -> Self {
        Self(Outcome::ALL.map(|outcome| metrics.proxy_calls(outcome.as_str())))
    }

    pub(super) fn note(&self, outcome: Outcome) {
        self.0[outcome as usize].increment(1);
    }
}
