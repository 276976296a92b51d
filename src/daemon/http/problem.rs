//! Errors as RFC 9457 `application/problem+json`, each with a `code` that programs can rely on.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wxtokend_core::phase::Phase;

use crate::fleet::{FaultView, TicketError, TokenError, Unavailable};

/// The kind of a problem, in one word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BadRequest,
    Unauthorized,
    Forbidden,
    UnknownAccount,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    UnsupportedMediaType,
    TokenUnavailable,
    BudgetExhausted,
    ShuttingDown,
    Internal,
    PathNotAllowed,
    BadGateway,
    GatewayTimeout,
}

impl Code {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::UnknownAccount => "unknown_account",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::TokenUnavailable => "token_unavailable",
            Self::BudgetExhausted => "budget_exhausted",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
            Self::PathNotAllowed => "path_not_allowed",
            Self::BadGateway => "bad_gateway",
            Self::GatewayTimeout => "gateway_timeout",
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::PathNotAllowed => StatusCode::FORBIDDEN,
            Self::UnknownAccount | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TokenUnavailable | Self::BudgetExhausted | Self::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// An error response. Its text never repeats what the client sent, which may be a token in the wrong place.
#[derive(Debug)]
pub(super) struct ApiProblem {
    pub(super) code: Code,
    detail: Cow<'static, str>,
    unavailable: Option<Box<ServiceUnavailable>>,
}

/// Additional content of a 503: the state of the account, and when to retry.
#[derive(Debug, Default)]
pub(super) struct ServiceUnavailable {
    pub(super) state: Option<Phase>,
    pub(super) last_fault: Option<FaultView>,
    pub(super) retry_after: Duration,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(flatten)]
    unavailable: Option<ServiceUnavailableBody<'a>>,
}

#[derive(Serialize)]
struct ServiceUnavailableBody<'a> {
    state: Option<Phase>,
    last_fault: Option<&'a FaultView>,
}

impl ApiProblem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), unavailable: None }
    }

    pub(super) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    pub(super) fn unknown_account() -> Self {
        Self::new(Code::UnknownAccount, "no account of that appid is configured")
    }

    /// A 503 with a `Retry-After`.
    pub(super) fn later(
        code: Code,
        detail: impl Into<Cow<'static, str>>,
        unavailable: ServiceUnavailable,
    ) -> Self {
        Self { code, detail: detail.into(), unavailable: Some(Box::new(unavailable)) }
    }

    pub(super) fn shutting_down() -> Self {
        let unavailable =
            ServiceUnavailable { retry_after: Duration::from_secs(5), ..ServiceUnavailable::default() };
        Self::later(Code::ShuttingDown, "the server is shutting down; ask again when it is back", unavailable)
    }

    /// What is wrong, in one sentence.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The body, as JSON.
    pub(super) fn body(&self) -> Vec<u8> {
        let status = self.code.status();
        let unavailable = self.unavailable.as_deref();
        let body = ProblemBody {
            // The code identifies the problem; there is no page about it.
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            unavailable: unavailable.map(|unavailable| ServiceUnavailableBody {
                state: unavailable.state,
                last_fault: unavailable.last_fault.as_ref(),
            }),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl ApiProblem {
    fn unavailable(detail: String, why: Unavailable) -> Self {
        let Unavailable { state, last_fault, retry_after, budget_exhausted } = why;
        let code = if budget_exhausted { Code::BudgetExhausted } else { Code::TokenUnavailable };
        Self::later(code, detail, ServiceUnavailable { state: Some(state), last_fault, retry_after })
    }
}

impl From<TokenError> for ApiProblem {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        match error {
            TokenError::UnknownAccount(_) => Self::unknown_account(),
            TokenError::ShuttingDown => Self::shutting_down(),
            TokenError::Unavailable(why) => Self::unavailable(detail, *why),
        }
    }
}

impl From<TicketError> for ApiProblem {
    fn from(error: TicketError) -> Self {
        let detail = error.to_string();
        match error {
            TicketError::UnknownAccount(_) => Self::unknown_account(),
            TicketError::NotKept(_) => Self::new(Code::NotFound, detail),
            TicketError::ShuttingDown => Self::shutting_down(),
            TicketError::Unavailable(why) => Self::unavailable(detail, *why),
        }
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body().into());
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.code == Code::TooLarge {
            // The rest of the body is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(unavailable) = self.unavailable {
            let seconds = unavailable.retry_after.as_millis().div_ceil(1000).clamp(1, 86_400);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(1)));
        }
        response
    }
}
