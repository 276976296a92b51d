//! Control API of the sandbox: injects faults, sets answers and reads the truth. JSON in and out.
//!
//! | call under `/_sandbox` | body, answer |
//! |---|---|
//! | `GET /accounts` | → `{"accounts":[…as below…],"strangers_refused":0}` |
//! | `GET /accounts/{appid}` | → `{"appid","counters":{…},"tokens":[{"access_token","appid","endpoint","alive","expires_in","dies_in"}],"tickets":[…],"whitelist","frozen"}`; only live tokens and tickets |
//! | `PUT /accounts/{appid}` | `{"secret":"…"}`: adds an account or changes its secret |
//! | `DELETE /accounts/{appid}/tokens` | ends all its tokens now |
//! | `PUT`, `DELETE /accounts/{appid}/whitelist` | `{"ips":["1.2.3.4","10.0.0.0/8","172.0.0.*"],"calls":"all"}`: other addresses get 40164 with the AppSecret, 61004 with a token; `"calls":"appsecret"`: as for mini programs, tokens are honoured from anywhere. Effective at once |
//! | `PUT`, `DELETE /accounts/{appid}/frozen` | freezes, unfreezes its AppSecret (40243; tokens stay alive); takes the switch `freezing_takes_s`: 600 |
//! | `POST /accounts/{appid}/faults`, `POST /faults` | a fault for the account, for all accounts |
//! | `GET`, `DELETE` of both | → `{"faults":[…]}`; clears the list |
//! | `POST /accounts/{appid}/quotas`, `POST /quotas` | `{"path":"/cgi-bin/user/*","per_day":5}`: the account, or each, gets 45009 for further calls with a token there, until the day ends (the switch `day_begins_at_s`) or `clear_quota` is called |
//! | `GET`, `DELETE` of both | → `{"quotas":[{"path","per_day","used":{"wx01":5}}]}`; removes them |
//! | `DELETE` of both with `/used` | gives the calls of the day back |
//! | `POST /answers` | a [`CannedAnswer`](super::CannedAnswer), e.g. `{"path":"/cgi-bin/user/info","body":"echo"}`: what business calls at that path get |
//! | `GET`, `DELETE /answers` | → `{"answers":[…]}`, oldest first; removes them |
//! | `GET /token?access_token=…` | → `{"alive","appid","endpoint","expires_in","dies_in"}`, all but `alive` are `null` if unknown |
//! | `GET`, `PUT /switches` | all [`Switches`](super::Switches); a `PUT` may contain only some |
//! | `GET`, `PUT`, `DELETE /outage` | `{"kind":"refuse"\|"hang"\|"status:502"\|"none"}` |
//! | `GET`, `POST /clock` | `{"advance":"2h"}` moves the clock ahead; → `{"now":"…Z","ahead_s":7200.0}` |
//! | `GET`, `DELETE /requests` | → `{"requests":[{"at","appid","method","path","status","errcode","length"}]}`: the latest 10 000 of WeChat's calls, oldest first; `?appid=`, `?path=` (a trailing `*` as above) and `?since=` (an `at`) choose among them |
//! | `PUT /seed` | `{"seed":N}`: reseeds the random number generator, which makes what follows repeatable |
//!
//! A fault is `{"kind":…}` with the keys of its kind. These optional keys restrict the calls it hits:
//!
//! | key | hits only |
//! |---|---|
//! | `endpoint` | `token`, `stable_token`, `check`, `ticket`, `quota`, `business`; `any`, the default, includes paths that WeChat does not have |
//! | `path` | this path, e.g. `/cgi-bin/user/get`, or with a trailing `*` paths with that prefix: `/wxa/*` |
//! | `access_token` | calls with this token in the URL |
//! | `probability` | with this probability, greater than 0 and at most 1 |
//! | `times` | this many calls; for all accounts together, if the fault is for all |
//! | `for_ms` | within this time after its injection |
//!
//! The first matching fault hits: the account's own are tried first, then those for all.
//!
//! | kind, with its keys | what the client sees | the call |
//! |---|---|---|
//! | `errcode` (`errcode`, `errmsg`) | WeChat's error, with its usual message or with `errmsg`, where `{access_token}` stands for the token that was sent | changes nothing |
//! | `status` (`status`) | this HTTP status with a gateway's page; 412: an empty body | changes nothing |
//! | `html` | a gateway's page with status 200 | changes nothing |
//! | `raw` (`status`, `headers`, `body` or `body_base64`) | this status (default 200), these headers `{"Name":"value"}`, even a false `Content-Length`, and this body. `{access_token}` in `body` stands for the token or ticket of the true answer | changes nothing; is carried out if `body` contains `{access_token}` |
//! | `hang`, `reset` | no answer; a reset connection | changes nothing |
//! | `empty_token` | a token answer without its token | changes nothing |
//! | `delay` (`delay_ms`) | the true answer, late | is carried out |
//! | `half` | half of the true answer | is carried out |
//! | `bad_expires` (`expires_in`) | the true answer with another `expires_in` | is carried out |
//! | `lost` (`as`: `hang\|reset\|html\|502\|504`) | that, instead of the answer | is carried out |
//! | `late` (`after_ms`, and `as`: `hang`) | that, at once | is carried out after `after_ms`, whatever has happened in the meantime |
//!
//! For example, a refusal that passes is
//! `{"kind":"errcode","errcode":40001,"access_token":"…","for_ms":30000}`, and a NAT with one address in four
//! not whitelisted is `{"kind":"errcode","errcode":40164,"probability":0.25}`.
//!
//! `expires_in` is the promised remaining life of a token, `dies_in` its true one; both in seconds, 0 when over.
//! An outage does not affect this API. Since the API shares its listener with WeChat's, `refuse` resets
//! connections once the request has been read. Bad input gets 400, an unknown account 404, each with
//! `{"error":"…"}`.
//!
//! For WeChat's own calls, the caller's address is the connection's, or that in the header `X-Sandbox-Source-IP`,
//! which the real WeChat does not have.

