//! The clock that can be moved, and the log of requests.

use super::*;

async fn logged(address: SocketAddr, query: &str) -> Vec<Value> {
    let (status, answer) = control(address, "GET", &format!("/requests{query}"), "").await;
    assert_eq!(status, 200, "{answer}");
    answer["requests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_clock_is_moved_forward_and_tokens_age_by_it() {
    let (sandbox, address) = sandbox().await;
    exchange(address, MINT).await.unwrap();
    let token = sandbox.truth(&wx01()).unwrap().living_tokens[0].access_token.clone();
    let (_, before) = control(address, "GET", "/clock", "").await;
    assert_eq!(before["ahead_s"], 0.0);
    let (_, moved) = control(address, "POST", "/clock", r#"{"advance":"1h 30m"}"#).await;
    assert_eq!(moved["ahead_s"], 5400.0);
    assert!(sandbox.is_alive(token.expose()) && moved["now"].as_str() > before["now"].as_str(), "{moved}");
    assert!(exchange(address, MINT).await.unwrap().contains("date: Mon, 21 Sep 2026 15:4"));
    control(address, "POST", "/clock", r#"{"advance":"30m"}"#).await;
    assert!(!sandbox.is_alive(token.expose()));
    for (body, words) in
        [(r#"{"advance":"-1s"}"#, "forward"), (r#"{"advance":"moon"}"#, "duration"), ("{}", "advance")]
    {
        let (status, error) = control(address, "POST", "/clock", body).await;
        assert!(status == 400 && error["error"].as_str().unwrap().contains(words), "{body}: {error}");
    }
}

#[tokio::test]
async fn requests_are_logged_with_what_they_got_and_without_secrets() {
    let (sandbox, address) = sandbox().await;
    exchange(address, MINT).await.unwrap();
    let token = sandbox.truth(&wx01()).unwrap().living_tokens[0].access_token.clone();
    let upload = |token: &str| {
        format!("POST //wxa/x?access_token={token} HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nhello")
    };
    exchange(address, &upload(token.expose())).await.unwrap();
    exchange(address, &upload("stale")).await.unwrap();
    sandbox.inject(None, Fault::new(FaultKind::Reset));
    exchange(address, MINT).await.unwrap_err();
    let seen = |request: &Value| {
        let of = |key: &str| request[key].clone();
        json!([of("appid"), of("method"), of("path"), of("status"), of("errcode"), of("length")])
    };
    let all = logged(address, "").await;
    let expected = json!([
        ["wx01", "GET", "/cgi-bin/token", 200, null, 0],
        ["wx01", "POST", "//wxa/x", 200, 0, 5],
        [null, "POST", "//wxa/x", 200, 40001, 5],
        ["wx01", "GET", "/cgi-bin/token", null, null, 0],
    ]);
    assert_eq!(Value::from(all.iter().map(seen).collect::<Vec<_>>()), expected);
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("s3") && !text.contains(token.expose()) && !text.contains("stale"), "{text}");
    let since = format!("?since={}", all[1]["at"].as_str().unwrap());
    for (query, expected) in
        [("?appid=wx01", 3), ("?path=/wxa/*", 2), ("?path=/wxa/x&appid=wx01", 1), (since.as_str(), 2)]
    {
        assert_eq!(logged(address, query).await.len(), expected, "{query}");
    }
    for query in ["?since=then", "?apid=wx01"] {
        assert_eq!(control(address, "GET", &format!("/requests{query}"), "").await.0, 400, "{query}");
    }
    control(address, "DELETE", "/requests", "").await;
    assert!(logged(address, "").await.is_empty() && sandbox.requests().is_empty());
}

#[tokio::test]
async fn quotas_are_set_read_and_cleared_for_one_account_and_for_each() {
    let (sandbox, address) = sandbox().await;
    exchange(address, MINT).await.unwrap();
    let token = sandbox.truth(&wx01()).unwrap().living_tokens[0].access_token.clone();
    let call = format!("GET /wxa/x?access_token={} HTTP/1.1\r\nHost: w\r\n\r\n", token.expose());
    for list in ["/quotas", "/accounts/wx01/quotas"] {
        let limit = r#"{"path":"/wxa/*","per_day":1}"#;
        assert_eq!(control(address, "POST", list, limit).await, (200, json!({"ok": true})));
        assert!(exchange(address, &call).await.unwrap().contains("\"ok\""), "{list}");
        assert!(
            exchange(address, &call).await.unwrap().contains("reach max api daily quota limit"),
            "{list}"
        );
        let expected = json!({"quotas": [{"path": "/wxa/*", "per_day": 1, "used": {"wx01": 1}}]});
        assert_eq!(control(address, "GET", list, "").await.1, expected);
        control(address, "DELETE", &format!("{list}/used"), "").await;
        assert!(exchange(address, &call).await.unwrap().contains("\"ok\""), "{list}");
        control(address, "DELETE", list, "").await;
        assert_eq!(control(address, "GET", list, "").await.1, json!({"quotas": []}));
    }
    for (status, path, body, words) in [
        (400, "/quotas", r#"{"path":"/x"}"#, "per_day"),
        (400, "/quotas", r#"{"path":"/x","per_day":1,"for":2}"#, "for"),
        (404, "/accounts/wx99/quotas", r#"{"path":"/x","per_day":1}"#, "wx99"),
    ] {
        let (seen, error) = control(address, "POST", path, body).await;
        assert!(seen == status && error["error"].as_str().unwrap().contains(words), "{body}: {error}");
    }
}
