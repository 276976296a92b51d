//! The two calls that mint tokens.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Map, Value, json};
use wxtokend_core::account::{Appid, Endpoint};
use wxtokend_core::secret::Secret;

use super::World;
use crate::answers::{Outcome, Refusal};
use crate::call::Call;
use crate::tokens::{MintEffect, TokenTruth};
use crate::wire::Request;

/// Characters of tokens and tickets: the first 64 are safe in a URL, the rest must be encoded.
pub(super) const TOKEN_ALPHABET: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=";
const URL_SAFE: usize = 64;

const FOREVER: Duration = Duration::MAX;

impl World {
    /// `GET /cgi-bin/token`: each call mints. Also accepts a form, since some SDKs send one.
    pub(super) fn token(&mut self, request: &Request, now: Duration) -> Outcome {
        if !matches!(request.method.as_str(), "GET" | "POST") {
            return Err(43001.into());
        }
        let (appid, secret) = (request.field("appid"), request.field("secret"));
        let appid = self.known(appid.as_deref())?;
        if request.field("grant_type").as_deref() != Some("client_credential") {
            return Err(40002.into());
        }
        self.authenticate(&appid, secret.as_deref(), request, now)?;
        let (day, limit) = (self.day(now), self.switches.daily_limit);
        let record = self.accounts.get_mut(&appid).ok_or(40013)?;
        if !record.token_day.admit(day, limit) {
            return Err(45009.into());
        }
        record.counters.token_mints += 1;
        let older_until = if self.switches.second_mint_kills_first { now } else { FOREVER };
        let effect = MintEffect { previous_until: now + self.overlap, older_until };
        Ok(self.minted(&appid, Endpoint::Token, effect, now))
    }

