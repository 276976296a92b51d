use std::time::Duration;

use super::*;
use crate::fault::FaultScope;
use crate::secret::Secret;
use crate::token::rejection::{RequestDecision, decide_rejection};
use crate::token::state::{Activity, Verdict};

const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
const RULES: Rules = Rules::EXAMPLE;
const BOTH: [Endpoint; 2] = [Endpoint::StableToken, Endpoint::Token];

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Moment {
    START + s(seconds)
}

/// An account and its state, to run calls on.
struct Fixture {
    account: Account,
    state: AccountState,
}

impl Fixture {
    fn empty(endpoint: Endpoint) -> Self {
        Self { account: Account::example(endpoint), state: AccountState::default() }
    }

    /// With the token `access-token-1`, issued at [`START`] for 7200 s.
    fn holding(endpoint: Endpoint) -> Self {
        let mut fixture = Self::empty(endpoint);
        fixture.state.version = 1;
        fixture.state.token = Some(Arc::new(HeldToken::example(&fixture.account, START, s(7200))));
        fixture
    }

    fn begin(&mut self, force: bool, now: Moment) {
        self.state.begin_fetch(&self.account, force, now).unwrap();
    }

    fn end(&mut self, end: FetchEnd, now: Moment) -> Fetched {
        self.state.end_fetch(end, &self.account, RULES, now, Draw::alone(0.5))
    }

    /// A call answered with `value` a second later.
    fn fetch(&mut self, force: bool, value: &str, seconds: u64, now: Moment) -> Fetched {
        self.begin(force, now);
        self.end(answered(force, value, seconds, now), now + s(1))
    }

    /// A call that fails a second after it was sent.
    fn fail(&mut self, fault: Fault, may_have_minted: bool, now: Moment) -> Fetched {
        self.begin(false, now);
        let end = FetchEnd { force: false, sent_at: Some(now), may_have_minted, result: Err(fault) };
        self.end(end, now + s(1))
    }

    fn check(&mut self, end: &CheckEnd, now: Moment) {
        self.state.end_check(end, &self.account, now);
    }

    fn reject(&mut self, now: Moment) -> RequestDecision {
        let value = self.held().value.clone();
        decide_rejection(&mut self.state, &self.account, &value, now)
    }

    fn held(&self) -> &HeldToken {
        self.state.token.as_deref().unwrap()
    }

    fn spent(&self, now: Moment) -> u32 {
        1000 - self.state.ledger.remaining(Bucket::Calls, self.account.settings.daily_budget, now)
    }
}

fn answered(force: bool, value: &str, seconds: u64, sent_at: Moment) -> FetchEnd {
    let answer = Answer { value: Secret::new(value), expires_in: s(seconds) };
    FetchEnd { force, sent_at: Some(sent_at), may_have_minted: false, result: Ok(answer) }
}

fn busy() -> Fault {
    Fault::from_errcode(-1, "system error")
}

fn lost() -> Fault {
    Fault::unknown_outcome(FaultScope::Host, "timed out")
}

#[test]
fn a_first_token_is_counted_from_when_its_request_was_sent() {
    for endpoint in BOTH {
        let mut fixture = Fixture::empty(endpoint);
        fixture.begin(false, START);
        assert_eq!(fixture.end(answered(false, "a", 7200, at(1)), at(4)), Fetched::New);
        let held = fixture.held();
        assert_eq!((held.issued_at, held.expires_at), (at(1), at(7201)));
        assert_eq!((held.overlap, held.endpoint, held.validity), (s(300), endpoint, Validity::Good));
        assert_eq!(fixture.state.attempts_ended, 1);
        assert!(fixture.state.last_failure.is_none() && fixture.state.is_usable(at(4)));
    }
}

#[test]
fn an_account_that_left_thousands_waiting_for_their_first_token_is_part_of_a_thundering_herd() {
    let usual = s(5400);
    for (holds_one, others_waiting, wait) in [
        (false, HERD_SIZE, s(3150)),
        (false, HERD_SIZE - 1, usual),
        // If a slow call queue alone counted as a herd, each account would ask more often, and the queue
        // would be slower.
        (true, HERD_SIZE, usual),
    ] {
        let mut fixture =
            if holds_one { Fixture::holding(Endpoint::Token) } else { Fixture::empty(Endpoint::Token) };
        fixture.state.others_waiting = others_waiting;
        fixture.fetch(false, "b", 7200, START);
        assert_eq!(fixture.held().refresh_at, START + wait, "{holds_one} {others_waiting}");
        // Only once.
        let next = fixture.held().refresh_at;
        fixture.fetch(false, "c", 7200, next);
        assert_eq!(fixture.held().refresh_at, next + usual);
    }
}

#[test]
fn versions_start_at_the_unix_time_and_count_up() {
    let mut fixture = Fixture::empty(Endpoint::Token);
    fixture.fetch(false, "a", 7200, START);
    assert_eq!(fixture.state.version, 1_790_000_001);
    fixture.fetch(false, "b", 7200, at(5400));
    assert_eq!((fixture.state.version, fixture.held().version), (1_790_000_002, 1_790_000_002));
}

