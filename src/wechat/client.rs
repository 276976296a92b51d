//! Makes the calls that accounts ask for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics::{gauge, histogram};
use reqwest::Url;
use tokio::time::{Instant, sleep};
use tracing::debug;
use wxtokend_core::account::Account;
use wxtokend_core::clock::{Clock, Moment};
use wxtokend_core::fault::Fault;
use wxtokend_core::reference::metrics::{CLOCK_SKEW, UPSTREAM_REQUEST_DURATION};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::{TicketCallEnd, TicketKind};
use wxtokend_core::token::transition::{CheckEnd, FetchEnd, Reply, may_try_next_host};

use super::answers::{
    FailedFetch, RETIRED, host_trouble, is_retired, no_answer, read_check, read_ticket, read_token,
};
use super::call_queue::{CallQueue, Permit};
use super::date;
use super::hosts::{Evidence, Hosts, upstream_label};
use super::requests::{CHECK_PATH, check_request, probe, ticket_request, token_request};
use super::transport::{Lost, Request, Response, Transport};

/// The pause between two attempts to read WeChat's time. A machine that has just started may get its network
/// at any moment.
const TIME_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The WeChat API, shared by all accounts.
pub(crate) struct WeChat {
    transport: Arc<dyn Transport>,
    hosts: Arc<Hosts>,
    call_queue: CallQueue,
    clock: Clock,
}

/// What a call requires of the hosts before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Require {
    /// Not all hosts are known to be down.
    NotDown,
    /// A concurrency slot is free and a host has answered just now. For a call that puts a token in doubt if
    /// its answer is lost.
    RecentAnswer,
    /// Nothing: the call is made even while all hosts count as down.
    Nothing,
}

/// How a token call ended, over all hosts that it tried.
#[derive(Debug)]
pub(crate) struct FetchReport {
    /// How it ended.
    pub end: FetchEnd,
    /// How many calls were sent for it, each to another host.
    pub calls_sent: u32,
}

impl WeChat {
    /// A client of WeChat at `base_urls`, under the global limits `max_in_flight` and `max_per_second`. Needs
    /// a runtime.
    #[must_use]
    pub(crate) fn new(
        base_urls: &[Url],
        max_in_flight: u32,
        max_per_second: u32,
        transport: Arc<dyn Transport>,
        clock: Clock,
    ) -> Self {
        let hosts = Hosts::new(base_urls, Arc::clone(&transport), Arc::clone(&clock));
        Self { transport, hosts, call_queue: CallQueue::new(max_in_flight, max_per_second), clock }
    }

    /// The health of its hosts.
    #[must_use]
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Waits for a turn in the call queue, where smaller `urgency_ms` goes first. Also waits for what is
    /// required of the hosts.
    ///
    /// # Errors
    /// The host's fault, as soon as all hosts are known to be down, unless nothing is required of them.
    pub(crate) async fn admit(&self, urgency_ms: i64, require: Require) -> Result<Permit, Fault> {
        let mut health = self.hosts.watch();
        let admitted = async {
            let mut permit = self.call_queue.admit(urgency_ms).await;
            if require == Require::RecentAnswer {
                permit.acquire_slot().await;
                self.hosts.until_recent_answer().await;
            }
            permit
        };
        let goes_down = async {
            match require {
                Require::Nothing => std::future::pending().await,
                Require::NotDown | Require::RecentAnswer => {
                    drop(health.wait_for(|overall| !overall.up).await)
                }
            }
        };
        tokio::select! {
            biased;
            () = goes_down => Err(self.down()),
            permit = admitted => Ok(permit),
        }
    }

    /// The fault of the hosts, while all of them are down.
    fn down(&self) -> Fault {
        let why = self.hosts.down_reason();
        if why.contains(RETIRED) { Fault::retired(&why) } else { Fault::host(&why) }
    }

    /// Calls the account's token endpoint, and another host where [`may_try_next_host`] says so. The budget
    /// has `spare` calls for that.
    pub(crate) async fn fetch(&self, account: &Account, force: bool, spare: u32) -> FetchReport {
        if !self.hosts.watch().borrow().up {
            // The hosts went down after the call was admitted: it fails like the calls that still wait.
            let end = FetchEnd { force, sent_at: None, may_have_minted: false, result: Err(self.down()) };
            return FetchReport { end, calls_sent: 0 };
        }
        self.fetch_for_trial(account, force, spare).await
    }

