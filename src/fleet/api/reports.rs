//! Handles rejections by clients and refreshes that operators ask for.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::timeout;
use tracing::info;
use wxtokend_core::secret::Secret;

use super::answers::{RefreshResponse, TokenError};
use super::handle::Fleet;
use crate::fleet::cells::cell::AccountCell;
use crate::fleet::cells::mailbox::{NoValidToken, Notice, RefreshReply, RefreshRequest};
use crate::fleet::cells::tally::RejectionOutcome;
use crate::fleet::journal::event::{ClientRequest, outcome_label};

impl Fleet {
    /// Reports that WeChat refused `access_token` (40001, 40014, 42001).
    ///
    /// Only a report of the current token has an effect: it is checked, once for all clients that report it,
    /// and replaced if WeChat refuses it.
    ///
    /// # Errors
    /// [`TokenError`]: unknown account, no valid token could be had, or the fleet is stopping.
    ///
    /// # Example
    /// ```
    /// # async fn example(fleet: wxtokend::Fleet, token: wxtokend::Token) -> Result<(), wxtokend::TokenError> {
    /// let rejected = fleet.reject("wx0123456789abcdef", &token).await?;
    /// if let Some(current) = rejected.token {
    ///     println!("{:?}: go on with version {}", rejected.outcome, current.version());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reject(
        &self,
        appid: impl AsRef<str>,
        access_token: impl AsRef<str>,
    ) -> Result<RefreshResponse, TokenError> {
        self.reject_for(None, appid, access_token).await
    }

    /// [`Fleet::reject`] by the client of that name.
    pub(crate) async fn reject_for(
        &self,
        by: Option<&str>,
        appid: impl AsRef<str>,
        access_token: impl AsRef<str>,
    ) -> Result<RefreshResponse, TokenError> {
        let cell = self.cell(appid.as_ref())?;
        self.until_judged(&cell).await;
        let presented = Secret::new(access_token.as_ref());
        // Most reports after a refresh are of older tokens, and answering them needs no actor.
        let snapshot = cell.load();
        let superseded =
            !snapshot.state.is_current(&presented) && snapshot.state.is_usable(self.inner.shared.now());
        let answer = match (superseded, cell.mailbox()) {
            (true, _) => Ok(RejectionOutcome::Superseded),
            (false, Some(actor)) => {
                self.with_time_limit(actor.ask(RefreshRequest::Reject(presented))).await?
            }
            // Its actor has crashed and is being restarted.
            (false, None) => Err(NoValidToken),
        };
        let rejected = self.finish(&cell, answer);
        let outcome = rejected.as_ref().ok().map(|rejected| rejected.outcome);
        let shared = &self.inner.shared;
        let request = ClientRequest::report(by, outcome, shared.now());
        if shared.journal.note_request(&cell, shared.now(), request) {
            let (appid, outcome) = (snapshot.account.appid.as_str(), outcome_label(outcome));
            info!(event = "rejection", appid, by, outcome, "a client reports a token as refused");
        }
        rejected
    }

    /// Refreshes the token now, as an operator's request, also on a parked account. On `stable_token`,
    /// `force` replaces a token that still lives.
    ///
    /// # Errors
    /// As [`Fleet::reject`].
    pub async fn refresh(&self, appid: impl AsRef<str>, force: bool) -> Result<RefreshResponse, TokenError> {
        self.refresh_for(None, appid, force).await
    }

    /// [`Fleet::refresh`] by the client of that name.
    pub(crate) async fn refresh_for(
        &self,
        by: Option<&str>,
        appid: impl AsRef<str>,
        force: bool,
    ) -> Result<RefreshResponse, TokenError> {
        let cell = self.cell(appid.as_ref())?;
        self.until_judged(&cell).await;
        let answer = match cell.mailbox() {
            Some(actor) => self.with_time_limit(actor.ask(RefreshRequest::Refresh { force })).await?,
            None => Err(NoValidToken),
        };
        let refreshed = self.finish(&cell, answer);
        let outcome = refreshed.as_ref().ok().map(|refreshed| refreshed.outcome);
        let shared = &self.inner.shared;
        let request = ClientRequest::refresh(by, force, outcome, shared.now());
        if shared.journal.note_request(&cell, shared.now(), request) {
            let (appid, outcome) = (appid.as_ref(), outcome_label(outcome));
            info!(event = "refresh", appid, by, force, outcome, "an operator asked for a refresh");
        }
        refreshed
    }

    /// Brings the refresh forward that is due in the last minutes of a token on `stable_token`, once those
    /// have begun.
    ///
    /// The caller takes us for WeChat, which would mint now. It does not wait for the refresh.
    pub(crate) fn bring_refresh_forward(&self, appid: &str) {
        let now = self.inner.shared.now();
        let Ok(cell) = self.cell(appid) else { return };
        let snapshot = cell.load();
        let is_admitted = || {
            let mut early = cell.early.lock().unwrap_or_else(PoisonError::into_inner);
            early.admit(snapshot.state.version, snapshot.account.settings.retry.initial, now)
        };
        if snapshot.state.may_refresh_early(now)
            && is_admitted()
            && let Some(actor) = cell.mailbox()
        {
            // An actor that has crashed decides by itself after its restart.
            actor.tell(Notice::RefreshEarly);
        }
    }

    /// Waits until what an earlier boot has stored is judged, before anything acts on it.
    async fn until_judged(&self, cell: &AccountCell) {
        if cell.mailbox().is_none() {
            self.inner.shared.until_released().await;
        }
    }

    /// Waits for an answer long enough for a check and two fetches, each with a second host.
    async fn with_time_limit(
        &self,
        asked: impl Future<Output = RefreshReply>,
    ) -> Result<RefreshReply, TokenError> {
        let limit = self.inner.shared.rules().timeout * 4 + Duration::from_secs(1);
        tokio::select! {
            answered = timeout(limit, asked) => Ok(answered.unwrap_or(Err(NoValidToken))),
            () = self.inner.shared.until_draining() => Err(TokenError::ShuttingDown),
        }
    }

    fn finish(&self, cell: &AccountCell, answer: RefreshReply) -> Result<RefreshResponse, TokenError> {
        let snapshot = cell.load();
        let token = snapshot.state.read(self.inner.shared.now());
        let outcome = match (answer, &token) {
            // There is no current token to hand out in place of the old one.
            (Ok(RejectionOutcome::Superseded), None) | (Err(_), None) => {
                return Err(self.unavailable(&snapshot));
            }
            (Ok(outcome), _) => outcome,
            // The report could not be checked, and the token is as good as before.
            (Err(_), Some(_)) => RejectionOutcome::Limited,
        };
        self.inner.shared.count_rejection(cell, outcome);
        Ok(RefreshResponse {
            outcome,
            version: snapshot.state.version,
            token,
            last_fault: snapshot.last_fault(),
        })
    }
}
