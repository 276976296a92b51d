//! Tokens in Redis, as SDKs find them there.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use serde_json::{Value, json};
use wxtokend_core::secret::hex;
use wxtokend_sandbox::{Call, Fault, FaultKind, LostAs};

use crate::harness::{CERTIFICATE, Daemon, Lab, Redis, appid, secret_of, until};

const LIFETIME_MS: u64 = 7_200_000;
/// Short, so that a token of the classic endpoint can be replaced at any time.
const OVERLAP_MS: u64 = 1_000;

/// A sink that writes tokens to `t:{appid}`.
fn sink(name: &str, redis: &Redis) -> Value {
    json!({ "name": name, "redis": redis.url(), "key": "t:{appid}", "accounts": ["*"] })
}

async fn is_up(daemon: &Daemon, name: &str) -> Option<f64> {
    daemon.metric(&format!("wxtokend_redis_up{{sink=\"{name}\"}}")).await
}

fn md5(text: &str) -> String {
    hex(&Md5::digest(text.as_bytes()))
}

/// The entries that each preset must write for an account, by key; `…` stands for the rest of the promise.
fn expected(name: &str, token: &str) -> BTreeMap<String, String> {
    let (secret, n) = (secret_of(name), token.len());
    let ew5 = md5(&format!(r#"{{"grant_type":"client_credential","appid":"{name}","secret":"{secret}"}}"#));
    let all = [
        (format!("wx:access_token:{name}"), token.to_owned()),
        (format!("gowechat_officialaccount__access_token_{name}"), token.to_owned()),
        (format!("gowechat_officialaccount__stable_access_token_{name}"), token.to_owned()),
        (format!("ns:official_account.access_token.{name}.{secret}.0"), format!("s:{n}:\"{token}\";")),
        (format!("ns:official_account.access_token.{name}.{secret}.1"), format!("s:{n}:\"{token}\";")),
        (
            format!("easywechat.kernel.access_token.{ew5}"),
            format!("a:2:{{s:12:\"access_token\";s:{n}:\"{token}\";s:10:\"expires_in\";i:…;}}"),
        ),
        (
            format!("powerwechat.access_token.{}", md5(&format!("{name}{secret}"))),
            format!("{{\"access_token\":\"{token}\",\"expires_in\":…}}"),
        ),
        (format!("wechatpy:{name}_access_token"), format!("\"{token}\"")),
        (format!("wechatpy:{name}_access_token_expires_at"), "…".to_owned()),
        (format!("raw/{name}"), format!("{{\"t\":\"{token}\"}}")),
    ];
    all.into()
}

#[tokio::test]
async fn every_preset_is_in_redis_with_the_token_and_the_promise_on_both_endpoints() {
    let mut lab = Lab::new(LIFETIME_MS, 300_000).await.with_both();
    let redis = Redis::start(&lab).await;
    let presets = [
        "wxjava",
        "silenceper",
        "silenceper-stable",
        "easywechat5",
        "powerwechat",
        "wechatpy",
        "weixin_authorize",
    ];
    let sink = |preset: &&str| json!({ "redis": redis.url(), "preset": preset, "accounts": ["*"] });
    let mut sinks: Vec<Value> = presets.iter().map(sink).collect();
    sinks.push(json!({ "redis": redis.url(), "preset": "easywechat6", "prefix": "ns", "accounts": ["*"] }));
    sinks.push(json!({ "redis": redis.url(), "key": "raw/{appid}", "value": "{\"t\":\"{access_token}\"}", "accounts": ["*"] }));
    lab.config["publish"] = json!(sinks);
    let daemon = lab.start().await;
    let mut keys = 0;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
        let message = daemon.token(account).await.json();
        let token = message["access_token"].as_str().unwrap();
        let promised = message["expires_in"].as_i64().unwrap();
        let expected = expected(account, token);
        for (key, value) in &expected {
            until(&format!("{key} is there"), async || redis.get(key).await.is_some()).await;
            let found = redis.get(key).await.unwrap();
            let (head, tail) = value.split_once('…').unwrap_or((value, ""));
            let number = found.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
            let number = number.unwrap_or_else(|| panic!("{key}: {found} is not {value}"));
            assert_eq!(number.is_empty(), !value.contains('…'), "{key}: {found}");
            let ttl: i64 = redis.ask(&["TTL", key]).await;
            assert!(ttl <= promised + 1 && ttl > promised - 45, "{key}: {ttl} of {promised}");
            if let Ok(number) = number.parse::<i64>() {
                let left = if key.ends_with("_expires_at") { number - redis.now_s().await } else { number };
                assert!((left - ttl).abs() < 45, "{key}: {number}");
            }
        }
        let hash = md5(&format!("weixin_{account}")).to_uppercase();
        until("the hash is there", async || redis.ask::<bool>(&["EXISTS", &hash]).await).await;
        let fields: BTreeMap<String, String> = redis.ask(&["HGETALL", &hash]).await;
        assert_eq!((fields.len(), fields["access_token"].as_str()), (2, token), "{fields:?}");
        let ends = fields["expired_at"].parse::<i64>().unwrap() - redis.now_s().await;
        assert!((ends - promised).abs() < 45, "{fields:?}");
        let ttl: i64 = redis.ask(&["TTL", &hash]).await;
        assert!(ttl <= promised + 1 && ttl > promised - 45, "{ttl}");
        keys += expected.len() + 1;
    }
    assert_eq!(redis.ask::<usize>(&["DBSIZE"]).await, keys, "nothing else is there");
    assert!(daemon.stop().await.success());
    assert_eq!(redis.ask::<usize>(&["DBSIZE"]).await, keys, "the tokens live on without us");
}

#[tokio::test]
async fn a_reader_of_redis_gets_a_living_token_at_any_time_through_several_lifetimes() {
    let mut lab = Lab::new(12_000, 3_000).await.with_both();
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    let daemon = lab.start().await;
    let through = async |account: &str| {
        let key = format!("t:{account}");
        until("the first token", async || redis.get(&key).await.is_some()).await;
        let (mut tokens, mut reads) = (Vec::new(), 0);
        until("three more tokens", async || {
            let asked_at = lab.wechat.now();
            let token =
                redis.get(&key).await.unwrap_or_else(|| panic!("{account}: no token after {reads} reads"));
            let truth = lab.wechat.token_truth(&token).expect("a token of WeChat's");
            assert!(truth.dies_at > asked_at, "{account}: a dead token after {reads} reads: {truth:?}");
            let ttl: i64 = redis.ask(&["TTL", &key]).await;
            assert!(
                ttl >= -1 + i64::from(redis.get(&key).await.is_some()),
                "{account}: a key without an end"
            );
            reads += 1;
            if tokens.last() != Some(&token) {
                tokens.push(token);
            }
            tokens.len() == 4
        })
        .await;
    };
    tokio::join!(through("stable"), through("classic"));
    assert_eq!(daemon.metric("wxtokend_redis_drift_total{sink=\"main\"}").await, Some(0.0));
}

#[tokio::test]
async fn a_token_stands_in_redis_as_long_as_it_is_served_though_wechat_is_down() {
    let mut lab = Lab::new(24_000, 6_000).await.with("classic", json!({ "endpoint": "token" }));
    lab.account("classic")["refresh_ahead"] = json!("50%");
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    let daemon = lab.start().await;
    daemon.until_state("classic", "fresh").await;
    let token = daemon.token_value("classic").await;
    redis.until("t:classic", Some(&token)).await;
    lab.wechat.close().await;
    // The promise is short now, since WeChat may return at any moment, and it is renewed again and again.
    let mut in_need = 0;
    until("the token ends", async || {
        let answer = daemon.token("classic").await;
        if answer.status == 200 && answer.json()["expires_in"].as_i64() > Some(1) {
            assert_eq!(redis.get("t:classic").await, Some(token.clone()), "after {in_need} reads");
            in_need += usize::from(daemon.state("classic").await == "degraded");
        }
        answer.status == 503
    })
    .await;
    assert!(in_need > 20, "{in_need} reads are too few to tell");
    redis.until("t:classic", None).await;
}

#[tokio::test]
async fn a_token_that_a_lost_answer_may_have_ended_is_out_of_redis_in_time_though_we_die() {
    let mut lab = Lab::new(240_000, 6_000).await.with("classic", json!({ "endpoint": "token" }));
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    let daemon = lab.start().await;
    daemon.until_state("classic", "fresh").await;
    let token = daemon.token_value("classic").await;
    redis.until("t:classic", Some(&token)).await;
    let lost = Fault::new(FaultKind::Lost { seen_as: LostAs::Hang }).on(Call::Token).times(1);
    lab.wechat.inject(Some(&appid("classic")), lost);
    // Once the first token can no longer be replaced at once.
    until("the operator's call goes out", async || {
        daemon.refresh("classic", false).await;
        lab.wechat.calls("classic") > 1
    })
    .await;
    until("the key ends with the trust", async || {
        (1..=6).contains(&redis.ask::<i64>(&["TTL", "t:classic"]).await)
    })
    .await;
    daemon.kill().await;
    until("the key is gone", async || {
        let asked_at = lab.wechat.now();
        let Some(found) = redis.get("t:classic").await else { return true };
        let truth = lab.wechat.token_truth(&found).expect("a token of WeChat's");
        assert!(truth.dies_at > asked_at, "a dead token: {truth:?} at {asked_at:?}");
        false
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_was_down_gets_everything_when_it_is_back() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let mut redis = Redis::start(&lab).await;
    let other = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis), sink("other", &other)]);
    redis.kill().await;
    let daemon = lab.start().await;
    let pending = "wxtokend_redis_pending_accounts{sink=\"main\"}";
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
        other.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    let down = daemon.event("redis_down", 1).await;
    assert_eq!((&down["sink"], &down["level"]), (&json!("main"), &json!("WARN")), "{down}");
    assert!(down["error"].as_str().unwrap().contains("Connection refused"), "{down}");
    until("both wait", async || daemon.metric(pending).await == Some(2.0)).await;
    assert_eq!((is_up(&daemon, "main").await, is_up(&daemon, "other").await), (Some(0.0), Some(1.0)));
    redis.restart(&lab).await;
    for account in ["stable", "classic"] {
        redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    until("it is up", async || is_up(&daemon, "main").await == Some(1.0)).await;
    assert_eq!(daemon.metric(pending).await, Some(0.0));

    // The Redis dies, a token is replaced meanwhile, and the Redis returns empty.
    redis.kill().await;
    let old = daemon.token_value("classic").await;
    until("a new token", async || {
        daemon.refresh("classic", false).await;
        daemon.token_value("classic").await != old
    })
    .await;
    until("it is down", async || is_up(&daemon, "main").await == Some(0.0)).await;
    other.until("t:classic", Some(&daemon.token_value("classic").await)).await;
    redis.restart(&lab).await;
    for account in ["stable", "classic"] {
        redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    daemon.event("redis_up", 3).await;
    assert_eq!(daemon.log.events("redis_down").len(), 2, "it is told once each time");
    assert!(daemon.metric("wxtokend_redis_writes_total{sink=\"main\",outcome=\"ok\"}").await >= Some(4.0));
    assert_eq!(daemon.metric("wxtokend_redis_drift_total{sink=\"main\"}").await, Some(0.0));
}

#[tokio::test]
async fn what_somebody_else_has_done_to_our_keys_is_undone_and_counted() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    let of_ruby =
        json!({ "name": "ruby", "redis": redis.url(), "preset": "weixin_authorize", "accounts": ["stable"] });
    let of_php =
        json!({ "name": "php", "redis": redis.url(), "preset": "easywechat6", "accounts": ["stable"] });
    lab.config["publish"] = json!([sink("main", &redis), of_ruby, of_php]);
    let daemon = lab.start().await;
    let hash = md5("weixin_stable").to_uppercase();
    let php = format!("official_account.access_token.stable.{}.1", secret_of("stable"));
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
        redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    until("all is there", async || redis.ask::<usize>(&["DBSIZE"]).await == 5).await;
    let drift =
        async |name: &str| daemon.metric(&format!("wxtokend_redis_drift_total{{sink=\"{name}\"}}")).await;
    redis.ask::<()>(&["DEL", "t:stable"]).await;
    redis.ask::<()>(&["SET", "t:classic", "a-strangers"]).await;
    redis.ask::<()>(&["SET", &hash, "of another type"]).await;
    redis.ask::<()>(&["DEL", &php]).await;
    for account in ["stable", "classic"] {
        let token = daemon.token_value(account).await;
        redis.until(&format!("t:{account}"), Some(&token)).await;
        assert!(redis.ask::<i64>(&["TTL", &format!("t:{account}")]).await > 0, "with an end");
    }
    let token = daemon.token_value("stable").await;
    until("the hash is back", async || redis.ask::<String>(&["TYPE", &hash]).await == "hash").await;
    assert_eq!(redis.ask::<String>(&["HGET", &hash, "access_token"]).await, token);
    redis.until(&php, Some(&format!("s:{}:\"{token}\";", token.len()))).await;
    assert_eq!(
        (drift("main").await, drift("ruby").await, drift("php").await),
        (Some(2.0), Some(1.0), Some(1.0))
    );
    daemon.event("redis_drift", 3).await;
    let text = daemon.log.text();
    assert!(!text.contains(&secret_of("stable")) && !text.contains(&token), "{text}");
    // Checking once a minute is enough.
    redis.ask::<()>(&["DEL", "t:stable"]).await;
    redis.until("t:stable", Some(&token)).await;
    assert_eq!((drift("main").await, daemon.log.events("redis_drift").len()), (Some(3.0), 3));

    // Without an expiry, or with a later one, a dead token would stay there.
    redis.ask::<()>(&["PERSIST", "t:stable"]).await;
    redis.ask::<()>(&["EXPIRE", "t:classic", "100000"]).await;
    redis.ask::<()>(&["PERSIST", &hash]).await;
    for key in ["t:stable", "t:classic", &hash] {
        let promised = 1..=i64::try_from(LIFETIME_MS / 1_000).unwrap();
        until(&format!("{key} ends"), async || promised.contains(&redis.ask::<i64>(&["TTL", key]).await))
            .await;
    }
    assert_eq!((drift("main").await, drift("ruby").await), (Some(5.0), Some(2.0)));
}

#[tokio::test]
async fn what_is_not_ours_to_publish_any_more_is_taken_back_and_nothing_else() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    for account in ["goes", "theirs", "untagged"] {
        lab.add(account, json!({ "tags": ["x"] }));
    }
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    lab.config["publish"][0]["accounts"] = json!(["stable", "classic", "tag:x"]);
    let daemon = lab.start().await;
    for account in ["stable", "classic", "goes", "theirs", "untagged"] {
        daemon.until_state(account, "fresh").await;
        redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    redis.ask::<()>(&["SET", "t:theirs", "a-strangers"]).await;
    lab.config["accounts"]
        .as_array_mut()
        .unwrap()
        .retain(|account| account["appid"] != "goes" && account["appid"] != "theirs");
    lab.account("untagged")["tags"] = json!([]);
    lab.config["publish"][0]["accounts"] = json!(["classic", "tag:x"]);
    lab.write();
    daemon.reload().await;
    for account in ["goes", "untagged", "stable"] {
        redis.until(&format!("t:{account}"), None).await;
    }
    assert_eq!(redis.get("t:theirs").await.as_deref(), Some("a-strangers"));

    // A token that WeChat rejects is removed from Redis, even before there is another.
    let token = daemon.token_value("classic").await;
    assert_eq!(redis.get("t:classic").await.as_deref(), Some(token.as_str()));
    lab.wechat.kill_tokens(&appid("classic"));
    lab.wechat.inject(Some(&appid("classic")), Fault::new(FaultKind::Hang).on(Call::Token).times(1));
    let (rejected, ()) = tokio::join!(daemon.reject("classic", &token), redis.until("t:classic", None));
    until("another one", async || daemon.token("classic").await.status == 200).await;
    assert_ne!(daemon.token_value("classic").await, token, "{rejected:?}");
    // While the lost call may still arrive, each new token is replaced after the overlap.
    until("it is in Redis", async || {
        let new = daemon.token("classic").await.json()["access_token"].as_str().map(str::to_owned);
        new.is_some() && redis.get("t:classic").await == new
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_refuses_is_reported_without_passwords_keys_and_tokens_and_fixed_by_a_reload() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start_with(&lab, "the-password-5ecre7", &[]).await;
    let lame = Redis::start_with(&lab, "", &["--rename-command", "SET", ""]).await;
    let right = sink("main", &redis);
    let mut wrong = right.clone();
    wrong["redis"] = json!(redis.url().replace("the-password", "a-wrong-one"));
    lab.config["publish"] = json!([wrong, sink("lame", &lame)]);
    lab.config["publish"][1]["key"] = json!("k:{appid}");
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    let message = async |name: &str| {
        until(&format!("{name} is told"), async || {
            daemon.log.events("redis_down").iter().any(|line| line["sink"] == name)
        })
        .await;
        let lines = daemon.log.events("redis_down");
        lines.into_iter().find(|line| line["sink"] == name).unwrap()["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(message("main").await, "Redis refuses the user name or the password");
    let message = message("lame").await;
    assert!(
        message.starts_with("Redis refuses with ERR: it does not know one of the commands SET"),
        "{message}"
    );
    let failed = "wxtokend_redis_writes_total{sink=\"lame\",outcome=\"failed\"}";
    until("failures are counted", async || daemon.metric(failed).await >= Some(2.0)).await;
    lab.config["publish"][0] = right;
    lab.write();
    daemon.reload().await;
    let token = daemon.token_value("stable").await;
    redis.until("t:stable", Some(&token)).await;
    let checked = lab.run(&["check"]).await;
    assert!(checked.stdout.contains("redis: redis://127.0.0.1:"), "{checked:?}");
    let log = daemon.log.text();
    assert!(!log.contains("k:stable") && !log.contains("k:classic"), "{log}");
    let text = log + &checked.stdout + &daemon.get("/metrics").await.body;
    assert!(!text.contains("5ecre7") && !text.contains(&token), "{text}");
}

/// The permissions that a document says are needed.
fn documented_acl(text: &str) -> Vec<&str> {
    let (_, acl) = text.split_once("ACL SETUSER").expect("an ACL is documented");
    acl.lines().next().unwrap().split(' ').filter(|word| word.starts_with('+')).collect()
}

#[tokio::test]
async fn the_documented_acl_is_enough_and_a_redis_without_ping_is_there() {
    let documented = include_str!("../../docs/sdk/README.md");
    let acl = documented_acl(documented);
    for without in [None, Some("+ping")] {
        let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
        let redis = Redis::start(&lab).await;
        let mut user = vec!["ACL", "SETUSER", "hub", "on", ">pw", "~*", "-@all"];
        user.extend(acl.iter().filter(|word| Some(**word) != without));
        redis.ask::<()>(&user).await;
        let url = redis.url().replace("redis://", "redis://hub:pw@");
        let of_ruby = json!({ "redis": url, "preset": "weixin_authorize", "accounts": ["classic"] });
        lab.config["publish"] = json!([sink("main", &redis), of_ruby]);
        lab.config["publish"][0]["redis"] = json!(url);
        let daemon = lab.start().await;
        let hash = md5("weixin_classic").to_uppercase();
        let is_back = async || {
            for account in ["stable", "classic"] {
                redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
            }
            until("the hash", async || redis.ask::<bool>(&["EXISTS", &hash]).await).await;
        };
        is_back().await;
        redis.ask::<()>(&["SET", "t:stable", "a-strangers"]).await;
        redis.ask::<()>(&["DEL", "t:classic", &hash]).await;
        is_back().await;
        lab.config["accounts"].as_array_mut().unwrap().pop();
        lab.config["publish"].as_array_mut().unwrap().pop();
        lab.write();
        daemon.reload().await;
        redis.until("t:classic", None).await;
        let text = daemon.log.text();
        let trouble = ["redis_refused", "redis_down"].map(|event| daemon.log.events(event).len());
        assert_eq!(trouble, [0, 0], "without {without:?}: {text}");
    }
}

#[tokio::test]
async fn a_database_that_redis_does_not_have_is_reported_in_its_words() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    lab.config["publish"][0]["redis"] = json!(redis.url() + "/99");
    let daemon = lab.start().await;
    let message = daemon.event("redis_down", 1).await["error"].as_str().unwrap().to_owned();
    assert_eq!(message, "Redis refuses the database of the URL: DB index is out of range");
}

#[tokio::test]
async fn a_huge_value_at_a_key_of_ours_is_replaced_and_not_read() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    let of_ruby = json!({ "redis": redis.url(), "preset": "weixin_authorize", "accounts": ["classic"] });
    lab.config["publish"] = json!([sink("main", &redis), of_ruby]);
    let daemon = lab.start_observed().await;
    for account in ["stable", "classic"] {
        redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    let hash = md5("weixin_classic").to_uppercase();
    let token = daemon.token_value("classic").await;
    let in_hash = async || redis.ask::<Option<String>>(&["HGET", &hash, "access_token"]).await;
    until("the hash is there", async || in_hash().await.as_ref() == Some(&token)).await;
    let before = daemon.vitals().peak_kib;
    redis.ask::<()>(&["SETRANGE", "t:stable", "200000000", "x"]).await;
    let script = "return redis.call('HSET', KEYS[1], 'access_token', string.rep('x', 60000000))";
    redis.ask::<()>(&["EVAL", script, "1", &hash]).await;
    until("both are as they were", async || {
        let matches: i64 = redis.ask(&["STRLEN", "t:stable"]).await;
        matches < 1_000 && redis.ask::<i64>(&["HSTRLEN", &hash, "access_token"]).await < 1_000
    })
    .await;
    let peak = daemon.vitals().peak_kib;
    assert!(peak < before + 50_000, "{before} KiB, {peak} KiB");
}

#[tokio::test]
async fn a_key_that_redis_refuses_holds_up_no_other_and_is_written_when_it_may_be() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    redis.ask::<()>(&["ACL", "SETUSER", "hub", "on", ">pw-5ecre7", "~t:classic", "+@all"]).await;
    redis.ask::<()>(&["HSET", "t:classic", "of", "another type"]).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    lab.config["publish"][0]["redis"] = json!(redis.url().replace("redis://", "redis://hub:pw-5ecre7@"));
    let daemon = lab.start().await;
    let metric = async |name: &str| daemon.metric(&format!("wxtokend_redis_{name}")).await;
    let failed = "writes_total{sink=\"main\",outcome=\"failed\"}";
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    until("a string stands there", async || redis.ask::<String>(&["TYPE", "t:classic"]).await == "string")
        .await;
    redis.until("t:classic", Some(&daemon.token_value("classic").await)).await;
    let message = daemon.event("redis_refused", 1).await;
    assert_eq!(
        (&message["sink"], &message["accounts"], &message["code"], &message["level"]),
        (&json!("main"), &json!(1), &json!("NOPERM"), &json!("WARN")),
        "{message}"
    );
    until("it is tried again", async || metric(failed).await >= Some(2.0)).await;
    assert_eq!(is_up(&daemon, "main").await, Some(1.0));
    assert_eq!(metric("pending_accounts{sink=\"main\"}").await, Some(1.0));
    assert_eq!(redis.get("t:stable").await, None);

    // Changes of other accounts are still published.
    let old = daemon.token_value("classic").await;
    until("a new token", async || {
        daemon.refresh("classic", false).await;
        daemon.token_value("classic").await != old
    })
    .await;
    redis.until("t:classic", Some(&daemon.token_value("classic").await)).await;
    redis.ask::<()>(&["ACL", "SETUSER", "hub", "~t:stable"]).await;
    redis.until("t:stable", Some(&daemon.token_value("stable").await)).await;
    until("nothing waits", async || metric("pending_accounts{sink=\"main\"}").await == Some(0.0)).await;

    // Nothing more can be written; existing keys stay.
    let (failures, old) = (metric(failed).await, daemon.token_value("classic").await);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    until("a token that has no room", async || {
        daemon.refresh("classic", false).await;
        daemon.token_value("classic").await != old
    })
    .await;
    until("it is refused", async || metric(failed).await > failures).await;
    assert_eq!(redis.get("t:classic").await, Some(old));
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    redis.until("t:classic", Some(&daemon.token_value("classic").await)).await;
    let text = daemon.log.text();
    assert!(daemon.log.events("redis_down").is_empty(), "{text}");
    assert!(!text.contains("t:stable") && !text.contains("t:classic") && !text.contains("5ecre7"), "{text}");
}

#[tokio::test]
async fn a_redis_that_refuses_every_key_is_down_until_it_takes_one() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    redis.ask::<()>(&["ACL", "SETUSER", "hub", "on", ">pw", "~x:*", "+@all"]).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    lab.config["publish"][0]["redis"] = json!(redis.url().replace("redis://", "redis://hub:pw@"));
    let daemon = lab.start().await;
    let message = daemon.event("redis_down", 1).await["error"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Redis refuses with NOPERM: its ACL must allow SET, GET"), "{message}");
    until("it is down", async || is_up(&daemon, "main").await == Some(0.0)).await;
    redis.ask::<()>(&["ACL", "SETUSER", "hub", "~t:*"]).await;
    for account in ["stable", "classic"] {
        redis.until(&format!("t:{account}"), Some(&daemon.token_value(account).await)).await;
    }
    until("it is up", async || is_up(&daemon, "main").await == Some(1.0)).await;
}

#[tokio::test]
async fn tickets_stand_in_redis_while_they_may_be_used_and_are_kept() {
    let mut lab = Lab::new(8_000, 2_000).await.with("stable", json!({ "tickets": ["jsapi", "wx_card"] }));
    let redis = Redis::start(&lab).await;
    let sink = |preset: &str| json!({ "redis": redis.url(), "preset": preset, "accounts": ["*"] });
    lab.config["publish"] = json!([sink("wxjava"), sink("silenceper")]);
    let daemon = lab.start().await;
    let jsapi = "wx:ticket:key:stable:jsapi";
    let mut seen = Vec::new();
    until("three tickets one after another", async || {
        if let Some(ticket) = redis.get(jsapi).await
            && seen.last() != Some(&ticket)
        {
            seen.push(ticket);
        }
        seen.len() >= 3
    })
    .await;
    assert!(lab.wechat.is_ticket_alive(&appid("stable"), seen.last().unwrap()));
    for key in [jsapi, "wx:ticket:key:stable:wx_card", "gowechat_officialaccount__jsapi_ticket_stable"] {
        until(&format!("{key} is there"), async || redis.get(key).await.is_some()).await;
        assert!(redis.ask::<i64>(&["TTL", key]).await <= 8, "{key}");
    }
    lab.account("stable")["tickets"] = json!(["jsapi"]);
    lab.write();
    daemon.reload().await;
    redis.until("wx:ticket:key:stable:wx_card", None).await;
    until("the other is kept", async || redis.get(jsapi).await.is_some()).await;
}

#[tokio::test]
async fn what_a_reload_changes_of_one_account_holds_for_its_ticket_in_redis_as_well() {
    let mut lab = Lab::new(7_200_000, 300_000).await;
    let accounts = ["stays", "untagged", "ticketless", "goes"];
    for account in accounts {
        lab.add(account, json!({ "tags": ["x"], "tickets": ["jsapi"] }));
    }
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([{ "redis": redis.url(), "preset": "wxjava", "accounts": ["tag:x"] }]);
    let daemon = lab.start().await;
    let token = |account: &str| format!("wx:access_token:{account}");
    let ticket = |account: &str| format!("wx:ticket:key:{account}:jsapi");
    for key in accounts.iter().flat_map(|account| [token(account), ticket(account)]) {
        until(&format!("{key} is there"), async || redis.get(&key).await.is_some()).await;
    }
    lab.account("untagged")["tags"] = json!([]);
    lab.account("ticketless")["tickets"] = json!([]);
    lab.config["accounts"].as_array_mut().unwrap().retain(|account| account["appid"] != "goes");
    lab.write();
    daemon.reload().await;
    for key in [token("untagged"), ticket("untagged"), ticket("ticketless"), token("goes"), ticket("goes")] {
        redis.until(&key, None).await;
    }
    for key in [token("stays"), ticket("stays"), token("ticketless")] {
        assert!(redis.get(&key).await.is_some(), "{key}");
    }
}

#[tokio::test]
async fn rediss_verifies_the_certificate() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start_with_tls(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    lab.config["publish"][0]["redis"] = json!(redis.url().replace("redis://", "rediss://"));
    std::fs::write(lab.path("trusted.pem"), CERTIFICATE).unwrap();
    let daemon = lab.start().await;
    let error = daemon.event("redis_down", 1).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{error}");
    assert!(daemon.stop().await.success());
    let mut command = lab.program(&["run", "--log-format", "json"]);
    command.env("SSL_CERT_FILE", lab.path("trusted.pem"));
    let daemon = Daemon::start(command).await;
    until("it is up", async || is_up(&daemon, "main").await == Some(1.0)).await;
    let writes = "wxtokend_redis_writes_total{sink=\"main\",outcome=\"ok\"}";
    until("both are written", async || daemon.metric(writes).await >= Some(2.0)).await;
}

#[tokio::test]
async fn nothing_simulated_is_published() {
    let mut lab = Lab::new(LIFETIME_MS, OVERLAP_MS).await.with_both();
    let redis = Redis::start(&lab).await;
    lab.config["publish"] = json!([sink("main", &redis)]);
    lab.write();
    let arguments = ["run", "--sandbox", "--config", "accounts.yaml", "--log-format", "json"];
    let daemon = Daemon::start(lab.program(&arguments)).await;
    daemon.until_state("stable", "fresh").await;
    daemon.reload().await;
    assert!(!daemon.get("/metrics").await.body.contains("wxtokend_redis_"));
    assert!(daemon.stop().await.success());
    assert_eq!(redis.ask::<usize>(&["DBSIZE"]).await, 0);
}
