//! Calls that use a token, and calls about quotas.

use std::time::Duration;

use serde_json::{Map, Value, json};
use wxtokend_core::account::Appid;

use super::World;
use super::minting::TOKEN_ALPHABET;
use crate::account_record::{Counters, Ticket};
use crate::answers::{Outcome, Refusal};
use crate::call::Call;
use crate::known_calls;
use crate::wire::Request;

/// The daily limit reported for calls that are not limited here; WeChat's limits differ by call and by
/// account.
const UNLIMITED: u32 = 1_000_000;

impl World {
    /// `GET /cgi-bin/get_api_domain_ip`.
    pub(super) fn check(&mut self, request: &Request, now: Duration) -> Outcome {
        let appid = self.authorized(request, now, |counters| counters.checks_refused += 1)?;
        self.within_limits(&appid, request, now)?;
        Ok(json!({"ip_list": ["101.91.34.103", "117.184.242.111", "240e:e1:a900:50::3f"]}))
    }

    /// Any business call.
    pub(super) fn business(&mut self, request: &Request, now: Duration) -> Outcome {
        if request.plain_path().starts_with("/sns/") {
            return self.login(request, now);
        }
        let appid = self.authorized(request, now, |counters| counters.business_refused += 1)?;
        self.within_limits(&appid, request, now)?;
        Ok(known_calls::json(request, &appid, self.wall_s(now)))
    }

    /// `GET /cgi-bin/ticket/getticket`: the same ticket while it lives, always reported with a whole
    /// lifetime.
    pub(super) fn ticket(&mut self, request: &Request, now: Duration) -> Outcome {
        let appid = self.authorized(request, now, |_| ())?;
        self.within_limits(&appid, request, now)?;
        let jsapi = match request.field("type").as_deref() {
            Some("jsapi") => true,
            Some("wx_card") => false,
            _ => return Err(40097.into()),
        };
        let record = self.accounts.get(&appid).ok_or(40013)?;
        let kept = if jsapi { &record.jsapi } else { &record.wx_card };
        let value = match kept {
            Some(ticket) if ticket.is_alive(now, self.switches.tickets_outlive) => ticket.value.clone(),
            _ => self.new_ticket(&appid, jsapi, now)?,
        };
        Ok(
            json!({"errcode": 0, "errmsg": "ok", "ticket": value, "expires_in": self.token_lifetime.as_secs()}),
        )
    }

    fn new_ticket(&mut self, appid: &Appid, jsapi: bool, now: Duration) -> Result<String, Refusal> {
        let value = self.random_text(self.token_alphabet(), 86);
        let ticket = Ticket { value: value.clone(), ends_at: now + self.token_lifetime };
        let record = self.accounts.get_mut(appid).ok_or(40013)?;
        record.counters.ticket_mints += 1;
        *if jsapi { &mut record.jsapi } else { &mut record.wx_card } = Some(ticket);
        Ok(value)
    }

    /// `POST /cgi-bin/clear_quota`, `clear_quota/v2` and `openapi/quota/get`.
    pub(super) fn quota(&mut self, request: &Request, now: Duration) -> Outcome {
        if request.method != "POST" {
            return Err(43002.into());
        }
        match request.plain_path().as_ref() {
            "/cgi-bin/openapi/quota/get" => self.quota_state(request, now),
            "/cgi-bin/clear_quota" => {
                let owner = self.authorized(request, now, |_| ())?;
                let named =
                    request.field("appid").ok_or(if request.body.is_empty() { 44002 } else { 41002 })?;
                if *named != *owner.as_str() {
                    return Err(40013.into());
                }
                self.clear_quota(&owner, now)
            }
            _ => {
                let appid = self.known(request.field("appid").as_deref())?;
                self.authenticate(&appid, request.field("appsecret").as_deref(), request, now)?;
                self.clear_quota(&appid, now)
            }
        }
    }

