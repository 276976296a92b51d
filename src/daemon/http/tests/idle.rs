//! Connections between requests: how long they are kept, and how they end.

use std::io::{ErrorKind, Read, Write};
use std::ops::Range;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::{SeedableRng, random};
use tokio::io::{DuplexStream, duplex};
use tokio::task::{JoinSet, spawn_blocking};

use super::*;
use crate::daemon::http::{listener, routes};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A connection to the server that never was a socket; its time can be paused.
async fn connected(rig: &Rig) -> DuplexStream {
    let metrics = rig.metrics.clone();
    let app = crate::daemon::http::app_state::AppStateInner::new(
        rig.fleet.clone(),
        rig.clients.clone(),
        metrics,
        "/",
    );
    let (client, server) = duplex(64 * 1024);
    drop(tokio::spawn(async move {
        let service = routes::api(&app, true);
        drop(
            listener::converse(server, |_| false, service, listener::IDLE, Arc::default(), &app.stopping)
                .await,
        );
    }));
    client
}

/// The next answer, which ends its body with `}`, or what there is until the end.
async fn answer(client: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        let mut some = [0; 4096];
        match timeout(LONG, client.read(&mut some)).await.expect("an answer or an end").unwrap() {
            0 => break,
            read => text.extend_from_slice(&some[..read]),
        }
    }
    String::from_utf8(text).unwrap()
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_75_s_and_its_client_is_told_so() {
    let rig = Rig::start(TestApi::default()).await;
    tokio::time::pause();
    let mut client = connected(&rig).await;
    for rest in [s(0), s(11), s(60), s(75), s(79)] {
        sleep(rest).await;
        client.write_all(HEALTH).await.unwrap();
        let told = answer(&mut client).await;
        assert!(told.starts_with("HTTP/1.1 200 "), "after {rest:?}: {told}");
        assert!(told.contains("\r\nconnection: keep-alive\r\nkeep-alive: timeout=75\r\n"), "{told}");
    }
    let before = tokio::time::Instant::now();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "it ends without a word");
    assert_eq!(before.elapsed().as_secs(), 80);
    // Pools may open connections ahead of their use.
    let mut client = connected(&rig).await;
    sleep(s(79)).await;
    client.write_all(HEALTH).await.unwrap();
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_head_that_has_begun_has_10_s_whenever_it_begins() {
    let rig = Rig::start(TestApi::default()).await;
    tokio::time::pause();
    let mut client = connected(&rig).await;
    let (first, rest) = HEALTH.split_at(9);
    // Empty lines are no head.
    for (idle, lines) in [(s(0), &b""[..]), (s(9), b""), (s(30), b"\r\n\r\n"), (s(79), b"\r\n")] {
        client.write_all(lines).await.unwrap();
        sleep(idle).await;
        client.write_all(first).await.unwrap();
        sleep(s(9)).await;
        client.write_all(rest).await.unwrap();
        let told = answer(&mut client).await;
        assert!(told.starts_with("HTTP/1.1 200 "), "after {idle:?}: {told}");
    }
    sleep(s(70)).await;
    let before = tokio::time::Instant::now();
    for byte in HEALTH {
        // Fails once it has had enough.
        let _ = client.write_all(&[*byte]).await;
        sleep(Duration::from_millis(400)).await;
    }
    let told = answer(&mut client).await;
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("did not arrive within 10 s"), "{told}");
    assert!(told.contains("\r\nconnection: close\r\n"), "{told}");
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "then it ends");
    assert!(before.elapsed() < s(20), "{:?}", before.elapsed());
}

#[tokio::test]
async fn who_does_not_keep_its_connection_is_not_told_how_long_it_is_kept() {
    let rig = Rig::start(TestApi::default()).await;
    for (request, is_kept) in [
        ("HTTP/1.1\r\nHost: localhost", true),
        ("HTTP/1.1\r\nHost: localhost\r\nConnection: close", false),
        ("HTTP/1.0\r\nHost: localhost", false),
        ("HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive", true),
    ] {
        let mut client = connected(&rig).await;
        client.write_all(format!("GET /healthz {request}\r\n\r\n").as_bytes()).await.unwrap();
        let told = answer(&mut client).await;
        assert_eq!(told.contains("\r\nkeep-alive: timeout=75\r\n"), is_kept, "{request}: {told}");
        assert_eq!(told.matches("connection: keep-alive").count(), usize::from(is_kept), "{request}: {told}");
    }
}

/// How a request on a connection that was idle for a while ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// The server's end was there before the request was on its way, or may have been.
    Closed,
    /// The request had reached the server before its end, which came instead of an answer.
    Lost,
}

/// What has come of the server's side: data, its end, or nothing yet.
fn has_ended(stream: &std::net::TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match peeked {
        Ok(read) => read == 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "reset");
            false
        }
    }
}