#[test]
fn a_version_outlives_its_token() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.state.token = None;
    fixture.fetch(false, "b", 7200, at(10));
    assert_eq!(fixture.state.version, 2);
}

#[test]
fn a_clock_before_1970_still_gives_a_version() {
    let mut fixture = Fixture::empty(Endpoint::Token);
    let odd = Moment { wall_ms: -5_000_000, boot_ms: 1000 };
    fixture.fetch(false, "a", 7200, odd);
    assert_eq!(fixture.state.version, 1);
}

#[test]
fn a_repeated_token_keeps_its_version_and_takes_its_remaining_life() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    assert_eq!(fixture.fetch(false, "access-token-1", 345, at(6000)), Fetched::Same);
    let held = fixture.held();
    assert_eq!((held.version, held.issued_at, held.expires_at), (1, START, at(6345)));
    assert_eq!(held.overlap, s(300));
    assert_eq!(held.refresh_at, at(6045) + s(300).mul_f64(0.185), "its window opens 300 s before its end");
    assert_eq!(fixture.state.attempts_ended, 1);
}

#[test]
fn a_token_first_met_with_345_s_left_is_asked_for_in_its_last_quarter() {
    let mut fixture = Fixture::empty(Endpoint::StableToken);
    fixture.fetch(false, "a", 345, START);
    let overlap = s(345) / 4;
    assert_eq!(fixture.held().overlap, overlap);
    assert_eq!(fixture.held().refresh_at, at(345) - overlap + overlap.mul_f64(0.185));
}

#[test]
fn a_token_repeated_within_its_window_is_asked_for_ever_later() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    let (mut now, mut calls) = (at(6950), 0);
    while fixture.state.is_usable(now) {
        let left = fixture.held().expires_at.until(now).as_secs();
        fixture.fetch(false, "access-token-1", left, now);
        let due = fixture.held().refresh_at;
        assert!(due.until(now) >= s(2) || due == fixture.held().expires_at);
        (now, calls) = (due, calls + 1);
    }
    assert!(calls <= 8, "{calls} calls in the last 250 s");
}

#[test]
fn a_token_that_arrives_dead_is_a_failure_to_back_off_from() {
    let mut fixture = Fixture::empty(Endpoint::StableToken);
    for failures in 1..4 {
        assert_eq!(
            fixture.fetch(false, "a", 0, START),
            if failures == 1 { Fetched::New } else { Fetched::Same }
        );
        let last_failure = fixture.state.last_failure.as_deref().unwrap();
        assert_eq!(last_failure.failures, failures);
        assert!(last_failure.retry_at.until(at(1)) >= s(2));
        assert!(fixture.state.read(at(1)).is_none());
    }
    fixture.fetch(false, "b", 7200, at(10));
    assert!(fixture.state.last_failure.is_none());
}

#[test]
fn every_call_is_charged_and_only_one_that_sent_nothing_is_given_back() {
    for (sent, spent) in [(true, 1), (false, 0)] {
        let mut fixture = Fixture::holding(Endpoint::Token);
        fixture.begin(false, START);
        assert_eq!(fixture.spent(START), 1, "before it is sent");
        let sent_at = sent.then_some(START);
        let result = Err(Fault::host("refused"));
        fixture.end(FetchEnd { force: false, sent_at, may_have_minted: false, result }, START);
        assert_eq!(fixture.spent(START), spent);
    }
}

#[test]
fn a_spent_budget_changes_nothing_but_says_when() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.account.settings.daily_budget = 4;
    fixture.state.want = Some(WantedCall::Fetch(Reason::Operator));
    fixture.begin(false, START);
    fixture.begin(false, START);
    fixture.state.intent = None;
    fixture.state.want = Some(WantedCall::Check);
    let free_at = fixture.state.begin_fetch(&fixture.account, true, START).unwrap_err();
    assert_eq!(free_at, at(12 * 3600));
    assert!(
        fixture.state.intent.is_none() && fixture.state.forced.is_empty() && fixture.state.want.is_some()
    );
    let fault = Fault::budget_exhausted(4, free_at.until(START));
    assert_eq!(fixture.state.refuse_fetch(fault, &fixture.account, START, 0.5), Fetched::Failed);
    let last_failure = fixture.state.last_failure.as_deref().unwrap();
    assert_eq!(
        (last_failure.retry_at, last_failure.awaits_host, fixture.state.attempts_ended),
        (free_at, false, 1)
    );
    assert_eq!(fixture.state.want, None);
}

