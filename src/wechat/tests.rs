//! Hosts, fail-over and how calls are reported, against a transport that follows a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Url;
use tokio::time::sleep;
use wxtokend_core::account::{Account, Endpoint};
use wxtokend_core::fault::{FaultKind, FaultScope};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::TicketKind;
use wxtokend_core::token::transition::CheckEnd;
use wxtokend_testkit::TokioClock;

use super::hosts::UpstreamHealth;
use super::transport::{Lost, Request, Response, ResponseFuture, Transport};
use super::*;

type Answer = Result<Response, Lost>;

/// Answers accounts' calls by the script, and probes by whether the host is set to be down.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    down: Mutex<Vec<&'static str>>,
    asked: Mutex<Vec<String>>,
    probes: Mutex<u32>,
    /// The answer to a probe of a host that is not down.
    says: Mutex<Option<Response>>,
    /// How many probes panic before one does not.
    panics: Mutex<u32>,
}

impl Transport for Arc<Script> {
    fn send(&self, base: &Url, request: Request) -> ResponseFuture<Answer> {
        let script = Arc::clone(self);
        let host = base.host_str().unwrap().to_owned();
        let probe = request.query.iter().any(|(_, value)| value == "probe");
        Box::pin(async move {
            sleep(Duration::from_millis(20)).await;
            let refused = Lost::NotSent("connection refused".to_owned());
            if probe {
                *script.probes.lock().unwrap() += 1;
                let panics = script.panics.lock().unwrap().checked_sub(1);
                if let Some(left) = panics {
                    *script.panics.lock().unwrap() = left;
                    panic!("asked to");
                }
                let down = script.down.lock().unwrap().contains(&&*host);
                let says = script.says.lock().unwrap().clone();
                return if down { Err(refused) } else { says.map_or_else(|| ok(r#"{"errcode":40001}"#), Ok) };
            }
            script.asked.lock().unwrap().push(format!("{host}{}", request.path));
            script.answers.lock().unwrap().pop_front().unwrap_or(Err(refused))
        })
    }
}

fn ok(body: &str) -> Answer {
    status(200, body)
}

fn status(status: u16, body: &str) -> Answer {
    Ok(Response { status, body: body.as_bytes().to_vec(), date: None, retry_after: None })
}

const TOKEN: &str = r#"{"access_token":"t","expires_in":7200}"#;

fn refused() -> Answer {
    Err(Lost::NotSent("connection refused".to_owned()))
}

fn start(answers: Vec<Answer>) -> (Arc<Script>, WeChat) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), ..Script::default() });
    let urls = ["http://a/", "http://b/"].map(|url| Url::parse(url).unwrap());
    let wechat = WeChat::new(&urls, 64, 100, Arc::new(Arc::clone(&script)), TokioClock::new());
    (script, wechat)
}

