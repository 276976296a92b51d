//! Tickets and JS-SDK signatures in the library's API.

use std::sync::Arc;

use rand::distr::{Alphanumeric, SampleString};
use wxtokend_core::account::Appid;
use wxtokend_core::fault::FaultScope;
use wxtokend_core::last_failure::LastFailure;
use wxtokend_core::sdk::jssdk::JsConfig;
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::{Ticket, TicketKind, TicketState};

use super::answers::{TicketError, TokenError, Unavailable};
use super::handle::{Fleet, retry_after};
use crate::fleet::cells::cell::{AccountCell, NoToken};
use crate::fleet::cells::view::FaultView;

/// The length of WeChat's own examples.
const NONCE_CHARS: usize = 16;

impl Fleet {
    /// Returns a live ticket of `appid` at once. Without one, waits as [`Fleet::token`] does, for the
    /// account's token first. Never starts a call of its own.
    ///
    /// # Errors
    /// [`TicketError`]: unknown account, a ticket that is not kept for it, no valid one, or the fleet is stopping.
    pub async fn ticket(&self, appid: impl AsRef<str>, kind: TicketKind) -> Result<Ticket, TicketError> {
        let shared = &self.inner.shared;
        let account =
            self.cell(appid.as_ref()).inspect_err(|_| self.inner.ticket_reads.unknown.increment(1))?;
        let Some(cell) = account.ticket(kind) else { return Err(TicketError::NotKept(kind)) };
        if let Some(ticket) = cell.read(shared.now()) {
            self.inner.ticket_reads.served.increment(1);
            return Ok(ticket);
        }
        if shared.is_draining() {
            return Err(TicketError::ShuttingDown);
        }
        let wait = async {
            let timeout = shared.rules().timeout;
            if let Err(NoToken(snapshot)) = account.read_or_wait(&shared.clock, timeout).await {
                return Err(self.unavailable(&snapshot).into());
            }
            cell.read_or_wait(&shared.clock, timeout).await.map_err(|state| self.no_ticket(&account, &state))
        };
        let waited = tokio::select! {
            waited = wait => waited,
            () = shared.until_draining() => return Err(TicketError::ShuttingDown),
        };
        let reads = &self.inner.ticket_reads;
        match &waited {
            Ok(_) => reads.served.increment(1),
            Err(_) => reads.unavailable.increment(1),
        }
        waited
    }

    /// Builds what the page at `url` passes to `wx.config`, signed with the account's `jsapi` ticket.
    ///
    /// The URL is used unchanged, up to its `#`: it must be exactly the one that the browser shows.
    ///
    /// # Errors
    /// As [`Fleet::ticket`].
    ///
    /// # Example
    /// ```
    /// # async fn example(fleet: wxtokend::Fleet) -> Result<(), wxtokend::TicketError> {
    /// let config = fleet.js_config("wx0123456789abcdef", "https://shop.example.com/").await?;
    /// println!("wx.config({{appId: {:?}, signature: {:?}, …}})", config.app_id, config.signature);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn js_config(&self, appid: impl AsRef<str>, url: &str) -> Result<JsConfig, TicketError> {
        let ticket = self.ticket(appid.as_ref(), TicketKind::Jsapi).await?;
        let account = Arc::clone(&self.cell(appid.as_ref())?.load().account);
        let nonce = Alphanumeric.sample_string(&mut rand::rng(), NONCE_CHARS);
        let timestamp = self.inner.shared.now().wall_ms.div_euclid(1_000);
        Ok(JsConfig::new(account.appid.clone(), &ticket, url, nonce, timestamp))
    }

    /// The account that the token belongs to, while WeChat honours it as far as is known.
    pub(crate) fn holder(&self, access_token: &str) -> Option<Appid> {
        let (now, presented) = (self.inner.shared.now(), Secret::new(access_token));
        let token_index = &self.inner.shared.token_index;
        let appid = token_index.account_of(&presented.sha256())?;
        let snapshot = self.snapshot(appid.as_str())?;
        let is_honoured = match snapshot.state.is_current(&presented) {
            // It may have ended, or be known to be dead.
            true => snapshot.state.is_usable(now),
            false => token_index.is_in_overlap(&appid, &presented.sha256(), now),
        };
        is_honoured.then_some(appid)
    }

    /// The account that the token belongs to, or belonged to until it was replaced, up to `proxy.stale` after the end
    /// that WeChat gave it. WeChat may refuse it.
    pub(crate) fn issued_to(&self, access_token: &str) -> Option<Appid> {
        let shared = &self.inner.shared;
        let sha256 = Secret::new(access_token).sha256();
        let appid = shared.token_index.account_of(&sha256)?;
        let snapshot = self.snapshot(appid.as_str())?;
        snapshot.state.has_handed_out(&sha256, shared.rules().stale, shared.now()).then_some(appid)
    }

    fn no_ticket(&self, account: &AccountCell, state: &TicketState) -> TicketError {
        let now = self.inner.shared.now();
        // Without a fault of its own it waits for the token, and the account knows why there is none.
        let last_fault = FaultView::of(state.last_failure.as_deref()).or_else(|| account.load().last_fault());
        let is_about_budget = |failure: &LastFailure| failure.fault.scope == FaultScope::Budget;
        TicketError::Unavailable(Box::new(Unavailable {
            state: state.phase(now),
            last_fault,
            retry_after: retry_after(state.next_at, now),
            budget_exhausted: state.last_failure.as_deref().is_some_and(is_about_budget),
        }))
    }
}

impl From<TokenError> for TicketError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::UnknownAccount(appid) => Self::UnknownAccount(appid),
            TokenError::Unavailable(why) => Self::Unavailable(why),
            TokenError::ShuttingDown => Self::ShuttingDown,
        }
    }
}
