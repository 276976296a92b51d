//! Reloading the file on SIGHUP.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Call, Fault, FaultKind};

use crate::harness::{Daemon, Lab, TIMEOUT, appid, find, until};

const LIFETIME_MS: u64 = 7_200_000;

async fn reload_successful(daemon: &Daemon) -> Option<f64> {
    daemon.metric("wxtokend_config_last_reload_successful").await
}

#[tokio::test]
async fn a_reload_adds_removes_and_changes_accounts_and_leaves_the_rest_alone() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await;
    for account in ["stays", "goes", "changes"] {
        lab.add(account, json!({ "tags": ["old"] }));
    }
    let daemon = lab.start().await;
    let mut tokens = Vec::new();
    for account in ["stays", "changes", "goes"] {
        daemon.until_state(account, "fresh").await;
        tokens.push(daemon.token(account).await.json());
    }
    lab.config["accounts"].as_array_mut().unwrap().retain(|account| account["appid"] != "goes");
    lab.account("changes")["name"] = json!("New Name");
    lab.account("changes")["tags"] = json!(["new"]);
    lab.add("comes", json!({ "endpoint": "token" }));
    lab.write();
    let line = daemon.reload().await;
    assert_eq!(
        (&line["added"], &line["removed"], &line["changed"]),
        (&json!(1), &json!(1), &json!(1)),
        "{line}"
    );
    assert_eq!(reload_successful(&daemon).await, Some(1.0));

    daemon.until_state("comes", "fresh").await;
    assert!(lab.wechat.is_alive(&daemon.token_value("comes").await));
    let changed = daemon.view("changes").await;
    assert_eq!((&changed["name"], &changed["tags"]), (&json!("New Name"), &json!(["new"])));
    for (account, before) in ["stays", "changes"].iter().zip(&tokens) {
        let after = daemon.token(account).await.json();
        assert_eq!(
            (&after["access_token"], &after["version"]),
            (&before["access_token"], &before["version"])
        );
        assert_eq!(lab.wechat.calls(account), 1, "{account}");
    }
    for path in ["/v1/accounts/goes", "/v1/accounts/goes/token"] {
        let answer = daemon.get(path).await;
        assert_eq!((answer.status, answer.word("code").as_str()), (404, "unknown_account"));
    }
    assert!(
        !daemon.get("/metrics").await.body.contains("\"goes\""),
        "a removed account is gone from the scrape"
    );
    assert!(!daemon.get("/v1/accounts").await.body.contains("\"goes\""));
}

#[tokio::test]
async fn a_removed_accounts_token_is_gone_from_the_store_and_its_version_is_not() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both().with("stays", json!({}));
    let daemon = lab.start().await;
    let mut before = Vec::new();
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
        before.push(daemon.token(account).await.json());
    }
    let all = lab.config["accounts"].clone();
    lab.config["accounts"] = json!([all[2]]);
    lab.write();
    daemon.reload().await;
    daemon.kill().await;
    lab.config["accounts"] = all;
    lab.wechat.close().await;
    let daemon = lab.start().await;
    for (account, before) in ["stable", "classic"].into_iter().zip(&before) {
        daemon.until_state(account, "unavailable").await;
        assert_eq!(daemon.token(account).await.status, 503, "the token was erased");
        let view = daemon.view(account).await;
        assert_eq!(
            (&view["version"], &view["budget"]["remaining"]),
            (&before["version"], &json!(999)),
            "{view}"
        );
    }
    lab.wechat.reopen().await;
    for (account, before) in ["stable", "classic"].into_iter().zip(&before) {
        // WeChat returns the old value again on `stable_token`. The daemon cannot know that, and increments
        // the version.
        daemon.until_state(account, "fresh").await;
        let version = daemon.token(account).await.json()["version"].as_u64();
        assert_eq!(version, before["version"].as_u64().map(|version| version + 1), "{account}");
    }
}

