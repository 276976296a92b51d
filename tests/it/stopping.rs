//! SIGTERM and SIGINT.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;
use wxtokend_sandbox::{Fault, FaultKind};

use crate::harness::{Daemon, Http, Lab};

/// The time that a supervisor gives a process before it kills it.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Additional time for a slow machine.
const SLACK: Duration = Duration::from_secs(5);

/// Waits until requests that were sent later on other connections have been answered.
async fn until_earlier_requests_arrived(daemon: &Daemon) {
    for _ in 0..20 {
        assert_eq!(Http::to(daemon.address()).get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn a_stop_lets_a_call_end_keeps_its_token_and_answers_those_who_wait_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
        lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 2_500 }));
        let mut daemon = lab.start().await;
        for account in ["stable", "classic"] {
            lab.wechat.until_called(account, 1).await;
        }
        let waiting =
            ["/v1/accounts/stable/token", "/v1/accounts/classic/token?after=0&wait=60s"].map(|path| {
                let http = daemon.http.clone();
                tokio::spawn(async move { http.get(path).await })
            });
        until_earlier_requests_arrived(&daemon).await;
        let asked = Instant::now();
        daemon.signal(signal);
        for answer in waiting {
            let answer = answer.await.unwrap();
            assert_eq!((answer.status, answer.word("code").as_str()), (503, "shutting_down"), "{answer:?}");
            assert!(answer.header("retry-after").is_some());
        }
        let status = daemon.ended().await;
        assert!(status.success() && asked.elapsed() < STOP_TIMEOUT + SLACK, "{status} {:?}", asked.elapsed());
        assert_eq!(daemon.event("stopped", 1).await["level"], "INFO");

        lab.wechat.close().await;
        let daemon = lab.start().await;
        for account in ["stable", "classic"] {
            assert!(lab.wechat.is_alive(&daemon.token_value(account).await), "{account}: its token was kept");
            assert_eq!(lab.wechat.calls(account), 1);
        }
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test]
async fn a_long_poll_of_a_fresh_account_is_answered_at_once_when_it_stops() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let mut daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    let version = daemon.token("stable").await.json()["version"].as_u64().unwrap();
    let (http, path) = (daemon.http.clone(), format!("/v1/accounts/stable/token?after={version}&wait=60s"));
    let poll = tokio::spawn(async move { http.get(&path).await });
    until_earlier_requests_arrived(&daemon).await;
    assert!(!poll.is_finished());
    daemon.signal(Signal::TERM);
    let answer = poll.await.unwrap();
    assert_eq!((answer.status, answer.word("code").as_str()), (503, "shutting_down"));
    assert!(daemon.ended().await.success());
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_hold_up_a_stop_and_a_second_signal_ends_it_at_once() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["upstream"]["timeout"] = json!("60s");
    lab.wechat.inject(None, Fault::new(FaultKind::Hang));
    let mut daemon = lab.start().await;
    lab.wechat.until_called("classic", 1).await;
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.ended().await;
    assert!(status.success() && asked.elapsed() < STOP_TIMEOUT + SLACK, "{status} {:?}", asked.elapsed());

    let mut daemon = lab.start().await;
    lab.wechat.until_called("classic", 2).await;
    daemon.signal(Signal::TERM);
    daemon.event("stopping", 1).await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(1));
}
