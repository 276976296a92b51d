//! What no client of WeChat can see or do: the truth, the faults, the switches.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::World;
use crate::account_record::{AccountRecord, Counters};
use crate::call::Call;
use crate::faults::Fault;
use crate::limits::{CallLimit, LimitUse};
use crate::outage::Outage;
use crate::switches::Switches;
use crate::tokens::TokenTruth;
use crate::whitelist::Whitelist;
use crate::wire::Request;

/// The truth about one account.
#[derive(Debug, Clone)]
pub struct AccountTruth {
    /// How often each thing happened.
    pub counters: Counters,
    /// The tokens that WeChat honours now, oldest first within each endpoint.
    pub living_tokens: Vec<TokenTruth>,
    /// The tickets that have not ended.
    pub living_tickets: Vec<Secret>,
    /// The addresses that may call for it; `None` for all.
    pub whitelist: Option<Whitelist>,
    /// Whether its AppSecret is frozen.
    pub frozen: bool,
}

impl World {
    /// Adds an account, or changes the secret of one, whose live tokens stay alive.
    pub fn put_account(&mut self, appid: &Appid, secret: Secret) {
        match self.accounts.get_mut(appid) {
            Some(record) => record.secret = secret,
            None => drop(self.accounts.insert(appid.clone(), AccountRecord::new(secret))),
        }
    }

    /// Whether the account exists.
    #[must_use]
    pub fn knows(&self, appid: &Appid) -> bool {
        self.accounts.contains_key(appid)
    }

    /// The accounts, by appid.
    pub fn accounts(&self) -> impl Iterator<Item = &Appid> {
        self.accounts.keys()
    }

    /// Returns the truth about an account; `None` if it does not exist.
    #[must_use]
    pub fn truth(&self, appid: &Appid, now: Duration) -> Option<AccountTruth> {
        let record = self.accounts.get(appid)?;
        let counters = record.counters;
        let tickets = [&record.jsapi, &record.wx_card].into_iter().flatten();
        let extra = self.switches.tickets_outlive;
        let living_tickets =
            tickets.filter(|ticket| ticket.is_alive(now, extra)).map(|ticket| ticket.value.clone());
        let living_tickets = living_tickets.map(Secret::new).collect();
        let living_tokens = self.tokens.of(appid).filter(|token| token.is_alive(now)).cloned().collect();
        let (whitelist, frozen) = (record.whitelist.clone(), record.freeze.is_on(now));
        Some(AccountTruth { counters, living_tokens, living_tickets, whitelist, frozen })
    }

    /// Returns the account that a request is about, if it names one that exists, or carries a token of one.
    #[must_use]
    pub fn account_of(&self, request: &Request) -> Option<Appid> {
        self.account_meant(Call::of(&request.path), request)
    }

    /// Whether `ticket` is the account's current ticket of either kind.
    #[must_use]
    pub fn is_ticket_alive(&self, appid: &Appid, ticket: &str, now: Duration) -> bool {
        let extra = self.switches.tickets_outlive;
        self.accounts.get(appid).is_some_and(|record| {
            let tickets = [&record.jsapi, &record.wx_card].into_iter().flatten();
            tickets.into_iter().any(|of| of.value == ticket && of.is_alive(now, extra))
        })
    }

    /// Returns the truth about a token; `None` if it was never minted or has been dead for longer than tokens
    /// live.
    #[must_use]
    pub fn token_truth(&self, access_token: &str) -> Option<&TokenTruth> {
        self.tokens.get(access_token)
    }

    /// Whether WeChat honours a token.
    #[must_use]
    pub fn is_alive(&self, access_token: &str, now: Duration) -> bool {
        self.tokens.get(access_token).is_some_and(|token| token.is_alive(now))
    }

    /// How many checks, business and ticket calls were refused with a token whose owner is unknown.
    #[must_use]
    pub fn strangers_refused(&self) -> u64 {
        self.strangers_refused
    }

    /// Ends all tokens of an account, as when another program mints or the account is reset.
    pub fn kill_tokens(&mut self, appid: &Appid, now: Duration) {
        self.tokens.kill(appid, now);
    }

    /// Sets or removes an account's IP whitelist.
    pub fn set_whitelist(&mut self, appid: &Appid, whitelist: Option<Whitelist>) {
        if let Some(record) = self.accounts.get_mut(appid) {
            record.whitelist = whitelist;
        }
    }

    /// Freezes or unfreezes an account's secret, effective after [`Switches::freezing_takes`].
    pub fn set_frozen(&mut self, appid: &Appid, frozen: bool, now: Duration) {
        if let Some(record) = self.accounts.get_mut(appid) {
            record.freeze.set(frozen, now, self.switches.freezing_takes);
        }
    }

    /// Reseeds the random number generator.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = StdRng::seed_from_u64(seed);
    }

    /// Injects a fault for one account or for all, starting at the latest instant passed in.
    pub fn inject(&mut self, account: Option<&Appid>, fault: Fault) {
        self.faults.add(account, fault, self.now);
    }

    /// Clears the faults injected for one account, or those injected for all.
    pub fn clear_faults(&mut self, account: Option<&Appid>) {
        self.faults.list(account, self.now).clear();
    }

    /// Returns the pending faults of one account, or those for all.
    pub fn faults(&mut self, account: Option<&Appid>) -> &[Fault] {
        self.faults.list(account, self.now)
    }

    /// Limits the calls that one account, or each, may make in a day, in place of an earlier limit for the same
    /// path.
    pub fn limit_calls(&mut self, account: Option<&Appid>, limit: CallLimit) {
        self.limits.put(account, limit);
    }

    /// Removes the limits set for one account, or those set for each.
    pub fn clear_limits(&mut self, account: Option<&Appid>) {
        self.limits.remove(account);
    }

    /// Gives one account, or each, back the calls it has made today.
    pub fn clear_used(&mut self, account: Option<&Appid>) {
        self.limits.clear_used(account);
    }

    /// Returns the limits set for one account, or those set for each, and what was used of them today.
    pub(crate) fn limits(&self, account: Option<&Appid>, now: Duration) -> Vec<LimitUse<'_>> {
        self.limits.list(account, self.day(now))
    }

    /// Starts or ends an outage of the whole host.
    pub fn set_outage(&mut self, outage: Option<Outage>) {
        self.outage = outage;
    }

    /// Returns the outage of the whole host, if there is one.
    #[must_use]
    pub fn outage(&self) -> Option<Outage> {
        self.outage
    }

    /// Returns its limits, and its behaviour where WeChat's is unknown.
    #[must_use]
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Changes its behaviour from the next request on.
    pub fn set_switches(&mut self, switches: Switches) {
        self.switches = switches;
    }
}