#[tokio::test]
async fn a_changed_secret_is_tried_at_once_while_the_old_token_is_served() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
        let before = daemon.token(account).await.json();
        lab.wechat.set_secret(&appid(account), Secret::new("the-new-secret"));
        lab.wechat.inject(Some(&appid(account)), Fault::new(FaultKind::Delay { delay_ms: 1_000 }));
        lab.account(account)["secret"] = json!("the-new-secret");
        lab.write();
        daemon.reload().await;
        let mut served_meanwhile = 0;
        until(&format!("{account} was called with the new secret"), async || {
            let answer = daemon.token(account).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            served_meanwhile += usize::from(answer.access_token() == before["access_token"]);
            lab.wechat.calls(account) == 2 && daemon.state(account).await == "fresh"
        })
        .await;
        assert!(served_meanwhile > 0);
        assert_eq!(daemon.view(account).await["last_fault"], Value::Null);
        let after = daemon.token(account).await.json();
        // On `stable_token` WeChat returns the same token.
        let newer = after["access_token"] != before["access_token"];
        assert_eq!(newer, account == "classic");
    }
}

#[tokio::test]
async fn a_parked_account_is_tried_at_once_with_a_corrected_secret_from_a_file_too() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with("wx01", json!({}));
    let account = lab.account("wx01").as_object_mut().unwrap();
    let right = account.remove("secret").unwrap();
    account.insert("secret_file".to_owned(), json!("secret.txt"));
    std::fs::write(lab.path("secret.txt"), "wrong\n").unwrap();
    let daemon = lab.start().await;
    daemon.until_state("wx01", "parked").await;
    std::fs::write(lab.path("secret.txt"), format!("{}\n", right.as_str().unwrap())).unwrap();
    daemon.reload().await;
    daemon.until_state("wx01", "fresh").await;
}

#[tokio::test]
async fn a_broken_file_is_refused_whole_and_everything_runs_on_untouched() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let token = daemon.token_value("stable").await;
    let good = lab.config.clone();
    lab.account("stable")["endpoint"] = json!("both");
    lab.account("stable")["name"] = json!("Renamed");
    lab.config["accounts"].as_array_mut().unwrap().remove(1);
    lab.add("comes", json!({ "daily_budget": 3, "secret": "hunter2-in-the-broken-file" }));
    let broken = [serde_json::to_string(&lab.config).unwrap(), "accounts: [".to_owned(), String::new()];
    for (n, text) in broken.iter().enumerate() {
        std::fs::write(lab.path("accounts.yaml"), text).unwrap();
        daemon.signal(rustix::process::Signal::HUP);
        let line = daemon.event("reload", n + 1).await;
        assert_eq!((&line["level"], &line["successful"]), (&json!("ERROR"), &json!(false)), "{line}");
        assert!(line["config"].as_str().unwrap().contains("accounts.yaml"), "{line}");
        if n == 0 {
            let problems = line["problems"].as_str().unwrap();
            for place in ["accounts[0].endpoint", "accounts[1].daily_budget"] {
                assert!(problems.contains(place), "{problems}");
            }
        }
        until("the metric says so", async || reload_successful(&daemon).await == Some(0.0)).await;
        assert_eq!(daemon.view("stable").await["name"], "stable");
        assert_eq!(daemon.token_value("stable").await, token);
        assert_eq!(daemon.state("classic").await, "fresh");
        assert_eq!(daemon.get("/v1/accounts/comes").await.status, 404);
    }
    std::fs::remove_file(lab.path("accounts.yaml")).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.event("reload", 4).await;
    assert!(!daemon.log.text().contains("hunter2"), "{}", daemon.log.text());
    lab.config = good;
    lab.write();
    let line = daemon.reload().await;
    assert_eq!(
        (&line["added"], &line["removed"], &line["changed"]),
        (&json!(0), &json!(0), &json!(0)),
        "{line}"
    );
    assert_eq!(reload_successful(&daemon).await, Some(1.0));
    assert_eq!((lab.wechat.calls("stable"), lab.wechat.calls("classic")), (1, 1));
}