#[test]
fn a_forced_call_is_remembered_unless_it_sent_nothing() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.fetch(true, "b", 7200, at(100));
    // Counted from its end: WeChat counts from when it got the call.
    assert_eq!(fixture.state.forced, [at(101)]);
    fixture.begin(true, at(200));
    let result = Err(Fault::host("refused"));
    fixture.end(FetchEnd { force: true, sent_at: None, may_have_minted: false, result }, at(200));
    assert_eq!(fixture.state.forced, [at(101)]);
    fixture.fetch(false, "b", 7000, at(300));
    assert_eq!(fixture.state.forced, [at(101)], "a normal call is none");
    fixture.begin(true, at(101) + DAY);
    assert_eq!(fixture.state.forced, [at(101) + DAY], "a day later it is forgotten");
}

#[test]
fn what_a_call_puts_at_risk_is_noted_before_it_is_sent() {
    let intent = |trusted_until| Some(Intent { at: at(10), trusted_until });
    for (endpoint, force, expected) in [
        (Endpoint::Token, false, intent(at(310))),
        (Endpoint::StableToken, false, None),
        (Endpoint::StableToken, true, intent(at(10))),
    ] {
        let mut fixture = Fixture::holding(endpoint);
        fixture.begin(force, at(10));
        assert_eq!(fixture.state.intent, expected, "{endpoint:?} {force}");
        let mut empty = Fixture::empty(endpoint);
        empty.begin(force, at(10));
        assert_eq!(empty.state.intent, expected.and(intent(at(10))), "it is the next one that it may end");
    }
}

#[test]
fn a_call_of_the_other_endpoint_puts_nothing_at_risk() {
    for endpoint in BOTH {
        let mut fixture = Fixture::holding(endpoint);
        fixture.account = Account::example(BOTH[usize::from(endpoint == BOTH[0])]);
        fixture.begin(true, at(10));
        assert_eq!(fixture.state.usable_for(at(10)), s(7189));
        let end = answered(true, "b", 7200, at(10));
        assert_eq!(fixture.end(end, at(11)), Fetched::New);
        assert_eq!(fixture.held().endpoint, fixture.account.settings.endpoint);
    }
}

#[test]
fn a_token_is_not_served_while_it_is_being_forced_away_and_again_when_that_failed() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.begin(true, at(10));
    assert!(!fixture.state.is_usable(at(10)));
    let end = FetchEnd { force: true, sent_at: Some(at(10)), may_have_minted: false, result: Err(busy()) };
    fixture.end(end, at(11));
    assert_eq!(fixture.state.usable_for(at(11)), s(7188));
}

#[test]
fn a_lost_forced_call_takes_the_token_out_of_service_until_a_normal_one_settles_it() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.begin(true, at(10));
    let result = Err(Fault::host("timed out"));
    fixture.end(FetchEnd { force: true, sent_at: Some(at(10)), may_have_minted: true, result }, at(15));
    assert!(!fixture.state.is_usable(at(15)));
    assert_eq!(fixture.fetch(false, "access-token-1", 7100, at(20)), Fetched::Same);
    assert!(fixture.state.is_usable(at(21)) && fixture.state.doubt.is_none());
}

#[test]
fn a_lost_answer_puts_the_token_in_doubt_from_when_the_call_began() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.begin(false, at(5400));
    fixture.end(
        FetchEnd { force: false, sent_at: Some(at(5401)), may_have_minted: true, result: Err(lost()) },
        at(5406),
    );
    // A call delivered as late as possible shows 300 s after that, plus the margin.
    let doubt = Doubt { until: at(5700), check_at: at(5737), checked: false };
    assert_eq!((fixture.state.doubt, fixture.state.audit_at), (Some(doubt), Some(at(5737))));
    assert_eq!(fixture.state.usable_for(at(5406)), s(293));
    let last_failure = fixture.state.last_failure.as_deref().unwrap();
    assert_eq!((last_failure.failures, last_failure.awaits_host), (1, true));
}

#[test]
fn a_second_lost_answer_adds_to_the_doubt() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(5400));
    fixture.state.doubt.as_mut().unwrap().checked = true;
    fixture.fail(lost(), true, at(5700));
    assert_eq!(fixture.state.doubt, Some(Doubt { until: at(5700), check_at: at(6036), checked: false }));
}

#[test]
fn a_lost_answer_without_a_token_leaves_the_next_one_in_no_doubt_once_it_is_over() {
    let mut fixture = Fixture::empty(Endpoint::Token);
    fixture.fail(lost(), true, START);
    fixture.fetch(false, "a", 7200, at(34));
    let doubt = Doubt { until: at(334), check_at: at(336), checked: false };
    assert_eq!(fixture.state.doubt, Some(doubt), "it may arrive still");
    fixture.fetch(false, "b", 7200, at(35));
    assert!(fixture.state.doubt.is_none() && fixture.state.last_failure.is_none());
    assert_eq!(fixture.state.audit_at, Some(at(336)), "what is served then is checked once");
}

