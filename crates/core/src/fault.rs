//! What can go wrong with a call to WeChat, whom it affects, and what the operator should do.
//!
//! To add an errcode, add a row to [`table::TABLE`] and to its test, and run `cargo xtask gen`.

use std::time::Duration;

use advice::Advice;
use kind::{HOUR, MINUTE, PARKED};
use table::classify;

pub mod advice;
mod kind;
pub mod table;

pub use kind::{FaultKind, FaultScope, Wait};
pub use table::RETIRED_CODES;

/// A classified failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How it is treated.
    pub kind: FaultKind,
    /// Whom the failure affects.
    pub scope: FaultScope,
    /// WeChat's code, if it gave one.
    pub errcode: Option<i64>,
    /// What happened, in one sentence without secrets.
    pub message: String,
    /// What the operator should do.
    pub advice: String,
    /// WeChat's request ID, which its support asks for.
    pub rid: Option<String>,
    /// When to try again.
    pub wait: Wait,
}

/// Longest pause that is honoured for a failing host: a fleet should be fresh within a minute of its
/// recovery.
pub const LONGEST_HOST_PAUSE: Duration = MINUTE;
/// Longest requested pause that is honoured for an account: as long as after 45009.
const LONGEST_PAUSE: Duration = HOUR;
/// Codes with which business calls report that the token is bad.
pub const TOKEN_REFUSED: [i64; 3] = [40001, 40014, 42001];
/// Longer texts are cut: WeChat's are shorter, a gateway's page is not.
const MESSAGE_CHARS: usize = 300;

impl Fault {
    /// An API error: HTTP 200 with an `errcode` other than 0.
    #[must_use]
    pub fn from_errcode(errcode: i64, errmsg: &str) -> Self {
        let (kind, scope, wait, advice) = classify(errcode, errmsg);
        Self { kind, scope, errcode: Some(errcode), message: tidy(errmsg), advice, rid: rid(errmsg), wait }
    }

    /// The host cannot be reached, or its gateway answers in its place.
    #[must_use]
    pub fn host(message: &str) -> Self {
        Self::without_code(FaultKind::Transient, FaultScope::Host, message, advice::NETWORK, Wait::BackOff)
    }

    /// An access point that WeChat has retired gave an answer without an errcode.
    #[must_use]
    pub fn retired(message: &str) -> Self {
        Self::without_code(
            FaultKind::Transient,
            FaultScope::Host,
            message,
            advice::RETIRED_HOST,
            Wait::BackOff,
        )
    }

    /// The same fault, not to be retried before `pause`, as the answer requested (`Retry-After`). The pause
    /// is capped at a minute for a host and at an hour for an account.
    #[must_use]
    pub fn not_before(self, pause: Option<Duration>) -> Self {
        let longest = if self.scope == FaultScope::Host { LONGEST_HOST_PAUSE } else { LONGEST_PAUSE };
        let Some(pause) = pause.map(|pause| pause.min(longest)) else { return self };
        let wait = match self.wait {
            Wait::For(time) | Wait::Every(time) => Wait::For(time.max(pause)),
            Wait::NotBefore(time) => Wait::NotBefore(time.max(pause)),
            Wait::BackOff | Wait::UpTo(_) => Wait::NotBefore(pause),
        };
        Self { wait, ..self }
    }

    /// A call on `token` whose answer was lost: it may have minted.
    #[must_use]
    pub fn unknown_outcome(scope: FaultScope, message: &str) -> Self {
        Self::without_code(FaultKind::UnknownOutcome, scope, message, advice::OUTCOME_UNKNOWN, Wait::BackOff)
    }

    /// An answer that is not from WeChat's API, to a call that is harmless to repeat.
    #[must_use]
    pub fn unreadable(message: &str) -> Self {
        Self::without_code(FaultKind::Transient, FaultScope::Account, message, advice::GATEWAY, Wait::BackOff)
    }

    /// HTTP 412: WeChat wants a Content-Length.
    #[must_use]
    pub fn precondition_failed() -> Self {
        Self::without_code(
            FaultKind::Parked,
            FaultScope::Account,
            "HTTP 412: the request reached WeChat without Content-Length",
            advice::LENGTH_REQUIRED,
            PARKED,
        )
    }

    /// Our own daily budget is spent; the next call is allowed in `free_in`.
    #[must_use]
    pub fn budget_exhausted(daily_budget: u32, free_in: Duration) -> Self {
        Self::without_code(
            FaultKind::Throttled,
            FaultScope::Budget,
            &format!("the daily budget of {daily_budget} calls is spent"),
            advice::OWN_BUDGET,
            Wait::For(free_in),
        )
    }

    /// WeChat rejects the very token that it hands out.
    #[must_use]
    pub fn dead_token_issued() -> Self {
        Self::without_code(
            FaultKind::Transient,
            FaultScope::Account,
            "WeChat refuses the token that it hands out",
            advice::FORCED_BY_OTHERS,
            Wait::For(Duration::ZERO),
        )
    }

