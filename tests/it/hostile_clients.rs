//! Many clients at once that are slow, silent, greedy or malformed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Daemon, Http, Lab, TIMEOUT, until};

/// The time that a supervisor gives a process before it kills it, plus some for a slow machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of accounts and the length of their names: together more than a socket's buffers hold.
const ACCOUNTS: usize = 300;
const NAME: usize = 10_000;
const BETWEEN_BYTES: Duration = Duration::from_millis(100);

/// The number of connections of one kind: two thousand, or what the limit of open files allows this process
/// and the daemon, which inherits it.
fn connection_count() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map_or(2_000, |max| usize::try_from(max / 8).unwrap_or(usize::MAX).min(2_000))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The head of a report whose body is still to come.
fn report(length: usize) -> String {
    format!(
        "POST /v1/accounts/stable/token/reject HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A connection on which `request` has been sent.
async fn connection_with(daemon: &Http, request: &str) -> TcpStream {
    try_connection_with(daemon, request).await.unwrap()
}

/// A connection on which `request` has been sent, or an error if the daemon is gone.
async fn try_connection_with(daemon: &Http, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(daemon.address()).await?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Attacks of clients on a daemon, which end when this is dropped.
struct Attack {
    silent: Vec<TcpStream>,
    busy: JoinSet<()>,
}

impl Attack {
    /// Opens `connection_count` connections of each silent kind, and fewer of those that keep the daemon busy.
    async fn start(daemon: &Daemon, version: u64, connection_count: usize) -> Self {
        let mut siege = Self { silent: Vec::new(), busy: JoinSet::new() };
        let poll = get(&format!("/v1/accounts/stable/token?after={version}&wait=20s"));
        for _ in 0..connection_count {
            siege.silent.push(connection_with(daemon, "").await);
            siege.silent.push(connection_with(daemon, "GET /v1/accounts/stable/tok").await);
        }
        for _ in 0..connection_count / 4 {
            siege.silent.push(connection_with(daemon, &poll).await);
        }
        for _ in 0..connection_count / 50 {
            let http = daemon.http.clone();
            siege.busy.spawn(trickle(http.clone(), get("/v1/accounts/stable/token")));
            siege.busy.spawn(trickle(http.clone(), report(4_000) + &"x".repeat(4_000)));
            siege.busy.spawn(read_slowly(http.clone(), get("/v1/accounts?limit=10000").repeat(3)));
            siege.busy.spawn(flood(http.clone(), get("/v1/accounts/stable/token")));
            siege.busy.spawn(hang_up(http, poll.clone()));
        }
        siege
    }
}

/// Sends one byte at a time.
async fn trickle(http: Http, request: String) {
    let Ok(mut stream) = try_connection_with(&http, "").await else { return };
    for byte in request.bytes() {
        // The daemon has closed the connection.
        let Ok(()) = stream.write_all(&[byte]).await else { return };
        sleep(BETWEEN_BYTES).await;
    }
}

/// Reads one byte at a time.
async fn read_slowly(http: Http, request: String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let Ok(mut stream) = socket.connect(http.address()).await else { return };
    let _ = stream.write_all(request.as_bytes()).await;
    while stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {
        sleep(BETWEEN_BYTES).await;
    }
}

/// Sends request after request and reads no answer.
async fn flood(http: Http, request: String) {
    let Ok(mut stream) = try_connection_with(&http, "").await else { return };
    let connection_count = request.repeat(1_000);
    while stream.write_all(connection_count.as_bytes()).await.is_ok() {}
}

/// Sends a request and closes the connection without waiting for the answer.
async fn hang_up(http: Http, request: String) {
    while let Ok(given_up) = try_connection_with(&http, &request).await {
        drop(given_up);
        sleep(BETWEEN_BYTES).await;
    }
}

/// Reads tokens on new connections until `over` is set; all reads must succeed.
async fn read_until(http: Http, over: Arc<AtomicBool>) -> usize {
    let mut reads = 0;
    while !over.load(Ordering::Relaxed) {
        for appid in ["stable", "classic"] {
            let answer = timeout(TIMEOUT, Http::to(http.address()).token(appid)).await.expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
            reads += 1;
        }
        // A client that observes, and should not add load.
        sleep(BETWEEN_BYTES / 5).await;
    }
    reads
}

async fn large_lab() -> Lab {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["upstream"]["max_per_second"] = json!(1_000);
    // Nothing here should fail because the machine is slow.
    lab.config["upstream"]["timeout"] = json!("30s");
    for n in 0..ACCOUNTS {
        lab.add(&format!("wx{n:04}"), json!({ "name": "x".repeat(NAME) }));
    }
    lab
}

/// A connection takes 20 to 50 KiB: its state and two buffers, 8 KiB each unless a head or an answer is
/// longer. The rest is for 16 pages of 3 MB, twice while one is rendered, and what the allocator keeps.
fn growth_kib(connections: usize) -> u64 {
    connections as u64 * 64 + (128 << 10)
}

#[tokio::test]
async fn an_attack_by_many_connections_delays_no_other_client_and_leaves_nothing_behind() {
    let (lab, connection_count) = (large_lab().await, connection_count());
    let mut daemon = lab.start_observed().await;
    until("all are fresh", async || {
        let fresh = daemon.metric("wxtokend_accounts{state=\"fresh\"}").await;
        fresh == Some((ACCOUNTS + 2) as f64)
    })
    .await;
    let version = daemon.token("stable").await.json()["version"].as_u64().unwrap();
    let before = daemon.vitals();
    let over = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_until(daemon.http.clone(), Arc::clone(&over)));
    let siege = Attack::start(&daemon, version, connection_count).await;
    let connections = siege.silent.len() + siege.busy.len();
    // Silent connections have a share of all connections, and make room for others.
    until("it has what it keeps", async || daemon.vitals().descriptors > connection_count / 4).await;
    let fresh = || Http::to(daemon.address());
    assert_eq!(fresh().get("/healthz").await.status, 200, "it goes on serving");
    drop(siege);
    until("all are gone", async || daemon.vitals().descriptors < before.descriptors + 10).await;
    over.store(true, Ordering::Relaxed);
    let reads = reader.await.unwrap();
    assert!(reads >= 10, "{reads} reads");
    let after = daemon.vitals();
    assert!(after.peak_kib < before.resident_kib + growth_kib(connections), "{before:?} {after:?}");
    assert_eq!(
        fresh().get("/v1/accounts?limit=10000").await.json()["accounts"].as_array().unwrap().len(),
        ACCOUNTS + 2
    );

    let siege = Attack::start(&daemon, version, connection_count / 4).await;
    let connection_with = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.ended().await;
    assert!(
        status.success() && connection_with.elapsed() < STOP_TIMEOUT,
        "{status} {:?}",
        connection_with.elapsed()
    );
    drop(siege);
}

#[tokio::test]
async fn long_polls_that_are_given_up_leave_nothing_behind() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let at_once = connection_count() / 10;
    let daemon = lab.start_observed().await;
    daemon.until_state("stable", "fresh").await;
    let version = daemon.token("stable").await.json()["version"].as_u64().unwrap();
    let descriptors = daemon.vitals().descriptors;
    // A client that is gone looks like one that waits for its answer and sends nothing more, until the answer
    // is sent.
    let poll = get(&format!("/v1/accounts/stable/token?after={version}&wait=5s"));
    let mut resident = Vec::new();
    for _ in 0..6 {
        for _ in 0..3 {
            let mut polls = Vec::new();
            for _ in 0..at_once {
                polls.push(connection_with(&daemon, &poll).await);
            }
            until("they wait", async || daemon.vitals().descriptors > descriptors + at_once * 9 / 10).await;
        }
        until("they are gone", async || daemon.vitals().descriptors < descriptors + 5).await;
        resident.push(daemon.vitals().resident_kib);
    }
    // Each connection that stayed would keep 30 KiB: 90 MB for those of the last five rounds.
    let growth = resident[5].saturating_sub(resident[0]);
    assert!(growth < (at_once * 3 * 5) as u64 * 4 + (8 << 10), "{resident:?}");
    assert_eq!(daemon.token("stable").await.status, 200);
}

#[tokio::test]
async fn a_client_that_hardly_sends_anything_is_disconnected() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    let all = async {
        let mut clients = JoinSet::new();
        for said in ["G", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-More: ", &report(100)] {
            let mut stream = connection_with(&daemon, said).await;
            clients.spawn(async move {
                let mut answer = String::new();
                let ended = timeout(TIMEOUT, stream.read_to_string(&mut answer)).await;
                (ended.is_ok(), answer)
            });
        }
        for request in [get(&"/x".repeat(2_000)), report(4_000) + &"x".repeat(4_000)] {
            let trickle = timeout(TIMEOUT, trickle(daemon.http.clone(), request));
            clients.spawn(async move { (trickle.await.is_ok(), "HTTP/1.1 400 ".to_owned()) });
        }
        clients.join_all().await
    };
    for (ended, answer) in all.await {
        assert!(ended && answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

/// A name, the bytes sent, and the statuses of all answers to them.
type Row = (&'static str, String, &'static [u16]);

fn post(headers: &str, body: &str) -> String {
    let head = "POST /v1/accounts/stable/token/reject HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    format!("{head}{headers}\r\n{body}")
}

fn shapes() -> Vec<Row> {
    let with = |headers: &str| format!("GET /healthz HTTP/1.1\r\n{headers}\r\n");
    let local = |headers: &str| with(&format!("Host: localhost\r\n{headers}"));
    let other = r#"{"access_token":"not-it"}"#;
    let length = other.len();
    let chunked = format!("{length:x}\r\n{other}\r\n0\r\n\r\n");
    let inner = get("/v1/accounts/stable");
    vec![
        ("length", post(&format!("Content-Length: {length}\r\n"), other), &[200]),
        ("chunks", post("Transfer-Encoding: chunked\r\n", &chunked), &[200]),
        ("a length that is too short", post("Content-Length: 5\r\n", other), &[400, 400]),
        ("an immense length", post("Content-Length: 99999999999\r\n", other), &[413]),
        ("a length beyond numbers", post("Content-Length: 99999999999999999999999\r\n", other), &[400]),
        ("a negative length", post("Content-Length: -1\r\n", other), &[400]),
        ("a signed length", post(&format!("Content-Length: +{length}\r\n"), other), &[400]),
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 25\r\n", other), &[400]),
        ("a list of lengths", post("Content-Length: 25, 25\r\n", other), &[400]),
        // A parser that trusts the length finds a second request after it.
        (
            "a length and chunks",
            post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &format!("{chunked}{inner}")),
            &[200],
        ),
        ("chunks and no chunks", post("Transfer-Encoding: chunked, identity\r\n", &chunked), &[400]),
        ("chunks misspelt", post("Transfer-Encoding: xchunked\r\n", &chunked), &[400]),
        ("chunks twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", &chunked), &[400]),
        ("chunks behind a blank", post("Transfer-Encoding : chunked\r\n", &chunked), &[400]),
        ("a chunk without a size", post("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        ("an immense chunk", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}"), &[400]),
        (
            "more chunks than a body may have",
            post("Transfer-Encoding: chunked\r\n", &format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(3)),
            &[413],
        ),
        (
            "expecting to be told to go on",
            post(&format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"), other),
            &[100, 200],
        ),
        ("expecting it with too much", post("Expect: 100-continue\r\nContent-Length: 70000\r\n", ""), &[413]),
        ("an upgrade", local("Connection: Upgrade, close\r\nUpgrade: websocket\r\n"), &[200]),
        (
            "an upgrade to HTTP/2",
            local("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
            &[200],
        ),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[]),
        ("TLS", "\u{16}\u{3}\u{1}\u{1}\u{1}\u{3}\u{3}".to_owned() + &"\u{7f}".repeat(200), &[400]),
        ("HTTP/0.9", "GET /healthz\r\n".to_owned(), &[400]),
        ("HTTP/1.0", "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned(), &[200]),
        ("HTTP/1.0 without a host", "GET /healthz HTTP/1.0\r\n\r\n".to_owned(), &[200]),
        (
            "HTTP/1.0 without a host elsewhere",
            "GET /v1/accounts/stable/token HTTP/1.0\r\n\r\n".to_owned(),
            &[400],
        ),
        ("a whole URL elsewhere that is put right", get("http://evil.example//cgi-bin/token"), &[403]),
        ("bare line ends", "GET /healthz HTTP/1.1\nHost: localhost\n\n".to_owned(), &[200]),
        ("no host", with(""), &[400]),
        ("two hosts", with("Host: localhost\r\nHost: evil.example\r\n"), &[400]),
        ("another host", with("Host: evil.example\r\n"), &[403]),
        ("a folded header", local("X-A: b\r\n c\r\n"), &[400]),
        ("a NUL in a header", local("X-A: \0\r\n"), &[400]),
        ("a header without a name", local(": x\r\n"), &[400]),
        ("too many headers", local(&"X-A: b\r\n".repeat(200)), &[400]),
        ("a header that is too long", local(&format!("X-A: {}\r\n", "x".repeat(60_000))), &[400]),
        ("a path that is too long", get(&format!("/{}", "x".repeat(60_000))), &[400]),
        ("a whole URL", get("http://localhost/healthz"), &[200]),
        ("a whole URL elsewhere", get("http://evil.example/healthz"), &[403]),
        ("a tunnel", "CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[403]),
        ("all of it", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &[404]),
        ("a NUL in the path", get("/v1/accounts/stable\0/token"), &[400]),
        ("an encoded NUL", get("/v1/accounts/stable%00/token"), &[404]),
        ("an encoded line end", get("/v1/accounts/stable%0d%0aX-A:%20b/token"), &[404]),
        ("an encoded slash", get("/v1/accounts/x%2f..%2fstable/token"), &[404]),
        ("a way up", get("/v1/accounts/x/../stable/token"), &[404]),
        ("an encoded way up", get("/v1/accounts/%2e%2e/stable/token"), &[404]),
        ("half an escape", get("/v1/accounts/stable%6/token"), &[404]),
        ("an escape that is none", get("/v1/accounts/stable%zz/token"), &[404]),
        ("an escape that is no text", get("/v1/accounts/%ff%fe/token"), &[404]),
        ("an overlong escape", get("/v1/accounts/%c0%ae/token"), &[404]),
        ("escaped twice", get("/v1/accounts/stabl%2565/token"), &[404]),
        ("another case", get("/v1/accounts/STABLE/token"), &[404]),
        ("escaped needlessly", get("/v1/accounts/stabl%65"), &[200]),
    ]
}

/// Everything that is returned. The client closes its side once it has `expected` answers.
async fn answers(stream: &mut TcpStream, expected: usize) -> String {
    let mut all = Vec::new();
    loop {
        if statuses_of(&String::from_utf8_lossy(&all)).len() >= expected {
            // Fails if the daemon has closed the connection.
            let _ = stream.shutdown().await;
        }
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(read @ 1..) => all.extend_from_slice(&some[..read]),
            Ok(_) | Err(_) => return String::from_utf8_lossy(&all).into_owned(),
        }
    }
}

/// The statuses of all answers.
fn statuses_of(answers: &str) -> Vec<u16> {
    let starts = answers.match_indices("HTTP/1.").map(|(at, start)| at + start.len() + 2);
    starts.filter_map(|at| answers.get(at..at + 3)?.parse().ok()).collect()
}

#[tokio::test]
async fn malformed_requests_are_refused_and_smuggle_nothing() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    let token = daemon.token_value("stable").await;
    let mut rows = JoinSet::new();
    for (what, request, statuses) in shapes() {
        let (http, token) = (daemon.http.clone(), token.clone());
        rows.spawn(async move {
            let mut stream = connection_with(&http, "").await;
            // The daemon may close the connection before the end of the request.
            let _ = stream.write_all(request.as_bytes()).await;
            let answers = timeout(TIMEOUT, answers(&mut stream, statuses.len())).await.expect("an end");
            assert_eq!(statuses_of(&answers), statuses, "{what}: {answers}");
            let may_hold_it = !request.contains("/healthz") && statuses.contains(&200);
            assert!(may_hold_it || !answers.contains(&token), "{what}: {answers}");
            assert_eq!(http.get("/healthz").await.status, 200, "{what}");
        });
    }
    rows.join_all().await;
    assert_eq!(daemon.token_value("stable").await, token);
}

/// The program with a limit of open files, which the shell that starts it sets.
fn with_open_files(lab: &Lab, limit: &str) -> Command {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_wxtokend");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" run --log-format json"), program]);
    lab.prepared(shell)
}

#[tokio::test]
async fn clients_that_take_all_connections_do_not_keep_the_daemon_from_wechat() {
    connection_count();
    let lab = Lab::new(2_000, 500).await.with_both();
    lab.write();
    let daemon = Daemon::start(with_open_files(&lab, "-n 128")).await;
    daemon.until_state("stable", "fresh").await;
    daemon.until_state("classic", "fresh").await;
    let mut connections = Vec::new();
    for _ in 0..150 {
        connections.push(connection_with(&daemon, "").await);
    }
    let so_far = ["stable", "classic"].map(|appid| (appid, lab.wechat.calls(appid)));
    for (appid, calls) in so_far {
        lab.wechat.until_called(appid, calls + 3).await;
    }
    let log = daemon.log.text();
    assert!(!log.contains("os error 24") && !log.contains("accept_failed"), "{log}");
    drop(connections);
    for appid in ["stable", "classic"] {
        assert_eq!(Http::to(daemon.address()).token(appid).await.status, 200);
    }
}

#[tokio::test]
async fn the_daemon_takes_as_many_open_files_as_it_may_have() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.write();
    let daemon = Daemon::start(with_open_files(&lab, "-S -n 200 && ulimit -H -n 300")).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["300", "300"], "{line}");
}

