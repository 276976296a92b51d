//! Large numbers of connections that show no key.

use std::net::Ipv4Addr;

use tokio::net::TcpSocket;

use super::*;
use crate::daemon::http::slots::Slots;
use crate::daemon::http::{app_state, listener, routes};

const MAX: usize = 64;
const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const READ: &str =
    "GET /v1/accounts/wx1/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n\r\n";

/// A listener with `MAX` connections, for a fleet whose clients have the key `k`.
async fn small() -> (Rig, SocketAddr) {
    let clients = vec![client("k", &["*"], Allow::ALL)];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    let app = app_state::AppStateInner::new(
        rig.fleet.clone(),
        rig.clients.clone(),
        rig.metrics.clone(),
        &rig.config,
    );
    let socket = listener::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let (service, slots) = (routes::api(&app, true), Slots::new(MAX));
    drop(tokio::spawn(listener::serve(socket, service, slots, listener::IDLE, rig.stop.clone())));
    (rig, address)
}

async fn connect(from: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).unwrap();
    timeout(LONG, socket.connect(to)).await.expect("the system lets it in").unwrap()
}

/// The start of the answer to `request`; empty if the connection has ended.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    if stream.write_all(request.as_bytes()).await.is_err() {
        return String::new();
    }
    let mut some = [0; 4096];
    let read = timeout(LONG, stream.read(&mut some)).await.expect("an answer").unwrap_or(0);
    String::from_utf8_lossy(&some[..read]).into_owned()
}

fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0; 1024]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn connections_without_a_key_shut_nobody_out() {
    let half_a_body = "POST /v1/session HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\
                       Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    for opening in ["", "GET /v1/acc", half_a_body, HEALTH] {
        let (_rig, address) = small().await;
        let mut kept = Vec::new();
        for _ in 0..MAX / 2 {
            let mut stream = connect(2, address).await;
            assert!(ask(&mut stream, READ).await.starts_with("HTTP/1.1 200 "));
            kept.push(stream);
        }
        let quiet = connect(3, address).await;
        let mut strangers = Vec::new();
        for n in 0..4 * MAX {
            let mut stream = connect(1, address).await;
            stream.write_all(opening.as_bytes()).await.unwrap();
            strangers.push(stream);
            if n % MAX == 0 {
                // Addresses: that of the connections without a key, and another.
                for from in [1, 4] {
                    let response = ask(&mut connect(from, address).await, HEALTH).await;
                    assert!(response.starts_with("HTTP/1.1 200 "), "{opening:?} {n}: {response}");
                    let response = ask(&mut connect(from, address).await, READ).await;
                    assert!(response.starts_with("HTTP/1.1 200 "), "{opening:?} {n}: {response}");
                }
            }
        }
        let response = ask(&mut connect(4, address).await, HEALTH).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{opening:?} behind all of them: {response}");
        assert!(
            kept.iter().all(is_open),
            "{opening:?}: clients that have shown a key keep their connections"
        );
        for stream in &mut kept {
            assert!(ask(stream, READ).await.starts_with("HTTP/1.1 200 "));
        }
        assert!(is_open(&quiet), "{opening:?}: the crowd has its share, and nobody else's");
    }
}

#[tokio::test]
async fn a_client_that_guesses_keys_gains_nothing_by_disconnecting_early() {
    let (rig, address) = small().await;
    let guess = READ.replace("Bearer k", "Bearer wrong");
    let started = tokio::time::Instant::now();
    for _ in 0..60 {
        let mut stream = connect(5, address).await;
        stream.write_all(guess.as_bytes()).await.unwrap();
        // A guesser may take silence for this long to mean that the key is wrong.
        let _ = timeout(Duration::from_millis(30), stream.read(&mut [0; 64])).await;
    }
    let scrape = rig.get("/metrics").await.body;
    let may_have_tried = 20 + started.elapsed().as_millis() / 250 + 1;
    let tried = scrape.lines().find_map(|line| line.strip_prefix("wxtokend_wrong_keys_total ")).unwrap();
    let tried = tried.parse::<u128>().unwrap();
    assert!(tried <= may_have_tried + 10, "{tried} were checked, not {may_have_tried}");
    let healthy = ask(&mut connect(5, address).await, HEALTH).await;
    assert!(healthy.starts_with("HTTP/1.1 200 "), "where no key is checked nobody waits");
}

#[tokio::test]
async fn after_wrong_guesses_a_right_key_is_answered_as_late_as_a_wrong_one() {
    let (_rig, address) = small().await;
    let guess = READ.replace("Bearer k", "Bearer wrong");
    let started = tokio::time::Instant::now();
    let mut stream = connect(5, address).await;
    for _ in 0..20 {
        assert!(ask(&mut stream, &guess).await.starts_with("HTTP/1.1 401 "));
    }
    assert!(ask(&mut stream, READ).await.starts_with("HTTP/1.1 200 "), "it is let in in the end");
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    // From now on the address is trusted.
    let trusted = tokio::time::Instant::now();
    for _ in 0..20 {
        assert!(ask(&mut connect(5, address).await, &guess).await.starts_with("HTTP/1.1 401 "));
    }
    assert!(trusted.elapsed() < Duration::from_secs(4), "{:?}", trusted.elapsed());
}

#[tokio::test]
async fn wrong_keys_are_counted_and_a_client_that_only_guesses_is_slowed() {
    let (rig, address) = small().await;
    let guess = READ.replace("Bearer k", "Bearer wrong");
    let mut stream = connect(5, address).await;
    let started = tokio::time::Instant::now();
    for _ in 0..28 {
        assert!(ask(&mut stream, &guess).await.starts_with("HTTP/1.1 401 "));
    }
    // 20 at once, then four a second.
    assert!(started.elapsed() >= Duration::from_millis(1_900), "{:?}", started.elapsed());
    assert!(ask(&mut stream, READ).await.starts_with("HTTP/1.1 200 "), "a right key is let in all the same");
    let cookie = READ.replace("Authorization: Bearer k", "Cookie: wxtokend_key=6666");
    assert!(ask(&mut stream, &cookie).await.starts_with("HTTP/1.1 401 "));
    let wechat = "GET /cgi-bin/token?grant_type=client_credential&appid=wx1&secret=no HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(ask(&mut stream, wechat).await.contains("40125"));
    let none = READ.replace("Authorization: Bearer k\r\n", "");
    assert!(ask(&mut stream, &none).await.starts_with("HTTP/1.1 401 "), "no key is no guess");
    let scrape = rig.get("/metrics").await.body;
    assert!(scrape.contains("\nwxtokend_wrong_keys_total 30\n"), "{scrape}");
}
