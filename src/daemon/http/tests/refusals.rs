use super::*;

#[tokio::test]
async fn what_is_not_there_is_refused_as_a_problem() {
    let rig = Rig::start(TestApi::default()).await;
    for path in [
        "/ui",
        "/ui/",
        "/ui/a/b",
        "/v1",
        "/v1/accounts/",
        "/v1/accounts/wx1/",
        "/v1/accounts/wx1/token/",
        "/v2/accounts",
        "/x%ff",
    ] {
        rig.is_problem(&rig.get(path).await, "not_found");
        assert_eq!(rig.call("HEAD", path, &[], "").await.status, 404);
        rig.is_problem(&rig.post(path).await, "not_found");
    }
    for appid in ["wx3", "wx", "WX1", "w%20x", "%ff", &"w".repeat(65), "%E4%B8%AD"] {
        for rest in ["", "/token"] {
            rig.is_problem(&rig.get(&format!("/v1/accounts/{appid}{rest}")).await, "unknown_account");
        }
        rig.is_problem(&rig.reject(appid, "x").await, "unknown_account");
        rig.is_problem(&rig.post(&format!("/v1/accounts/{appid}/token/refresh")).await, "unknown_account");
    }
}

#[tokio::test]
async fn a_query_is_read_strictly() {
    let rig = Rig::start(TestApi::default()).await;
    for query in [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=10001",
        "limit=99999999999999999999",
        "state=good",
        "state=Fresh",
        "sate=fresh",
        "limit=1&limit=2",
        "access_token=canary",
    ] {
        rig.is_problem(&rig.get(&format!("/v1/accounts?{query}")).await, "bad_request");
    }
    let response = rig.get("/v1/accounts?state=good").await;
    for state in wxtokend_core::phase::Phase::ALL {
        assert!(response.json()["detail"].as_str().unwrap().contains(state.as_str()), "{response:?}");
    }
    for query in [
        "wait=30s",
        "wait=5s&after=",
        "after=x",
        "after=-1",
        "after=1&wait=61s",
        "after=1&wait=2m",
        "after=1&wait=30",
        "after=1&wait=x",
        "after=1&wait=0s",
        "after=1&after=1",
        "force=true",
        "after=1.0",
    ] {
        rig.is_problem(&rig.get(&format!("/v1/accounts/wx1/token?{query}")).await, "bad_request");
    }
    for query in ["force=yes", "force=1", "force=True", "force=true&force=true", "forced=true"] {
        rig.is_problem(&rig.post(&format!("/v1/accounts/wx1/token/refresh?{query}")).await, "bad_request");
    }
    for limit in ["1", "10000"] {
        assert_eq!(rig.get(&format!("/v1/accounts?limit={limit}")).await.status, 200);
    }
}

#[tokio::test]
async fn a_report_must_be_a_small_json_object_with_a_token() {
    let rig = Rig::start(TestApi::default()).await;
    let path = "/v1/accounts/wx1/token/reject";
    let good = "{\"access_token\":\"old\"}";
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(rig.call("POST", path, &[("content-type", kind)], good).await.status, 200, "{kind}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", ""] {
        rig.is_problem(
            &rig.call("POST", path, &[("content-type", kind)], good).await,
            "unsupported_media_type",
        );
    }
    rig.is_problem(&rig.call("POST", path, &[], good).await, "unsupported_media_type");
    let json = [("content-type", "application/json")];
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"canary-token\"",
        "{}",
        "{\"access_token\":null}",
        "{\"access_token\":[\"canary-token\"]}",
        "{\"access_token\":\"\"}",
        "{\"token\":\"canary-token\"}",
        "{\"access_token\":\"canary-token\"",
        "{\"access_token\":\"canary-token\"}x",
        "{\"access_token\":\"a\",\"access_token\":\"canary-token\"}",
        "canary-token",
    ] {
        let answer = rig.call("POST", path, &json, body).await;
        rig.is_problem(&answer, "bad_request");
        assert!(!answer.body.contains("canary"), "{answer:?}");
    }
    let fits = format!("{{\"access_token\":\"{}\"}}", "x".repeat(64 * 1024 - 19));
    assert_eq!(fits.len(), 64 * 1024);
    assert_eq!(rig.call("POST", path, &json, &fits).await.status, 200);
    rig.is_problem(&rig.call("POST", path, &json, &format!("{fits} ")).await, "too_large");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_however_it_comes() {
    let rig = Rig::start(TestApi::default()).await;
    let path = "/v1/accounts/wx1/token/reject";
    let json = [("content-type", "application/json")];
    let answer = rig.call("POST", path, &json, &"x".repeat(8 << 20)).await;
    rig.is_problem(&answer, "too_large");
    rig.is_problem(&rig.call("GET", "/v1/accounts", &[], &"x".repeat(70_000)).await, "too_large");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let answer = raw_answer(rig.address, &(head + &chunk.repeat(3) + "0\r\n\r\n")).await;
    rig.is_problem(&answer, "too_large");
}

#[tokio::test]
async fn a_client_that_is_refused_may_finish_sending_and_loses_no_answer() {
    let rig = Rig::start(TestApi::default()).await;
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    let head =
        "POST /v1/accounts/wx1/token/reject HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains("too_large") {
        let mut some = [0; 1024];
        let read = timeout(LONG, client.read(&mut some)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "{text}");
        text.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }
    // A closed socket would answer the first part with a reset, which would hit the later ones.
    for _ in 0..5 {
        client.write_all(&[b'x'; 20_000]).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
}

/// serde accepts an array for a struct, by the order of its fields.
#[tokio::test]
async fn a_body_that_is_no_object_is_refused_wherever_an_object_is_due() {
    let rig =
        Rig::start(TestApi { clients: vec![client("key", &["*"], Allow::ALL)], ..TestApi::default() }).await;
    let token = rig.token_of("wx1").await;
    let ours = ("sec-fetch-site", "same-origin");
    let headers = [("authorization", "Bearer key"), ("content-type", "application/json"), ours];
    for value in [&token, "key"] {
        for body in [
            serde_json::json!([value]),
            serde_json::json!([value, value]),
            serde_json::json!([[value]]),
            serde_json::json!([{ "access_token": value, "key": value }]),
            serde_json::json!([]),
            serde_json::json!(value),
            serde_json::json!(7),
            serde_json::json!(true),
            Value::Null,
        ] {
            for path in ["/v1/accounts/wx1/token/reject", "/v1/session"] {
                for body in [body.to_string(), format!(" \n\t{body}\r\n")] {
                    let answer = rig.call("POST", path, &headers, &body).await;
                    rig.is_problem(&answer, "bad_request");
                    assert!(answer.json()["detail"].as_str().unwrap().contains("{\""), "{path}: {answer:?}");
                }
            }
        }
    }
    let body = format!(" \n{}", serde_json::json!({ "access_token": token }));
    assert_eq!(rig.call("POST", "/v1/accounts/wx1/token/reject", &headers, &body).await.status, 200);
}
