//! One call that is passed on.

use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Response as HttpResponse, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use wxtokend_core::token::Token;

use super::answer::{Encoding, MAX_LOOK, Verdict, look, may_be_json, may_begin_json};
use super::download::Download;
use super::headers::{RETRIED, clean_request, clean_response};
use super::outcome::Outcome;
use super::target::{take_out, with_token};
use super::upload::Upload;
use super::upstream::{Failed, Head};
use crate::daemon::http::app_state::AppState;
use crate::daemon::http::connection::Connection;
use crate::daemon::http::peer::CURRENT;
use crate::daemon::http::problem::{ApiProblem, Code};
use crate::fleet::RejectionOutcome;

/// Why a call was not passed on, or its answer not passed back.
pub(super) enum Refused {
    Problem(ApiProblem),
    /// The client is gone, so nobody reads this.
    ClientGone,
}

impl Refused {
    /// Counts it, and answers with its problem in the form that its caller understands.
    pub(super) fn into_response(self, app: &AppState, render: fn(ApiProblem) -> Response) -> Response {
        match self {
            Self::Problem(problem) => {
                app.outcomes.note(Outcome::of_problem(problem.code));
                render(problem)
            }
            Self::ClientGone => {
                app.outcomes.note(Outcome::Cancelled);
                StatusCode::BAD_GATEWAY.into_response()
            }
        }
    }
}

impl From<ApiProblem> for Refused {
    fn from(problem: ApiProblem) -> Self {
        Self::Problem(problem)
    }
}

/// The client at the other end, who may hang up.
pub(super) struct Client(Option<Arc<Connection>>);

impl Client {
    pub(super) fn of_this_request() -> Self {
        Self(CURRENT.try_with(|peer| Arc::clone(&peer.connection)).ok())
    }

    async fn until_gone(&self) {
        match &self.0 {
            Some(connection) => poll_fn(|cx| connection.poll_hung_up(cx)).await,
            None => pending().await,
        }
    }
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) app: &'a AppState,
    pub(super) client: Client,
    /// The caller's name.
    pub(super) name: Option<&'a str>,
    pub(super) appid: &'a str,
}

