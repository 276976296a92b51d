//! Real SDKs, each in its own way: through Redis, through WeChat's calls behind nginx, and through the API.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::process::Command;
use wxtokend_core::secret::hex;

use crate::harness::{Http, Lab, Nginx, Redis, appid, node_packages, python_with, said, tool, words};

/// WeChat states whole seconds, so 40 s of it.
const LIFETIME_MS: u64 = 40_900;
/// One second more than the daemon assumes. node-easywechat keeps a token for up to a second longer than
/// promised, which is the daemon's whole margin. WeChat's extra second lets its last call arrive on a slow
/// machine.
const OVERLAP_MS: u64 = 11_000;
const KEY: &str = "key-of-the-sdks-5ecre7";
const ACCOUNTS: [&str; 2] = ["stable", "classic"];

/// The report of an SDK about its work with an account.
#[derive(Debug, Deserialize)]
struct Work {
    calls: u64,
    /// Hashes of the tokens that its calls used.
    tokens: BTreeSet<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks")
}

/// Runs an SDK to its end. It knows only what is in `environment`, and no proxy of the machine.
async fn run(
    lab: &Lab,
    mut program: Command,
    script: &str,
    environment: &[(&str, OsString)],
) -> BTreeMap<String, Work> {
    program.arg(folder().join(script));
    let mut program = lab.prepared(program);
    program.env_clear().envs(environment.iter().cloned());
    let ended = said(program).await;
    assert!(ended.status.success(), "{script}: {}", words(&ended));
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{script}: {}", words(&ended)))
}

/// Waits for the account's token and the next three, and returns their hashes. That takes two lifetimes or
/// more, since each refresh comes after at least two thirds of one.
async fn four_tokens(api: &Http, account: &str) -> BTreeSet<String> {
    let mut tokens = BTreeSet::new();
    let mut answer = api.token(account).await;
    loop {
        tokens.insert(hex(&Sha256::digest(answer.access_token())));
        if tokens.len() == 4 {
            return tokens;
        }
        let after = answer.json()["version"].clone();
        answer = api.get(&format!("/v1/accounts/{account}/token?after={after}&wait=60s")).await;
    }
}

#[tokio::test]
async fn three_sdks_share_accounts_through_two_lifetimes_and_no_call_is_refused() {
    let folder = folder();
    let requirements = folder.join("requirements.txt");
    let (python, ()) = tokio::join!(python_with(&requirements), node_packages(&folder));
    let node = tool("node", "nodejs").await.as_std().get_program().to_owned();

    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    lab.config["upstream"]["overlap"] = json!("10s");
    lab.config["api"]["clients"] = json!([{ "name": "sdks", "key": KEY, "accounts": ["*"] }]);
    lab.config["publish"] =
        json!([{ "name": "main", "redis": redis.url(), "preset": "wechatpy", "accounts": ["*"] }]);
    let daemon = lab.start().await;
    let api = daemon.with_key(KEY);
    let nginx = Nginx::start(&lab, &daemon).await;
    for account in ACCOUNTS {
        api.until_state(account, "fresh").await;
        let token = api.token_value(account).await;
        redis.until(&format!("wechatpy:{account}_access_token"), Some(&json!(token).to_string())).await;
    }

    let enough = lab.path("enough");
    let environment = [
        ("PATH", std::env::var_os("PATH").unwrap()),
        ("UNTIL", enough.clone().into()),
        ("WECHAT", format!("http://{}", lab.wechat.address).into()),
        ("REDIS", redis.url().into()),
        ("HUB", format!("http://{}/", nginx.http.address()).into()),
        ("API", format!("http://{}", daemon.address()).into()),
        ("KEY", KEY.into()),
        ("CACHE", lab.path("cache").into()),
    ];
    let watch = async || {
        let served = tokio::join!(four_tokens(&api, "stable"), four_tokens(&api, "classic"));
        std::fs::write(&enough, "").unwrap();
        served
    };
    let (served, wechatpy, easywechat, co_wechat_api) = tokio::join!(
        watch(),
        run(&lab, Command::new(python), "with_wechatpy.py", &environment),
        run(&lab, Command::new(&node), "with_easywechat.mjs", &environment),
        run(&lab, Command::new(&node), "with_co_wechat_api.mjs", &environment),
    );

    for (account, served) in ACCOUNTS.into_iter().zip([served.0, served.1]) {
        let works = [&wechatpy[account], &easywechat[account], &co_wechat_api[account]];
        let counters = lab.wechat.counters(&appid(account));
        let refreshed = format!("wxtokend_refreshes_total{{appid=\"{account}\",outcome=\"refreshed\"}}");
        assert_eq!(daemon.metric(&refreshed).await, Some(4.0), "{account}");
        assert_eq!((lab.wechat.calls(account), lab.wechat.mints(account)), (4, 4), "{account}: {counters:?}");
        let calls = works.iter().map(|work| work.calls).sum();
        assert_eq!(
            (counters.business_calls, counters.business_refused),
            (calls, 0),
            "{account}: {counters:?}"
        );
        for Work { calls, tokens } in works {
            assert!(*calls > 0 && tokens.len() >= 3 && tokens.is_subset(&served), "{account}: {works:?}");
        }
    }
    for path in ["/cgi-bin/token", "/cgi-bin/stable_token"] {
        let asked =
            format!("wxtokend_http_request_duration_seconds_count{{route=\"{path}\",status=\"200\"}}");
        assert!(daemon.metric(&asked).await >= Some(3.0), "node-easywechat has its tokens from {path}");
    }
    let drift = daemon.metric("wxtokend_redis_drift_total{sink=\"main\"}").await;
    assert_eq!(drift, Some(0.0), "no SDK has written a token of its own");
}

