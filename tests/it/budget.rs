//! The daily budget across restarts and crashes, and the messages once it is spent.

use serde_json::{Value, json};
use tokio::task::JoinSet;
use wxtokend_sandbox::{Fault, FaultKind};

use crate::harness::{Daemon, Lab, appid, until};

const ACCOUNTS: [&str; 2] = ["stable", "classic"];

#[tokio::test]
async fn the_budget_holds_across_restarts_and_kill_9_on_both_endpoints() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["defaults"]["daily_budget"] = json!(12);
    lab.config["defaults"]["retry"] = json!({ "initial": "20ms", "max": "50ms" });
    lab.wechat.inject(None, Fault::errcode(-1));
    for round in 0..10 {
        let daemon = lab.start().await;
        until("an attempt has ended", async || {
            let mut ended = true;
            for account in ACCOUNTS {
                ended &= daemon.view(account).await["last_fault"] != Value::Null;
            }
            ended
        })
        .await;
        if round % 3 == 0 {
            assert!(daemon.stop().await.success())
        } else {
            daemon.kill().await
        }
        for account in ACCOUNTS {
            assert!(
                lab.wechat.calls(account) <= 6,
                "half of the budget is the burst, the rest comes over 24 h"
            );
        }
    }
    let daemon = lab.start().await;
    for account in ACCOUNTS {
        // A kill between charge and call costs the account that call.
        assert!((3..=6).contains(&lab.wechat.calls(account)), "{account}: {}", lab.wechat.calls(account));
        let answer = daemon.token(account).await;
        assert_eq!((answer.status, answer.word("code").as_str()), (503, "budget_exhausted"), "{answer:?}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        // One call is returned every 4 h.
        assert!((13_000..=14_400).contains(&wait), "{wait}");
        let json = answer.json();
        assert_eq!(
            (&json["state"], &json["last_fault"]["kind"]),
            (&json!("unavailable"), &json!("throttled"))
        );
        assert!(json["last_fault"]["advice"].as_str().unwrap().contains("raise daily_budget"), "{json}");
        assert_eq!(daemon.view(account).await["budget"], json!({ "limit": 12, "remaining": 0 }));
        let gauge = format!("wxtokend_budget_remaining_calls{{appid=\"{account}\"}}");
        assert_eq!(daemon.metric(&gauge).await, Some(0.0));
    }
    // What is spent is a share of the window, whatever the budget: after an increase the calls return faster.
    lab.config["defaults"]["daily_budget"] = json!(2000);
    lab.write();
    daemon.reload().await;
    for account in ACCOUNTS {
        until("the wait is that of the new budget", async || {
            let answer = daemon.token(account).await;
            answer.header("retry-after").unwrap().parse::<u64>().unwrap() <= 87
        })
        .await;
        assert!(lab.wechat.calls(account) <= 6, "{account}");
    }
}

#[tokio::test]
async fn a_call_that_kill_9_interrupts_is_charged() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["defaults"]["daily_budget"] = json!(8);
    lab.config["upstream"]["timeout"] = json!("60s");
    lab.wechat.inject(None, Fault::new(FaultKind::Hang));
    for round in 1..=7 {
        let daemon = lab.start().await;
        for account in ACCOUNTS {
            until("a call is under way, or the budget is spent", async || {
                lab.wechat.calls(account) == round
                    || daemon.view(account).await["last_fault"]["kind"] == "throttled"
            })
            .await;
        }
        daemon.kill().await;
    }
    for account in ACCOUNTS {
        assert_eq!(lab.wechat.calls(account), 4, "{account}: half of the budget, whoever counts");
    }
}

/// Clients that request new tokens all the time, one request after another.
async fn hammer(daemon: &Daemon, account: &'static str) {
    let mut clients = JoinSet::new();
    for n in 0..8 {
        let http = daemon.http.clone();
        clients.spawn(async move {
            for _ in 0..8 {
                let answer = if n % 2 == 0 {
                    let token = http.try_token(account).await.filter(|answer| answer.status == 200);
                    let token = token.map_or_else(String::new, |answer| answer.access_token());
                    http.reject(account, if token.is_empty() { "none" } else { &token }).await
                } else {
                    http.refresh(account, n % 4 == 1).await
                };
                assert!([200, 503].contains(&answer.status), "{answer:?}");
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test]
async fn rejections_and_refreshes_cannot_starve_scheduled_refreshes_and_are_remembered_across_kill_9() {
    let mut lab = Lab::new(6_000, 1_500).await.with_both();
    lab.config["defaults"]["daily_budget"] = json!(32);
    lab.config["defaults"]["rejection_cooldown"] = json!("1ms");
    let mut daemon = lab.start().await;
    for account in ACCOUNTS {
        daemon.until_state(account, "fresh").await;
    }
    for _ in 0..3 {
        for account in ACCOUNTS {
            hammer(&daemon, account).await;
            let counters = lab.wechat.counters(&appid(account));
            // An eighth of the budget at once. More than one call per request is possible only if the request
            // is forced.
            assert!(counters.checks <= 4, "{account}: {counters:?}");
        }
        daemon.kill().await;
        daemon = lab.start().await;
    }
    for account in ACCOUNTS {
        let before = daemon.view(account).await["version"].as_u64().unwrap();
        until(&format!("scheduled refreshes of {account}"), async || {
            daemon.view(account).await["version"].as_u64().unwrap() >= before + 2
        })
        .await;
        assert_eq!(daemon.view(account).await["last_fault"], Value::Null);
        assert!(lab.wechat.calls(account) <= 16, "{account}: {}", lab.wechat.calls(account));
    }
}

#[tokio::test]
async fn removing_and_adding_an_account_gives_it_no_new_budget() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both().with("other", json!({}));
    lab.config["defaults"]["daily_budget"] = json!(8);
    lab.config["defaults"]["retry"] = json!({ "initial": "20ms", "max": "50ms" });
    for account in ACCOUNTS {
        lab.wechat
            .inject(Some(&appid(account)), Fault::new(FaultKind::Errcode { errcode: -1, errmsg: None }));
    }
    let daemon = lab.start().await;
    let all = lab.config["accounts"].clone();
    for _ in 0..6 {
        until("both have tried", async || {
            let mut tried = true;
            for account in ACCOUNTS {
                tried &= daemon.view(account).await["last_fault"] != Value::Null;
            }
            tried
        })
        .await;
        lab.config["accounts"] = json!([all[2].clone()]);
        lab.write();
        daemon.reload().await;
        lab.config["accounts"] = all.clone();
        lab.write();
        daemon.reload().await;
    }
    for account in ACCOUNTS {
        assert_eq!(lab.wechat.calls(account), 4, "{account}");
    }
}
