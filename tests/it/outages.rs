//! Outages of a whole host.

use serde_json::json;
use wxtokend_sandbox::Outage;

use crate::harness::{Daemon, Lab, until};

const ACCOUNTS: usize = 24;

fn accounts() -> impl Iterator<Item = (String, &'static str)> {
    (0..ACCOUNTS).map(|n| (format!("wx{n:02}"), ["stable_token", "token"][n % 2]))
}

async fn lab(lifetime_ms: u64, overlap_ms: u64) -> Lab {
    let mut lab = Lab::new(lifetime_ms, overlap_ms).await;
    lab.config["upstream"]["timeout"] = json!("2s");
    for (account, endpoint) in accounts() {
        lab.add(&account, json!({ "endpoint": endpoint }));
    }
    lab
}

async fn until_all(daemon: &Daemon, state: &str) {
    until(&format!("all are {state}"), async || {
        daemon.metric(&format!("wxtokend_accounts{{state=\"{state}\"}}")).await == Some(ACCOUNTS as f64)
    })
    .await;
}

async fn until_host_is(daemon: &Daemon, lab: &Lab, up: f64) {
    let gauge = format!("wxtokend_upstream_host_up{{host=\"{}\"}}", lab.wechat.address);
    until(&format!("{gauge} is {up}"), async || daemon.metric(&gauge).await == Some(up)).await;
}

async fn remaining(daemon: &Daemon, account: &str) -> u64 {
    daemon.view(account).await["budget"]["remaining"].as_u64().unwrap()
}

#[tokio::test]
async fn a_host_that_nobody_reaches_costs_no_budget_and_everybody_is_fresh_soon_after_it_is_back() {
    let mut lab = lab(7_200_000, 300_000).await;
    lab.wechat.close().await;
    let daemon = lab.start().await;
    until_all(&daemon, "unavailable").await;
    until_host_is(&daemon, &lab, 0.0).await;
    for (account, _) in accounts() {
        let view = daemon.view(&account).await;
        assert_eq!(view["last_fault"]["kind"], "transient", "{view}");
        assert!(view["last_fault"]["advice"].as_str().unwrap().contains("network"), "{view}");
        assert_eq!(view["budget"]["remaining"], 1000, "nothing was sent: {view}");
        let answer = daemon.token(&account).await;
        assert_eq!((answer.status, answer.word("code").as_str()), (503, "token_unavailable"));
    }
    lab.wechat.reopen().await;
    until_all(&daemon, "fresh").await;
    until_host_is(&daemon, &lab, 1.0).await;
    for (account, _) in accounts() {
        assert_eq!((remaining(&daemon, &account).await, lab.wechat.calls(&account)), (999, 1), "{account}");
    }
}

#[tokio::test]
async fn a_fleet_whose_host_goes_away_and_comes_back_has_paid_for_what_was_sent_only() {
    let mut lab = lab(5_000, 1_200).await;
    let daemon = lab.start().await;
    until_all(&daemon, "fresh").await;
    lab.wechat.close().await;
    until_all(&daemon, "unavailable").await;
    until_host_is(&daemon, &lab, 0.0).await;
    lab.wechat.reopen().await;
    until_all(&daemon, "fresh").await;
    for (account, _) in accounts() {
        // A call may have been cut before it reached WeChat, and others follow meanwhile.
        let remaining = remaining(&daemon, &account).await;
        let calls = lab.wechat.calls(&account);
        assert!(remaining + calls + 1 >= 1000, "{account}: {remaining} remain after {calls} calls");
    }
}

#[tokio::test]
async fn an_unwell_host_is_asked_by_few_calls_for_all_and_wakes_everybody_when_it_is_well() {
    for outage in [Outage::Status(502), Outage::Hang, Outage::Refuse] {
        let lab = lab(7_200_000, 300_000).await;
        lab.wechat.set_outage(Some(outage));
        let daemon = lab.start().await;
        until_all(&daemon, "unavailable").await;
        until_host_is(&daemon, &lab, 0.0).await;
        let spent = async || {
            let mut spent = 0;
            for (account, _) in accounts() {
                spent += 1000 - remaining(&daemon, &account).await;
            }
            spent
        };
        let before = spent().await;
        let down = daemon.log.text();
        assert!(down.contains("upstream host is down"), "{down}");
        lab.wechat.set_outage(None);
        until_all(&daemon, "fresh").await;
        until_host_is(&daemon, &lab, 1.0).await;
        let after = spent().await;
        assert!(
            after <= before + ACCOUNTS as u64 * 2,
            "{outage:?}: {before} calls in the outage, {after} in all"
        );
        assert!(before <= ACCOUNTS as u64 * 3, "{outage:?}: {before} calls in the outage");
    }
}
