//! Reads WeChat's answers: JSON whatever the content type says, and what gateways return instead.

use std::time::Duration;

use wxtokend_core::account::Endpoint;
use wxtokend_core::fault::{Fault, FaultScope, RETIRED_CODES, TOKEN_REFUSED};
use wxtokend_core::secret::Secret;
use wxtokend_core::token::transition::{Answer, CheckEnd, Reply};

use super::body::{AnswerBody, Unreadable, decode, trimmed};
use super::transport::{Lost, Response};

/// The beginning of the plain text with which a retired access point answers every call.
const RETIRED_TEXT: &str = "This ip is no longer use";
/// The reason shown for a retired host.
pub(super) const RETIRED: &str = "a retired access point of WeChat's answers";

/// The end of a token call that brought no token.
#[derive(Debug)]
pub struct FailedFetch {
    /// Why there is none.
    pub fault: Fault,
    /// What that says about whether a token was minted nevertheless.
    pub reply: Reply,
}

/// Reads the answer to a token call that carried the AppSecret `sent`.
///
/// # Errors
/// When the answer brings no token.
pub fn read_token(endpoint: Endpoint, answer: &Response, sent: &Secret) -> Result<Answer, FailedFetch> {
    token_of(endpoint, answer, sent)
        .map_err(|none| FailedFetch { fault: none.fault.not_before(answer.asked_pause()), ..none })
}

fn token_of(endpoint: Endpoint, answer: &Response, sent: &Secret) -> Result<Answer, FailedFetch> {
    let unknown = |fault| FailedFetch { fault, reply: Reply::Unclear };
    if let Some(fault) = retired(answer, sent) {
        return Err(FailedFetch { fault, reply: Reply::Retired });
    }
    match answer.status {
        412 => return Err(FailedFetch { fault: Fault::precondition_failed(), reply: Reply::Refused }),
        504 => return Err(unknown(unclear(endpoint, FaultScope::Host, "HTTP 504 from a gateway"))),
        status @ 500..=599 => return Err(unknown(Fault::host(&format!("HTTP {status} from the host")))),
        _ => {}
    }
    match AnswerBody::of(answer) {
        Ok(AnswerBody { errcode: Some(errcode), errmsg, .. }) if errcode != 0 => {
            Err(FailedFetch { fault: refusal(errcode, &errmsg, sent), reply: Reply::Refused })
        }
        _ if answer.status != 200 => {
            Err(unknown(Fault::unreadable(&format!("HTTP {} from a gateway", answer.status))))
        }
        Ok(AnswerBody { access_token: Some(value), expires_in: Some(seconds @ 1..), .. }) => {
            Ok(Answer { value: Secret::new(value), expires_in: Duration::from_secs(seconds.into()) })
        }
        Ok(_) => Err(unknown(unclear(
            endpoint,
            FaultScope::Account,
            "an answer without a usable access_token and expires_in",
        ))),
        Err(why) => Err(unknown(unclear(endpoint, FaultScope::Account, &why.to_string()))),
    }
}

/// The end of a token call that got no answer.
#[must_use]
pub fn no_answer(endpoint: Endpoint, lost: &Lost) -> FailedFetch {
    let reply = match lost {
        Lost::NotSent(_) => Reply::NotSent,
        Lost::TimedOut => Reply::TimedOut,
        Lost::Cut(_) => Reply::Cut,
    };
    let fault = if reply.may_have_minted() {
        unclear(endpoint, FaultScope::Host, &lost.to_string())
    } else {
        Fault::host(&lost.to_string())
    };
    FailedFetch { fault, reply }
}

/// The fault of an unclear outcome. On `token` the call may have minted; on `stable_token` the next one
/// brings the same token.
fn unclear(endpoint: Endpoint, scope: FaultScope, message: &str) -> Fault {
    match (endpoint, scope) {
        (Endpoint::Token, _) => Fault::unknown_outcome(scope, message),
        (Endpoint::StableToken, FaultScope::Host) => Fault::host(message),
        (Endpoint::StableToken, _) => Fault::unreadable(message),
    }
}