#[tokio::test]
async fn a_reload_that_meets_a_pipe_is_refused_and_the_next_one_works() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with("wx01", json!({}));
    let account = lab.account("wx01").as_object_mut().unwrap();
    let secret = account.remove("secret").unwrap();
    account.insert("secret_file".to_owned(), json!("secret.txt"));
    std::fs::write(lab.path("secret.txt"), secret.as_str().unwrap()).unwrap();
    let daemon = lab.start().await;
    daemon.until_state("wx01", "fresh").await;
    for (n, name) in ["secret.txt", "accounts.yaml"].into_iter().enumerate() {
        std::fs::rename(lab.path(name), lab.path("away")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(lab.path(name)).status().unwrap();
        assert!(made.success());
        daemon.signal(rustix::process::Signal::HUP);
        let line = daemon.event("reload", 2 * n + 1).await;
        assert_eq!(line["successful"], false, "{line}");
        assert!(line["problems"].as_str().unwrap().contains("it is a pipe"), "{line}");
        std::fs::rename(lab.path("away"), lab.path(name)).unwrap();
        daemon.reload().await;
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_warning_is_logged_once_at_the_start_or_at_the_reload_that_brings_it() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with("wx01", json!({}));
    let daemon = lab.start().await;
    let warned = |part: &str| {
        let lines = daemon.log.events("config_warning");
        let reported = lines.iter().filter(|line| line["message"].as_str().unwrap().contains(part));
        reported.inspect(|line| assert_eq!(line["level"], "WARN")).count()
    };
    let appid = "accounts[0].appid: is not wx and 16 hex digits";
    assert_eq!((warned(appid), warned("accounts[1]")), (1, 0));
    lab.add("wx02", json!({}));
    lab.write();
    daemon.reload().await;
    daemon.reload().await;
    assert_eq!((warned(appid), warned("accounts[1].appid")), (1, 1));
}

#[tokio::test]
async fn a_changed_listener_or_store_is_reported_as_needing_a_restart() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both();
    let daemon = lab.start().await;
    lab.config["api"]["listen"] = json!("127.0.0.1:1");
    lab.config["store"]["path"] = json!("another.redb");
    lab.config["metrics"] = json!({ "listen": "127.0.0.1:0" });
    lab.write();
    daemon.reload().await;
    let line = daemon.event("restart_needed", 1).await;
    assert_eq!(
        (&line["level"], &line["keys"]),
        (&json!("WARN"), &json!("api.listen, metrics.listen, store.path"))
    );
    assert_eq!(daemon.get("/healthz").await.status, 200, "it listens where it did");
    assert!(!lab.path("another.redb").exists());
}

#[tokio::test]
async fn which_accounts_have_metrics_of_their_own_is_changed_by_a_reload() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both();
    lab.config["metrics"] = json!({ "per_account": "none" });
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let shown = async || daemon.get("/metrics").await.body.contains("appid=\"stable\"");
    assert!(!shown().await);
    for (accounts, expected) in [("all", true), ("troubled", false)] {
        lab.config["metrics"]["per_account"] = json!(accounts);
        lab.write();
        daemon.reload().await;
        assert_eq!(shown().await, expected, "{accounts}");
    }
    assert_eq!(daemon.metric("wxtokend_accounts{state=\"fresh\"}").await, Some(2.0));
}

#[tokio::test]
async fn clients_and_their_rights_are_swapped_by_a_reload() {
    let client = |name: &str, key: &str, accounts: Value, allow: Value| json!({ "name": name, "key": key, "accounts": accounts, "allow": allow });
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both();
    lab.config["api"]["clients"] = json!([client("crm", "old-key", json!(["*"]), json!(["read"]))]);
    let daemon = lab.start().await;
    let [old, new] = ["old-key", "new-key"].map(|key| daemon.http.with_key(key));
    let token = async |http: &crate::harness::Http, account: &str| {
        let answer = http.token(account).await;
        let code = if answer.status == 200 { String::new() } else { answer.word("code") };
        (answer.status, code)
    };
    old.until_state("stable", "fresh").await;
    assert_eq!(token(&old, "stable").await.0, 200);
    assert_eq!(token(&new, "stable").await, (401, "unauthorized".to_owned()));
    assert_eq!(token(&daemon.http, "stable").await, (401, "unauthorized".to_owned()));
    lab.config["api"]["clients"] =
        json!([client("crm", "new-key", json!(["stable"]), json!(["read", "admin"]))]);
    lab.write();
    daemon.reload().await;
    assert_eq!(token(&old, "stable").await, (401, "unauthorized".to_owned()));
    assert_eq!(token(&new, "stable").await.0, 200);
    assert_eq!(token(&new, "classic").await, (403, "forbidden".to_owned()));
    assert_eq!(new.refresh("stable", false).await.status, 200);
    assert_eq!(new.reject("stable", "x").await.word("code"), "forbidden");
}

