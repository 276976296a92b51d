use super::*;

fn tagged(appid: &str, tags: &[&str]) -> Account {
    Account { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..account(appid) }
}

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let accounts = json["accounts"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    accounts.iter().map(|account| account["appid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_account_is_shown_without_its_token() {
    let rig =
        Rig::start(TestApi { faults: vec![("wx2", Fault::errcode(40125))], ..TestApi::default() }).await;
    let answer = rig.get("/v1/accounts/wx1").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let json = answer.json();
    for key in [
        "appid",
        "name",
        "tags",
        "endpoint",
        "state",
        "version",
        "issued_at",
        "expires_at",
        "next_refresh_at",
        "consecutive_failures",
        "last_fault",
        "budget",
    ] {
        assert!(json.as_object().unwrap().contains_key(key), "{key}: {json}");
    }
    assert_eq!((&json["state"], &json["endpoint"]), (&"fresh".into(), &"stable_token".into()));
    assert!(json["last_fault"].is_null() && json["next_refresh_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(json["budget"], serde_json::json!({"limit": 2000, "remaining": 999}));
    let parked = rig.get("/v1/accounts/wx2").await;
    let json = parked.json();
    assert_eq!((&json["state"], &json["version"]), (&"parked".into(), &0.into()));
    assert!(json["issued_at"].is_null() && json["expires_at"].is_null());
    for key in ["kind", "errcode", "message", "advice", "at"] {
        assert!(!json["last_fault"][key].is_null(), "{key}: {json}");
    }
    for answer in [answer, parked, rig.get("/v1/accounts").await] {
        assert!(!rig.leaks(&answer.body) && !answer.body.contains("access_token"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let accounts = ["wx5", "wx3", "wx1", "wx4", "wx2"].map(account).into();
    let rig = Rig::start(TestApi { accounts, ..TestApi::default() }).await;
    let all = rig.get("/v1/accounts").await;
    assert_eq!(ids(&all), ["wx1", "wx2", "wx3", "wx4", "wx5"]);
    assert!(all.json()["next"].is_null());
    let mut path = "/v1/accounts?limit=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = rig.get(&path).await;
        pages.push(ids(&page));
        let Some(next) = page.json()["next"].as_str().map(str::to_owned) else { break };
        path = format!("/v1/accounts?limit=2&after={next}");
    }
    assert_eq!(pages, [vec!["wx1", "wx2"], vec!["wx3", "wx4"], vec!["wx5"]]);
    // The page is exactly full, and there is no next one.
    assert!(rig.get("/v1/accounts?limit=5").await.json()["next"].is_null());
    assert_eq!(ids(&rig.get("/v1/accounts?after=wx20").await), ["wx3", "wx4", "wx5"], "none such is needed");
    assert!(ids(&rig.get("/v1/accounts?after=x").await).is_empty());
    let notation = rig.get("/v1/accounts?state=&tag=&limit=1000&after=").await;
    assert_eq!(ids(&notation).len(), 5, "an empty value is none");
}

#[tokio::test]
async fn a_list_is_narrowed_by_state_and_tag() {
    let accounts =
        vec![tagged("wx1", &["a"]), tagged("wx2", &["a", "b"]), tagged("wx3", &["b"]), tagged("wx4", &[])];
    let faults = vec![("wx2", Fault::errcode(40243))];
    let rig = Rig::start(TestApi { accounts, faults, ..TestApi::default() }).await;
    for (query, found) in [
        ("tag=a", &["wx1", "wx2"][..]),
        ("tag=b", &["wx2", "wx3"]),
        ("tag=c", &[]),
        ("state=parked", &["wx2"]),
        ("state=fresh", &["wx1", "wx3", "wx4"]),
        ("state=degraded", &[]),
        ("state=fresh&tag=b", &["wx3"]),
    ] {
        assert_eq!(ids(&rig.get(&format!("/v1/accounts?{query}")).await), found, "{query}");
    }
    // A next page is announced only if it has accounts that match.
    let page = rig.get("/v1/accounts?tag=b&limit=1").await;
    assert_eq!((ids(&page), page.json()["next"].as_str()), (vec!["wx2".to_owned()], Some("wx2")));
    assert!(rig.get("/v1/accounts?tag=b&limit=1&after=wx2").await.json()["next"].is_null());
}

#[tokio::test]
async fn a_key_lists_its_own_accounts_only() {
    let plan = TestApi {
        accounts: vec![account("aa1"), account("ab1"), tagged("bb1", &["t"]), account("bb2")],
        clients: vec![
            client("a", &["a*"], READ),
            client("t", &["tag:t"], READ),
            client("w", &["*"], REFRESH),
        ],
        ..TestApi::default()
    };
    let rig = Rig::start(plan).await;
    assert_eq!(ids(&rig.get_as("a", "/v1/accounts").await), ["aa1", "ab1"]);
    let page = rig.get_as("a", "/v1/accounts?limit=2").await;
    assert!(page.json()["next"].is_null(), "others' accounts do not follow: {page:?}");
    assert_eq!(ids(&rig.get_as("t", "/v1/accounts").await), ["bb1"]);
    rig.is_problem(&rig.get_as("w", "/v1/accounts").await, "forbidden");
}

#[tokio::test]
async fn a_removed_account_is_gone_and_an_added_one_there() {
    let rig = Rig::start(TestApi::default()).await;
    rig.sandbox.add_account(&id("wx3"), Secret::new(SECRET));
    rig.reload(vec![account("wx1"), account("wx3")]).await;
    assert_eq!(ids(&rig.get("/v1/accounts").await), ["wx1", "wx3"]);
    for path in ["/v1/accounts/wx2", "/v1/accounts/wx2/token"] {
        rig.is_problem(&rig.get(path).await, "unknown_account");
    }
    assert_eq!(rig.get("/v1/accounts/wx3/token").await.status, 200);
}