fn asked(script: &Script) -> Vec<String> {
    script.asked.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn the_next_host_is_tried_only_where_that_cannot_mint_twice() {
    let cut = || Err(Lost::Cut("reset".to_owned()));
    let table: [(Endpoint, bool, Answer, usize); 9] = [
        (Endpoint::Token, false, refused(), 2),
        (Endpoint::Token, false, Err(Lost::TimedOut), 1),
        (Endpoint::Token, false, cut(), 1),
        (Endpoint::Token, false, status(502, ""), 1),
        (Endpoint::StableToken, false, refused(), 2),
        (Endpoint::StableToken, false, Err(Lost::TimedOut), 2),
        (Endpoint::StableToken, false, cut(), 1),
        (Endpoint::StableToken, false, ok(r#"{"errcode":-1}"#), 1),
        (Endpoint::StableToken, true, Err(Lost::TimedOut), 1),
    ];
    for (endpoint, force, first, tries) in table {
        let what = format!("{endpoint:?} force={force} {first:?}");
        let (script, wechat) = start(vec![first, ok(TOKEN)]);
        let FetchReport { end, calls_sent: calls } =
            wechat.fetch(&Account::example(endpoint), force, 1).await;
        assert_eq!(asked(&script).len(), tries, "{what}");
        let sent = 2 - u32::from(what.contains("NotSent")) - u32::from(tries == 1);
        assert_eq!(calls, sent, "{what}");
        assert_eq!(end.result.is_ok(), tries == 2, "{what}");
    }
}

const RETIRED: [&str; 3] = [
    r#"{"errcode":410,"errmsg":"server IP address changed"}"#,
    r#"{"errcode":48017,"errmsg":"this weixin server ip address go offline"}"#,
    "This ip is no longer used",
];

#[tokio::test(start_paused = true)]
async fn behind_a_retired_access_point_the_next_host_is_asked_at_once_whatever_the_call() {
    let token = Secret::new("a+b");
    for says in RETIRED {
        for (endpoint, force) in
            [(Endpoint::Token, false), (Endpoint::StableToken, false), (Endpoint::StableToken, true)]
        {
            let account = Account::example(endpoint);
            let (script, wechat) = start(vec![ok(says), ok(TOKEN)]);
            let FetchReport { end, calls_sent: calls } = wechat.fetch(&account, force, 1).await;
            assert!(end.result.is_ok(), "{endpoint:?} {says}");
            assert_eq!((asked(&script).len(), calls), (2, 2), "{endpoint:?} {says}");
            // Without budget for a second call, and where all hosts are retired.
            for (second, spare, sent) in [(ok(TOKEN), 0, 1), (ok(says), 1, 2)] {
                let (script, wechat) = start(vec![ok(says), second]);
                let FetchReport { end, calls_sent: calls } = wechat.fetch(&account, force, spare).await;
                assert_eq!((end.may_have_minted, calls, asked(&script).len()), (false, sent, sent as usize));
                let fault = end.result.unwrap_err();
                assert_eq!((fault.kind, fault.scope), (FaultKind::Transient, FaultScope::Host));
                assert!(end.sent_at.is_some());
            }
        }
        let (_, wechat) = start(vec![ok(says), ok(r#"{"ip_list":[]}"#)]);
        assert!(matches!(wechat.check(&token).await, CheckEnd::Honoured));
        let (_, wechat) = start(vec![ok(says), ok(r#"{"errcode":0,"ticket":"t","expires_in":7200}"#)]);
        assert!(wechat.ticket(TicketKind::Jsapi, &token).await.result.is_ok());
        let (_, wechat) = start(vec![ok(says), ok(says)]);
        let end = wechat.ticket(TicketKind::Jsapi, &token).await;
        assert!(end.sent_at.is_some() && end.result.unwrap_err().scope == FaultScope::Host);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_retired_access_point_answers_has_found_the_host_down() {
    for says in RETIRED {
        let (script, wechat) = start(vec![ok(says), ok(says)]);
        *script.says.lock().unwrap() = Some(status(200, says).unwrap());
        wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.unwrap_err();
        sleep(Duration::from_secs(1)).await;
        let Err(fault) = wechat.admit(0, Require::NotDown).await else {
            panic!("let through to a retired access point")
        };
        assert_eq!((fault.kind, fault.scope), (FaultKind::Transient, FaultScope::Host));
        assert!(fault.advice.contains("hosts file"), "{}", fault.advice);
        *script.says.lock().unwrap() = None;
        sleep(Duration::from_secs(3)).await;
        assert!(wechat.hosts().observe().0.up, "DNS names another");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_for_a_pause_is_probed_no_sooner_but_once_a_minute_at_least() {
    for (asked_s, kept_s) in [(30, 30), (86_400, 60), (0, 2)] {
        let retry_after = Some(Duration::from_secs(asked_s));
        let unavailable = || Response { retry_after, ..status(503, "").unwrap() };
        let (script, wechat) = start(vec![Ok(unavailable())]);
        *script.says.lock().unwrap() = Some(unavailable());
        wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.unwrap_err();
        sleep(Duration::from_millis(500)).await;
        let probes = || *script.probes.lock().unwrap();
        assert_eq!(probes(), 1, "to see whether it is everybody's trouble");
        sleep(Duration::from_secs(kept_s - 1)).await;
        assert_eq!(probes(), 1, "{asked_s}");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(probes(), 2, "{asked_s}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_second_call_is_sent_that_the_budget_has_not_allowed() {
    for (first, tries) in [(Err(Lost::TimedOut), 1), (refused(), 2)] {
        let (script, wechat) = start(vec![first, ok(TOKEN)]);
        let FetchReport { calls_sent: calls, .. } =
            wechat.fetch(&Account::example(Endpoint::StableToken), false, 0).await;
        assert_eq!((asked(&script).len(), calls), (tries, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_sent_no_byte_anywhere_says_so() {
    let (_, wechat) = start(vec![refused(), refused()]);
    let FetchReport { end, .. } = wechat.fetch(&Account::example(Endpoint::Token), false, 1).await;
    assert_eq!((end.sent_at, end.may_have_minted), (None, false));
    // An attempt that was sent before one that was not is charged all the same.
    let (_, wechat) = start(vec![Err(Lost::TimedOut), refused()]);
    let FetchReport { end, .. } = wechat.fetch(&Account::example(Endpoint::StableToken), false, 1).await;
    assert!(end.sent_at.is_some());
    let fault = end.result.unwrap_err();
    assert_eq!((fault.kind, fault.scope), (FaultKind::Transient, FaultScope::Host));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_failed_is_tried_last_for_a_minute() {
    let (script, wechat) = start(vec![refused(), ok(TOKEN), ok(TOKEN), ok(TOKEN)]);
    let account = Account::example(Endpoint::Token);
    for _ in 0..2 {
        assert!(wechat.fetch(&account, false, 1).await.end.result.is_ok());
    }
    sleep(Duration::from_secs(61)).await;
    assert!(wechat.fetch(&account, false, 1).await.end.result.is_ok());
    let hosts: Vec<_> = asked(&script).iter().map(|asked| asked[..1].to_owned()).collect();
    assert_eq!(hosts, ["a", "b", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn one_accounts_trouble_takes_no_host_down_that_answers_a_probe() {
    let (script, wechat) = start(vec![Err(Lost::TimedOut)]);
    wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    assert!(wechat.hosts().observe().0.up);
    assert_eq!(*script.probes.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_all_hosts_are_down_nobody_is_let_through_and_the_first_answer_lets_all() {
    let (script, wechat) = start(vec![refused(), refused()]);
    *script.down.lock().unwrap() = vec!["a", "b"];
    let health = wechat.hosts().watch();
    wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    let Err(fault) = wechat.admit(0, Require::NotDown).await else {
        panic!("let through to a host that is down")
    };
    assert_eq!((fault.kind, fault.scope), (FaultKind::Transient, FaultScope::Host));
    assert!(fault.message.contains("a: no connection: connection refused"), "{}", fault.message);
    assert!(wechat.hosts().states().iter().all(|host| host.down.is_some()));
    // A call that was admitted just before.
    let FetchReport { end, calls_sent: calls } =
        wechat.fetch(&Account::example(Endpoint::Token), false, 1).await;
    assert_eq!((end.result.unwrap_err(), end.sent_at, end.may_have_minted, calls), (fault, None, false, 0));
    sleep(Duration::from_secs(600)).await;
    assert!(*script.probes.lock().unwrap() > 100, "it is probed all the time");
    assert_eq!(asked(&script).len(), 2, "and nothing else is sent");
    script.down.lock().unwrap().retain(|host| *host != "b");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(*health.borrow(), UpstreamHealth { up: true, recoveries: 1 });
    assert!(wechat.admit(0, Require::NotDown).await.is_ok());
    script.answers.lock().unwrap().push_back(ok(TOKEN));
    assert!(wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.is_ok());
    assert!(asked(&script).last().unwrap().starts_with("b/"), "the living host first");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_lose_a_token_waits_for_a_probe_unless_the_host_has_just_answered() {
    let (script, wechat) = start(vec![ok(TOKEN)]);
    let probes = || *script.probes.lock().unwrap();
    drop(wechat.admit(0, Require::RecentAnswer).await.unwrap());
    drop(wechat.admit(0, Require::RecentAnswer).await.unwrap());
    assert_eq!(probes(), 1, "the first one's answer is good for a while");
    sleep(Duration::from_secs(30)).await;
    wechat.fetch(&Account::example(Endpoint::Token), false, 0).await.end.result.unwrap();
    drop(wechat.admit(0, Require::RecentAnswer).await.unwrap());
    assert_eq!(probes(), 1, "so is that of any call");
    sleep(Duration::from_secs(30)).await;
    *script.down.lock().unwrap() = vec!["a"];
    drop(wechat.admit(0, Require::RecentAnswer).await.unwrap());
    assert_eq!(wechat.hosts().order()[0].1.host_str(), Some("b"), "another host has answered in its place");
    sleep(Duration::from_secs(30)).await;
    script.down.lock().unwrap().push("b");
    let fault = wechat.admit(0, Require::RecentAnswer).await.err().unwrap();
    assert_eq!(fault.scope, FaultScope::Host);
    assert_eq!(asked(&script).len(), 1, "nothing but probes was sent");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_followed_by_the_next() {
    let (script, wechat) = start(vec![refused(), refused()]);
    *script.panics.lock().unwrap() = 6;
    wechat.fetch(&Account::example(Endpoint::Token), false, 0).await.end.result.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    assert!(wechat.admit(0, Require::NotDown).await.is_err(), "down");
    sleep(Duration::from_secs(10)).await;
    assert!(wechat.admit(0, Require::NotDown).await.is_ok(), "up again");
}

#[tokio::test(start_paused = true)]
async fn a_recovery_counts_from_the_look_and_not_from_when_somebody_begins_to_wait() {
    let (script, wechat) = start(vec![refused(), refused()]);
    *script.down.lock().unwrap() = vec!["a", "b"];
    wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    let (seen, recovery) = wechat.hosts().observe();
    assert!(!seen.up);
    script.down.lock().unwrap().clear();
    sleep(Duration::from_secs(10)).await;
    tokio::time::timeout(Duration::from_secs(1), recovery).await.expect("it is over already");
    assert_eq!(wechat.hosts().observe().0, UpstreamHealth { up: true, recoveries: seen.recoveries + 1 });
}

#[tokio::test(start_paused = true)]
async fn a_call_for_a_ticket_goes_to_the_next_host_only_if_it_was_not_sent() {
    let ticket = r#"{"errcode":0,"ticket":"t","expires_in":7200}"#;
    let (script, wechat) = start(vec![refused(), ok(ticket)]);
    let end = wechat.ticket(TicketKind::WxCard, &Secret::new("a+b")).await;
    assert!(end.result.is_ok() && end.sent_at.is_some());
    assert_eq!(asked(&script), ["a/cgi-bin/ticket/getticket", "b/cgi-bin/ticket/getticket"]);
    let (script, wechat) = start(vec![Err(Lost::TimedOut), ok(ticket)]);
    let end = wechat.ticket(TicketKind::WxCard, &Secret::new("a+b")).await;
    assert!(end.result.is_err() && end.sent_at.is_some());
    assert_eq!(asked(&script).len(), 1);
    let (_, wechat) = start(vec![refused(), refused()]);
    assert!(wechat.ticket(TicketKind::Jsapi, &Secret::new("a+b")).await.sent_at.is_none());
}

#[tokio::test(start_paused = true)]
async fn no_text_of_a_fault_repeats_the_secret() {
    let account = Account::example(Endpoint::Token);
    let secret = account.secret.expose();
    let echo = format!(r#"{{"errcode":40125,"errmsg":"bad secret {secret} rid: {secret}"}}"#);
    let (_, wechat) = start(vec![ok(&echo)]);
    let fault = wechat.fetch(&account, false, 1).await.end.result.unwrap_err();
    assert!(!format!("{fault:?}").contains(secret), "{fault:?}");
    let (_, wechat) = start(vec![ok(r#"{"errcode":45009,"errmsg":"token hunter2"}"#)]);
    let CheckEnd::Inconclusive(fault) = wechat.check(&Secret::new("hunter2")).await else {
        panic!("it told")
    };
    assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_goes_down_or_recovers_is_reported_once_with_why_and_since_when() {
    let (script, wechat) = start(vec![refused(), refused(), ok(TOKEN)]);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&changes);
    wechat.hosts().on_change(move |host, _| noted.lock().unwrap().push(host));
    let changes = move || std::mem::take(&mut *changes.lock().unwrap());
    assert!(wechat.hosts().states().iter().all(|host| host.down.is_none()));
    *script.down.lock().unwrap() = vec!["a", "b"];
    wechat.fetch(&Account::example(Endpoint::Token), false, 1).await.end.result.unwrap_err();
    sleep(Duration::from_secs(60)).await;
    let mut down = changes();
    down.sort_by(|a, b| a.host.cmp(&b.host));
    assert_eq!(down.iter().map(|host| &*host.host).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(down, wechat.hosts().states(), "since when is not since the last probe");
    let (_, why) = down[0].down.as_ref().unwrap();
    assert!(why.contains("connection refused"), "{why}");
    // By a probe.
    script.down.lock().unwrap().clear();
    sleep(Duration::from_secs(3)).await;
    let mut up = changes();
    up.sort_by(|a, b| a.host.cmp(&b.host));
    let is_up = |host: &str| HostState { host: host.to_owned(), down: None };
    assert_eq!(up, [is_up("a"), is_up("b")]);
    assert_eq!(wechat.hosts().states(), up);
}

#[tokio::test(start_paused = true)]
async fn probes_that_fail_while_calls_are_answered_take_no_host_down_until_a_call_fails_too() {
    let (script, wechat) = start(vec![refused(), refused(), ok(TOKEN)]);
    *script.down.lock().unwrap() = vec!["a", "b"];
    let account = Account::example(Endpoint::Token);
    wechat.fetch(&account, false, 1).await.end.result.unwrap_err();
    sleep(Duration::from_secs(1)).await;
    assert!(wechat.admit(0, Require::NotDown).await.is_err(), "down");
    drop(wechat.admit(0, Require::Nothing).await.unwrap());
    wechat.fetch_for_trial(&account, false, 1).await.end.result.unwrap();
    assert_eq!(
        wechat.hosts().observe().0,
        UpstreamHealth { up: true, recoveries: 1 },
        "a call's answer is the recovery"
    );

    // A call that requires an answer waits for one probe at most; failed checks are ignored like failed
    // probes.
    sleep(Duration::from_secs(60)).await;
    drop(wechat.admit(0, Require::RecentAnswer).await.unwrap());
    script.answers.lock().unwrap().push_back(status(502, ""));
    wechat.check(&Secret::new("t")).await;
    sleep(Duration::from_secs(60)).await;
    assert!(wechat.hosts().observe().0.up);

    script.answers.lock().unwrap().extend([refused(), refused()]);
    wechat.fetch(&account, false, 1).await.end.result.unwrap_err();
    sleep(Duration::from_secs(5)).await;
    assert!(!wechat.hosts().observe().0.up, "now it is down");

    // Probes count again once one is answered.
    script.down.lock().unwrap().clear();
    sleep(Duration::from_secs(60)).await;
    drop(wechat.admit(0, Require::RecentAnswer).await.unwrap());
    *script.down.lock().unwrap() = vec!["a", "b"];
    sleep(Duration::from_secs(60)).await;
    assert!(wechat.admit(0, Require::RecentAnswer).await.is_err(), "it is down by probes alone");
}