    fn clear_quota(&mut self, appid: &Appid, now: Duration) -> Outcome {
        let (month, limit) = (self.month(now), self.switches.clear_quota_per_month);
        let record = self.accounts.get_mut(appid).ok_or(40013)?;
        if !record.cleared_month.admit(month, limit) {
            return Err(48006.into());
        }
        record.token_day.clear();
        record.stable_token_day.clear();
        record.stable_token_minute.clear();
        self.limits.clear_used(Some(appid));
        Ok(json!({"errcode": 0, "errmsg": "ok"}))
    }

    fn quota_state(&mut self, request: &Request, now: Duration) -> Outcome {
        let appid = self.authorized(request, now, |_| ())?;
        if request.body.is_empty() {
            return Err(44002.into());
        }
        let body: Map<String, Value> = serde_json::from_slice(&request.body).map_err(|_| 47001)?;
        let path = body.get("cgi_path").and_then(Value::as_str).unwrap_or_default();
        if !path.is_empty() && !path.starts_with('/') {
            return Err(76003.into());
        }
        let day = self.day(now);
        let record = self.accounts.get(&appid).ok_or(40013)?;
        let daily = |limit: u32, used: u32| json!({"daily_limit": limit, "used": used, "remain": limit.saturating_sub(used)});
        let (quota, rate) = match Call::of(path) {
            Some(Call::Token) => (daily(self.switches.daily_limit, record.token_day.used(day)), None),
            Some(Call::StableToken) => (
                daily(self.switches.stable_daily_limit, record.stable_token_day.used(day)),
                // The limit, not how much of it is used.
                Some(json!({"call_count": self.switches.minute_limit, "refresh_second": 60})),
            ),
            Some(_) => {
                let (limit, used) = self.limits.tightest(&appid, path, day).unwrap_or((UNLIMITED, 0));
                (daily(limit, used), None)
            }
            None => return Err(76021.into()),
        };
        let mut answer = json!({"errcode": 0, "errmsg": "ok", "quota": quota});
        if let Some(rate) = rate {
            answer["rate_limit"] = rate;
        }
        Ok(answer)
    }

    /// Counts a call against the limits that were set.
    fn within_limits(&mut self, appid: &Appid, request: &Request, now: Duration) -> Result<(), Refusal> {
        let day = self.day(now);
        self.limits.admit(appid, &request.plain_path(), day).then_some(()).ok_or_else(|| 45009.into())
    }

    /// Returns the owner of the live token that a request carries. `refused` counts a token that is not
    /// honoured.
    fn authorized(
        &mut self,
        request: &Request,
        now: Duration,
        refused: impl FnOnce(&mut Counters),
    ) -> Result<Appid, Refusal> {
        let token = request.field("access_token").ok_or(41001)?;
        let (owner, errcode) = match self.tokens.get(&token) {
            Some(known) if known.is_alive(now) => {
                let appid = known.appid.clone();
                let whitelist = self.accounts.get(&appid).and_then(|record| record.whitelist.as_ref());
                let admitted = whitelist.is_none_or(|list| list.admits(request.source_ip, true));
                return if admitted { Ok(appid) } else { Err(61004.into()) };
            }
            Some(known) if now >= known.expires_at => (Some(known.appid.clone()), 42001),
            Some(known) => (Some(known.appid.clone()), 40001),
            // A client that forgets to URL-encode sends a space for each plus.
            None if !token.bytes().all(|byte| TOKEN_ALPHABET.contains(&byte)) => (None, 40014),
            None => (None, 40001),
        };
        match owner.and_then(|owner| self.accounts.get_mut(&owner)) {
            Some(record) => refused(&mut record.counters),
            None => self.strangers_refused += 1,
        }
        Err(errcode.into())
    }

    /// Counts calendar months in China.
    fn month(&self, now: Duration) -> u64 {
        let china_s = i64::try_from(self.wall_s(now)).unwrap_or(0) + 8 * 3600;
        let date = jiff::Timestamp::from_second(china_s).unwrap_or(jiff::Timestamp::MAX);
        let date = jiff::tz::Offset::UTC.to_datetime(date);
        u64::from(date.year().unsigned_abs()) * 12 + u64::from(date.month().unsigned_abs())
    }
}