/// One answer; none where there is only the end.
fn read_answer(stream: &mut std::net::TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let is_whole = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        Some(body.len() >= length.parse().unwrap())
    };
    while is_whole(&text) != Some(true) {
        let mut some = [0; 4096];
        match stream.read(&mut some).expect("no reset and no silence") {
            0 => break,
            read => text.extend_from_slice(&some[..read]),
        }
    }
    assert!(text.is_empty() || is_whole(&text) == Some(true), "{}", String::from_utf8_lossy(&text));
    (!text.is_empty()).then(|| String::from_utf8(text).unwrap())
}

/// Two requests with `rest` between them, the second in two pieces with `pause` between those.
#[expect(clippy::disallowed_methods, reason = "it has a thread of its own")]
fn ask_twice(address: SocketAddr, request: &str, rest: Duration, pause: Duration, cut: usize) -> End {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut stream).expect("an answer on a new connection");
    std::thread::sleep(rest);
    if has_ended(&stream) {
        return End::Closed;
    }
    let (first, second) = request.as_bytes().split_at(cut);
    let mut send = |bytes: &[u8]| stream.write_all(bytes).is_ok() && !has_ended(&stream);
    // On loopback what was sent has arrived, and so has an end that was sent before.
    let mut has_arrived = send(first);
    if !second.is_empty() {
        std::thread::sleep(pause);
        has_arrived &= send(second);
    }
    match read_answer(&mut stream) {
        Some(answer) => {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            End::Answered
        }
        None if has_arrived => End::Lost,
        None => End::Closed,
    }
}

/// Requests at random instants around the end of `idle` on connections of their own: how often each end came.
async fn around_the_limit(address: SocketAddr, requests: &[String], idle: Duration) -> [usize; 3] {
    let seed: u64 = random();
    eprintln!("seed {seed}");
    let mut draw = SmallRng::seed_from_u64(seed);
    let mut between = |range: Range<f64>| idle.mul_f64(draw.random_range(range));
    let mut all = JoinSet::new();
    for n in 0..240 {
        let request = requests[n % requests.len()].clone();
        // A third of them closely.
        let rest = if n % 3 == 0 { between(0.99..1.01) } else { between(0.7..1.2) };
        let pause = between(0.0..0.2);
        let cut = if n % 2 == 0 { request.len() } else { (n * 7) % request.len() };
        let cut = cut.max(1);
        all.spawn(async move {
            spawn_blocking(move || ask_twice(address, &request, rest, pause, cut)).await.unwrap()
        });
    }
    let ends = all.join_all().await;
    [End::Answered, End::Closed, End::Lost].map(|kind| ends.iter().filter(|end| **end == kind).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reached_us_before_our_end_is_answered_and_what_came_later_finds_an_end() {
    let idle = Duration::from_millis(600);
    let metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    let rig = Rig::start(TestApi { idle: Some(idle), metrics_listen, ..TestApi::default() }).await;
    let report = serde_json::json!({ "access_token": "old" }).to_string();
    let requests = [
        "GET /v1/accounts/wx1/token HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!(
            "POST /v1/accounts/wx1/token/reject HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{report}",
            report.len()
        ),
        "POST /v1/accounts/wx1/token/refresh HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            .to_owned(),
    ];
    let probes = ["/healthz", "/readyz"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: probe\r\n\r\n"));
    let [api, metrics] = [(rig.address, &requests[..]), (rig.metrics_address.unwrap(), &probes)]
        .map(async |(address, requests)| around_the_limit(address, requests, idle).await);
    let (api, metrics) = tokio::join!(api, metrics);
    for [answered, closed, lost] in [api, metrics] {
        // No system ends a side only if nothing has arrived: we may be stopped between the look and the end.
        assert!(lost <= 1, "{answered} answered, {closed} closed before, {lost} lost");
        assert!(answered > 0 && closed > 0, "{answered} {closed}: the limit lies between");
    }
}

#[tokio::test]
async fn what_reached_us_before_we_stopped_is_answered_as_the_last() {
    let rig = Rig::start(TestApi::default()).await;
    let (mut fresh, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(HEALTH).await.unwrap();
        let mut some = [0; 4096];
        assert!(timeout(LONG, stream.read(&mut some)).await.unwrap().unwrap() > 0);
        kept.push(stream);
        fresh.push(TcpStream::connect(rig.address).await.unwrap());
    }
    // All are taken in.
    assert_eq!(rig.get("/healthz").await.status, 200);
    // Nothing else runs between the two: none of these is read before it is told to stop.
    let streams: Vec<_> = fresh.into_iter().chain(kept).collect();
    for stream in &streams {
        assert_eq!(stream.try_write(HEALTH).unwrap(), HEALTH.len());
    }
    rig.stop.cancel();
    for mut stream in streams {
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.expect("an end").unwrap();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("connection: close"), "{text}");
    }
    timeout(LONG, rig.served).await.expect("it returns").unwrap();
}