#[tokio::test]
async fn sdks_whose_calls_are_passed_on_never_notice_that_somebody_ended_their_tokens() {
    let folder = folder();
    let requirements = folder.join("requirements.txt");
    let (python, ()) = tokio::join!(python_with(&requirements), node_packages(&folder));
    let node = tool("node", "nodejs").await.as_std().get_program().to_owned();

    let mut lab = Lab::new(600_000, 150_000).await.with_both();
    let redis = Redis::start(&lab).await;
    lab.config["upstream"]["overlap"] = json!("100s");
    lab.config["defaults"]["rejection_cooldown"] = json!("1ms");
    lab.config["api"]["clients"] =
        json!([{ "name": "sdks", "key": KEY, "accounts": ["*"], "allow": ["read", "call"] }]);
    lab.config["proxy"] = json!({ "transparent": [{ "client": "sdks", "from": ["127.0.0.0/8"] }] });
    lab.config["publish"] =
        json!([{ "name": "main", "redis": redis.url(), "preset": "wechatpy", "accounts": ["*"] }]);
    let daemon = lab.start().await;
    let api = daemon.with_key(KEY);
    for account in ACCOUNTS {
        api.until_state(account, "fresh").await;
        let token = api.token_value(account).await;
        redis.until(&format!("wechatpy:{account}_access_token"), Some(&json!(token).to_string())).await;
    }

    let enough = lab.path("enough");
    // All that they take for WeChat is the daemon.
    let hub = format!("http://{}", daemon.address());
    let environment = [
        ("PATH", std::env::var_os("PATH").unwrap()),
        ("UNTIL", enough.clone().into()),
        ("WECHAT", hub.clone().into()),
        ("REDIS", redis.url().into()),
        ("HUB", format!("{hub}/").into()),
        ("API", hub.into()),
        ("KEY", KEY.into()),
        ("SECRET", KEY.into()),
        ("CACHE", lab.path("cache").into()),
    ];
    let passed_on = async |outcome: &str| {
        let name = format!("wxtokend_proxy_calls_total{{outcome=\"{outcome}\"}}");
        daemon.metric(&name).await.unwrap_or_default()
    };
    let until_calls_are = async |more: f64| {
        let before = passed_on("passed").await;
        while passed_on("passed").await < before + more {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let kill = async || {
        until_calls_are(20.0).await;
        // WeChat allows no second forced refresh of a stable token within 30 s.
        for (account, kills) in [("stable", 1), ("classic", 3)] {
            for _ in 0..kills {
                lab.wechat.kill_tokens(&appid(account));
                until_calls_are(20.0).await;
            }
        }
        std::fs::write(&enough, "").unwrap();
    };
    // Each ends with an error at its first call that fails.
    let ((), wechatpy, easywechat, co_wechat_api) = tokio::join!(
        kill(),
        run(&lab, Command::new(python), "with_wechatpy.py", &environment),
        run(&lab, Command::new(&node), "with_easywechat.mjs", &environment),
        run(&lab, Command::new(&node), "with_co_wechat_api.mjs", &environment),
    );
    for account in ACCOUNTS {
        let works = [&wechatpy[account], &easywechat[account], &co_wechat_api[account]];
        assert!(works.iter().all(|work| work.calls > 5), "{account}: {works:?}");
        // node-easywechat keeps the first for as long as it was promised.
        assert_eq!(easywechat[account].tokens.len(), 1, "{account}: {works:?}");
    }
    assert!(passed_on("repeated").await >= 4.0);
    for outcome in ["refused", "refused_again", "not_repeated", "no_token", "bad_gateway", "gateway_timeout"]
    {
        assert_eq!(passed_on(outcome).await, 0.0, "{outcome}");
    }
}
