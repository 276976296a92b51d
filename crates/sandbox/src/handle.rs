//! A simulated WeChat that is shared among tasks and driven by tokio's time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::account_record::Counters;
use super::canned::CannedAnswer;
use super::faults::Fault;
use super::limits::CallLimit;
use super::outage::Outage;
use super::request_log::{LoggedRequest, RequestLog, Wanted};
use super::settings::Settings;
use super::switches::Switches;
use super::tokens::TokenTruth;
use super::whitelist::Whitelist;
use super::wire::{Reaction, Request};
use super::world::{AccountTruth, World};

/// A handle to a running simulated WeChat; clones share it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    shared: Arc<Mutex<Shared>>,
    start: Instant,
}

#[derive(Debug)]
struct Shared {
    world: World,
    /// How far its clock was moved ahead of tokio's.
    ahead: Duration,
    requests: RequestLog,
}

impl Sandbox {
    /// Starts a simulated WeChat; its clock is tokio's.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (world, requests) = (World::new(settings), RequestLog::default());
        let shared = Shared { world, ahead: Duration::ZERO, requests };
        Self { shared: Arc::new(Mutex::new(shared)), start: Instant::now() }
    }

    /// Returns the time since its start, by its own clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.with(|_, now| now)
    }

    /// Moves its clock ahead: tokens age by it, days and minutes pass. Answers are not delayed less for it.
    pub fn advance_clock(&self, by: Duration) {
        self.locked(|shared, _| shared.ahead = shared.ahead.saturating_add(by));
    }

    /// Returns how far its clock was moved ahead.
    pub(super) fn ahead(&self) -> Duration {
        self.locked(|shared, _| shared.ahead)
    }

    /// Inspects or changes the state at the current instant.
    pub fn with<R>(&self, look: impl FnOnce(&mut World, Duration) -> R) -> R {
        self.locked(|shared, now| look(&mut shared.world, now))
    }

    fn locked<R>(&self, look: impl FnOnce(&mut Shared, Duration) -> R) -> R {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: the world's time must not go back.
        let now = self.start.elapsed().saturating_add(shared.ahead);
        shared.world.advance(now);
        look(&mut shared, now)
    }

    /// Handles a request that arrived with a body of `length` bytes, and logs it. Returns the reaction, the
    /// `Date` of the answer, and the account that the request is about.
    pub(super) fn react(&self, request: &Request, length: u64) -> (Reaction, String, Option<Appid>) {
        self.locked(|Shared { world, requests, .. }, now| {
            let account = world.account_of(request);
            let reaction = world.handle(request, now);
            requests.add(world.time(now), account.clone(), (request, length), &reaction.wire);
            (reaction, world.date(now), account)
        })
    }

    /// Returns the latest 10 000 requests over its sockets, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.requests_wanted(&Wanted::default())
    }

    pub(super) fn requests_wanted(&self, wanted: &Wanted) -> Vec<LoggedRequest> {
        self.locked(|shared, _| shared.requests.wanted(wanted))
    }

    /// Forgets the requests.
    pub fn clear_requests(&self) {
        self.locked(|shared, _| shared.requests.clear());
    }

    /// Adds an account, or changes the secret of one.
    pub fn add_account(&self, appid: &Appid, secret: Secret) {
        self.with(|world, _| world.put_account(appid, secret));
    }

    /// Sets or removes an account's IP whitelist, as its owner can in the console. Effective at once; at
    /// WeChat it takes about 5 min.
    pub fn set_whitelist(&self, appid: &Appid, whitelist: Option<Whitelist>) {
        self.with(|world, _| world.set_whitelist(appid, whitelist));
    }

    /// Freezes or unfreezes an account's secret, as its owner can in the console. Effective after
    /// [`Switches::freezing_takes`].
    pub fn set_frozen(&self, appid: &Appid, frozen: bool) {
        self.with(|world, now| world.set_frozen(appid, frozen, now));
    }

    /// Reseeds the random number generator.
    pub fn reseed(&self, seed: u64) {
        self.with(|world, _| world.reseed(seed));
    }

    /// Changes an account's secret, as its owner can in the console.
    pub fn set_secret(&self, appid: &Appid, secret: Secret) {
        self.add_account(appid, secret);
    }

    /// Injects a fault for one account, or for all.
    pub fn inject(&self, account: Option<&Appid>, fault: Fault) {
        self.with(|world, _| world.inject(account, fault));
    }

    /// Clears the faults injected for one account, or those injected for all.
    pub fn clear_faults(&self, account: Option<&Appid>) {
        self.with(|world, _| world.clear_faults(account));
    }

    /// Sets what business calls at a path get; see [`World::put_answer`].
    pub fn put_answer(&self, answer: CannedAnswer) {
        self.with(|world, _| world.put_answer(answer));
    }

    /// Removes all answers that were set.
    pub fn clear_answers(&self) {
        self.with(|world, _| world.clear_answers());
    }

    /// Limits the calls that one account, or each, may make in a day.
    pub fn limit_calls(&self, account: Option<&Appid>, limit: CallLimit) {
        self.with(|world, _| world.limit_calls(account, limit));
    }

    /// Starts or ends an outage of the whole host.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.with(|world, _| world.set_outage(outage));
    }

    /// Returns its limits, and its behaviour where WeChat's is unknown.
    #[must_use]
    pub fn switches(&self) -> Switches {
        self.with(|world, _| world.switches().clone())
    }

    /// Changes its behaviour from the next request on.
    pub fn set_switches(&self, switches: Switches) {
        self.with(|world, _| world.set_switches(switches));
    }

    /// Ends all tokens of an account now, as when another program mints twice.
    pub fn kill_tokens(&self, appid: &Appid) {
        self.with(|world, now| world.kill_tokens(appid, now));
    }

    /// Returns the truth about an account now; `None` if it does not exist.
    #[must_use]
    pub fn truth(&self, appid: &Appid) -> Option<AccountTruth> {
        self.with(|world, now| world.truth(appid, now))
    }

    /// Returns the truth about a token; `None` if it was never minted or has been dead for longer than tokens
    /// live.
    #[must_use]
    pub fn token_truth(&self, access_token: &str) -> Option<TokenTruth> {
        self.with(|world, _| world.token_truth(access_token).cloned())
    }

    /// Whether WeChat honours a token now.
    #[must_use]
    pub fn is_alive(&self, access_token: &str) -> bool {
        self.with(|world, now| world.is_alive(access_token, now))
    }

    /// Whether `ticket` is the account's current ticket of either kind.
    #[must_use]
    pub fn is_ticket_alive(&self, appid: &Appid, ticket: &str) -> bool {
        self.with(|world, now| world.is_ticket_alive(appid, ticket, now))
    }

    /// Returns how often each thing happened to an account; all zero if it does not exist.
    #[must_use]
    pub fn counters(&self, appid: &Appid) -> Counters {
        self.truth(appid).map(|truth| truth.counters).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_time_ages_the_tokens() {
        let appid = Appid::new("wx01").unwrap();
        let accounts = vec![(appid.clone(), Secret::new("s3"))];
        let sandbox = Sandbox::new(Settings { accounts, ..Settings::default() });
        let query = [("grant_type", "client_credential"), ("appid", "wx01"), ("secret", "s3")];
        let request = Request {
            method: "GET".to_owned(),
            path: "/cgi-bin/token".to_owned(),
            query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            content_length: None,
            body: Vec::new(),
            source_ip: [127, 0, 0, 1].into(),
        };
        sandbox.with(|world, now| world.handle(&request, now));
        let token = sandbox.truth(&appid).unwrap().living_tokens[0].access_token.clone();
        tokio::time::advance(Duration::from_millis(7_199_999)).await;
        assert!(sandbox.is_alive(token.expose()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!sandbox.is_alive(token.expose()) && sandbox.truth(&appid).unwrap().living_tokens.is_empty());
    }
}