#[test]
fn a_token_that_comes_while_a_call_of_before_is_at_work_is_trusted_for_the_overlap_and_checked() {
    for (sent_at, doubt) in [(2, Some((302, 341))), (39, Some((339, 341))), (40, None)] {
        let mut fixture = Fixture::empty(Endpoint::Token);
        fixture.begin(false, START);
        fixture.state.recover(&fixture.account, RULES, at(1));
        assert_eq!(fixture.fetch(false, "a", 7200, at(sent_at)), Fetched::New);
        let kept = fixture.state.doubt.map(|doubt| (doubt.until, doubt.check_at));
        assert_eq!(kept, doubt.map(|(until, check_at)| (at(until), at(check_at))));
    }
}

#[test]
fn a_forced_call_that_is_at_work_still_keeps_the_token_out_of_service() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    let value = fixture.held().value.expose().to_owned();
    fixture.begin(true, at(10));
    fixture.state.recover(&fixture.account, RULES, at(11));
    fixture.fetch(false, &value, 7188, at(12));
    assert!(!fixture.state.is_usable(at(13)), "it may be forced away any moment");
    assert!(fixture.state.last_failure.is_some(), "it is asked again after a wait");
    assert_eq!(fixture.fetch(false, &value, 7179, at(21)), Fetched::Same);
    assert!(fixture.state.is_usable(at(22)), "it was not");
}

#[test]
fn a_short_lived_token_is_checked_after_the_longest_overlap() {
    let mut fixture = Fixture::empty(Endpoint::Token);
    fixture.fetch(false, "a", 1000, START);
    fixture.fail(lost(), true, at(500));
    let doubt = fixture.state.doubt.unwrap();
    assert_eq!((doubt.until, doubt.check_at), (at(750), at(836)));
}

#[test]
fn while_a_token_is_in_doubt_a_call_takes_it_out_of_service() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(5400));
    assert!(fixture.state.is_usable(at(5500)));
    fixture.begin(false, at(5500));
    assert!(!fixture.state.is_usable(at(5500)), "a second mint may end it at once");
    let end = FetchEnd { force: false, sent_at: None, may_have_minted: false, result: Err(busy()) };
    fixture.end(end, at(5501));
    assert_eq!(fixture.state.usable_for(at(5501)), s(198), "none was made");
}

#[test]
fn a_new_token_ends_doubt_and_trouble() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(5400));
    assert_eq!(fixture.fetch(false, "b", 7200, at(5710)), Fetched::New);
    assert!(fixture.state.doubt.is_none() && fixture.state.last_failure.is_none());
    assert_eq!((fixture.state.version, fixture.state.failures()), (2, 0));
}

#[test]
fn failures_add_up_until_a_success() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    for failures in 1..5 {
        assert_eq!(fixture.fail(busy(), false, at(10 * failures)), Fetched::Failed);
        assert_eq!(u64::from(fixture.state.failures()), failures);
        assert_eq!(fixture.state.attempts_ended, failures);
        assert_eq!(fixture.state.last_failure.as_deref().unwrap().at, at(10 * failures + 1));
    }
    fixture.fetch(false, "access-token-1", 7100, at(100));
    assert_eq!(fixture.state.failures(), 0);
}

#[test]
fn only_a_transient_fault_of_the_host_awaits_the_host() {
    for (fault, awaits) in [
        (Fault::host("refused"), true),
        (lost(), true),
        (Fault::unknown_outcome(FaultScope::Account, "html"), false),
        (busy(), false),
        (Fault::from_errcode(40164, ""), false),
        (Fault::from_errcode(45009, ""), false),
    ] {
        let mut fixture = Fixture::holding(Endpoint::StableToken);
        fixture.fail(fault, false, START);
        assert_eq!(fixture.state.last_failure.unwrap().awaits_host, awaits);
    }
}

#[test]
fn a_call_that_sent_nothing_gives_back_what_it_was_charged_whatever_the_budget_is_by_then() {
    for (before, during) in [(2000, 4), (4, 2000)] {
        let mut fixture = Fixture::empty(Endpoint::StableToken);
        fixture.account.settings.daily_budget = before;
        fixture.begin(false, START);
        let spent = fixture.state.ledger;
        fixture.begin(false, START);
        fixture.account.settings.daily_budget = during;
        let end = FetchEnd { force: false, sent_at: None, may_have_minted: false, result: Err(busy()) };
        fixture.end(end, START);
        assert_eq!(fixture.state.ledger, spent, "{before} to {during}");
        // The same if its account is removed and comes back in the meantime.
        fixture.account.settings.daily_budget = before;
        fixture.begin(false, START);
        fixture.state = fixture.state.tombstone();
        fixture.state.drop_fetch(false, false);
        assert_eq!(fixture.state.ledger, spent, "{before} to {during}");
    }
}

#[test]
fn an_answer_to_a_call_that_was_not_sent_is_a_fault_of_ours() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.begin(false, START);
    let end = FetchEnd { sent_at: None, ..answered(false, "b", 7200, START) };
    assert_eq!(fixture.end(end, START), Fetched::Failed);
    assert_eq!(fixture.state.version, 1);
}

