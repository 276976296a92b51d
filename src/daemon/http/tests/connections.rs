use axum::Router;
use axum::routing::get;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::duplex;

use super::*;
use crate::daemon::http::slots::Slots;
use crate::daemon::http::{api_service, app_state, listener};

#[tokio::test]
async fn what_is_no_http_is_refused_as_a_problem() {
    let rig = Rig::start(TestApi::default()).await;
    for garbage in [
        "nonsense\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost localhost\r\n\r\n",
    ] {
        rig.is_problem(&raw_answer(rig.address, garbage).await, "bad_request");
    }
    let long = "x".repeat(40_000);
    let many = (0..101).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    for head in [format!("X-Long: {long}\r\n"), many] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n");
        rig.is_problem(&raw_answer(rig.address, &request).await, "bad_request");
    }
    let request = format!("GET /healthz?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    rig.is_problem(&raw_answer(rig.address, &request).await, "bad_request");
    assert_eq!(rig.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_very_long_head_is_refused_before_it_is_over() {
    let rig = Rig::start(TestApi::default()).await;
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(4 << 20));
    let text = raw(rig.address, &request).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("\"bad_request\""), "{text}");
}

#[tokio::test]
async fn a_panic_costs_one_answer_and_not_the_connection() {
    async fn broken() -> &'static str {
        panic!("with {}", SECRET)
    }
    let rig = Rig::start(TestApi::default()).await;
    let app = app_state::AppStateInner::new(
        rig.fleet.clone(),
        rig.clients.clone(),
        rig.metrics.clone(),
        &rig.config,
    );
    let router = Router::new().route("/broken", get(broken)).route("/whole", get(async || "whole"));
    let service = api_service::ApiService { app, router, serves: |_| false, is_guarded: true };
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(tokio::spawn(listener::serve(
        socket,
        service,
        Slots::new(10),
        listener::IDLE,
        CancellationToken::new(),
    )));
    let broken = "GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n";
    rig.is_problem(&raw_answer(address, broken).await, "internal");
    let whole = "GET /whole HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let text = raw(address, &format!("{broken}{whole}")).await;
    assert!(text.starts_with("HTTP/1.1 500 ") && text.ends_with("whole"), "one connection: {text}");
}

#[tokio::test]
async fn a_thundering_herd_of_connections_finds_room() {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).unwrap();
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let socket = listener::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let mut streams = Vec::new();
    // Nothing accepts yet; a connection that finds the queue full would hang here.
    for number in 0..2000.min(allowed) {
        let came = timeout(LONG, TcpStream::connect(address)).await;
        streams.push(came.unwrap_or_else(|_| panic!("no room for number {number}")).unwrap());
    }
}

#[tokio::test]
async fn the_address_and_its_key_are_named_when_it_is_taken() {
    let rig = Rig::start(TestApi::default()).await;
    let taken = rig.address;
    let mut config = rig.config.clone();
    config.api.listen = taken;
    let bind = |config: Config| async move {
        ApiServer::bind(&config, rig.fleet.clone(), rig.metrics.clone()).await.expect_err("it is taken")
    };
    let error = bind(config.clone()).await.to_string();
    assert!(error.contains(&taken.to_string()) && error.contains("api.listen"), "{error}");
    assert!(error.contains("stop what listens there"), "{error}");
}