/// Reads the answer to a check of the token `sent`.
#[must_use]
pub fn read_check(answer: Result<&Response, &Lost>, sent: &Secret) -> CheckEnd {
    let answer = match answer {
        Ok(answer) => answer,
        Err(lost) => return CheckEnd::Inconclusive(Fault::host(&lost.to_string())),
    };
    let inconclusive = |fault: Fault| CheckEnd::Inconclusive(fault.not_before(answer.asked_pause()));
    if let Some(fault) = gateway_fault(answer, sent) {
        return inconclusive(fault);
    }
    match AnswerBody::of(answer) {
        Ok(AnswerBody { errcode: Some(errcode), .. }) if TOKEN_REFUSED.contains(&errcode) => {
            CheckEnd::Refused
        }
        Ok(AnswerBody { errcode: Some(errcode), errmsg, .. }) if errcode != 0 => {
            inconclusive(refusal(errcode, &errmsg, sent))
        }
        Ok(AnswerBody { errcode, has_ip_list, .. })
            if answer.status == 200 && (errcode == Some(0) || has_ip_list) =>
        {
            CheckEnd::Honoured
        }
        Ok(_) => inconclusive(Fault::unreadable(&Unreadable::NotJson.to_string())),
        Err(why) => inconclusive(Fault::unreadable(&why.to_string())),
    }
}

/// Reads the answer to a call for a ticket that carried the token `sent`.
///
/// # Errors
/// When the answer brings none; [`Fault::bad_token_for_ticket`] where the token is the cause.
pub(super) fn read_ticket(answer: Result<&Response, &Lost>, sent: &Secret) -> Result<Answer, Fault> {
    let answer = answer.map_err(|lost| Fault::host(&lost.to_string()))?;
    ticket_of(answer, sent).map_err(|fault| fault.not_before(answer.asked_pause()))
}

fn ticket_of(answer: &Response, sent: &Secret) -> Result<Answer, Fault> {
    if let Some(fault) = gateway_fault(answer, sent) {
        return Err(fault);
    }
    match AnswerBody::of(answer) {
        Ok(AnswerBody { errcode: Some(errcode), .. }) if TOKEN_REFUSED.contains(&errcode) => {
            Err(Fault::bad_token_for_ticket(errcode))
        }
        Ok(AnswerBody { errcode: Some(errcode), errmsg, .. }) if errcode != 0 => {
            Err(refusal(errcode, &errmsg, sent))
        }
        Ok(_) if answer.status != 200 => Err(Fault::unreadable(&Unreadable::NotJson.to_string())),
        Ok(AnswerBody { ticket: Some(value), expires_in: Some(seconds @ 1..), .. }) => {
            Ok(Answer { value: Secret::new(value), expires_in: Duration::from_secs(seconds.into()) })
        }
        Ok(_) => Err(Fault::unreadable("an answer without a usable ticket and expires_in")),
        Err(why) => Err(Fault::unreadable(&why.to_string())),
    }
}

/// The fault of a call that cannot mint, when its host is in trouble.
fn gateway_fault(answer: &Response, sent: &Secret) -> Option<Fault> {
    let gateway =
        || (answer.status >= 500).then(|| Fault::host(&format!("HTTP {} from the host", answer.status)));
    retired(answer, sent).or_else(gateway)
}

/// Why an answer, to a call or a probe, shows that its host is in trouble.
pub(super) fn host_trouble(answer: &Response) -> Option<String> {
    match retirement(answer) {
        Some(_) => Some(RETIRED.to_owned()),
        None => (answer.status >= 500).then(|| format!("HTTP {}", answer.status)),
    }
}

/// Whether a retired access point of WeChat answered. It has done nothing, so another host may be tried at
/// once.
pub(super) fn is_retired(answer: &Response) -> bool {
    retirement(answer).is_some()
}

fn retired(answer: &Response, sent: &Secret) -> Option<Fault> {
    let (errcode, text) = retirement(answer)?;
    Some(match errcode {
        Some(errcode) => refusal(errcode, &text, sent),
        None => Fault::retired(&redacted(&text, sent)),
    })
}