#[test]
fn a_crash_before_the_outcome_leaves_the_token_in_doubt() {
    // Written at 5400; the process is back at once, or only long after the call can have taken.
    for (back_at, check_at) in [(5401, 5741), (5405, 5741), (6000, 5741)] {
        let mut fixture = Fixture::holding(Endpoint::Token);
        fixture.begin(false, at(5400));
        fixture.state = serde_json::from_str(&serde_json::to_string(&fixture.state).unwrap()).unwrap();
        fixture.state.recover(&fixture.account, RULES, at(back_at));
        let doubt = Doubt { until: at(5700), check_at: at(check_at), checked: false };
        assert_eq!((fixture.state.doubt, fixture.state.intent), (Some(doubt), None));
        assert_eq!(fixture.spent(at(5400)), 1, "the charge is not forgotten");
    }
}

#[test]
fn a_crash_long_ago_is_settled_by_a_check_at_once() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.begin(false, at(5400));
    fixture.state.recover(&fixture.account, RULES, at(6000));
    assert!(!fixture.state.is_usable(at(6000)));
    fixture.check(&CheckEnd::Honoured, at(6001));
    assert_eq!(fixture.state.usable_for(at(6001)), s(1198));
}

#[test]
fn a_restart_without_a_call_under_way_doubts_nothing() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.state.recover(&fixture.account, RULES, at(100));
    assert!(fixture.state.doubt.is_none() && fixture.state.is_usable(at(100)));
}

#[test]
fn a_doubted_token_that_wechat_honours_has_its_old_end_again() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(5400));
    fixture.check(&CheckEnd::Honoured, at(5736));
    assert_eq!((fixture.state.doubt, fixture.state.usable_for(at(5736))), (None, s(1463)));
    assert_eq!(fixture.state.audit_at, None, "one check is both");
}

#[test]
fn a_doubted_token_that_wechat_refuses_is_dead() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(5400));
    fixture.check(&CheckEnd::Refused, at(5707));
    assert_eq!(fixture.held().validity, Validity::Refused);
    assert!(fixture.state.read(at(5707)).is_none());
}

#[test]
fn an_inconclusive_check_of_a_doubted_token_is_made_once() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(5400));
    fixture.check(&CheckEnd::Inconclusive(busy()), at(5736));
    assert!(fixture.state.doubt.unwrap().checked && fixture.state.want.is_none());
    assert_eq!(fixture.state.rejections.verdict, None, "nobody asked");
}

#[test]
fn an_audit_is_made_once_and_again_only_if_it_was_inconclusive() {
    for (end, again) in [
        (CheckEnd::Honoured, None),
        (CheckEnd::Refused, None),
        (CheckEnd::Inconclusive(busy()), Some(at(6000 + 300))),
    ] {
        let mut fixture = Fixture::holding(Endpoint::Token);
        fixture.fail(lost(), true, at(5400));
        fixture.fetch(false, "b", 7200, at(5700));
        assert!(fixture.state.doubt.is_none() && !fixture.state.is_audit_due(at(5735)));
        assert!(fixture.state.is_audit_due(at(5736)));
        fixture.check(&end, at(6000));
        assert_eq!(fixture.state.audit_at, again, "{end:?}");
    }
}

#[test]
fn a_lost_forced_call_is_audited_after_all_that_it_may_take() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.begin(true, at(10));
    let result = Err(Fault::host("timed out"));
    fixture.end(FetchEnd { force: true, sent_at: Some(at(10)), may_have_minted: true, result }, at(15));
    assert_eq!(
        fixture.state.doubt.unwrap().check_at,
        at(15 + 301),
        "it is out of service no longer than that"
    );
    assert_eq!(fixture.state.audit_at, Some(at(15 + 30 + 301)));
}

#[test]
fn a_token_found_dead_is_no_part_of_an_older_trouble_unless_that_says_when() {
    for (fault, waits) in [
        (Fault::from_errcode(40164, ""), false),
        (busy(), false),
        (Fault::from_errcode(45009, ""), true),
        (Fault::from_errcode(89507, ""), true),
        (busy().not_before(Some(s(600))), true),
    ] {
        let mut fixture = Fixture::holding(Endpoint::Token);
        fixture.fail(fault, false, at(100));
        fixture.check(&CheckEnd::Refused, at(102));
        let retry_at = fixture.state.last_failure.unwrap().retry_at;
        assert_eq!(retry_at != at(102), waits, "{retry_at:?}");
    }
}

#[test]
fn a_check_on_request_settles_no_doubt() {
    for end in [CheckEnd::Honoured, CheckEnd::Inconclusive(busy())] {
        // Begun while the token was served, ended when only a later one would be conclusive.
        let mut fixture = Fixture::holding(Endpoint::Token);
        fixture.fail(lost(), true, at(5400));
        assert_eq!(fixture.reject(at(5698)), RequestDecision::Accepted);
        let doubt = fixture.state.doubt;
        fixture.check(&end, at(5703));
        assert_eq!(fixture.state.doubt, doubt);
        assert!(!fixture.state.is_usable(at(5703)));
    }
}