#[tokio::test]
async fn another_endpoint_or_upstream_takes_over_without_a_gap_or_a_strangers_token() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with("wx01", json!({}));
    let daemon = lab.start().await;
    daemon.until_state("wx01", "fresh").await;
    let first = daemon.token("wx01").await.json();
    lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 500 }).on(Call::Token));
    lab.account("wx01")["endpoint"] = json!("token");
    lab.write();
    daemon.reload().await;
    until("a token of the other endpoint", async || {
        let answer = daemon.token("wx01").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(lab.wechat.is_alive(&answer.access_token()));
        answer.access_token() != first["access_token"]
    })
    .await;
    assert_eq!(lab.wechat.counters(&appid("wx01")).token_calls, 1);
    let second = daemon.token("wx01").await.json();

    let elsewhere = Lab::new(LIFETIME_MS, 300_000).await.with("wx01", json!({}));
    lab.config["upstream"] = elsewhere.config["upstream"].clone();
    lab.write();
    daemon.reload().await;
    let third = find("a token", async || {
        let answer = daemon.token("wx01").await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert!(elsewhere.wechat.is_alive(third["access_token"].as_str().unwrap()));
    assert_eq!(third["version"].as_u64(), second["version"].as_u64().map(|version| version + 1));
}

/// Sends a request completely.
async fn begin(daemon: &Daemon, key: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.address()).await.unwrap();
    let head = format!("Host: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close");
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// The status and the body of the answer.
async fn answered(mut stream: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut text)).await.expect("an answer").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

/// The accounts change in the same reload, so that there is a new token as soon as the clients have been
/// replaced.
#[tokio::test]
async fn a_waiting_client_whose_key_or_right_a_reload_takes_away_gets_no_token() {
    const WAITING: &str = "the-key-of-who-is-waiting";
    let entry = |key: &str, accounts: &[&str], allow: &str| json!({ "name": key, "key": key, "accounts": accounts, "allow": [allow] });
    for (after, code) in [
        (entry("the-key-of-another", &["*"], "read"), "unauthorized"),
        (entry(WAITING, &["others*"], "read"), "forbidden"),
        (entry(WAITING, &["*"], "refresh"), "forbidden"),
        (entry(WAITING, &["stable"], "read"), ""),
    ] {
        let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with("stable", json!({}));
        lab.config["api"]["clients"] =
            json!([entry(WAITING, &["*"], "read"), entry("the-key-of-the-test", &["*"], "admin")]);
        let daemon = lab.start().await;
        let first = find("it has a token", async || {
            let answer = answered(begin(&daemon, WAITING, "/v1/accounts/stable/token").await).await;
            (answer.0 == 200).then_some(answer.1)
        })
        .await;
        let path = format!("/v1/accounts/stable/token?after={}&wait=60s", first["version"]);
        let polled = begin(&daemon, WAITING, &path).await;
        lab.wechat.set_secret(&appid("stable"), Secret::new("the-new-secret"));
        lab.wechat.kill_tokens(&appid("stable"));
        lab.wechat.replace_dead_stable_tokens();
        lab.account("stable")["secret"] = json!("the-new-secret");
        lab.config["api"]["clients"] = json!([after, entry("the-key-of-the-test", &["*"], "admin")]);
        lab.write();
        daemon.reload().await;
        let (status, reported) = answered(polled).await;
        match code {
            "" => {
                assert_ne!((status, &reported["access_token"]), (200, &first["access_token"]), "{reported}")
            }
            code => {
                assert_eq!(reported["code"], code, "{status} {reported}");
                assert_eq!(reported.get("access_token"), None, "{reported}");
            }
        }
    }
}
