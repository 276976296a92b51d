//! The network between the program and WeChat: it delays, refuses, loses and cuts, and delivers what was sent
//! even if the sender is gone.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{sleep, timeout};
use url::Url;
use wxtokend::internals::{Lost, Method, Request, Response, ResponseFuture, Transport};
use wxtokend_core::account::Endpoint;
use wxtokend_core::ticket::TicketKind;
use wxtokend_sandbox::{Request as Asked, Wire};

use super::checker::AccountChecker;
use super::fault_rates::HOUR;
use super::sim::{Death, HostTrouble, Sim};
use super::troubles::late_ms;

pub(super) struct Network {
    pub(super) sim: Arc<Sim>,
    pub(super) timeout: Duration,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestKind {
    Mint { endpoint: Endpoint, force: bool },
    Check,
    Probe,
    Ticket(TicketKind),
}

impl Transport for Network {
    fn send(&self, base: &Url, request: Request) -> ResponseFuture<Result<Response, Lost>> {
        let (sim, host) = (Arc::clone(&self.sim), base.host_str().unwrap_or_default().to_owned());
        let within = self.timeout;
        Box::pin(async move {
            let (what, account) = classify(&sim, &request);
            let _call = CallInFlight::begin(&sim, &request, what, account);
            let exchange = exchange(&sim, &host, request, what, account, within);
            let result = timeout(within, exchange).await.unwrap_or(Err(Lost::TimedOut));
            sim.note("told", account, || match &result {
                Ok(answer) => format!("{what:?} {} {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(lost) => format!("{what:?} {lost}"),
            });
            if let Some(account) = account {
                call_ended(&sim, account, what, &result);
            } else if what == RequestKind::Probe {
                probe_ended(&sim, &result);
            }
            result
        })
    }
}

/// Records that a call of `account` has ended for the program.
fn call_ended(sim: &Sim, account: usize, what: RequestKind, result: &Result<Response, Lost>) {
    let now = sim.now();
    let is_readable = result.as_ref().is_ok_and(|answer| answer.status < 500);
    let was_sent = !matches!(result, Err(Lost::NotSent(_)));
    let checker = &mut sim.oracle().checkers[account];
    match what {
        RequestKind::Mint { endpoint, .. } => {
            checker.last_call_ended_at = now;
            // A parked account is retried, however young its token is. If no answer comes, the next host is
            // asked the same.
            if let Ok(answer) = result {
                checker.was_refused = answer.status == 412 || says_errcode(&answer.body);
            }
            if was_sent && !is_readable && endpoint == Endpoint::Token {
                checker.is_in_doubt(now);
            }
        }
        // The check is inconclusive, or a retired address answered: that justifies a call.
        RequestKind::Check
            if !result
                .as_ref()
                .is_ok_and(|answer| says_refused(&answer.body) || says_honoured(&answer.body)) =>
        {
            checker.may_call_until = checker.may_call_until.max(now + 3 * HOUR)
        }
        RequestKind::Check | RequestKind::Probe => {}
        RequestKind::Ticket(kind) => {
            if !was_sent {
                checker.tickets.unsent(kind);
            }
            if result.as_ref().is_ok_and(|answer| says_refused(&answer.body)) {
                // The token is reported and checked; if that is inconclusive, a call is justified.
                checker.may_call_until = checker.may_call_until.max(now + 3 * HOUR);
            }
        }
    }
}

/// Records that a probe has ended; the first one after a reboot shows the program the time.
fn probe_ended(sim: &Sim, result: &Result<Response, Lost>) {
    let mut oracle = sim.oracle();
    let asked = std::mem::take(&mut oracle.asks_the_time);
    if asked && result.as_ref().is_ok_and(|answer| answer.status < 500 && answer.date.is_some()) {
        oracle.checkers.iter_mut().for_each(AccountChecker::recover_time);
        drop(oracle);
        sim.count("times told after a reboot");
    }
}

async fn exchange(
    sim: &Arc<Sim>,
    host: &str,
    request: Request,
    what: RequestKind,
    account: Option<usize>,
    within: Duration,
) -> Result<Response, Lost> {
    let trouble = sim.oracle().hosts.get(host).copied();
    let loss = sim.oracle().loss;
    if trouble == Some(HostTrouble::Refuses) || sim.chance(loss) {
        sleep(ms(sim.between(1, 60))).await;
        if let Some(account) = account.filter(|_| matches!(what, RequestKind::Mint { .. })) {
            sim.oracle().checkers[account].unsent(matches!(what, RequestKind::Mint { force: true, .. }));
        }
        return Err(Lost::NotSent("connection refused".to_owned()));
    }
    if trouble == Some(HostTrouble::Hangs) || sim.chance(loss) {
        return std::future::pending().await;
    }
    if sim.chance(loss) {
        sleep(ms(sim.between(1, 400))).await;
        return Err(Lost::Cut("connection reset".to_owned()));
    }
    let going = latency_ms(sim, within);
    let says =
        |status, body: &[u8]| Ok(Response { status, body: body.to_vec(), date: None, retry_after: None });
    let check_fails =
        matches!(what, RequestKind::Check | RequestKind::Probe) && sim.oracle().troubles.check_fails;
    match trouble {
        Some(HostTrouble::Says(status)) => {
            sleep(ms(going)).await;
            return says(status, b"<html>");
        }
        Some(HostTrouble::IsRetired) => {
            sleep(ms(going)).await;
            if let (Some(account), RequestKind::Mint { force: true, .. }) = (account, what) {
                // Nothing was forced: the next host may be asked at once.
                sim.oracle().checkers[account].note_force_ineffective();
            }
            let bodies: [&[u8]; 3] = [
                br#"{"errcode":410,"errmsg":"server IP address changed"}"#,
                br#"{"errcode":48017,"errmsg":"this weixin server ip address go offline"}"#,
                b"This ip is no longer use",
            ];
            return says(200, bodies[sim.draw(|rng| rng.random_range(0..bodies.len()))]);
        }
        _ if check_fails => {
            sleep(ms(going)).await;
            return says(502, b"<html>");
        }
        _ => {}
    }
    let late = sim.oracle().troubles.late;
    // If two arrive after the token that came between, the second may end it at once, which could not be
    // known.
    let another = sim.oracle().in_transit.values().any(|sent| sent.account == account);
    if matches!(what, RequestKind::Mint { force: false, .. }) && !another && sim.chance(late) {
        sim.count("calls delivered late");
        let within_ms = i64::try_from(within.as_millis()).unwrap();
        let going = late_ms(sim, within_ms);
        let (id, _) = sim.send_request(asked(request), account, sim.now() + going);
        let carrier = Arc::clone(sim);
        tokio::spawn(async move {
            sleep(ms(going)).await;
            carrier.arrive(id);
        });
        return std::future::pending().await;
    }
    let secret = (what == RequestKind::Check).then(|| token_of(&request).to_owned());
    let (id, answered) = sim.send_request(asked(request), account, sim.now() + going);
    // In a task of its own: the sender may give up, or crash.
    let carrier = Arc::clone(sim);
    tokio::spawn(async move {
        sleep(ms(going)).await;
        carrier.arrive(id);
    });
    // By chance alone, processes would hardly ever die in the few milliseconds that matter most.
    if sim.chance(sim.rates.crashes / 2000.0) && !sim.oracle().is_quiet {
        sim.count("kills in the midst of calls");
        sim.die(Death::Killed);
    }
    if sim.chance(sim.rates.panics / 2000.0) && !sim.oracle().is_quiet {
        sim.count("panics of calls");
        if let Some(account) = account {
            let (now, checker) = (sim.now(), &mut sim.oracle().checkers[account]);
            checker.is_in_doubt(now);
        }
        panic!("{}", super::panics::PANIC);
    }
    let Ok(reaction) = answered.await else { return std::future::pending().await };
    let arrived_at = sim.time.now();
    sleep(reaction.delay + ms(latency_ms(sim, within))).await;
    if sim.chance(loss) {
        return std::future::pending().await;
    }
    let answer = match reaction.wire {
        Wire::Answer(answer) => answer,
        Wire::HalfAnswer { .. } | Wire::Reset => return Err(Lost::Cut("connection reset".to_owned())),
        // No answer is set for a path here.
        Wire::Refuse | Wire::Hang | Wire::Canned(_) => return std::future::pending().await,
    };
    if let (Some(account), Some(token)) = (account, secret) {
        let (now, checker) = (sim.now(), &mut sim.oracle().checkers[account]);
        if says_refused(&answer.body) {
            checker.note_refused(&token, now);
        } else if answer.status == 200 && says_honoured(&answer.body) {
            checker.note_honoured(&token, now);
        }
    }
    let date = sim.oracle().world.date(arrived_at);
    Ok(Response { status: answer.status, body: answer.body, date: Some(date), retry_after: None })
}

fn says_refused(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    matches!(body["errcode"].as_i64(), Some(40001 | 40014 | 42001))
}

fn says_errcode(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["errcode"].as_i64().is_some_and(|errcode| errcode != 0)
}

fn says_honoured(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["ip_list"].is_array()
}

/// One way takes some 10 ms, rarely much longer, but no longer than a call may take.
fn latency_ms(sim: &Sim, within: Duration) -> i64 {
    let longest = i64::try_from(within.as_millis()).unwrap();
    if sim.chance(0.02) { sim.between(0, longest) } else { sim.between(3, 60) }
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap())
}

fn classify(sim: &Sim, request: &Request) -> (RequestKind, Option<usize>) {
    let by_query =
        |key: &str| request.query.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
    match request.path {
        "/cgi-bin/token" => {
            let account = by_query("appid").and_then(|appid| sim.index(appid));
            (RequestKind::Mint { endpoint: Endpoint::Token, force: false }, account)
        }
        "/cgi-bin/stable_token" => {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let force = body["force_refresh"] == true;
            let account = body["appid"].as_str().and_then(|appid| sim.index(appid));
            (RequestKind::Mint { endpoint: Endpoint::StableToken, force }, account)
        }
        "/cgi-bin/ticket/getticket" => {
            let account =
                sim.oracle().world.token_truth(token_of(request)).and_then(|of| sim.index(of.appid.as_str()));
            let kind = by_query("type").and_then(|kind| kind.parse().ok()).unwrap_or(TicketKind::Jsapi);
            (RequestKind::Ticket(kind), account)
        }
        _ => {
            let oracle = sim.oracle();
            match oracle.world.token_truth(token_of(request)) {
                Some(truth) => (RequestKind::Check, sim.index(truth.appid.as_str())),
                None => (RequestKind::Probe, None),
            }
        }
    }
}

/// The token that a check is about.
fn token_of(request: &Request) -> &str {
    request.query.iter().find(|(key, _)| *key == "access_token").map_or("", |(_, token)| token)
}

fn asked(request: Request) -> Asked {
    let post = request.method == Method::Post;
    Asked {
        method: if post { "POST" } else { "GET" }.to_owned(),
        path: request.path.to_owned(),
        query: request.query.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        content_length: post.then_some(request.body.len() as u64),
        body: request.body,
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// A call of one account, from being sent to its answer or its abandonment.
struct CallInFlight {
    sim: Arc<Sim>,
    what: RequestKind,
    account: Option<usize>,
}

impl CallInFlight {
    fn begin(sim: &Arc<Sim>, request: &Request, what: RequestKind, account: Option<usize>) -> Self {
        sim.note("sent", account, || format!("{what:?}"));
        if let Some(account) = account {
            sim.look(account);
            let now = sim.now();
            let mut oracle = sim.oracle();
            let slack = oracle.budget_slack(account, now);
            let checker = &mut oracle.checkers[account];
            let held = match what {
                RequestKind::Mint { endpoint, force } => checker.note_call_sent(endpoint, force, slack, now),
                RequestKind::Check | RequestKind::Probe => checker.note_check_sent(token_of(request), now),
                RequestKind::Ticket(kind) => {
                    checker.tickets.note_call_sent(kind, checker.budget_of_a_day(now) + slack, now)
                }
            };
            drop(oracle);
            sim.hold(account, held);
        }
        let mut tally = super::sim::lock(&sim.tally);
        match what {
            RequestKind::Mint { .. } => tally.calls += 1,
            RequestKind::Check | RequestKind::Probe => tally.checks += 1,
            RequestKind::Ticket(_) => tally.tickets += 1,
        }
        drop(tally);
        Self { sim: Arc::clone(sim), what, account }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        let Some(account) = self.account else { return };
        let mut oracle = self.sim.oracle();
        let checker = &mut oracle.checkers[account];
        match self.what {
            RequestKind::Mint { .. } => checker.in_flight -= 1,
            RequestKind::Check | RequestKind::Probe => checker.checking -= 1,
            RequestKind::Ticket(kind) => checker.tickets.note_call_ended(kind),
        }
    }
}
