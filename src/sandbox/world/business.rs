//! The calls that spend a token, and those about quotas.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::World;
use super::minting::TOKEN_ALPHABET;
use crate::account::Appid;
use crate::sandbox::answers::{Outcome, Refusal};
use crate::sandbox::books::{Counters, Ticket};
use crate::sandbox::wire::Request;

impl World {
    /// `GET /cgi-bin/get_api_domain_ip`.
    pub(super) fn check(&mut self, request: &Request, now: Duration) -> Outcome {
        self.authorized(request, now, |counters| counters.checks_refused += 1)?;
        Ok(json!({"ip_list": ["101.91.34.103", "117.184.242.111", "240e:e1:a900:50::3f"]}))
    }

    /// Any business call.
    pub(super) fn business(&mut self, request: &Request, now: Duration) -> Outcome {
        self.authorized(request, now, |counters| counters.business_refused += 1)?;
        Ok(json!({"errcode": 0, "errmsg": "ok"}))
    }

    /// `GET /cgi-bin/ticket/getticket`: the same ticket while it lives, always with a whole lifetime.
    pub(super) fn ticket(&mut self, request: &Request, now: Duration) -> Outcome {
        let appid = self.authorized(request, now, |_| ())?;
        let jsapi = match request.param("type") {
            Some("jsapi") => true,
            Some("wx_card") => false,
            _ => return Err(40097.into()),
        };
        let books = self.accounts.get(&appid).ok_or(40013)?;
        let kept = if jsapi { &books.jsapi } else { &books.wx_card };
        let value = match kept {
            Some(ticket) if now < ticket.ends_at => ticket.value.clone(),
            _ => self.new_ticket(&appid, jsapi, now)?,
        };
        Ok(
            json!({"errcode": 0, "errmsg": "ok", "ticket": value, "expires_in": self.token_lifetime.as_secs()}),
        )
    }

    fn new_ticket(&mut self, appid: &Appid, jsapi: bool, now: Duration) -> Result<String, Refusal> {
        let value = self.random_text(&TOKEN_ALPHABET[..64], 86);
        let ticket = Ticket { value: value.clone(), ends_at: now + self.token_lifetime };
        let books = self.accounts.get_mut(appid).ok_or(40013)?;
        books.counters.ticket_mints += 1;
        *if jsapi { &mut books.jsapi } else { &mut books.wx_card } = Some(ticket);
        Ok(value)
    }

    /// `POST /cgi-bin/clear_quota/v2` and `POST /cgi-bin/openapi/quota/get`.
    pub(super) fn quota(&mut self, request: &Request, now: Duration) -> Outcome {
        if request.method != "POST" {
            return Err(43002.into());
        }
        if request.path.contains("openapi") {
            self.quota_state(request, now)
        } else {
            self.clear_quota(request, now)
        }
    }

    fn clear_quota(&mut self, request: &Request, now: Duration) -> Outcome {
        let appid = self.authenticated(request.param("appid"), request.param("appsecret"))?;
        let (month, limit) = (self.month(now), self.switches.clear_quota_per_month);
        let books = self.accounts.get_mut(&appid).ok_or(40013)?;
        if !books.cleared_month.admit(month, limit) {
            return Err(48006.into());
        }
        books.token_day.clear();
        books.stable_token_day.clear();
        books.stable_token_minute.clear();
        Ok(json!({"errcode": 0, "errmsg": "ok"}))
    }

    fn quota_state(&mut self, request: &Request, now: Duration) -> Outcome {
        let appid = self.authorized(request, now, |_| ())?;
        if request.body.is_empty() {
            return Err(44002.into());
        }
        let body: Map<String, Value> = serde_json::from_slice(&request.body).map_err(|_| 47001)?;
        let (day, minute) = (self.day(now), self.wall_s(now) / 60);
        let books = self.accounts.get(&appid).ok_or(40013)?;
        let daily = |limit: u32, used: u32| json!({"daily_limit": limit, "used": used, "remain": limit.saturating_sub(used)});
        match body.get("cgi_path").and_then(Value::as_str).map(|path| path.trim_start_matches('/')) {
            Some("cgi-bin/token") => {
                let quota = daily(self.switches.daily_limit, books.token_day.used(day));
                Ok(json!({"errcode": 0, "errmsg": "ok", "quota": quota}))
            }
            Some("cgi-bin/stable_token") => {
                let quota = daily(self.switches.stable_daily_limit, books.stable_token_day.used(day));
                let per_minute = books.stable_token_minute.used(minute);
                let rate = json!({"call_count": per_minute, "refresh_second": 60 - self.wall_s(now) % 60});
                Ok(json!({"errcode": 0, "errmsg": "ok", "quota": quota, "rate_limit": rate}))
            }
            _ => Err(76021.into()),
        }
    }

    /// The owner of the living token that a request carries; `refused` counts one that is not honoured.
    fn authorized(
        &mut self,
        request: &Request,
        now: Duration,
        refused: impl FnOnce(&mut Counters),
    ) -> Result<Appid, Refusal> {
        let token = request.param("access_token").ok_or(41001)?;
        let (owner, errcode) = match self.tokens.get(token) {
            Some(known) if known.is_alive(now) => return Ok(known.appid.clone()),
            Some(known) if now >= known.expires_at => (Some(known.appid.clone()), 42001),
            Some(known) => (Some(known.appid.clone()), 40001),
            // Whoever forgets to URL-encode sends a space for each plus.
            None if !token.bytes().all(|byte| TOKEN_ALPHABET.contains(&byte)) => (None, 40014),
            None => (None, 40001),
        };
        match owner.and_then(|owner| self.accounts.get_mut(&owner)) {
            Some(books) => refused(&mut books.counters),
            None => self.strangers_refused += 1,
        }
        Err(errcode.into())
    }

    /// Counts the calendar months in China.
    fn month(&self, now: Duration) -> u64 {
        let china_s = i64::try_from(self.wall_s(now)).unwrap_or(0) + 8 * 3600;
        let date = jiff::Timestamp::from_second(china_s).unwrap_or(jiff::Timestamp::MAX);
        let date = jiff::tz::Offset::UTC.to_datetime(date);
        u64::from(date.year().unsigned_abs()) * 12 + u64::from(date.month().unsigned_abs())
    }
}
