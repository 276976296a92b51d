use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_token_is_read_with_what_a_client_needs_to_keep_it() {
    let rig = Rig::start(TestApi::default()).await;
    let answer = rig.get("/v1/accounts/wx1/token").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let token = rig.fleet.token("wx1").await.unwrap();
    let json = answer.json();
    let keys: Vec<&str> =
        ["appid", "access_token", "expires_in", "expires_at", "version"].into_iter().collect();
    let places: Vec<_> = keys.iter().map(|key| answer.body.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted() && json.as_object().unwrap().len() == keys.len(), "{}", answer.body);
    assert_eq!(json["appid"], "wx1");
    assert_eq!(json["access_token"], token.access_token());
    assert_eq!(json["version"], token.version());
    let expires_in = json["expires_in"].as_u64().unwrap();
    assert!((7100..7200).contains(&expires_in), "{expires_in}");
    let expires_at: jiff::Timestamp = json["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(expires_at, token.expires_at());
    assert!(json["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(answer.header("etag"), format!("\"{}\"", token.etag()));
    // Four fifths of the overlap of 300 s.
    assert_eq!(answer.header("cache-control"), "private, max-age=240");
}

#[tokio::test]
async fn head_answers_the_same_without_the_body() {
    let rig = Rig::start(TestApi::default()).await;
    let get = rig.get("/v1/accounts/wx1/token").await;
    let head = rig.call("HEAD", "/v1/accounts/wx1/token", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for name in ["content-type", "content-length", "etag", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test]
async fn a_token_that_is_known_is_not_sent_again() {
    let rig = Rig::start(TestApi::default()).await;
    let etag = rig.get("/v1/accounts/wx1/token").await.header("etag").to_owned();
    for (known, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"1-00000000\", {etag}"), 304),
        ("*".to_owned(), 304),
        ("\"1-00000000\"".to_owned(), 200),
        (etag.trim_matches('"').to_owned(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = rig.call(method, "/v1/accounts/wx1/token", &[("if-none-match", &known)], "").await;
            assert_eq!(answer.status, status, "{known}");
            assert_eq!(answer.header("etag"), etag);
            assert_eq!(answer.header("cache-control"), "private, max-age=240");
            assert_eq!(answer.body.is_empty(), status == 304 || method == "HEAD");
        }
    }
}

#[tokio::test]
async fn a_long_poll_is_answered_by_the_next_version() {
    let rig = Rig::start(TestApi::default()).await;
    let old = rig.fleet.token("wx1").await.unwrap();
    let path = format!("/v1/accounts/wx1/token?after={}&wait=15s", old.version());
    let started = Instant::now();
    let (answer, refreshed) = tokio::join!(rig.get(&path), async {
        sleep(Duration::from_millis(200)).await;
        rig.fleet.refresh("wx1", true).await.unwrap()
    });
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["version"], refreshed.version);
    assert!(refreshed.version > old.version());
    assert_ne!(answer.json()["access_token"], old.access_token());
}

#[tokio::test]
async fn a_long_poll_without_news_ends_with_304() {
    let rig = Rig::start(TestApi::default()).await;
    let token = rig.fleet.token("wx1").await.unwrap();
    let path = format!("/v1/accounts/wx1/token?after={}&wait=300ms", token.version());
    let started = Instant::now();
    let answer = rig.get(&path).await;
    assert!((300..5_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!((answer.status, answer.body.as_str()), (304, ""));
    assert_eq!(answer.header("etag"), format!("\"{}\"", token.etag()));
}

#[tokio::test]
async fn a_version_other_than_the_current_one_is_answered_at_once() {
    let rig = Rig::start(TestApi::default()).await;
    let version = rig.fleet.token("wx1").await.unwrap().version();
    let started = Instant::now();
    for after in [0, version - 1, version + 1, u64::MAX] {
        let answer = rig.get(&format!("/v1/accounts/wx1/token?after={after}&wait=60s")).await;
        assert_eq!((answer.status, &answer.json()["version"]), (200, &version.into()), "{after}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn without_a_token_the_503_says_why_and_when_to_come_back() {
    let faults = vec![("wx2", Fault::errcode(40164))];
    let rig = Rig::start(TestApi { faults, ..TestApi::default() }).await;
    for path in ["/v1/accounts/wx2/token", "/v1/accounts/wx2/token?after=0&wait=100ms"] {
        let answer = rig.get(path).await;
        rig.is_problem(&answer, "token_unavailable");
        let problem = answer.json();
        assert_eq!(problem["state"], "parked");
        assert_eq!(problem["last_fault"]["errcode"], 40164);
        assert_eq!(problem["last_fault"]["kind"], "parked");
        assert!(problem["last_fault"]["advice"].as_str().unwrap().contains("127.0.0.1"), "{problem}");
        let retry_after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=300).contains(&retry_after), "{retry_after}");
    }
}

#[tokio::test]
async fn a_first_token_that_is_on_its_way_is_waited_for() {
    let delayed = Fault::new(wxtokend_sandbox::FaultKind::Delay { delay_ms: 500 });
    let rig = Rig::start_at_once(TestApi { faults: vec![("wx1", delayed)], ..TestApi::default() }).await;
    let answer = rig.get("/v1/accounts/wx1/token").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_spent_budget_has_a_code_of_its_own() {
    let mut poor = account("wx1");
    poor.settings.daily_budget = 4;
    poor.settings.retry =
        wxtokend_core::account::Retry { initial: Duration::from_millis(1), max: Duration::from_millis(5) };
    let plan =
        TestApi { accounts: vec![poor], faults: vec![("wx1", Fault::errcode(-1))], ..TestApi::default() };
    let rig = Rig::start(plan).await;
    until("the budget is spent", || rig.fleet.account("wx1").unwrap().budget.remaining == 0).await;
    let answer = rig.get("/v1/accounts/wx1/token").await;
    rig.is_problem(&answer, "budget_exhausted");
    assert_eq!(answer.json()["last_fault"]["kind"], "transient");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 3600, "{answer:?}");
    // A refresh by an operator is refused by the budget, too.
    let refused = rig.post("/v1/accounts/wx1/token/refresh").await;
    rig.is_problem(&refused, "budget_exhausted");
    assert_eq!(refused.json()["last_fault"]["kind"], "throttled");
}

#[tokio::test]
async fn an_appid_may_be_percent_encoded() {
    let rig = Rig::start(TestApi::default()).await;
    assert_eq!(rig.get("/v1/accounts/%77x1/token").await.json()["appid"], "wx1");
}

#[test]
fn a_token_is_written_as_json_whatever_is_in_it() {
    for text in ["", "abc_-=/+", "a\"b", "a\\b", "a\nb\u{7f}", "中"] {
        let mut json = String::new();
        crate::daemon::http::token::write_string(&mut json, text);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