    /// WeChat rejected a call because of the token it carried.
    #[must_use]
    pub fn bad_token_for_ticket(errcode: i64) -> Self {
        let fault = Self::without_code(
            FaultKind::Transient,
            FaultScope::Account,
            "WeChat refused the access_token that the ticket was asked for with",
            advice::TOKEN_REFUSED,
            Wait::BackOff,
        );
        Self { errcode: Some(errcode), ..fault }
    }

    /// Whether it is [`Fault::bad_token_for_ticket`].
    #[must_use]
    pub fn is_bad_token_for_ticket(&self) -> bool {
        self.kind == FaultKind::Transient && self.blames_token()
    }

    /// WeChat rejected a ticket call with the code for a bad token, although it honours the token.
    #[must_use]
    pub fn ticket_not_allowed(errcode: i64) -> Self {
        let fault = Self::without_code(
            FaultKind::Parked,
            FaultScope::Account,
            "WeChat refuses the ticket as if the access_token were bad, and honours that token",
            advice::TICKET_NOT_ALLOWED,
            PARKED,
        );
        Self { errcode: Some(errcode), ..fault }
    }

    /// Whether the errcode is one with which WeChat reports a bad token.
    #[must_use]
    pub fn blames_token(&self) -> bool {
        self.errcode.is_some_and(|errcode| TOKEN_REFUSED.contains(&errcode))
    }

    /// Whether the fault itself says when to ask again: a quota, an administrator's refusal, a `Retry-After`.
    #[must_use]
    pub fn says_when(&self) -> bool {
        self.kind == FaultKind::Throttled || matches!(self.wait, Wait::For(_) | Wait::NotBefore(_))
    }

    /// Whether it says nothing about the account: WeChat was not reached, or the call did not get far enough.
    #[must_use]
    pub fn says_nothing_of_the_account(&self) -> bool {
        self.scope != FaultScope::Account
            || matches!(self.errcode, None | Some(-1))
            || self.is_bad_token_for_ticket()
    }

    /// A failure inside this program while the call was under way.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self::without_code(FaultKind::Transient, FaultScope::Account, message, advice::BUG, Wait::BackOff)
    }

    /// The errcode as a label: `none` if there is none.
    #[must_use]
    pub fn errcode_label(&self) -> String {
        errcode_label(self.errcode)
    }

    fn without_code(kind: FaultKind, scope: FaultScope, message: &str, advice: Advice, wait: Wait) -> Self {
        Self {
            kind,
            scope,
            errcode: None,
            message: tidy(message),
            advice: advice.en.to_owned(),
            rid: None,
            wait,
        }
    }
}

/// WeChat's code as a label: `none` if it gave none.
pub fn errcode_label(errcode: Option<i64>) -> String {
    errcode.map_or_else(|| "none".to_owned(), |code| code.to_string())
}

/// Extracts the request ID that most of WeChat's error texts end with: `rid: 5f1c2a3b-12ab34cd-0a1b2c3d`.
fn rid(errmsg: &str) -> Option<String> {
    let (_, tail) = errmsg.split_once("rid:")?;
    let id: String =
        tail.trim_start().chars().take_while(|c| c.is_ascii_hexdigit() || *c == '-').take(64).collect();
    (!id.is_empty()).then_some(id)
}