#[test]
fn a_refresh_asked_for_during_a_check_is_made_after_it() {
    for end in [CheckEnd::Honoured, CheckEnd::Inconclusive(busy()), CheckEnd::Refused] {
        let mut fixture = Fixture::holding(Endpoint::StableToken);
        fixture.reject(at(10));
        fixture.state.activity = Activity::Checking;
        fixture.state.want = Some(WantedCall::Force(Reason::Operator));
        fixture.check(&end, at(11));
        assert_eq!(fixture.state.want, Some(WantedCall::Force(Reason::Operator)));
    }
}

#[test]
fn what_is_asked_for_during_a_call_is_left_for_the_next() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.begin(false, at(10));
    fixture.state.want = Some(WantedCall::Fetch(Reason::Operator));
    let end = FetchEnd {
        force: false,
        sent_at: Some(at(10)),
        may_have_minted: false,
        result: Err(Fault::from_errcode(40001, "")),
    };
    fixture.end(end, at(11));
    assert_eq!(
        fixture.state.want,
        Some(WantedCall::Fetch(Reason::Operator)),
        "the changed secret is still to be tried"
    );
    fixture.fetch(false, "b", 7200, at(12));
    assert_eq!(fixture.state.want, None);
}

#[test]
fn a_normal_call_does_not_serve_a_wish_to_force() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.state.want = Some(WantedCall::Force(Reason::Operator));
    fixture.fetch(false, "access-token-1", 7000, at(10));
    assert_eq!(fixture.state.want, Some(WantedCall::Force(Reason::Operator)));
    fixture.fetch(true, "b", 7200, at(12));
    assert_eq!(fixture.state.want, None);
}

#[test]
fn a_rejected_token_that_wechat_honours_stays_and_the_rejections_cool_down() {
    for endpoint in BOTH {
        let mut fixture = Fixture::holding(endpoint);
        fixture.reject(at(10));
        fixture.check(&CheckEnd::Honoured, at(11));
        assert_eq!((fixture.state.want, fixture.reject(at(15))), (None, RequestDecision::StillValid));
        assert_eq!(fixture.reject(at(16)), RequestDecision::Accepted);
    }
}

#[test]
fn a_rejected_token_that_wechat_refuses_is_replaced_by_one_call() {
    for endpoint in BOTH {
        let mut fixture = Fixture::holding(endpoint);
        fixture.reject(at(10));
        fixture.check(&CheckEnd::Refused, at(11));
        assert_eq!(fixture.reject(at(11)), RequestDecision::WaitForCurrent);
        assert_eq!(fixture.fetch(false, "b", 7200, at(11)), Fetched::New);
        assert_eq!(
            (fixture.held().validity, fixture.state.attempts_ended, fixture.spent(at(11))),
            (Validity::Good, 1, 1)
        );
        assert_eq!(fixture.reject(at(16)), RequestDecision::Limited, "cooling down from 12 to 17");
        assert_eq!(fixture.reject(at(17)), RequestDecision::Accepted);
    }
}

#[test]
fn a_war_over_the_account_makes_the_cool_down_grow_and_a_quiet_refresh_ends_it() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    let mut now = at(10);
    let mut cooldowns = Vec::new();
    for i in 0..4 {
        assert_eq!(fixture.reject(now), RequestDecision::Accepted);
        fixture.check(&CheckEnd::Refused, now);
        fixture.fetch(false, &format!("war-{i}"), 7200, now);
        let until = fixture.state.rejections.cool_until.unwrap();
        cooldowns.push(until.until(now + s(1)).as_secs());
        now = until;
    }
    assert_eq!(cooldowns, [5, 10, 20, 40]);
    fixture.fetch(false, "in peace", 7200, at(7000));
    assert_eq!(fixture.state.rejections, Rejections::default());
}

#[test]
fn on_stable_token_an_inconclusive_check_is_followed_by_a_normal_call() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.reject(at(10));
    fixture.check(&CheckEnd::Inconclusive(busy()), at(11));
    assert_eq!(fixture.state.want, Some(WantedCall::Fetch(Reason::Unverified)));
    assert_eq!(fixture.fetch(false, "access-token-1", 7188, at(11)), Fetched::Same);
    assert_eq!((fixture.state.want, fixture.held().validity), (None, Validity::Good));
    assert_eq!(fixture.reject(at(15)), RequestDecision::Limited);
}

