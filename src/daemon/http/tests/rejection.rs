use super::*;

#[tokio::test]
async fn a_dead_token_is_replaced_and_the_new_one_returned() {
    let rig = Rig::start(TestApi::default()).await;
    let dead = rig.token_of("wx1").await;
    rig.sandbox.kill_tokens(&id("wx1"));
    let answer = rig.reject("wx1", &dead).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{answer:?}");
    let json = answer.json();
    assert_eq!(json["outcome"], "refreshed", "{answer:?}");
    let token = rig.fleet.token("wx1").await.unwrap();
    assert_eq!(json["access_token"], token.access_token());
    assert_ne!(token.access_token(), dead);
    assert!(!answer.body.contains(&dead));
    assert_eq!((&json["appid"], &json["version"]), (&"wx1".into(), &token.version().into()));
    assert!(json["last_fault"].is_null() && json["expires_in"].as_u64().unwrap() > 7000);
    assert!(json["expires_at"].as_str().unwrap().ends_with('Z'));
    let again = rig.reject("wx1", &dead).await.json();
    assert_eq!(
        (&again["outcome"], &again["access_token"]),
        (&"superseded".into(), &token.access_token().into())
    );
}

#[tokio::test]
async fn a_living_token_is_still_valid() {
    let rig = Rig::start(TestApi::default()).await;
    let token = rig.token_of("wx1").await;
    let answer = rig.reject("wx1", &token).await;
    assert_eq!(answer.json()["outcome"], "still_valid", "{answer:?}");
    assert_eq!(answer.json()["access_token"], token);
}

#[tokio::test]
async fn a_client_without_read_learns_only_the_outcome() {
    let clients = vec![
        client("refresh", &["*"], REFRESH),
        client("both", &["*"], Allow { read: true, ..REFRESH }),
        client("admin", &["*"], ADMIN),
    ];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    let token = rig.token_of("wx1").await;
    let reject = "/v1/accounts/wx1/token/reject";
    for (key, path, reads) in [
        ("refresh", reject, false),
        ("both", reject, true),
        ("admin", "/v1/accounts/wx1/token/refresh", false),
    ] {
        let headers = [("authorization", &*format!("Bearer {key}")), ("content-type", "application/json")];
        let answer = rig.call("POST", path, &headers, "{\"access_token\":\"old\"}").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body.contains(&token), reads, "{key}");
        assert_eq!(answer.json().get("expires_in").is_some(), reads, "{key}");
        assert!(answer.json()["outcome"].is_string() && answer.json()["version"].is_u64());
    }
}

#[tokio::test]
async fn a_forced_refresh_brings_a_new_token_and_a_plain_one_need_not() {
    let rig = Rig::start(TestApi::default()).await;
    let before = rig.fleet.token("wx1").await.unwrap().version();
    let plain = rig.post("/v1/accounts/wx1/token/refresh").await;
    assert_eq!((plain.status, &plain.json()["version"]), (200, &before.into()), "{plain:?}");
    let forced = rig.post("/v1/accounts/wx1/token/refresh?force=true").await;
    assert_eq!(forced.json()["outcome"], "refreshed", "{forced:?}");
    assert_eq!(forced.json()["version"], before + 1);
    let again = rig.post("/v1/accounts/wx1/token/refresh?force=true").await;
    assert_eq!(again.json()["outcome"], "limited", "30 s apart: {again:?}");
}

#[tokio::test]
async fn a_parked_account_is_tried_now_and_its_fault_returned() {
    let rig =
        Rig::start(TestApi { faults: vec![("wx2", Fault::errcode(40164))], ..TestApi::default() }).await;
    let refused = rig.post("/v1/accounts/wx2/token/refresh").await;
    rig.is_problem(&refused, "token_unavailable");
    assert_eq!(refused.json()["state"], "parked");
    let nothing = rig.reject("wx2", "whatever").await;
    rig.is_problem(&nothing, "token_unavailable");
    assert_eq!(nothing.json()["last_fault"]["errcode"], 40164, "no token, and why: {nothing:?}");
    rig.sandbox.clear_faults(Some(&id("wx2")));
    let tried = rig.post("/v1/accounts/wx2/token/refresh").await;
    assert_eq!((tried.status, &tried.json()["outcome"]), (200, &"refreshed".into()), "{tried:?}");
    assert_eq!(rig.get("/v1/accounts/wx2/token").await.status, 200);
}

#[tokio::test]
async fn a_failed_refresh_of_a_living_token_returns_both() {
    let rig = Rig::start(TestApi::default()).await;
    rig.sandbox.inject(Some(&id("wx1")), Fault::errcode(45009));
    let answer = rig.post("/v1/accounts/wx1/token/refresh").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["last_fault"]["errcode"], 45009, "{answer:?}");
    assert_eq!(answer.json()["access_token"], rig.token_of("wx1").await);
}