/// Reduces `message` to one line of bounded length without control characters.
fn tidy(message: &str) -> String {
    // Some log viewers treat the last two as line ends.
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let one_line: String =
        message.chars().map(|c| if breaks(c) { ' ' } else { c }).take(MESSAGE_CHARS).collect();
    one_line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::FaultKind::{Parked, Throttled, Transient};
    use super::*;

    #[test]
    fn every_errcode_has_its_kind_wait_and_advice() {
        let minutes = |n: u64| Wait::For(Duration::from_secs(60 * n));
        let parked = Wait::Every(Duration::from_secs(300));
        let expected: &[(&[i64], FaultKind, Wait, &str)] = &[
            (&[-1], Transient, Wait::BackOff, "busy"),
            (&[45011], Throttled, minutes(1), "per minute"),
            (&[45009], Throttled, minutes(60), "quota reset"),
            (&[40001, 40125], Parked, parked, "right one into the file"),
            (&[40013], Parked, parked, "correct it in the file"),
            (&[40002, 41002, 41004, 43002, 44002, 47001], Parked, parked, "bug of ours"),
            (&[410, 48017], Transient, Wait::BackOff, "is retired: remove it from the hosts file"),
            (&[40164, 61004], Parked, parked, "IP whitelist"),
            (&[40243], Parked, parked, "unfreeze"),
            (&[48001, 48004, 50002, 50004, 50007], Parked, parked, "console"),
            (&[61024], Parked, parked, "third-party platform"),
            (&[89501, 89502, 89503, 89504, 89505], Parked, parked, "administrator"),
            (&[89507], Parked, minutes(60), "1 hour"),
            (&[89506], Parked, minutes(24 * 60), "24 hours"),
            (&[12345, 99999, -2], Parked, Wait::UpTo(Duration::from_secs(600)), "does not know"),
        ];
        for (codes, kind, wait, advice) in expected {
            for code in *codes {
                let fault = Fault::from_errcode(*code, "x");
                let scope = if advice.contains("retired") { FaultScope::Host } else { FaultScope::Account };
                assert_eq!((fault.kind, fault.wait, fault.scope), (*kind, *wait, scope), "{code}");
                assert!(fault.advice.contains(advice), "{code}: {}", fault.advice);
                assert_eq!(fault.errcode, Some(*code));
            }
        }
        let tested: Vec<_> = expected.iter().flat_map(|(codes, ..)| *codes).collect();
        let rows = table::TABLE.iter().flat_map(|group| group.rows);
        let untested: Vec<_> =
            rows.flat_map(|row| row.errcodes).filter(|code| !tested.contains(code)).collect();
        assert!(untested.is_empty(), "add {untested:?} to this test");
    }

    #[test]
    fn a_failure_without_an_errcode_is_classified_as_its_row_of_the_table_says() {
        let host = FaultScope::Host;
        for (cause, fault) in [
            ("none: connect error", Fault::host("x")),
            ("none: \"This ip is no longer use", Fault::retired("x")),
            ("none: a gateway's page", Fault::unreadable("x")),
            ("none: answer lost", Fault::unknown_outcome(FaultScope::Account, "x")),
            ("none: our own budget", Fault::budget_exhausted(1, Duration::ZERO)),
            ("HTTP 412", Fault::precondition_failed()),
            ("any other errcode", Fault::from_errcode(12_345, "x")),
        ] {
            let others = |group: &table::FaultGroup| group.others.filter(|it| it.text.en.starts_with(cause));
            let found = table::TABLE.iter().find_map(|group| Some((group, others(group)?)));
            let (group, others) = found.expect(cause);
            assert_eq!((fault.kind, fault.scope == host), (group.kind, group.scope == host), "{cause}");
            assert_eq!(fault.advice, others.advice.en, "{cause}");
        }
        assert_eq!(table::TABLE.iter().filter(|group| group.others.is_some()).count(), 7, "all of them");
    }

    #[test]
    fn the_advice_for_an_ip_that_is_not_whitelisted_names_the_ip_that_wechat_saw() {
        for (errcode, errmsg, ip) in [
            (
                40164,
                "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 5f-1",
                "203.0.113.7",
            ),
            (40164, "invalid ip 2001:db8::1, not in whitelist", "2001:db8::1"),
            (61004, "access clientip is not registered requestIP: 203.0.113.7 rid: 5f-1", "203.0.113.7"),
            (61004, "access clientip is not registered hint: [x] requestIP:203.0.113.7", "203.0.113.7"),
            (61004, "access clientip is not registered requestIP: 2001:db8::1", "2001:db8::1"),
        ] {
            let fault = Fault::from_errcode(errcode, errmsg);
            assert_eq!(fault.kind, Parked);
            assert!(fault.advice.contains(&format!("add IP {ip} to")), "{}", fault.advice);
        }
        for errcode in [40164, 61004] {
            assert!(Fault::from_errcode(errcode, "invalid ip").advice.contains("this machine's address"));
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_kept_but_for_a_minute_at_most_for_a_host_and_an_hour_for_an_account() {
        let seconds = Duration::from_secs;
        let asked = |fault: Fault, s| fault.not_before(Some(seconds(s))).wait;
        assert_eq!(asked(Fault::host("x"), 30), Wait::NotBefore(seconds(30)));
        assert_eq!(asked(Fault::host("x"), 86_400), Wait::NotBefore(seconds(60)));
        assert_eq!(asked(Fault::unreadable("x"), 600), Wait::NotBefore(seconds(600)));
        assert_eq!(asked(Fault::unreadable("x"), 86_400), Wait::NotBefore(seconds(3600)));
        assert_eq!(asked(Fault::from_errcode(45011, ""), 600), Wait::For(seconds(600)));
        assert_eq!(
            asked(Fault::from_errcode(45011, ""), 5),
            Wait::For(seconds(60)),
            "its own wait is longer"
        );
        assert_eq!(asked(Fault::from_errcode(12_345, ""), 600), Wait::NotBefore(seconds(600)));
        assert_eq!(Fault::host("x").not_before(None), Fault::host("x"));
    }

    #[test]
    fn the_rid_is_kept_for_support() {
        let fault = Fault::from_errcode(-1, "system error rid: 65a1b2c3-0012ffee-77aa88bb");
        assert_eq!(fault.rid.as_deref(), Some("65a1b2c3-0012ffee-77aa88bb"));
        assert_eq!(Fault::from_errcode(-1, "system error").rid, None);
        assert_eq!(Fault::from_errcode(-1, "rid:").rid, None);
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let fault = Fault::host(&format!("a\nb\x1b[31m\u{2028}{}", "x".repeat(1000)));
        assert!(fault.message.starts_with("a b [31m x") && fault.message.chars().count() <= MESSAGE_CHARS);
    }
}