impl Call<'_> {
    /// Passes `request` on with `token`, and once more with its successor if WeChat refuses it.
    pub(super) async fn with_token(
        &self,
        token: Token,
        path: &str,
        request: Request<Body>,
    ) -> Result<Response, Refused> {
        let (parts, body) = request.into_parts();
        let active = self.app.proxy.active();
        let query = parts.uri.query();
        // `/sns/` is the users' own: the token in such a call is one of theirs.
        let with = |token: &Token| match path.starts_with("/sns/") {
            true => path_and_query(path, query.map(str::to_owned)),
            false => {
                let rest = query.map(|query| take_out(query, "access_token").rest).unwrap_or_default();
                path_and_query(path, Some(with_token(&rest, token.access_token())))
            }
        };
        let mut head = Head { method: parts.method, path_and_query: with(&token)?, headers: parts.headers };
        clean_request(&mut head.headers);
        let upload = Upload::new(body, active.settings.keep_body as usize);
        let hosts = self.app.fleet.upstream_hosts();
        let timeout = active.settings.timeout;

        let sent = self.guarded(&upload, timeout, active.upstream.send(&hosts, &head, &upload)).await?;
        let (answer, verdict) = self.looked_into(sent, timeout).await?;
        if verdict != Verdict::Refused {
            self.app.outcomes.note(Outcome::Passed);
            return Ok(answer);
        }
        // Our own report, as a client would make it: compared, checked, then replaced.
        let report = self.app.fleet.reject_for(self.name, self.appid, token.access_token());
        let replaced = match Box::pin(self.app.unless_stopping(report)).await {
            Ok(rejected)
                if matches!(rejected.outcome, RejectionOutcome::Refreshed | RejectionOutcome::Superseded) =>
            {
                rejected.token
            }
            _ => None,
        };
        let Some(newer) = replaced.filter(|newer| newer.access_token() != token.access_token()) else {
            self.app.outcomes.note(Outcome::Refused);
            return Ok(answer);
        };
        head.path_and_query = with(&newer)?;
        let again = async { active.upstream.send_again(&hosts, &head, &upload).await.transpose() };
        let Some(sent) = self.guarded(&upload, timeout, again).await? else {
            self.app.outcomes.note(Outcome::NotRepeated);
            return Ok(answer);
        };
        drop(answer);
        let (mut answer, verdict) = self.looked_into(sent, timeout).await?;
        answer.headers_mut().insert(RETRIED, HeaderValue::from_static("1"));
        self.app.outcomes.note(match verdict {
            Verdict::Refused => Outcome::RefusedAgain,
            _ => Outcome::Repeated,
        });
        Ok(answer)
    }

    /// Passes `request` on as it is.
    pub(super) async fn unchanged(&self, path: &str, request: Request<Body>) -> Result<Response, Refused> {
        let (parts, body) = request.into_parts();
        let path_and_query = path_and_query(path, parts.uri.query().map(str::to_owned))?;
        self.once(Head { method: parts.method, path_and_query, headers: parts.headers }, body).await
    }

    /// Sends a call whose answer is passed back whatever it says.
    pub(super) async fn once(&self, mut head: Head, body: Body) -> Result<Response, Refused> {
        clean_request(&mut head.headers);
        let (active, hosts) = (self.app.proxy.active(), self.app.fleet.upstream_hosts());
        let (upload, timeout) = (Upload::new(body, 0), active.settings.timeout);
        let sent = self.guarded(&upload, timeout, active.upstream.send(&hosts, &head, &upload)).await?;
        let (answer, _) = self.looked_into(sent, timeout).await?;
        self.app.outcomes.note(Outcome::Passed);
        Ok(answer)
    }

    /// Awaits `answer` for as long as the client is there and there is progress.
    pub(super) async fn guarded<T>(
        &self,
        upload: &Upload,
        timeout: Duration,
        answer: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Refused> {
        let began = Instant::now();
        let stalled = async {
            loop {
                let (progress, awaits_client) = upload.progress();
                let over = progress.max(began) + timeout;
                if over <= Instant::now() {
                    return awaits_client;
                }
                sleep_until(over).await;
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|failed| Self::problem_of(&failed).into()),
            () = self.client.until_gone() => Err(Refused::ClientGone),
            () = self.app.stopping.cancelled() => Err(ApiProblem::shutting_down().into()),
            awaits_client = stalled => Err(match awaits_client {
                true => ApiProblem::bad_request("the body stopped arriving").into(),
                false => no_answer().into(),
            }),
        }
    }

    fn problem_of(failed: &Failed) -> ApiProblem {
        match failed {
            Failed::NotSent(why) => ApiProblem::new(
                Code::BadGateway,
                format!("WeChat cannot be reached, and nothing was sent: {why}"),
            ),
            Failed::Cut(why) => ApiProblem::new(
                Code::BadGateway,
                format!("the connection to WeChat broke; the call may have been carried out: {why}"),
            ),
            Failed::Client => ApiProblem::bad_request("the body did not arrive whole"),
        }
    }

    /// The answer for the client, and what it says of the token. Up to 64 KiB of it are held back to look into it.
    pub(super) async fn looked_into(
        &self,
        (answer, slot): (HttpResponse<Incoming>, OwnedSemaphorePermit),
        timeout: Duration,
    ) -> Result<(Response, Verdict), Refused> {
        let (mut parts, body) = answer.into_parts();
        if parts.status.is_redirection() && parts.status != StatusCode::NOT_MODIFIED {
            let detail = format!(
                "WeChat's host answered with a redirect (HTTP {}), which is not followed: what it leads to may \
                 not be WeChat",
                parts.status.as_u16()
            );
            return Err(ApiProblem::new(Code::BadGateway, detail).into());
        }
        if let Some(connection) = &self.client.0 {
            connection.note_passed_on();
        }
        let encoding = Encoding::of(&parts.headers);
        clean_response(&mut parts.headers);
        let mut body = Download::new(body, timeout, self.client.0.clone(), slot);
        let verdict = match may_be_json(&parts.headers) {
            true => self.verdict(&mut body, encoding).await?,
            false => Verdict::Passed,
        };
        if verdict == Verdict::Broken {
            let detail =
                "WeChat's answer is compressed and ends too early; the call may have been carried out";
            return Err(ApiProblem::new(Code::BadGateway, detail).into());
        }
        if !parts.headers.contains_key(header::CACHE_CONTROL) {
            parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        Ok((Response::from_parts(parts, Body::new(body)), verdict))
    }

    async fn verdict(&self, body: &mut Download, encoding: Encoding) -> Result<Verdict, Refused> {
        let held = async {
            // The first bytes tell whether the rest is worth holding back.
            let is_whole = body.hold(0).await?;
            let begins = body.held().first().is_some_and(|first| may_begin_json(first, encoding));
            if is_whole || !begins {
                return Ok((is_whole, begins));
            }
            Ok((body.hold(MAX_LOOK).await?, true))
        };
        let (is_whole, is_looked_into) = tokio::select! {
            biased;
            held = held => held.map_err(|error: BoxError| cut(&*error))?,
            () = self.client.until_gone() => return Err(Refused::ClientGone),
        };
        Ok(if is_looked_into { look(body.held(), encoding, is_whole) } else { Verdict::Passed })
    }
}

fn cut(error: &(dyn std::error::Error + 'static)) -> ApiProblem {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => no_answer(),
        _ => ApiProblem::new(
            Code::BadGateway,
            "WeChat's answer was cut off; the call may have been carried out",
        ),
    }
}

fn no_answer() -> ApiProblem {
    let detail = "WeChat did not answer in time (proxy.timeout); the call may have been carried out";
    ApiProblem::new(Code::GatewayTimeout, detail)
}

/// The path and query that WeChat is sent.
pub(super) fn path_and_query(path: &str, query: Option<String>) -> Result<PathAndQuery, ApiProblem> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    // Cannot fail for what has come as a path and query.
    PathAndQuery::try_from(text).map_err(|_| ApiProblem::bad_request("the path or the query is malformed"))
}
