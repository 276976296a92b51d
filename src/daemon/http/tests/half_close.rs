//! Clients that close their writing side after the request and wait for the answer (RFC 9112, 9.6).

use super::*;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends `request`, closes the writing side, and returns everything that comes back.
async fn half_closed(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    timeout(LONG, stream.read_to_string(&mut text)).await.expect("an end").unwrap();
    text
}

#[tokio::test]
async fn a_client_that_half_closes_after_a_request_is_answered_however_long_that_takes() {
    let slow = Fault::new(wxtokend_sandbox::FaultKind::Delay { delay_ms: 700 });
    let rig = Rig::start_at_once(TestApi { faults: vec![("wx2", slow)], ..TestApi::default() }).await;
    let cold = half_closed(rig.address, &get("/v1/accounts/wx2/token")).await;
    assert!(cold.starts_with("HTTP/1.1 200 ") && cold.contains("access_token"), "a cold read: {cold}");
    until("ready", || rig.fleet.is_ready()).await;
    rig.sandbox.inject(Some(&id("wx1")), Fault::new(wxtokend_sandbox::FaultKind::Delay { delay_ms: 300 }));
    let version = rig.fleet.token("wx1").await.unwrap().version();
    let report = serde_json::json!({ "access_token": rig.token_of("wx1").await }).to_string();
    for (what, request, status) in [
        ("a read", get("/v1/accounts/wx1/token"), 200),
        ("a report", post("/v1/accounts/wx1/token/reject", &report), 200),
        ("a refresh", post("/v1/accounts/wx1/token/refresh", ""), 200),
        ("a long poll", get(&format!("/v1/accounts/wx1/token?after={}&wait=1s", version + 9)), 200),
        ("a long poll without news", get(&format!("/v1/accounts/wx2/token?after={}&wait=1s", 0)), 200),
        ("a scrape", get("/metrics"), 200),
        ("HTTP/1.0", "GET /v1/accounts/wx1/token HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned(), 200),
    ] {
        let text = half_closed(rig.address, &request).await;
        assert!(text.get(9..12) == Some(&status.to_string()), "{what}: {text}");
    }
    let version = rig.fleet.token("wx1").await.unwrap().version();
    let poll = get(&format!("/v1/accounts/wx1/token?after={version}&wait=1s"));
    let text = half_closed(rig.address, &poll).await;
    assert!(text.starts_with("HTTP/1.1 304 "), "a long poll whose wait ends: {text}");
    // Two requests at once, of which the first waits.
    let two = half_closed(rig.address, &format!("{poll}{}", get("/healthz"))).await;
    assert!(two.starts_with("HTTP/1.1 304 ") && two.ends_with("{\"status\":\"ok\"}"), "both: {two}");
}

#[tokio::test]
async fn a_stream_goes_on_for_a_client_that_has_ended_its_writing_side() {
    let rig = Rig::start(TestApi::default()).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(get("/v1/events").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    let mut response = async |what: &str| {
        while !text.contains(what) {
            let mut some = [0; 4096];
            let read = timeout(LONG, stream.read(&mut some)).await.expect("news").unwrap();
            assert_ne!(read, 0, "it has ended before {what}: {text}");
            text.push_str(&String::from_utf8_lossy(&some[..read]));
        }
    };
    response("\r\n\r\n").await;
    assert_eq!(rig.post("/v1/accounts/wx1/token/refresh?force=true").await.status, 200);
    response("event: token").await;
}
