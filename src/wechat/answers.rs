//! Reads WeChat's answers: JSON whatever the content type says, and whatever else a gateway puts in its place.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::transport::{Lost, Response};
use crate::account::Endpoint;
use crate::fault::{Fault, Whose};
use crate::outcome::{Answer, CheckEnd};
use crate::secret::Secret;

/// Business calls say by these that the token is bad.
const TOKEN_REFUSED: [i64; 3] = [40001, 40014, 42001];

/// A token call without a token.
#[derive(Debug)]
pub struct NoToken {
    /// Why there is none.
    pub fault: Fault,
    /// A token may have been minted all the same. A readable refusal rules it out; whether a gateway's 5xx does
    /// is not known.
    pub may_have_minted: bool,
}

#[derive(Deserialize)]
struct Body {
    errcode: Option<i64>,
    errmsg: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u32>,
    ip_list: Option<Value>,
    ticket: Option<String>,
}

impl Body {
    /// `None` when it is not WeChat's JSON.
    fn of(answer: &Response) -> Option<Self> {
        // Serde would take a list for a mapping, too, and its items for the values in our order.
        let is_mapping = answer.body.trim_ascii_start().starts_with(b"{");
        is_mapping.then(|| serde_json::from_slice(&answer.body).ok()).flatten()
    }
}

/// Reads the answer to a token call that carried the AppSecret `sent`.
///
/// # Errors
/// When it brings no token.
pub fn read_token(endpoint: Endpoint, answer: &Response, sent: &Secret) -> Result<Answer, NoToken> {
    let unknown = |fault| NoToken { fault, may_have_minted: true };
    match answer.status {
        412 => return Err(NoToken { fault: Fault::precondition_failed(), may_have_minted: false }),
        504 => return Err(unknown(unclear(endpoint, Whose::Host, "HTTP 504 from a gateway"))),
        status @ 500..=599 => return Err(unknown(Fault::host(&format!("HTTP {status} from the host")))),
        _ => {}
    }
    match Body::of(answer) {
        Some(Body { errcode: Some(errcode), errmsg, .. }) if errcode != 0 => Err(NoToken {
            fault: refusal(errcode, errmsg.as_deref().unwrap_or_default(), sent),
            may_have_minted: false,
        }),
        _ if answer.status != 200 => {
            Err(unknown(Fault::unreadable(&format!("HTTP {} from a gateway", answer.status))))
        }
        Some(Body { access_token: Some(value), expires_in: Some(seconds @ 1..), .. })
            if !value.is_empty() =>
        {
            Ok(Answer { value: Secret::new(value), expires_in: Duration::from_secs(seconds.into()) })
        }
        Some(_) => Err(unknown(unclear(
            endpoint,
            Whose::Account,
            "an answer without a usable access_token and expires_in",
        ))),
        None => Err(unknown(unclear(endpoint, Whose::Account, "an answer that is not WeChat's JSON"))),
    }
}

/// A token call that got no answer.
#[must_use]
pub fn no_answer(endpoint: Endpoint, lost: &Lost) -> NoToken {
    match lost {
        Lost::NotSent(_) => NoToken { fault: Fault::host(&lost.to_string()), may_have_minted: false },
        Lost::TimedOut | Lost::Cut(_) => {
            NoToken { fault: unclear(endpoint, Whose::Host, &lost.to_string()), may_have_minted: true }
        }
    }
}

/// On `token` the call may have minted; on `stable_token` the next one brings the same token.
fn unclear(endpoint: Endpoint, whose: Whose, message: &str) -> Fault {
    match (endpoint, whose) {
        (Endpoint::Token, _) => Fault::unknown_outcome(whose, message),
        (Endpoint::StableToken, Whose::Host) => Fault::host(message),
        (Endpoint::StableToken, _) => Fault::unreadable(message),
    }
}

/// Reads the answer to a check of the token `sent`.
#[must_use]
pub fn read_check(answer: Result<&Response, &Lost>, sent: &Secret) -> CheckEnd {
    let answer = match answer {
        Ok(answer) if answer.status >= 500 => {
            return CheckEnd::Inconclusive(Fault::host(&format!("HTTP {} from the host", answer.status)));
        }
        Ok(answer) => answer,
        Err(lost) => return CheckEnd::Inconclusive(Fault::host(&lost.to_string())),
    };
    match Body::of(answer) {
        Some(Body { errcode: Some(errcode), .. }) if TOKEN_REFUSED.contains(&errcode) => CheckEnd::Refused,
        Some(Body { errcode: Some(errcode), errmsg, .. }) if errcode != 0 => {
            CheckEnd::Inconclusive(refusal(errcode, errmsg.as_deref().unwrap_or_default(), sent))
        }
        Some(Body { errcode, ip_list, .. })
            if answer.status == 200
                && (errcode == Some(0) || ip_list.as_ref().is_some_and(Value::is_array)) =>
        {
            CheckEnd::Honoured
        }
        _ => CheckEnd::Inconclusive(Fault::unreadable("an answer that is not WeChat's JSON")),
    }
}