mod accounts;
mod behaviour;
mod clock;
mod reply;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, delete, get, put};
use reply::Refused;

use super::handle::Sandbox;

fn quotas() -> MethodRouter<Sandbox> {
    get(behaviour::quotas).post(behaviour::limit_calls).delete(behaviour::clear_quotas)
}

pub(super) fn router() -> Router<Sandbox> {
    let api = Router::new()
        .route("/accounts", get(accounts::accounts))
        .route("/accounts/{appid}", get(accounts::account).put(accounts::put_account))
        .route("/accounts/{appid}/tokens", delete(accounts::kill_tokens))
        .route("/accounts/{appid}/whitelist", put(accounts::put_whitelist).delete(accounts::end_whitelist))
        .route("/accounts/{appid}/frozen", put(accounts::freeze).delete(accounts::unfreeze))
        .route(
            "/accounts/{appid}/faults",
            get(behaviour::faults).post(behaviour::inject).delete(behaviour::clear_faults),
        )
        .route("/faults", get(behaviour::faults).post(behaviour::inject).delete(behaviour::clear_faults))
        .route(
            "/answers",
            get(behaviour::answers).post(behaviour::put_answer).delete(behaviour::clear_answers),
        )
        .route("/accounts/{appid}/quotas", quotas())
        .route("/accounts/{appid}/quotas/used", delete(behaviour::clear_used))
        .route("/quotas", quotas())
        .route("/quotas/used", delete(behaviour::clear_used))
        .route("/clock", get(clock::clock).post(clock::advance))
        .route("/requests", get(clock::requests).delete(clock::clear_requests))
        .route("/token", get(accounts::token))
        .route("/switches", get(behaviour::switches).put(behaviour::put_switches))
        .route("/seed", put(behaviour::put_seed))
        .route("/outage", put(behaviour::put_outage).get(behaviour::outage).delete(behaviour::end_outage))
        .fallback(async || Refused(StatusCode::NOT_FOUND, "no such call".to_owned()))
        .method_not_allowed_fallback(async || {
            Refused(StatusCode::METHOD_NOT_ALLOWED, "not by this method".to_owned())
        });
    Router::new().nest("/_sandbox", api)
}