#[tokio::test]
async fn a_daemon_that_lets_everybody_in_says_so() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    let warning = daemon.event("no_clients", 1).await;
    assert_eq!(warning["level"], "WARN");
    assert!(warning["message"].as_str().unwrap().contains("proxy"), "{warning}");
    // One warning is enough, until it becomes true again.
    daemon.reload().await;
    lab.config["api"]["clients"] =
        json!([{ "name": "crm", "key": "a-key-of-crm-5ecre7", "accounts": ["*"] }]);
    lab.write();
    daemon.reload().await;
    lab.config["api"]["clients"] = json!([]);
    lab.write();
    daemon.reload().await;
    daemon.event("no_clients", 2).await;
    assert_eq!(daemon.log.text().matches("no_clients").count(), 2);
    assert!(daemon.stop().await.success());

    lab.config["api"]["clients"] =
        json!([{ "name": "crm", "key": "a-key-of-crm-5ecre7", "accounts": ["*"] }]);
    let guarded = lab.start().await;
    guarded.event("started", 1).await;
    guarded.reload().await;
    assert!(!guarded.log.text().contains("no_clients"));
}

/// The limit of open files that many systems have, half of which are for clients.
#[tokio::test]
async fn twice_as_many_silent_connections_as_there_is_room_for_shut_out_neither_probes_nor_clients() {
    connection_count();
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let key = "a-key-of-crm-5ecre7";
    for clients in [json!([]), json!([{ "name": "crm", "key": key, "accounts": ["*"] }])] {
        lab.config["api"]["clients"] = clients;
        lab.write();
        let daemon = Daemon::start(with_open_files(&lab, "-n 1024")).await;
        daemon.with_key(key).until_state("stable", "fresh").await;
        let mut connections = Vec::new();
        for n in 0..1_200 {
            connections.push(connection_with(&daemon, ["", "GET /v1/acc"][n % 2]).await);
        }
        let fresh = || Http::to(daemon.address());
        assert_eq!(fresh().get("/healthz").await.status, 200);
        assert_eq!(fresh().with_key(key).token("stable").await.status, 200);
        assert_eq!(daemon.with_key(key).token("stable").await.status, 200, "a connection kept since before");
        let log = daemon.log.text();
        assert!(!log.contains("os error 24") && !log.contains("accept_failed"), "{log}");
        assert!(daemon.stop().await.success());
    }
}