/// Reads the answer to a call for a ticket that carried the token `sent`.
///
/// # Errors
/// When it brings none; [`Fault::token_refused`] where the token is why.
pub(super) fn read_ticket(answer: Result<&Response, &Lost>, sent: &Secret) -> Result<Answer, Fault> {
    let answer = answer.map_err(|lost| Fault::host(&lost.to_string()))?;
    if answer.status >= 500 {
        return Err(Fault::host(&format!("HTTP {} from the host", answer.status)));
    }
    match Body::of(answer) {
        Some(Body { errcode: Some(errcode), .. }) if TOKEN_REFUSED.contains(&errcode) => {
            Err(Fault::token_refused(errcode))
        }
        Some(Body { errcode: Some(errcode), errmsg, .. }) if errcode != 0 => {
            Err(refusal(errcode, errmsg.as_deref().unwrap_or_default(), sent))
        }
        Some(Body { ticket: Some(value), expires_in: Some(seconds @ 1..), .. })
            if answer.status == 200 && !value.is_empty() =>
        {
            Ok(Answer { value: Secret::new(value), expires_in: Duration::from_secs(seconds.into()) })
        }
        Some(_) if answer.status == 200 => {
            Err(Fault::unreadable("an answer without a usable ticket and expires_in"))
        }
        _ => Err(Fault::unreadable("an answer that is not WeChat's JSON")),
    }
}