#[test]
fn on_token_only_a_second_inconclusive_check_mints() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.reject(at(1000));
    fixture.check(&CheckEnd::Inconclusive(busy()), at(1001));
    assert_eq!((fixture.state.want, fixture.reject(at(1002))), (None, RequestDecision::Limited));
    assert_eq!(fixture.reject(at(1006)), RequestDecision::Accepted);
    fixture.check(&CheckEnd::Inconclusive(busy()), at(1007));
    assert_eq!(fixture.state.want, Some(WantedCall::Fetch(Reason::Unverified)));
}

#[test]
fn a_conclusive_check_resets_the_count_of_inconclusive_ones() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    for end in [CheckEnd::Inconclusive(busy()), CheckEnd::Honoured, CheckEnd::Inconclusive(busy())] {
        let now = fixture.state.rejections.cool_until.unwrap_or(at(1000));
        assert_eq!(fixture.reject(now), RequestDecision::Accepted);
        fixture.check(&end, now);
        assert_eq!(fixture.state.want, None);
    }
}

#[test]
fn on_token_inconclusive_checks_mint_neither_too_soon_nor_in_doubt() {
    let twice = |fixture: &mut Fixture, now: Moment| {
        for now in [now, now + s(5)] {
            assert_eq!(fixture.reject(now), RequestDecision::Accepted);
            fixture.check(&CheckEnd::Inconclusive(busy()), now);
        }
        fixture.state.want
    };
    assert_eq!(twice(&mut Fixture::holding(Endpoint::Token), at(290)), None, "295 s after the last mint");
    let mut in_doubt = Fixture::holding(Endpoint::Token);
    in_doubt.fail(lost(), true, at(5400));
    assert_eq!(twice(&mut in_doubt, at(5500)), None);
    let mint = Some(WantedCall::Fetch(Reason::Unverified));
    assert_eq!(twice(&mut Fixture::holding(Endpoint::Token), at(295)), mint);
}

#[test]
fn a_dead_token_handed_out_again_is_forced_away_and_its_readers_wait_for_that() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.reject(at(10));
    fixture.check(&CheckEnd::Refused, at(11));
    assert_eq!(fixture.fetch(false, "access-token-1", 7188, at(11)), Fetched::Same);
    assert_eq!(fixture.held().validity, Validity::RefusedAgain);
    assert!(fixture.state.read(at(12)).is_none());
    assert_eq!(fixture.state.attempts_ended, 0, "the forced call follows at once");
    assert_eq!(fixture.state.last_failure.as_deref().unwrap().retry_at, at(12));
    assert_eq!(fixture.fetch(true, "b", 7200, at(12)), Fetched::New);
    assert_eq!((fixture.state.version, fixture.state.attempts_ended), (2, 1));
    assert!(fixture.state.last_failure.is_none() && fixture.state.is_usable(at(13)));
    assert_eq!(fixture.reject(at(14)), RequestDecision::Limited, "it replaced a refused one");
}

#[test]
fn a_dead_token_that_cannot_be_forced_away_now_keeps_nobody_waiting() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.state.forced = vec![at(5)];
    fixture.check(&CheckEnd::Refused, at(11));
    assert_eq!(fixture.fetch(false, "access-token-1", 7188, at(11)), Fetched::Same);
    assert_eq!(fixture.state.attempts_ended, 1);
}

#[test]
fn a_dead_token_stays_dead_when_wechat_does_not_obey() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.check(&CheckEnd::Refused, at(11));
    fixture.fetch(false, "access-token-1", 7188, at(11));
    assert_eq!(fixture.fetch(true, "access-token-1", 7187, at(12)), Fetched::Same);
    assert_eq!(fixture.held().validity, Validity::RefusedAgain);
    assert_eq!(fixture.state.attempts_ended, 1);
}

#[test]
fn a_believed_client_gets_a_forced_token_where_a_normal_call_changes_nothing() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.account.settings.verify_rejections = false;
    fixture.reject(at(10));
    assert_eq!(fixture.fetch(false, "access-token-1", 7190, at(10)), Fetched::Same);
    assert_eq!(fixture.state.want, Some(WantedCall::Force(Reason::Reported)));
    assert_eq!((fixture.state.attempts_ended, fixture.state.is_usable(at(11))), (0, true));
    assert_eq!(fixture.fetch(true, "b", 7200, at(11)), Fetched::New);
    assert_eq!((fixture.state.attempts_ended, fixture.reject(at(12))), (1, RequestDecision::Limited));
    assert_eq!(fixture.reject(at(17)), RequestDecision::Accepted);
}

#[test]
fn a_believed_client_cools_down_where_nothing_came_of_it() {
    let cooled = |fixture: &mut Fixture, now: Moment| {
        assert_eq!(fixture.state.want, None);
        assert_eq!(fixture.reject(now), RequestDecision::Limited);
    };
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.account.settings.verify_rejections = false;
    // WeChat did not obey.
    fixture.reject(at(10));
    fixture.fetch(false, "access-token-1", 7190, at(10));
    fixture.fetch(true, "access-token-1", 7189, at(11));
    cooled(&mut fixture, at(16));
    // Not allowed to force.
    assert_eq!(fixture.reject(at(17)), RequestDecision::Accepted);
    fixture.fetch(false, "access-token-1", 7183, at(17));
    cooled(&mut fixture, at(27));
    // Failed.
    assert_eq!(fixture.reject(at(28)), RequestDecision::Accepted);
    fixture.fail(busy(), false, at(28));
    cooled(&mut fixture, at(48));
    // Not even tried.
    assert_eq!(fixture.reject(at(49)), RequestDecision::Accepted);
    fixture.state.refuse_fetch(Fault::host("down"), &fixture.account, at(49), 0.5);
    cooled(&mut fixture, at(88));
}

