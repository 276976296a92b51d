//! Target: what a host answers to a token call or a check, be it WeChat, a gateway, or an attacker.
//!
//! An input is two bytes and a body: the situation, the HTTP status, and the body of the answer.

use std::time::Duration;

use serde_json::Value;
use wxtokend::Defaults;
use wxtokend::internals::{Lost, Response, no_answer, read_check, read_token};
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::schedule::{Draw, Rules};
use wxtokend_core::token::state::AccountState;
use wxtokend_core::token::transition::{CheckEnd, FetchEnd};

/// In the format of WeChat's secrets, so that it could also pass for a request ID.
const SECRET: &str = "5ec2e7ab0c1d2e3f405162738495a6b7";
const STATUSES: [u16; 16] = [200, 200, 200, 200, 0, 100, 204, 301, 400, 401, 404, 412, 500, 502, 504, 999];
const SENT_AT: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
const RULES: Rules = Rules {
    overlap: Duration::from_secs(300),
    timeout: Duration::from_secs(5),
    stale: Duration::from_secs(7200),
};
const LONGEST_MESSAGE: usize = 300;

/// Reads `input` as an answer.
pub fn run(input: &[u8]) {
    let [situation, status, body @ ..] = input else { return };
    let sent = Secret::new(SECRET);
    let status = STATUSES[usize::from(status % 16)];
    let answer = Response { status, body: body.to_vec(), date: None, retry_after: None };
    for endpoint in [Endpoint::StableToken, Endpoint::Token] {
        token(*situation, endpoint, &answer, &sent);
        let text = String::from_utf8_lossy(body).into_owned();
        for lost in [Lost::NotSent(text.clone()), Lost::TimedOut, Lost::Cut(text)] {
            is_one_bounded_line(&no_answer(endpoint, &lost).fault);
        }
    }
    check(&answer, &sent);
}

fn token(situation: u8, endpoint: Endpoint, answer: &Response, sent: &Secret) {
    let mut account: Account = Defaults { endpoint, ..Defaults::default() }
        .account(Appid::new("wx0123456789abcdef").expect("an appid"), sent.clone());
    account.settings.verify_rejections = situation & 1 == 0;
    let read = read_token(endpoint, answer, sent);
    let (may_have_minted, result) = match read {
        Ok(token) => {
            assert_eq!(answer.status, 200, "a token came with another status");
            assert!(!token.value.expose().is_empty(), "a token is empty");
            assert!(token.expires_in >= Duration::from_secs(1), "a token is born dead");
            assert!(answer.body.contains(&b'{'));
            (false, Ok(token))
        }
        Err(none) => {
            shows_no_secret(&none.fault);
            (none.reply.may_have_minted(), Err(none.fault))
        }
    };
    let promised = result.as_ref().ok().map(|token| token.expires_in);
    let end = FetchEnd { force: situation & 2 != 0, sent_at: Some(SENT_AT), may_have_minted, result };
    apply(situation, end, promised, &account);
}

/// Applies the answer to an account: with or without an earlier token, a moment or minutes after the call was
/// sent.
fn apply(situation: u8, end: FetchEnd, promised: Option<Duration>, account: &Account) {
    let mut state = AccountState::default();
    let before = SENT_AT - Duration::from_secs(7000);
    if situation & 4 != 0 {
        let earlier = wxtokend_core::token::transition::Answer {
            value: Secret::new("the-token-before"),
            expires_in: Duration::from_secs(7200),
        };
        let end =
            FetchEnd { force: false, sent_at: Some(before), may_have_minted: false, result: Ok(earlier) };
        state.end_fetch(end, account, RULES, before, Draw::alone(0.5));
    }
    let had = state.token.clone();
    let _ = state.begin_fetch(account, end.force, SENT_AT);
    let took = Duration::from_millis(if situation & 8 != 0 { 240_000 } else { 80 });
    let now = SENT_AT + took;
    state.end_fetch(end, account, RULES, now, Draw::alone(f64::from(situation) / 256.0));

    for later in [0, 1, 60_000, 7_199_000, 7_200_000, 4_294_967_294_000] {
        let at = now + Duration::from_millis(later);
        let Some(token) = state.read(at) else { continue };
        let age = took + Duration::from_millis(later);
        match (promised, &had) {
            (Some(promised), _) => {
                assert!(token.expires_in() + age <= promised, "{token:?} is promised beyond {promised:?}");
            }
            (None, Some(had)) => {
                assert_eq!(token.access_token(), had.value.expose(), "a token came out of nothing");
                assert!(token.expires_in() <= had.expires_at.until_by_either(at));
            }
            (None, None) => panic!("a token came out of nothing"),
        }
        assert!(token.max_age() <= token.expires_in());
    }
    if let Some(last_failure) = &state.last_failure {
        shows_no_secret(&last_failure.fault);
    }
    assert!(!format!("{state:?}").contains(SECRET), "a state shows the secret");
}

fn check(answer: &Response, sent: &Secret) {
    match read_check(Ok(answer), sent) {
        CheckEnd::Honoured => {
            assert_eq!(answer.status, 200, "honoured by another status");
            assert!(answer.body.contains(&b'{'), "honoured by what is no object");
            // Text without an end is an error to this parser, but not to ours.
            if let Ok(body) = serde_json::from_slice::<Value>(&answer.body) {
                let errcode = body.get("errcode").filter(|errcode| !errcode.is_null());
                let number = errcode.map(|errcode| match errcode.as_str() {
                    Some(text) => text.trim().parse().ok(),
                    None => errcode.as_f64(),
                });
                assert!(number.is_none_or(|number| number == Some(0.0)), "honoured by a refusal");
            }
        }
        CheckEnd::Refused => assert!(answer.status < 500, "refused by a gateway"),
        CheckEnd::Inconclusive(fault) => shows_no_secret(&fault),
    }
}

fn shows_no_secret(fault: &Fault) {
    assert!(!format!("{fault:?}").contains(SECRET), "a fault shows the secret");
    is_one_bounded_line(fault);
}

fn is_one_bounded_line(fault: &Fault) {
    assert!(!fault.advice.is_empty() && fault.advice.len() < 400, "{fault:?}");
    for text in [Some(&fault.message), Some(&fault.advice), fault.rid.as_ref()].into_iter().flatten() {
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        assert!(!text.contains(breaks), "{fault:?}");
        assert!(text.chars().count() <= LONGEST_MESSAGE, "{fault:?}");
    }
}
