//! Idle connections: how long they are kept, and how they end.

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

/// A connection to the server without a socket, so that time can be paused.
async fn connected(rig: &Rig) -> DuplexStream {
    let metrics = rig.metrics.clone();
    let app = crate::daemon::http::app_state::AppStateInner::new(
        rig.fleet.clone(),
        rig.clients.clone(),
        metrics,
        &Config::new([]),
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

/// The next answer, whose body ends with `}`, or everything up to the end of the connection.
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
async fn an_idle_connection_is_kept_for_longer_than_75_s_and_says_so_in_its_headers() {
    let rig = Rig::start(TestApi::default()).await;
    tokio::time::pause();
    let mut client = connected(&rig).await;
    for rest in [s(0), s(11), s(60), s(75), s(79)] {
        sleep(rest).await;
        client.write_all(HEALTH).await.unwrap();
        let response = answer(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "after {rest:?}: {response}");
        assert!(response.contains("\r\nconnection: keep-alive\r\nkeep-alive: timeout=75\r\n"), "{response}");
    }
    let before = tokio::time::Instant::now();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "it ends without a word");
    assert_eq!(before.elapsed().as_secs(), 80);
    // Connection pools may open connections before they need them.
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
    // Empty lines do not begin a head.
    for (idle, lines) in [(s(0), &b""[..]), (s(9), b""), (s(30), b"\r\n\r\n"), (s(79), b"\r\n")] {
        client.write_all(lines).await.unwrap();
        sleep(idle).await;
        client.write_all(first).await.unwrap();
        sleep(s(9)).await;
        client.write_all(rest).await.unwrap();
        let response = answer(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "after {idle:?}: {response}");
    }
    sleep(s(70)).await;
    let before = tokio::time::Instant::now();
    for byte in HEALTH {
        // Fails once the server has closed the connection.
        let _ = client.write_all(&[*byte]).await;
        sleep(Duration::from_millis(400)).await;
    }
    let response = answer(&mut client).await;
    assert!(
        response.starts_with("HTTP/1.1 400 ") && response.contains("did not arrive within 10 s"),
        "{response}"
    );
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "then it ends");
    assert!(before.elapsed() < s(20), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_client_that_closes_its_connection_gets_no_keep_alive_header() {
    let rig = Rig::start(TestApi::default()).await;
    for (request, is_kept) in [
        ("HTTP/1.1\r\nHost: localhost", true),
        ("HTTP/1.1\r\nHost: localhost\r\nConnection: close", false),
        ("HTTP/1.0\r\nHost: localhost", false),
        ("HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive", true),
    ] {
        let mut client = connected(&rig).await;
        client.write_all(format!("GET /healthz {request}\r\n\r\n").as_bytes()).await.unwrap();
        let response = answer(&mut client).await;
        assert_eq!(response.contains("\r\nkeep-alive: timeout=75\r\n"), is_kept, "{request}: {response}");
        assert_eq!(
            response.matches("connection: keep-alive").count(),
            usize::from(is_kept),
            "{request}: {response}"
        );
    }
}

/// The outcome of a request on a connection that was idle for a while.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    /// The server had closed the connection before the request was sent, or may have.
    Closed,
    /// The request had reached the server before it closed the connection without an answer.
    Lost,
}

/// Whether the server has closed its side. Data, or nothing yet, counts as open.
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

/// Reads one answer; `None` if the connection has ended.
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

/// Sends two requests with `rest` between them. The second is sent in two parts, with `pause` between them.
#[expect(clippy::disallowed_methods, reason = "it has a thread of its own")]
fn ask_twice(address: SocketAddr, request: &str, rest: Duration, pause: Duration, cut: usize) -> Outcome {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut stream).expect("an answer on a new connection");
    std::thread::sleep(rest);
    if has_ended(&stream) {
        return Outcome::Closed;
    }
    let (first, second) = request.as_bytes().split_at(cut);
    let mut send = |bytes: &[u8]| stream.write_all(bytes).is_ok() && !has_ended(&stream);
    // On loopback, sent bytes have arrived, and so has an end that was sent earlier.
    let mut has_arrived = send(first);
    if !second.is_empty() {
        std::thread::sleep(pause);
        has_arrived &= send(second);
    }
    match read_answer(&mut stream) {
        Some(answer) => {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            Outcome::Answered
        }
        None if has_arrived => Outcome::Lost,
        None => Outcome::Closed,
    }
}

/// Sends requests at random instants around the end of `idle`, each on its own connection, and counts the
/// outcomes.
async fn request_around_limit(address: SocketAddr, requests: &[String], idle: Duration) -> [usize; 3] {
    let seed: u64 = random();
    eprintln!("seed {seed}");
    let mut draw = SmallRng::seed_from_u64(seed);
    let mut between = |range: Range<f64>| idle.mul_f64(draw.random_range(range));
    let mut all = JoinSet::new();
    for n in 0..240 {
        let request = requests[n % requests.len()].clone();
        // A third of them very close to the limit.
        let rest = if n % 3 == 0 { between(0.99..1.01) } else { between(0.7..1.2) };
        let pause = between(0.0..0.2);
        let cut = if n % 2 == 0 { request.len() } else { (n * 7) % request.len() };
        let cut = cut.max(1);
        all.spawn(async move {
            spawn_blocking(move || ask_twice(address, &request, rest, pause, cut)).await.unwrap()
        });
    }
    let outcomes = all.join_all().await;
    [Outcome::Answered, Outcome::Closed, Outcome::Lost]
        .map(|kind| outcomes.iter().filter(|end| **end == kind).count())
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
        .map(async |(address, requests)| request_around_limit(address, requests, idle).await);
    let (api, metrics) = tokio::join!(api, metrics);
    for [answered, closed, lost] in [api, metrics] {
        // No operating system can close a side only if nothing has arrived: the thread may be preempted
        // between the check and the shutdown.
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
    // All of them have been accepted.
    assert_eq!(rig.get("/healthz").await.status, 200);
    // Nothing else runs between writing and stopping, so none of these requests is read before the server
    // stops.
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
