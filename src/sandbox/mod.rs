//! A simulated WeChat, faithful down to its failures.
//!
//! It is what developers run instead of WeChat, what the tests hold the daemon against, and the oracle of
//! simulations: unlike WeChat it can be asked which tokens are alive. Three layers:
//!
//! - [`World`] is the pure state machine: a [`Request`] and an instant in, a [`Reaction`] out.
//! - [`Sandbox`] shares one among tasks and gives it tokio's time, so that paused time drives it.
//! - [`Sandbox::serve`] puts it on a socket, together with the control API under `/_sandbox/` (described in
//!   [`control`]), by which faults are injected and the truth is read.
//!
//! Tokens appear in control answers: serve it on loopback.

mod answers;
mod books;
mod call;
pub mod control;
mod faults;
mod late;
mod outage;
mod raw;
mod server;
mod switches;
mod tokens;
mod whitelist;
mod wire;
mod world;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

pub use books::Counters;
pub use call::Call;
pub use faults::{Fault, FaultKind, LostAs};
pub use outage::Outage;
pub use raw::RawAnswer;
pub use switches::Switches;
pub use tokens::TokenTruth;
pub use whitelist::{Covered, IpRange, Whitelist};
pub use wire::{Answer, Reaction, Request, Wire};
pub use world::{AccountTruth, World};

use crate::account::Appid;
use crate::secret::Secret;

/// What a simulated WeChat starts from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long tokens and tickets live. WeChat: 7200 s.
    pub token_lifetime: Duration,
    /// How long the previous token works after a mint, and the last part of a life in which `stable_token` mints.
    /// WeChat: 300 s.
    pub overlap: Duration,
    /// The unknowns and the limits.
    pub switches: Switches,
    /// What tokens, rids and wordings are drawn from.
    pub seed: u64,
    /// The accounts with their AppSecrets.
    pub accounts: Vec<(Appid, Secret)>,
    /// The unix time of the start, in seconds; days, minutes, rids and `Date` headers count from it.
    pub epoch_wall_s: u64,
}

impl Default for Settings {
    /// WeChat's numbers, no accounts, and a start on 2026-09-21 at 14:13:20 UTC.
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_secs(7200),
            overlap: Duration::from_secs(300),
            switches: Switches::default(),
            seed: 0,
            accounts: Vec::new(),
            epoch_wall_s: 1_790_000_000,
        }
    }
}

/// A handle to a running simulated WeChat; clones share it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    world: Arc<Mutex<World>>,
    start: Instant,
}

impl Sandbox {
    /// Starts its clock, which is tokio's.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(settings))), start: Instant::now() }
    }

    /// Serves WeChat's API and the control API until `shutdown`, then cuts every connection.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        server::serve(self.clone(), listener, shutdown).await;
    }

    /// The time since its start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Looks at the state or changes it, at the present instant.
    pub fn with<R>(&self, look: impl FnOnce(&mut World, Duration) -> R) -> R {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: the world's time must not go back.
        let now = self.now();
        world.advance(now);
        look(&mut world, now)
    }

    /// Adds an account, or changes the secret of one.
    pub fn add_account(&self, appid: &Appid, secret: Secret) {
        self.with(|world, _| world.put_account(appid, secret));
    }

    /// Gives an account an IP whitelist, or takes it away, as its owner can in the console. It counts at once; at
    /// WeChat it takes about 5 min.
    pub fn set_whitelist(&self, appid: &Appid, whitelist: Option<Whitelist>) {
        self.with(|world, _| world.set_whitelist(appid, whitelist));
    }

    /// Freezes or unfreezes an account's secret, as its owner can in the console, which counts after
    /// [`Switches::freezing_takes`].
    pub fn set_frozen(&self, appid: &Appid, frozen: bool) {
        self.with(|world, now| world.set_frozen(appid, frozen, now));
    }

    /// Draws what is left to chance from `seed` from now on.
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

    /// Clears the faults that were injected for one account, or those that were injected for all.
    pub fn clear_faults(&self, account: Option<&Appid>) {
        self.with(|world, _| world.clear_faults(account));
    }

    /// Begins or ends an outage of the whole host.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.with(|world, _| world.set_outage(outage));
    }

    /// How it behaves where that is unknown, and its limits.
    #[must_use]
    pub fn switches(&self) -> Switches {
        self.with(|world, _| world.switches().clone())
    }

    /// Changes how it behaves from the next request on.
    pub fn set_switches(&self, switches: Switches) {
        self.with(|world, _| world.set_switches(switches));
    }

    /// Ends all tokens of an account now, as when somebody else mints and mints again.
    pub fn kill_tokens(&self, appid: &Appid) {
        self.with(|world, now| world.kill_tokens(appid, now));
    }

    /// What is true about an account now; `None` when there is none.
    #[must_use]
    pub fn truth(&self, appid: &Appid) -> Option<AccountTruth> {
        self.with(|world, now| world.truth(appid, now))
    }

    /// What is true about a token; `None` when it was never minted or has been dead for longer than tokens live.
    #[must_use]
    pub fn token_truth(&self, access_token: &str) -> Option<TokenTruth> {
        self.with(|world, _| world.token_truth(access_token).cloned())
    }

    /// Whether WeChat honours a token now.
    #[must_use]
    pub fn is_alive(&self, access_token: &str) -> bool {
        self.with(|world, now| world.is_alive(access_token, now))
    }

    /// Whether a ticket of the account's is the one that WeChat has now.
    #[must_use]
    pub fn is_ticket_alive(&self, appid: &Appid, ticket: &str) -> bool {
        self.with(|world, now| world.is_ticket_alive(appid, ticket, now))
    }

    /// How often each thing happened to an account; all zero when there is none.
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
