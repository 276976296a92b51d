//! Tokens that somebody else has ended, and that no client reports, are found and replaced.

use serde_json::json;

use crate::harness::{Daemon, Lab, Redis, appid, secret_of, until};

const LIFETIME_MS: u64 = 7_200_000;
const OVERLAP_MS: u64 = 1_000;

/// How many hints from `source` came to `verdict`.
async fn hints(daemon: &Daemon, source: &str, verdict: &str) -> f64 {
    let series = format!("wxtokend_hints_total{{source=\"{source}\",verdict=\"{verdict}\"}}");
    daemon.metric(&series).await.unwrap()
}

/// What an SDK sends that takes us for WeChat.
async fn asked(daemon: &Daemon, account: &str) -> String {
    let query = format!("grant_type=client_credential&appid={account}&secret=crm-key");
    daemon.get(&format!("/cgi-bin/token?{query}")).await.access_token()
}

#[tokio::test]
async fn an_sdk_that_asks_again_gets_a_living_token_and_our_own_api_is_no_hint() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    lab.config["api"]["clients"] =
        json!([{ "name": "crm", "key": "crm-key", "accounts": ["*"], "allow": ["read"] }]);
    lab.config["metrics"] = json!({ "listen": null });
    let mut daemon = lab.start().await;
    daemon.http = daemon.http.with_key("crm-key");
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
        let dead = asked(&daemon, account).await;
        lab.wechat.kill_tokens(&appid(account));
        // Whoever reads our own API does so for each call, and says nothing by that.
        for _ in 0..20 {
            assert_eq!(daemon.token_value(account).await, dead);
        }
        assert_eq!(hints(&daemon, "ask", "dead").await, if account == "stable" { 0.0 } else { 1.0 });
        until("the token is replaced", async || asked(&daemon, account).await != dead).await;
    }
    assert_eq!(hints(&daemon, "ask", "dead").await, 2.0);
    let found = daemon.event("check", 1).await;
    assert_eq!((&found["told"], &found["hint"]), (&json!("refused"), &json!("ask")));
    let text = daemon.log.text();
    assert!(!text.contains("crm-key") && !text.contains(&secret_of("stable")), "{text}");
}

#[tokio::test]
async fn a_token_in_use_that_somebody_ends_is_replaced_though_nobody_says_anything() {
    let audited = json!({ "endpoint": "token", "audit": "2s" });
    let lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with("classic", audited).with("stable", json!({}));
    let daemon = lab.start().await;
    for account in ["classic", "stable"] {
        daemon.until_state(account, "fresh").await;
    }
    let (dead, stable) = (daemon.token_value("classic").await, daemon.token_value("stable").await);
    until("it is found alive", async || hints(&daemon, "audit", "alive").await > 0.0).await;
    lab.wechat.kill_tokens(&appid("classic"));
    until("the token is replaced", async || daemon.token_value("classic").await != dead).await;
    assert_eq!(hints(&daemon, "audit", "dead").await, 1.0);
    assert_eq!(
        (daemon.token_value("stable").await, lab.wechat.counters(&appid("stable")).checks),
        (stable, 0)
    );
}

#[tokio::test]
async fn a_key_in_redis_that_an_sdk_deletes_or_overwrites_is_a_hint_and_our_own_token_is_none() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    lab.config["publish"] =
        json!([{ "name": "main", "redis": redis.url(), "key": "t:{appid}", "accounts": ["*"] }]);
    let daemon = lab.start().await;
    let drift = "wxtokend_redis_drift_total{sink=\"main\"}";
    for (account, overwritten) in [("stable", false), ("classic", true)] {
        daemon.until_state(account, "fresh").await;
        let (key, token) = (format!("t:{account}"), daemon.token_value(account).await);
        redis.until(&key, Some(&token)).await;
        // Our own token with an expiry of another's.
        let before = daemon.metric(drift).await.unwrap();
        redis.ask::<()>(&["PERSIST", &key]).await;
        until("that is put right", async || daemon.metric(drift).await.unwrap() > before).await;
        assert_eq!(hints(&daemon, "drift", "alive").await, 0.0);
        lab.wechat.kill_tokens(&appid(account));
        match overwritten {
            true => redis.ask::<()>(&["SET", &key, "of-somebody-else", "EX", "7000"]).await,
            false => redis.ask::<()>(&["DEL", &key]).await,
        }
        until("the token is replaced", async || daemon.token_value(account).await != token).await;
        redis.until(&key, Some(&daemon.token_value(account).await)).await;
    }
    assert_eq!(hints(&daemon, "drift", "dead").await, 2.0);
}