    /// `POST /cgi-bin/stable_token`: the same token until the last part of its life, unless forced.
    pub(super) fn stable_token(&mut self, request: &Request, now: Duration) -> Outcome {
        if request.method != "POST" {
            return Err(43002.into());
        }
        let body: Map<String, Value> = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            // A body that looks like JSON is reported as broken; for a form, or with everything in the URL,
            // no appid is found.
            Err(_) if request.body.trim_ascii_start().starts_with(b"{") => return Err(47001.into()),
            Err(_) if request.body.trim_ascii_start().starts_with(b"[") => return Err(47001.into()),
            Err(_) => return Err(41002.into()),
        };
        let text = |key: &str| match body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(47001),
        };
        let force = match body.get("force_refresh") {
            None | Some(Value::Null) => false,
            Some(value) => value.as_bool().ok_or(47001)?,
        };
        let appid = self.known(text("appid")?)?;
        if text("grant_type")? != Some("client_credential") {
            return Err(40002.into());
        }
        self.authenticate(&appid, text("secret")?, request, now)?;
        self.admit_stable_token(&appid, now)?;
        if force && self.may_force(&appid, now) {
            return Ok(self.forced(&appid, now));
        }
        if let Some(token) = self.tokens.newest(&appid, Endpoint::StableToken) {
            let remaining = token.expires_at.saturating_sub(now);
            let kept = token.is_alive(now) || !self.switches.dead_stable_replaced;
            if kept && remaining >= self.overlap {
                let value = token.access_token.expose();
                return Ok(json!({"access_token": value, "expires_in": remaining.as_secs()}));
            }
        }
        self.count_stable_mint(&appid);
        let effect = MintEffect { previous_until: FOREVER, older_until: FOREVER };
        Ok(self.minted(&appid, Endpoint::StableToken, effect, now))
    }

    fn admit_stable_token(&mut self, appid: &Appid, now: Duration) -> Result<(), Refusal> {
        let (day, minute) = (self.day(now), self.wall_s(now) / 60);
        let (per_day, per_minute) = (self.switches.stable_daily_limit, self.switches.minute_limit);
        let record = self.accounts.get_mut(appid).ok_or(40013)?;
        if !record.stable_token_minute.admit(minute, per_minute) {
            return Err(45011.into());
        }
        if !record.stable_token_day.admit(day, per_day) {
            return Err(45009.into());
        }
        Ok(())
    }

    /// Whether a forced refresh is granted; if so, counts it.
    fn may_force(&mut self, appid: &Appid, now: Duration) -> bool {
        let (day, per_day, spacing) =
            (self.day(now), self.switches.forced_per_day, self.switches.forced_spacing);
        let Some(record) = self.accounts.get_mut(appid) else { return false };
        let spaced = record.last_forced.is_none_or(|last| now.saturating_sub(last) >= spacing);
        let granted = spaced && record.forced_day.admit(day, per_day);
        if granted {
            record.last_forced = Some(now);
            record.counters.forced_mints += 1;
        }
        granted
    }

    /// Mints by force. The drill for a leaked token is two forced refreshes, so the second ends the token
    /// before the previous one.
    fn forced(&mut self, appid: &Appid, now: Duration) -> Value {
        self.count_stable_mint(appid);
        let previous_until = if self.switches.forced_kills_at_once { now } else { now + self.overlap };
        self.minted(appid, Endpoint::StableToken, MintEffect { previous_until, older_until: now }, now)
    }

    fn count_stable_mint(&mut self, appid: &Appid) {
        if let Some(record) = self.accounts.get_mut(appid) {
            record.counters.stable_token_mints += 1;
        }
    }

    fn minted(&mut self, appid: &Appid, endpoint: Endpoint, effect: MintEffect, now: Duration) -> Value {
        let length = if self.switches.long_tokens {
            self.rng.random_range(600..=1000)
        } else {
            self.rng.random_range(133..=509)
        };
        let value =
            format!("{}_{}", self.rng.random_range(10..100), self.random_text(self.token_alphabet(), length));
        let answer = json!({"access_token": value, "expires_in": self.token_lifetime.as_secs()});
        let expires_at = now + self.token_lifetime;
        let token = TokenTruth {
            access_token: Secret::new(value),
            appid: appid.clone(),
            endpoint,
            minted_at: now,
            expires_at,
            dies_at: expires_at,
        };
        self.tokens.mint(token, effect);
        answer
    }

    /// The characters that tokens and tickets are currently made of.
    pub(super) fn token_alphabet(&self) -> &'static [u8] {
        if self.switches.hostile_tokens { TOKEN_ALPHABET } else { &TOKEN_ALPHABET[..URL_SAFE] }
    }

    /// Returns the account with that appid, which WeChat validates first of all.
    pub(super) fn known(&self, appid: Option<&str>) -> Result<Appid, Refusal> {
        let appid = appid.ok_or(41002)?;
        let (appid, _) = self.accounts.get_key_value(appid).ok_or(40013)?;
        Ok(appid.clone())
    }

    /// Checks that the secret is the account's. A wrong one gets 40125, which is what WeChat now returns for
    /// a well-formed but wrong secret; 40001 is also what a refused token gets.
    pub(super) fn authenticate(
        &self,
        appid: &Appid,
        secret: Option<&str>,
        request: &Request,
        now: Duration,
    ) -> Result<(), Refusal> {
        let secret = secret.ok_or(41004)?;
        let record = self.accounts.get(appid).ok_or(40013)?;
        if record.secret.expose() != secret {
            return Err(40125.into());
        }
        if record.freeze.is_on(now) {
            return Err(40243.into());
        }
        match &record.whitelist {
            Some(whitelist) if !whitelist.admits(request.source_ip, false) => Err(40164.into()),
            _ => Ok(()),
        }
    }

    /// Counts a failed token call against the day.
    pub(super) fn charge_failed(&mut self, call: Option<Call>, account: Option<&Appid>, now: Duration) {
        let day = self.day(now);
        match (call, account.and_then(|appid| self.accounts.get_mut(appid))) {
            (Some(Call::Token), Some(record)) => record.token_day.charge(day),
            (Some(Call::StableToken), Some(record)) => record.stable_token_day.charge(day),
            _ => {}
        }
    }
}