/// The fault without the secret that the text may echo; a fault cuts its text, and half a secret would not be found.
fn refusal(errcode: i64, errmsg: &str, sent: &Secret) -> Fault {
    Fault::from_errcode(errcode, &errmsg.replace(sent.expose(), "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind::{Parked, Transient, UnknownOutcome};

    fn answer(status: u16, body: &str) -> Response {
        Response { status, body: body.as_bytes().to_vec(), date: None }
    }

    fn sent() -> Secret {
        Secret::new("what-was-sent")
    }

    #[test]
    fn an_echo_of_what_was_sent_is_not_told_however_long_it_is() {
        let long = Secret::new("hunter2-".repeat(60));
        let body = format!(r#"{{"errcode":45011,"errmsg":"too often: {}"}}"#, long.expose());
        let CheckEnd::Inconclusive(fault) = read_check(Ok(&answer(200, &body)), &long) else {
            panic!("a fault expected")
        };
        assert_eq!(fault.message, "too often: [redacted]");
        let none = read_token(Endpoint::Token, &answer(200, &body), &long).unwrap_err();
        assert_eq!(none.fault.message, "too often: [redacted]");
        let none = read_ticket(Ok(&answer(200, &body)), &long).unwrap_err();
        assert_eq!(none.message, "too often: [redacted]");
    }

    #[test]
    fn a_token_is_read_whatever_surrounds_it() {
        let long = "x".repeat(2000);
        for body in [
            format!(r#"{{"access_token":"{long}","expires_in":7200}}"#),
            format!(r#"{{"errcode":0,"errmsg":"ok","access_token":"{long}","expires_in":7200,"new":[]}}"#),
        ] {
            let token = read_token(Endpoint::Token, &answer(200, &body), &sent()).unwrap();
            assert_eq!((token.value.expose(), token.expires_in), (long.as_str(), Duration::from_secs(7200)));
        }
    }

    #[test]
    fn what_is_no_token_is_a_fault_and_on_token_an_unknown_outcome() {
        let token = r#"{"access_token":"t","expires_in":7200}"#;
        for (status, body, on_stable, on_token) in [
            (200, "<html>", Transient, UnknownOutcome),
            (200, "", Transient, UnknownOutcome),
            (200, "[]", Transient, UnknownOutcome),
            (200, r#"[0,"ok","t",7200,null]"#, Transient, UnknownOutcome),
            (200, r#"{"access_token":"","expires_in":7200}"#, Transient, UnknownOutcome),
            (200, r#"{"access_token":"t","expires_in":0}"#, Transient, UnknownOutcome),
            (200, r#"{"access_token":"t","expires_in":-5}"#, Transient, UnknownOutcome),
            (200, r#"{"access_token":"t"}"#, Transient, UnknownOutcome),
            (200, &token[..20], Transient, UnknownOutcome),
            (504, token, Transient, UnknownOutcome),
            (500, token, Transient, Transient),
            (502, "<html>", Transient, Transient),
            (302, token, Transient, Transient),
            (404, "", Transient, Transient),
        ] {
            for (endpoint, kind) in [(Endpoint::StableToken, on_stable), (Endpoint::Token, on_token)] {
                let none = read_token(endpoint, &answer(status, body), &sent()).unwrap_err();
                assert_eq!(
                    (none.fault.kind, none.may_have_minted),
                    (kind, true),
                    "{endpoint:?} {status} {body}"
                );
            }
        }
    }

    #[test]
    fn a_readable_refusal_rules_out_that_a_token_was_minted() {
        for (status, body, kind) in [
            (200, r#"{"errcode":40125,"errmsg":"invalid appsecret rid: a-b-c"}"#, Parked),
            (200, r#"{"errcode":-1,"errmsg":"system error"}"#, Transient),
            (412, "", Parked),
        ] {
            let none = read_token(Endpoint::Token, &answer(status, body), &sent()).unwrap_err();
            assert_eq!((none.fault.kind, none.may_have_minted), (kind, false), "{body}");
        }
    }

    #[test]
    fn the_trouble_of_a_host_is_told_from_an_accounts() {
        let whose =
            |endpoint, response: &Response| read_token(endpoint, response, &sent()).unwrap_err().fault.whose;
        for endpoint in [Endpoint::Token, Endpoint::StableToken] {
            assert_eq!(whose(endpoint, &answer(502, "")), Whose::Host);
            assert_eq!(whose(endpoint, &answer(504, "")), Whose::Host);
            assert_eq!(whose(endpoint, &answer(200, "<html>")), Whose::Account);
            for lost in [Lost::NotSent("x".into()), Lost::TimedOut, Lost::Cut("x".into())] {
                assert_eq!(no_answer(endpoint, &lost).fault.whose, Whose::Host);
            }
        }
        assert!(!no_answer(Endpoint::Token, &Lost::NotSent("x".into())).may_have_minted);
        assert_eq!(no_answer(Endpoint::Token, &Lost::TimedOut).fault.kind, UnknownOutcome);
        assert_eq!(no_answer(Endpoint::StableToken, &Lost::TimedOut).fault.kind, Transient);
    }

    #[test]
    fn a_ticket_is_told_from_a_refused_token_and_both_from_trouble() {
        let read = |status, body: &str| read_ticket(Ok(&answer(status, body)), &sent());
        let ticket = r#"{"errcode":0,"errmsg":"ok","ticket":"t","expires_in":7200}"#;
        let told = read(200, ticket).unwrap();
        assert_eq!((told.value.expose(), told.expires_in), ("t", Duration::from_secs(7200)));
        for errcode in [40001, 40014, 42001] {
            let fault = read(200, &format!(r#"{{"errcode":{errcode},"errmsg":"x"}}"#)).unwrap_err();
            assert!(fault.is_token_refused() && fault.errcode == Some(errcode), "{fault:?}");
        }
        let fault = read(200, r#"{"errcode":48001,"errmsg":"for what-was-sent"}"#).unwrap_err();
        assert_eq!((fault.kind, &*fault.message), (Parked, "for [redacted]"));
        for (status, body, whose) in [
            (502, ticket, Whose::Host),
            (404, ticket, Whose::Account),
            (200, "<html>", Whose::Account),
            (200, r#"{"errcode":0,"ticket":"","expires_in":7200}"#, Whose::Account),
            (200, r#"{"errcode":0,"ticket":"t","expires_in":0}"#, Whose::Account),
            (200, r#"{"errcode":0,"expires_in":7200}"#, Whose::Account),
        ] {
            let fault = read(status, body).unwrap_err();
            assert_eq!((fault.kind, fault.whose), (Transient, whose), "{status} {body}");
        }
        assert_eq!(read_ticket(Err(&Lost::TimedOut), &sent()).unwrap_err().whose, Whose::Host);
    }

    #[test]
    fn a_check_tells_honoured_from_refused_and_both_from_not_knowing() {
        let told = |status, body: &str| read_check(Ok(&answer(status, body)), &sent());
        assert!(matches!(told(200, r#"{"ip_list":["1.2.3.4"]}"#), CheckEnd::Honoured));
        assert!(matches!(told(200, r#"{"errcode":0,"errmsg":"ok"}"#), CheckEnd::Honoured));
        for errcode in TOKEN_REFUSED {
            assert!(matches!(told(200, &format!(r#"{{"errcode":{errcode}}}"#)), CheckEnd::Refused));
        }
        for (status, body) in [
            (200, r#"{"errcode":-1}"#),
            (200, r#"{"errcode":42007}"#),
            (200, r#"{"errcode":48001}"#),
            (200, r#"{"errcode":45009}"#),
            (200, "<html>"),
            (200, "{}"),
            (200, r#"{"ip_list":"1.2.3.4"}"#),
            (200, r#"[0,"ok",null,null,null]"#),
            (502, r#"{"errcode":40001}"#),
            (404, r#"{"ip_list":[]}"#),
        ] {
            assert!(matches!(told(status, body), CheckEnd::Inconclusive(_)), "{status} {body}");
        }
        assert!(matches!(read_check(Err(&Lost::TimedOut), &sent()), CheckEnd::Inconclusive(_)));
    }
}
