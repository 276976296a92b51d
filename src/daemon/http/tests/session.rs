use super::*;

const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");
const JSON: (&str, &str) = ("content-type", "application/json");
/// Calls of the API. With its cookie the status page may make only the last one.
const TOKEN: &str = "/v1/accounts/wx1/token";
const REJECT: &str = "/v1/accounts/wx1/token/reject";
const ORDER: &str = "/v1/accounts/wx1/token/refresh";

async fn rig() -> Rig {
    let clients = vec![client("all", &["*"], Allow::ALL), client("one", &["wx2"], READ)];
    Rig::start(TestApi { clients, ..TestApi::default() }).await
}

async fn sign_in(rig: &Rig, key: &str, headers: &[(&str, &str)]) -> Answer {
    let body = serde_json::json!({ "key": key }).to_string();
    rig.call("POST", "/v1/session", &[headers, &[JSON]].concat(), &body).await
}

/// Signs in and returns the cookie as a browser sends it back.
async fn cookie(rig: &Rig, key: &str) -> String {
    let answer = sign_in(rig, key, &[OURS]).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_becomes_a_cookie_that_no_script_and_no_other_site_can_use() {
    let rig = rig().await;
    let answer = sign_in(&rig, "all", &[OURS]).await;
    let cookie = answer.header("set-cookie");
    assert_eq!(cookie, "wxtokend_key=616c6c; HttpOnly; SameSite=Strict", "a session's, not for longer");
    assert_eq!(answer.header("cache-control"), "no-store");
    let host = rig.address.to_string();
    let tls = [("origin", &*format!("https://{host}"))];
    assert!(sign_in(&rig, "all", &tls).await.header("set-cookie").ends_with("; Secure"));
    let gone = rig.call("DELETE", "/v1/session", &[OURS], "").await;
    assert_eq!(gone.status, 204);
    assert_eq!(gone.header("set-cookie"), "wxtokend_key=; HttpOnly; SameSite=Strict; Max-Age=0");
}

#[tokio::test]
async fn a_session_shows_the_client_and_its_permissions() {
    let rig = rig().await;
    for (key, allow) in [
        ("all", serde_json::json!(["read", "refresh", "admin", "sign", "call"])),
        ("one", serde_json::json!(["read"])),
    ] {
        let cookie = cookie(&rig, key).await;
        for header in [("cookie", cookie.as_str()), ("authorization", &format!("Bearer {key}"))] {
            let answer = rig.call("GET", "/v1/session", &[header], "").await;
            assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{answer:?}");
            let session = answer.json();
            assert_eq!((&session["client"], &session["allow"]), (&key.into(), &allow));
            assert!(session["now"].as_str().unwrap().ends_with('Z') && session["version"].is_string());
        }
        let list = rig.call("GET", "/v1/accounts", &[("cookie", &cookie)], "").await.json();
        assert_eq!(list["accounts"].as_array().unwrap().len(), if key == "all" { 2 } else { 1 });
    }
    rig.is_problem(&rig.get("/v1/session").await, "unauthorized");
    let open = Rig::start(TestApi::default()).await;
    let session = open.get("/v1/session").await.json();
    assert_eq!((&session["client"], session["allow"].as_array().unwrap().len()), (&Value::Null, 5));
}

#[tokio::test]
async fn a_wrong_key_signs_nobody_in() {
    let rig = rig().await;
    for key in ["", "wrong", "al", "all ", "ALL", &wxtokend_core::secret::hex(&Secret::new("all").sha256())] {
        let answer = sign_in(&rig, key, &[OURS]).await;
        rig.is_problem(&answer, "unauthorized");
        assert_eq!(answer.header("set-cookie"), "");
    }
    for (kind, body, code) in [
        ("application/json", "{\"key\":[\"canary\"]}", "bad_request"),
        ("application/json", "{\"token\":\"canary\"}", "bad_request"),
        ("application/json", "canary", "bad_request"),
        ("application/json", "", "bad_request"),
        ("application/x-www-form-urlencoded", "key=all", "unsupported_media_type"),
        ("text/plain", "{\"key\":\"all\"}", "unsupported_media_type"),
    ] {
        let answer = rig.call("POST", "/v1/session", &[OURS, ("content-type", kind)], body).await;
        rig.is_problem(&answer, code);
        assert!(!answer.body.contains("canary"), "{answer:?}");
    }
    let long = format!("{{\"key\":\"{}\"}}", "x".repeat(70_000));
    rig.is_problem(&rig.call("POST", "/v1/session", &[OURS, JSON], &long).await, "too_large");
    let wrong = rig.call("PUT", "/v1/session", &[OURS], "").await;
    rig.is_problem(&wrong, "method_not_allowed");
}

#[tokio::test]
async fn a_session_ends_with_its_key() {
    let rig = rig().await;
    let cookie = cookie(&rig, "all").await;
    let list = async || rig.call("GET", "/v1/accounts", &[("cookie", &cookie)], "").await;
    assert_eq!(list().await.status, 200);
    rig.clients.set(vec![client("other", &["*"], Allow::ALL)]);
    rig.is_problem(&list().await, "unauthorized");
    rig.clients.set(vec![client("all", &["*"], REFRESH)]);
    rig.is_problem(&list().await, "forbidden");
}

#[tokio::test]
async fn no_token_goes_to_a_cookie() {
    let rig = rig().await;
    let cookie = cookie(&rig, "all").await;
    let token = rig.token_of("wx1").await;
    let by_cookie = [("cookie", cookie.as_str()), OURS, JSON];
    let report = serde_json::json!({ "access_token": token }).to_string();
    rig.is_problem(&rig.call("GET", TOKEN, &by_cookie, "").await, "forbidden");
    rig.is_problem(&rig.call("GET", &format!("{TOKEN}?after=0"), &by_cookie, "").await, "forbidden");
    rig.is_problem(&rig.call("POST", REJECT, &by_cookie, &report).await, "forbidden");
    for path in [ORDER, &format!("{ORDER}?force=true")] {
        let answer = rig.call("POST", path, &by_cookie, "").await;
        assert_eq!((answer.status, answer.json().get("expires_in")), (200, None), "{answer:?}");
        assert!(answer.json()["outcome"].is_string() && !rig.leaks(&answer.body));
    }
    for path in ["/v1/accounts", "/v1/accounts/wx1", "/v1/accounts/wx1/history", "/v1/session"] {
        let answer = rig.call("GET", path, &by_cookie, "").await;
        assert!(answer.status == 200 && !rig.leaks(&answer.body), "{answer:?}");
    }
    // With the same key in a header it is a program's request.
    let both = [("cookie", cookie.as_str()), ("authorization", "Bearer all"), JSON];
    assert_eq!(rig.call("GET", TOKEN, &both, "").await.status, 200);
    assert_eq!(rig.call("POST", REJECT, &both, &report).await.status, 200);
    let wrong = [("cookie", cookie.as_str()), ("authorization", "Bearer wrong")];
    rig.is_problem(&rig.call("GET", "/v1/accounts", &wrong, "").await, "unauthorized");
}

#[tokio::test]
async fn a_refresh_that_prefers_a_minimal_answer_gets_no_token() {
    let rig = Rig::start(TestApi::default()).await;
    for (prefer, minimal) in [
        (&["return=minimal"][..], true),
        (&["respond-async, Return=Minimal"], true),
        (&["wait=5", "return=minimal"], true),
        (&["return=representation"], false),
        (&["return=minimalist"], false),
        (&[], false),
    ] {
        let headers: Vec<_> = prefer.iter().map(|wish| ("prefer", *wish)).collect();
        let answer = rig.call("POST", ORDER, &headers, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(rig.leaks(&answer.body), !minimal, "{prefer:?}: {answer:?}");
    }
}

#[tokio::test]
async fn only_our_own_page_changes_anything_with_a_cookie() {
    let rig = rig().await;
    let cookie = cookie(&rig, "all").await;
    let host = rig.address.to_string();
    let (same, other) = (format!("http://{host}"), "http://127.0.0.1:1".to_owned());
    let body = "{\"key\":\"all\"}";
    for (header, ours) in [
        (Some(("sec-fetch-site", "same-origin")), true),
        (Some(("sec-fetch-site", "same-site")), false),
        (Some(("sec-fetch-site", "cross-site")), false),
        (Some(("sec-fetch-site", "none")), false),
        (Some(("origin", same.as_str())), true),
        (Some(("origin", other.as_str())), false),
        (Some(("origin", "null")), false),
        (None, false),
    ] {
        for (method, path, body) in
            [("POST", ORDER, ""), ("POST", "/v1/session", body), ("DELETE", "/v1/session", "")]
        {
            let mut headers = vec![("cookie", cookie.as_str()), JSON];
            headers.extend(header);
            let answer = rig.call(method, path, &headers, body).await;
            if ours {
                assert!(answer.status < 300, "{header:?} {method} {path}: {answer:?}");
            } else {
                rig.is_problem(&answer, "forbidden");
                assert_eq!(answer.header("set-cookie"), "");
            }
        }
        // Reading changes nothing, and scripts of another site never see what they read.
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(header);
        let answer = rig.call("GET", "/v1/accounts", &headers, "").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""), "{header:?}");
    }
    let bearer = [("authorization", "Bearer all"), ("sec-fetch-site", "cross-site")];
    assert_eq!(
        rig.call("POST", ORDER, &bearer, "").await.status,
        200,
        "a program's key is never sent by itself"
    );
}
