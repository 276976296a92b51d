//! Many clients at once: readers of a cold account, and clients whose token WeChat has rejected.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::task::JoinSet;
use wxtokend_sandbox::{Fault, FaultKind};

use crate::harness::{Daemon, Lab, Reader, appid};

const ACCOUNTS: [&str; 2] = ["stable", "classic"];

#[tokio::test]
async fn two_hundred_readers_of_a_cold_account_cause_one_call() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 1500 }));
    let daemon = lab.start().await;
    for account in ACCOUNTS {
        let mut readers = JoinSet::new();
        for _ in 0..200 {
            let (http, mut reader) = (daemon.http.clone(), Reader::new(&lab.wechat, account));
            readers.spawn(async move { reader.read(&http).await.expect("a token, after a wait") });
        }
        let readings = readers.join_all().await;
        assert!(readings.iter().all(|reading| reading.access_token == readings[0].access_token));
        assert_eq!(lab.wechat.calls(account), 1, "{account}");
    }
}

/// A lab and a daemon with a day in which nothing is due, and in which one decision stays valid.
async fn quiet() -> (Lab, Daemon) {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["defaults"]["rejection_cooldown"] = json!("1h");
    let daemon = lab.start().await;
    for account in ACCOUNTS {
        daemon.until_state(account, "fresh").await;
    }
    (lab, daemon)
}

/// A hundred clients with ten rejections each. Returns the outcomes and the one token that all clients
/// received.
async fn reject_a_thousand_times(
    daemon: &Daemon,
    account: &str,
    token: &str,
) -> (BTreeMap<String, usize>, String) {
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let (http, account, token) = (daemon.http.clone(), account.to_owned(), token.to_owned());
        clients.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..10 {
                answers.push(http.reject(&account, &token).await);
            }
            answers
        });
    }
    let answers: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    let mut outcomes = BTreeMap::new();
    let handed = answers[0].access_token();
    for answer in &answers {
        assert_eq!((answer.status, answer.access_token()), (200, handed.clone()), "{answer:?}");
        *outcomes.entry(answer.word("outcome")).or_default() += 1;
    }
    (outcomes, handed)
}

#[tokio::test]
async fn a_thousand_rejections_of_a_dead_token_cause_one_check_and_one_mint() {
    let (lab, daemon) = quiet().await;
    for account in ACCOUNTS {
        let dead = daemon.token_value(account).await;
        lab.wechat.kill_tokens(&appid(account));
        let (outcomes, handed) = reject_a_thousand_times(&daemon, account, &dead).await;
        assert!(handed != dead && lab.wechat.is_alive(&handed), "{account}");
        assert!(
            outcomes.keys().all(|outcome| ["refreshed", "superseded"].contains(&&**outcome)),
            "{outcomes:?}"
        );
        let counters = lab.wechat.counters(&appid(account));
        // On `stable_token` the dead token is returned at first.
        let calls = if account == "stable" { 3 } else { 2 };
        assert_eq!((counters.checks, lab.wechat.calls(account)), (1, calls), "{account}");
        assert_eq!(lab.wechat.mints(account), 2, "{account}");
        let counted = format!("wxtokend_rejections_total{{appid=\"{account}\",outcome=\"refreshed\"}}");
        assert_eq!(daemon.metric(&counted).await, outcomes.get("refreshed").map(|count| *count as f64));
    }
}

#[tokio::test]
async fn a_thousand_rejections_of_a_living_token_cause_one_check_and_no_mint() {
    let (lab, daemon) = quiet().await;
    for account in ACCOUNTS {
        let living = daemon.token_value(account).await;
        let (outcomes, handed) = reject_a_thousand_times(&daemon, account, &living).await;
        assert_eq!(handed, living);
        assert_eq!(outcomes, BTreeMap::from([("still_valid".to_owned(), 1000)]), "{account}");
        let counters = lab.wechat.counters(&appid(account));
        assert_eq!((counters.checks, lab.wechat.calls(account)), (1, 1), "{account}");
    }
}

#[tokio::test]
async fn a_thousand_rejections_of_an_old_token_cause_nothing_and_bring_the_current_one() {
    let (lab, daemon) = quiet().await;
    for account in ACCOUNTS {
        let old = daemon.token_value(account).await;
        lab.wechat.kill_tokens(&appid(account));
        assert_eq!(daemon.reject(account, &old).await.word("outcome"), "refreshed");
        let before = lab.wechat.counters(&appid(account));
        for stale in [old.as_str(), "never-was-a-token"] {
            let (outcomes, handed) = reject_a_thousand_times(&daemon, account, stale).await;
            assert_eq!(outcomes, BTreeMap::from([("superseded".to_owned(), 1000)]), "{account}");
            assert_eq!(handed, daemon.token_value(account).await);
        }
        assert_eq!(lab.wechat.counters(&appid(account)), before, "{account}");
    }
}
