//! `kill -9` in the middle of everything, and what the next process makes of the store.

use std::collections::HashMap;
use std::time::Duration;

use rand::random_range;
use serde_json::json;
use tokio::time::{Instant, sleep};
use wxtokend::sandbox::{Call, Fault, FaultKind};

use crate::harness::{Http, Lab, Reader, appid, find, until};

const ACCOUNTS: [&str; 2] = ["stable", "classic"];

/// Clients of one account that outlive the daemon, and what they were ever given.
struct Crowd {
    readers: Vec<Reader>,
    by_version: HashMap<u64, String>,
}

impl Crowd {
    fn of(lab: &Lab, account: &str) -> Self {
        Self {
            readers: (0..4).map(|_| Reader::new(&lab.wechat, account)).collect(),
            by_version: HashMap::new(),
        }
    }

    /// Everybody reads once; some report a token as refused.
    async fn read(&mut self, http: &Http, account: &str) {
        for reader in &mut self.readers {
            let Some(reading) = reader.read_and_keep(http).await else { continue };
            let known =
                self.by_version.entry(reading.version).or_insert_with(|| reading.access_token.clone());
            assert_eq!(*known, reading.access_token, "{account}: version {} has two values", reading.version);
            if random_range(0..10) == 0 {
                http.try_reject(account, &reading.access_token).await;
            }
        }
    }
}

#[tokio::test]
async fn after_kill_9_at_any_instant_no_version_goes_back_and_no_dead_token_is_served() {
    let lab = Lab::new(5_000, 1_200).await.with_both();
    for (account, call) in [("stable", Call::StableToken), ("classic", Call::Token)] {
        // WeChat mints at once and answers late: a good part of the kills hits a call.
        lab.wechat.inject(Some(&appid(account)), Fault::new(FaultKind::Delay { delay_ms: 400 }).on(call));
    }
    let mut crowds = ACCOUNTS.map(|account| Crowd::of(&lab, account));
    for _ in 0..16 {
        let daemon = lab.start().await;
        let end = Instant::now() + Duration::from_millis(random_range(0..1_500));
        let [stable, classic] = &mut crowds;
        let load = async |crowd: &mut Crowd, account: &str| loop {
            crowd.read(&daemon, account).await;
            sleep(Duration::from_millis(5)).await;
        };
        tokio::select! {
            () = load(stable, "stable") => {}
            () = load(classic, "classic") => {}
            () = tokio::time::sleep_until(end) => {}
        }
        daemon.kill().await;
    }
    let daemon = lab.start().await;
    for (account, crowd) in ACCOUNTS.into_iter().zip(&mut crowds) {
        let seen = crowd.by_version.keys().max().copied();
        until(&format!("{account} recovers"), async || {
            crowd.read(&daemon, account).await;
            crowd.by_version.keys().max().copied() > seen
        })
        .await;
        assert!(crowd.by_version.len() > 2, "{account}: the tokens hardly changed");
    }
}

#[tokio::test]
async fn after_kill_9_a_valid_token_is_served_again_without_a_call() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    let mut before = Vec::new();
    for account in ACCOUNTS {
        daemon.until_state(account, "fresh").await;
        before.push(daemon.token(account).await.json());
    }
    daemon.kill().await;
    lab.wechat.close().await;
    for _ in 0..3 {
        let daemon = lab.start().await;
        for (account, before) in ACCOUNTS.into_iter().zip(&before) {
            let after = daemon.token(account).await.json();
            for key in ["access_token", "version", "expires_at"] {
                assert_eq!(after[key], before[key], "{account}: {key}");
            }
            assert_eq!(daemon.state(account).await, "fresh");
            assert_eq!(lab.wechat.calls(account), 1);
        }
        daemon.kill().await;
    }
}

#[tokio::test]
async fn after_kill_9_during_a_call_on_token_the_old_token_is_trusted_for_the_overlap_only() {
    let mut lab = Lab::new(60_000, 2_000).await.with("classic", json!({ "endpoint": "token" }));
    lab.config["upstream"]["timeout"] = json!("10s");
    let daemon = lab.start().await;
    daemon.until_state("classic", "fresh").await;
    let mut reader = Reader::new(&lab.wechat, "classic");
    let first = reader.read(&daemon).await.unwrap();
    lab.wechat
        .inject(Some(&appid("classic")), Fault::new(FaultKind::Delay { delay_ms: 9_000 }).on(Call::Token));
    // It mints at once, so the first token dies an overlap later, with most of its promised life left.
    until("the second call is under way", async || {
        let http = daemon.http.clone();
        let asked = tokio::spawn(async move { http.try_refresh("classic", false).await });
        sleep(Duration::from_millis(300)).await;
        asked.abort();
        lab.wechat.mints("classic") == 2
    })
    .await;
    daemon.kill().await;
    lab.wechat.clear_faults(Some(&appid("classic")));
    let daemon = lab.start().await;
    let next = find("another token", async || {
        let reading = reader.read(&daemon).await;
        reading.filter(|reading| reading.access_token != first.access_token)
    })
    .await;
    assert_eq!(next.version, first.version + 1);
    assert!(lab.wechat.is_alive(&next.access_token));
}