#[tokio::test]
async fn metrics_may_have_a_listener_of_their_own_and_nothing_else_is_on_it() {
    let clients = vec![client("k", &["*"], Allow::ALL)];
    let metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    let rig = Rig::start(TestApi { clients, metrics_listen, ..TestApi::default() }).await;
    let own = rig.metrics_address.unwrap();
    rig.is_problem(&rig.get("/metrics").await, "not_found");
    for (path, status) in [
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/v1/accounts", 404),
        ("/v1/accounts/wx1/token", 404),
    ] {
        let head = "Host: anything.example\r\nAuthorization: Bearer k";
        let answer = raw_answer(own, &format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(status == 200 || answer.json()["code"] == "not_found");
    }
    rig.stop.cancel();
    timeout(LONG, rig.served).await.expect("both listeners end").unwrap();
}

#[tokio::test]
async fn probes_report_live_and_ready() {
    let hang = Fault::new(wxtokend_sandbox::FaultKind::Hang);
    let rig = Rig::start_at_once(TestApi { faults: vec![("wx2", hang)], ..TestApi::default() }).await;
    assert_eq!(rig.get("/healthz").await.status, 200);
    let starting = rig.get("/readyz").await;
    rig.is_problem(&starting, "token_unavailable");
    assert_eq!(starting.json()["state"], "starting");
    rig.sandbox.clear_faults(Some(&id("wx2")));
    until("ready", || rig.fleet.is_ready()).await;
    assert_eq!(rig.get("/readyz").await.status, 200);
}

/// More bytes than the sockets' buffers hold.
const LARGE: usize = 8 << 20;

/// A server whose metrics are as large as those of a very large fleet.
async fn large_fleet() -> Rig {
    let mut named = account("wx1");
    named.name = "x".repeat(LARGE);
    Rig::start(TestApi { accounts: vec![named], ..TestApi::default() }).await
}

/// A client that has requested more than it reads, once the answer has begun.
async fn slow_reader(rig: &Rig) -> TcpStream {
    let mut slow_reader = TcpStream::connect(rig.address).await.unwrap();
    slow_reader.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // More than the head, which is sent before the rest is ready.
    timeout(LONG, slow_reader.read_exact(&mut [0; 1024])).await.expect("the answer begins").unwrap();
    slow_reader
}

async fn pass_time(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    // Lets everything that was due by then run before the test goes on.
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test]
async fn a_client_that_takes_in_nothing_is_cut_after_its_time() {
    let rig = Rig::start(TestApi::default()).await;
    let app = app_state::AppStateInner::new(
        rig.fleet.clone(),
        rig.clients.clone(),
        rig.metrics.clone(),
        &rig.config,
    );
    let router = Router::new().route("/large", get(async || vec![b'x'; LARGE]));
    let service = api_service::ApiService { app, router, serves: |_| false, is_guarded: true };
    // A duplex and not a socket, whose buffer size is unknown: full is full, and time advances only when all
    // tasks wait.
    tokio::time::pause();
    for (after, is_cut) in [(Duration::from_secs(29), false), (Duration::from_secs(31), true)] {
        let (mut client, server) = duplex(64 * 1024);
        let stopping = CancellationToken::new();
        let talk =
            listener::converse(server, |_| false, service.clone(), listener::IDLE, Arc::default(), &stopping);
        let listen = async {
            let request = b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            client.write_all(request).await.unwrap();
            sleep(after).await;
            let mut taken = Vec::new();
            client.read_to_end(&mut taken).await.unwrap();
            taken.len()
        };
        let (_, taken) = tokio::join!(async { drop(talk.await) }, listen);
        assert_eq!(taken < LARGE, is_cut, "{taken} bytes after {after:?}");
    }
}

#[tokio::test]
async fn a_scrape_that_is_taken_in_too_slowly_is_cut_after_a_minute() {
    let rig = large_fleet().await;
    let mut slow = slow_reader(&rig).await;
    let mut taken = 0;
    for _ in 0..4 {
        pass_time(Duration::from_secs(20)).await;
        let mut some = vec![0; 512 * 1024];
        taken += timeout(LONG, slow.read_exact(&mut some)).await.expect("some of it").unwrap_or(0);
    }
    let mut rest = Vec::new();
    let _ = timeout(LONG, slow.read_to_end(&mut rest)).await.expect("an end");
    assert!(taken + rest.len() < LARGE, "{taken} and {}", rest.len());
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "it must not pass for a whole one");
}

#[tokio::test]
async fn what_waits_to_be_taken_in_is_bounded_and_holds_up_no_token() {
    let rig = large_fleet().await;
    let started = tokio::time::Instant::now();
    let four = tokio::join!(slow_reader(&rig), slow_reader(&rig), slow_reader(&rig), slow_reader(&rig));
    let long_enough = started.elapsed() * 2;
    let fifth = slow_reader(&rig);
    tokio::pin!(fifth);
    assert!(timeout(long_enough, &mut fifth).await.is_err(), "four are not yet taken in");
    assert_eq!(rig.get("/v1/accounts/wx1/token").await.status, 200);
    drop(four);
    fifth.await;
}