/// What a retired access point says of itself, and its errcode where it gives one.
fn retirement(answer: &Response) -> Option<(Option<i64>, String)> {
    let text = match AnswerBody::of(answer) {
        Ok(AnswerBody { errcode: Some(errcode), errmsg, .. }) => {
            return RETIRED_CODES.contains(&errcode).then_some((Some(errcode), errmsg));
        }
        // A host that returned something is not retired.
        Ok(body) if body.access_token.is_some() || body.ticket.is_some() || body.has_ip_list => return None,
        Ok(body) => body.errmsg,
        Err(_) => {
            let text = decode(&answer.body);
            let text = trimmed(&text);
            // The plain text may come as a JSON string, too.
            serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
        }
    };
    let text = trimmed(&text);
    let is_retirement =
        text.get(..RETIRED_TEXT.len()).is_some_and(|start| start.eq_ignore_ascii_case(RETIRED_TEXT));
    is_retirement.then(|| (None, text.to_owned()))
}

/// The fault without the secret that the text may echo. It is redacted first: a fault cuts its text, and half
/// a secret would not be found.
fn refusal(errcode: i64, errmsg: &str, sent: &Secret) -> Fault {
    Fault::from_errcode(errcode, &redacted(errmsg, sent))
}

fn redacted(text: &str, sent: &Secret) -> String {
    text.replace(sent.expose(), "[redacted]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wxtokend_core::fault::FaultKind::{Parked, Transient, UnknownOutcome};
    use wxtokend_core::fault::Wait;

    fn answer(status: u16, body: &str) -> Response {
        Response { status, body: body.as_bytes().to_vec(), date: None, retry_after: None }
    }

    fn bytes(body: &[u8]) -> Response {
        Response { status: 200, body: body.to_vec(), date: None, retry_after: None }
    }

    fn sent() -> Secret {
        Secret::new("what-was-sent")
    }

    #[test]
    fn an_echo_of_what_was_sent_is_not_shown_however_long_it_is() {
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
                    (none.fault.kind, none.reply.may_have_minted()),
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
            assert_eq!((none.fault.kind, none.reply.may_have_minted()), (kind, false), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_one_whatever_its_text_is_on_every_call() {
        let bodies: [&[u8]; 7] = [
            b"{\"errcode\":40164,\"errmsg\":\"invalid ip 1.2.3.4\nnot in whitelist\"}",
            b"{\"errcode\":40164,\"errmsg\":\"1.2.3.4 \xb2\xbb\xd4\xda\xb0\xd7\xc3\xfb\xb5\xa5\"}",
            b"\xef\xbb\xbf{\"errcode\":40164}\r\n",
            br#"{"errcode":"40164","errmsg":"invalid ip 1.2.3.4"}"#,
            br#"{"errcode":40164.0,"errmsg":17}"#,
            br#"{"errcode":40164,"errmsg":{"text":"invalid ip"},"access_token":""}"#,
            br#"{"errcode":40164,"errmsg":"not in "whitelist"","ticket":null}"#,
        ];
        for answer in bodies.map(bytes) {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            for endpoint in [Endpoint::Token, Endpoint::StableToken] {
                let none = read_token(endpoint, &answer, &sent()).unwrap_err();
                assert_eq!((none.fault.kind, none.reply.may_have_minted()), (Parked, false), "{text}");
            }
            let CheckEnd::Inconclusive(fault) = read_check(Ok(&answer), &sent()) else { panic!("{text}") };
            assert_eq!((fault.kind, fault.errcode), (Parked, Some(40164)), "{text}");
            let fault = read_ticket(Ok(&answer), &sent()).unwrap_err();
            assert_eq!((fault.kind, fault.errcode), (Parked, Some(40164)), "{text}");
        }
        let dead = bytes(b"{\"errcode\":\"40001\",\"errmsg\":\"\xce\xde\xd0\xa7\"}");
        assert!(matches!(read_check(Ok(&dead), &sent()), CheckEnd::Refused));
        assert!(read_ticket(Ok(&dead), &sent()).unwrap_err().is_bad_token_for_ticket());
    }

    #[test]
    fn a_token_together_with_a_refusal_is_neither() {
        let both =
            bytes(br#"{"errcode":40001,"errmsg":"x","access_token":"t","ticket":"t","expires_in":7200}"#);
        let none = read_token(Endpoint::Token, &both, &sent()).unwrap_err();
        assert_eq!((none.fault.kind, none.reply.may_have_minted()), (UnknownOutcome, true));
        assert_eq!(read_token(Endpoint::StableToken, &both, &sent()).unwrap_err().fault.kind, Transient);
        assert!(matches!(read_check(Ok(&both), &sent()), CheckEnd::Inconclusive(_)));
        assert!(!read_ticket(Ok(&both), &sent()).unwrap_err().is_bad_token_for_ticket());
    }

    #[test]
    fn what_a_retired_access_point_answers_is_its_hosts_fault_and_has_minted_nothing() {
        for (status, body, errcode) in [
            (200, r#"{"errcode":410,"errmsg":"server IP address changed rid: 5f-1"}"#, Some(410)),
            (200, r#"{"errcode":48017,"errmsg":"this weixin server ip address go offline"}"#, Some(48017)),
            (200, r#"{"errcode":"410"}"#, Some(410)),
            (404, r#"{"errcode":48017,"errmsg":"x"}"#, Some(48017)),
            (200, "This ip is no longer used, resolve api.weixin.qq.com what-was-sent", None),
            (200, "\u{feff}\r\n this IP is no longer use", None),
            (503, "This ip is no longer use", None),
            (200, r#"{"errmsg":"This ip is no longer used, resolve api.weixin.qq.com what-was-sent"}"#, None),
            (200, r#"{"errcode":null,"errmsg":" this ip is no longer use"}"#, None),
            (404, r#""This ip is no longer used, what-was-sent""#, None),
        ] {
            let answer = answer(status, body);
            let is_hosts = |fault: &Fault| {
                assert_eq!(
                    (fault.kind, fault.scope, fault.errcode),
                    (Transient, FaultScope::Host, errcode),
                    "{body}"
                );
                assert!(fault.advice.contains("hosts file"), "{}", fault.advice);
                assert!(!fault.message.contains("what-was-sent"), "{}", fault.message);
            };
            for endpoint in [Endpoint::Token, Endpoint::StableToken] {
                let none = read_token(endpoint, &answer, &sent()).unwrap_err();
                assert!(!none.reply.may_have_minted(), "{body}");
                is_hosts(&none.fault);
            }
            let CheckEnd::Inconclusive(fault) = read_check(Ok(&answer), &sent()) else { panic!("{body}") };
            is_hosts(&fault);
            is_hosts(&read_ticket(Ok(&answer), &sent()).unwrap_err());
            assert_eq!(host_trouble(&answer).as_deref(), Some(RETIRED));
        }
        for body in [
            r#"{"errcode":41001}"#,
            r#"{"data":{"errcode":410}}"#,
            "<p>This ip is no longer use",
            "This",
            r#"{"errmsg":"x"}"#,
            r#"{"access_token":"t","expires_in":7200,"errmsg":"This ip is no longer use"}"#,
            r#"{"errcode":-1,"errmsg":"This ip is no longer use"}"#,
        ] {
            assert!(!is_retired(&answer(200, body)), "{body}");
        }
    }

    #[test]
    fn a_pause_that_an_answer_asks_for_is_kept_on_every_call() {
        let asking = |status, body: &str| Response {
            retry_after: Some(Duration::from_secs(30)),
            ..answer(status, body)
        };
        let kept = Wait::NotBefore(Duration::from_secs(30));
        for answer in [asking(503, ""), asking(429, "<html>"), asking(429, r#"{"errcode":-1}"#)] {
            for endpoint in [Endpoint::Token, Endpoint::StableToken] {
                assert_eq!(read_token(endpoint, &answer, &sent()).unwrap_err().fault.wait, kept);
            }
            assert_eq!(read_ticket(Ok(&answer), &sent()).unwrap_err().wait, kept);
            let CheckEnd::Inconclusive(fault) = read_check(Ok(&answer), &sent()) else { panic!("it told") };
            assert_eq!(fault.wait, kept);
        }
        let other = read_token(Endpoint::Token, &asking(502, ""), &sent()).unwrap_err();
        assert_eq!(other.fault.wait, Wait::BackOff, "elsewhere the header means something else");
    }

    #[test]
    fn the_trouble_of_a_host_is_distinguished_from_an_accounts() {
        let scope_of =
            |endpoint, response: &Response| read_token(endpoint, response, &sent()).unwrap_err().fault.scope;
        for endpoint in [Endpoint::Token, Endpoint::StableToken] {
            assert_eq!(scope_of(endpoint, &answer(502, "")), FaultScope::Host);
            assert_eq!(scope_of(endpoint, &answer(504, "")), FaultScope::Host);
            assert_eq!(scope_of(endpoint, &answer(200, "<html>")), FaultScope::Account);
            for lost in [Lost::NotSent("x".into()), Lost::TimedOut, Lost::Cut("x".into())] {
                assert_eq!(no_answer(endpoint, &lost).fault.scope, FaultScope::Host);
            }
        }
        assert!(!no_answer(Endpoint::Token, &Lost::NotSent("x".into())).reply.may_have_minted());
        assert_eq!(no_answer(Endpoint::Token, &Lost::TimedOut).fault.kind, UnknownOutcome);
        assert_eq!(no_answer(Endpoint::StableToken, &Lost::TimedOut).fault.kind, Transient);
    }

    #[test]
    fn a_ticket_a_refused_token_and_trouble_are_distinguished() {
        let read = |status, body: &str| read_ticket(Ok(&answer(status, body)), &sent());
        let ticket = r#"{"errcode":0,"errmsg":"ok","ticket":"t","expires_in":7200}"#;
        let found = read(200, ticket).unwrap();
        assert_eq!((found.value.expose(), found.expires_in), ("t", Duration::from_secs(7200)));
        for errcode in [40001, 40014, 42001] {
            let fault = read(200, &format!(r#"{{"errcode":{errcode},"errmsg":"x"}}"#)).unwrap_err();
            assert!(fault.is_bad_token_for_ticket() && fault.errcode == Some(errcode), "{fault:?}");
        }
        let fault = read(200, r#"{"errcode":48001,"errmsg":"for what-was-sent"}"#).unwrap_err();
        assert_eq!((fault.kind, &*fault.message), (Parked, "for [redacted]"));
        for (status, body, scope) in [
            (502, ticket, FaultScope::Host),
            (404, ticket, FaultScope::Account),
            (200, "<html>", FaultScope::Account),
            (200, r#"{"errcode":0,"ticket":"","expires_in":7200}"#, FaultScope::Account),
            (200, r#"{"errcode":0,"ticket":"t","expires_in":0}"#, FaultScope::Account),
            (200, r#"{"errcode":0,"expires_in":7200}"#, FaultScope::Account),
        ] {
            let fault = read(status, body).unwrap_err();
            assert_eq!((fault.kind, fault.scope), (Transient, scope), "{status} {body}");
        }
        assert_eq!(read_ticket(Err(&Lost::TimedOut), &sent()).unwrap_err().scope, FaultScope::Host);
    }

    #[test]
    fn a_check_is_honoured_refused_or_inconclusive() {
        let check = |status, body: &str| read_check(Ok(&answer(status, body)), &sent());
        assert!(matches!(check(200, r#"{"ip_list":["1.2.3.4"]}"#), CheckEnd::Honoured));
        assert!(matches!(check(200, r#"{"errcode":0,"errmsg":"ok"}"#), CheckEnd::Honoured));
        for errcode in TOKEN_REFUSED {
            assert!(matches!(check(200, &format!(r#"{{"errcode":{errcode}}}"#)), CheckEnd::Refused));
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
            assert!(matches!(check(status, body), CheckEnd::Inconclusive(_)), "{status} {body}");
        }
        assert!(matches!(read_check(Err(&Lost::TimedOut), &sent()), CheckEnd::Inconclusive(_)));
    }
}