    /// [`WeChat::fetch`] that calls even while all hosts count as down.
    pub(crate) async fn fetch_for_trial(&self, account: &Account, force: bool, spare: u32) -> FetchReport {
        let endpoint = account.settings.endpoint;
        let (mut calls_sent, mut first_sent_at) = (0, None);
        let (mut sent_at, mut result) = (None, Err(no_answer(endpoint, &no_host())));
        for (index, url) in self.hosts.order() {
            let began_at = self.clock.now();
            result = match self.send(endpoint.as_str(), index, &url, token_request(account, force)).await {
                Ok(answer) => read_token(endpoint, &answer, &account.secret),
                Err(lost) => Err(no_answer(endpoint, &lost)),
            };
            let reply = result.as_ref().map_or_else(|none| none.reply, |_| Reply::Token);
            sent_at = reply.was_sent().then_some(began_at);
            if reply.was_sent() {
                calls_sent += 1;
                first_sent_at.get_or_insert(began_at);
            }
            if !may_try_next_host(endpoint, force, reply, calls_sent, spare) {
                break;
            }
        }
        let may_have_minted = result.as_ref().is_err_and(|none| none.reply.may_have_minted());
        let result = result.map_err(|FailedFetch { fault, .. }| fault);
        // Expiry counts from the attempt that was answered, the charge from any that was sent.
        let end = FetchEnd { force, sent_at: sent_at.or(first_sent_at), may_have_minted, result };
        FetchReport { end, calls_sent }
    }

    /// Checks whether WeChat honours `token`.
    pub(crate) async fn check(&self, token: &Secret) -> CheckEnd {
        let (_, answer) = self.send_somewhere("check", &check_request(token.expose())).await;
        read_check(answer.as_ref(), token)
    }

    /// How far WeChat's clock is ahead of ours, at least and at most, in milliseconds; negative where it is
    /// behind.
    ///
    /// Asks with a call that changes nothing, until a host answers. `None` where the answer has no `Date`.
    pub(crate) async fn ahead_ms(&self) -> Option<(i64, i64)> {
        loop {
            let asked = self.clock.now();
            let (_, answer) = self.send_somewhere("check", &probe()).await;
            if let Some(answer) = answer.ok().filter(|answer| host_trouble(answer).is_none()) {
                // `Date` is the time of the answer in whole seconds, between our request and now.
                let stated_ms = date(&answer)?.as_millisecond();
                return Some((stated_ms - self.clock.now().wall_ms, stated_ms + 1_000 - asked.wall_ms));
            }
            sleep(TIME_RETRY_DELAY).await;
        }
    }

    /// Asks for a ticket with `token`.
    pub(crate) async fn ticket(&self, kind: TicketKind, token: &Secret) -> TicketCallEnd {
        let (sent_at, answer) = self.send_somewhere("ticket", &ticket_request(kind, token.expose())).await;
        TicketCallEnd { sent_at, result: read_ticket(answer.as_ref(), token) }
    }

    /// Tries the hosts in order until the request is sent to one that is not retired. Returns when it was
    /// sent, and the answer.
    async fn send_somewhere(
        &self,
        endpoint: &'static str,
        request: &Request,
    ) -> (Option<Moment>, Result<Response, Lost>) {
        let (mut first_sent_at, mut answer) = (None, Err(no_host()));
        for (index, url) in self.hosts.order() {
            let sent_at = self.clock.now();
            answer = self.send(endpoint, index, &url, request.clone()).await;
            if matches!(answer, Err(Lost::NotSent(_))) {
                continue;
            }
            if !answer.as_ref().is_ok_and(is_retired) {
                return (Some(sent_at), answer);
            }
            first_sent_at.get_or_insert(sent_at);
        }
        (first_sent_at, answer)
    }

    /// One attempt at one host, measured and reported to the host's health.
    async fn send(
        &self,
        endpoint: &'static str,
        index: usize,
        url: &Url,
        request: Request,
    ) -> Result<Response, Lost> {
        let (started, path) = (Instant::now(), request.path);
        let answer = self.transport.send(url, request).await;
        let took = started.elapsed();
        histogram!(UPSTREAM_REQUEST_DURATION.name, "endpoint" => endpoint).record(took);
        debug!(
            event = "call",
            host = upstream_label(url),
            endpoint,
            status = answer.as_ref().ok().map(|answer| answer.status),
            lost = answer.as_ref().err().map(tracing::field::display),
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "called WeChat"
        );
        let trouble = match &answer {
            Ok(answer) => host_trouble(answer),
            Err(lost) => Some(lost.to_string()),
        };
        let by = if path == CHECK_PATH { Evidence::Check } else { Evidence::Call };
        match (trouble, &answer) {
            (None, Ok(answer)) => {
                self.hosts.answered(index, by);
                self.note_skew(answer);
            }
            (trouble, _) => self.hosts.failed(index, by, &trouble.unwrap_or_default()),
        }
        answer
    }

    fn note_skew(&self, answer: &Response) {
        if let Some(theirs) = date(answer) {
            // In whole seconds, which is the resolution of `Date`.
            let ours_s = self.clock.now().wall_ms.div_euclid(1000);
            let skew_s = theirs.as_second() - ours_s;
            gauge!(CLOCK_SKEW.name).set(f64::from(i32::try_from(skew_s).unwrap_or(i32::MAX)));
        }
    }
}

/// The time of the answer by WeChat's clock, in whole seconds.
fn date(answer: &Response) -> Option<Timestamp> {
    date::read(answer.date.as_deref()?)
}

fn no_host() -> Lost {
    Lost::NotSent("no host is configured".to_owned())
}