#[test]
fn on_token_a_believed_client_never_leads_to_a_forced_call() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.account.settings.verify_rejections = false;
    fixture.reject(at(10));
    // A cache in between repeats an old answer.
    fixture.fetch(false, "access-token-1", 7190, at(10));
    assert_eq!((fixture.state.want, fixture.reject(at(12))), (None, RequestDecision::Limited));
}

#[test]
fn an_operators_refresh_keeps_the_cool_down_and_forgets_the_verdict() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.state.rejections =
        Rejections { cool_until: Some(at(500)), refused_in_a_row: 4, verdict: Some(Verdict::Honoured) };
    fixture.state.want = Some(WantedCall::Fetch(Reason::Operator));
    fixture.fetch(false, "b", 7200, at(10));
    let expected = Rejections { cool_until: Some(at(500)), refused_in_a_row: 4, verdict: None };
    assert_eq!(fixture.state.rejections, expected);
    assert_eq!(fixture.reject(at(12)), RequestDecision::Limited, "the verdict was the old token's");
}

#[test]
fn a_lifetime_far_above_the_usual_is_believed_for_two_hours_on_stable_token_and_for_a_day_on_token() {
    for (endpoint, longest) in [(Endpoint::StableToken, 7200), (Endpoint::Token, 86_400)] {
        for (reported, believed) in
            [(60, 60), (7200, 7200), (longest + 1, longest), (720_000, longest), (4_294_967_295, longest)]
        {
            let mut fixture = Fixture::empty(endpoint);
            assert_eq!(fixture.fetch(false, "t", reported, at(0)), Fetched::New);
            assert_eq!(fixture.held().expires_at, at(believed), "{endpoint:?} {reported}");
            assert!(fixture.held().refresh_at.until(at(0)) < s(believed), "{endpoint:?} {reported}");
        }
    }
    // The same token again lives as long as before, and no longer.
    let mut fixture = Fixture::empty(Endpoint::StableToken);
    fixture.fetch(false, "t", 720_000, at(0));
    assert_eq!(fixture.fetch(false, "t", 713_000, at(7000)), Fetched::Same);
    assert_eq!(fixture.held().expires_at, at(14_200));
}

#[test]
fn only_a_lifetime_far_above_the_usual_is_strange() {
    for (reported, is_strange) in
        [(1, false), (60, false), (7200, false), (7500, false), (10_000, true), (720_000, true)]
    {
        assert_eq!(is_strangely_long(s(reported)), is_strange, "{reported}");
    }
}

#[test]
fn a_report_that_was_not_looked_into_costs_nothing_and_is_followed_by_a_cool_down() {
    for endpoint in BOTH {
        let mut fixture = Fixture::holding(endpoint);
        fixture.account.settings.daily_budget = 8;
        for n in 0..20 {
            let now = at(100 + 10 * n);
            assert_eq!(fixture.reject(now), RequestDecision::Accepted, "{n}");
            fixture.state.refuse_fetch(Fault::host("down"), &fixture.account, now, 0.5);
            assert_eq!(fixture.reject(now + s(1)), RequestDecision::Limited);
        }
    }
}

#[test]
fn a_lost_call_is_not_forgotten_with_the_token() {
    let mut fixture = Fixture::holding(Endpoint::Token);
    fixture.fail(lost(), true, at(100));
    let (doubt, audit_at) = (fixture.state.doubt, fixture.state.audit_at);
    let left = fixture.state.tombstone();
    assert_eq!((left.doubt, left.audit_at, left.token), (doubt, audit_at, None));
    fixture.state.upstream_exchanged();
    assert_eq!((fixture.state.doubt, fixture.state.audit_at), (doubt, audit_at));
    fixture.fetch(false, "b", 7200, at(110));
    assert_eq!(fixture.state.doubt.map(|doubt| doubt.until), Some(at(410)), "it may end this one");
}

#[test]
fn a_lost_call_made_after_the_endpoint_was_switched_puts_the_next_token_in_doubt() {
    let mut fixture = Fixture::holding(Endpoint::StableToken);
    fixture.account = Account::example(Endpoint::Token);
    fixture.fail(lost(), true, at(100));
    fixture.fetch(false, "b", 7200, at(110));
    assert_eq!(fixture.state.doubt.map(|doubt| doubt.until), Some(at(410)));
}
