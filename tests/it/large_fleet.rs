//! A large fleet whose accounts start together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use wxtokend_sandbox::{Fault, FaultKind};

use crate::harness::{Lab, appid, until};

const ACCOUNTS: usize = 1_000;
const PER_SECOND: usize = 200;
const IN_FLIGHT: usize = 16;

/// Forwards calls to the sandbox and counts those in flight. Each has its own connection.
struct Relay {
    peak: Arc<AtomicUsize>,
    address: std::net::SocketAddr,
}

impl Relay {
    async fn to(upstream: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let task_peak = Arc::clone(&peak);
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (open, peak) = (Arc::clone(&open), Arc::clone(&task_peak));
                peak.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(upstream).await.unwrap();
                    let (mut near_out, mut near_in) = near.split();
                    let (mut far_out, mut far_in) = far.split();
                    let forward = copy(&mut near_out, &mut far_in);
                    let backward = async {
                        let mut start = [0; 4096];
                        let read = far_out.read(&mut start).await?;
                        // Before its caller can make another call.
                        open.fetch_sub(1, Ordering::SeqCst);
                        near_in.write_all(&start[..read]).await?;
                        copy(&mut far_out, &mut near_in).await
                    };
                    // Either side may end the connection.
                    let _ = tokio::try_join!(forward, backward);
                });
            }
        });
        Self { peak, address }
    }
}

#[tokio::test]
async fn a_thousand_accounts_start_cold_within_the_global_limits() {
    let mut lab = Lab::new(7_200_000, 300_000).await;
    let relay = Relay::to(lab.wechat.address).await;
    lab.config["upstream"] = json!({
        "base_urls": [format!("http://{}", relay.address)],
        "max_per_second": PER_SECOND,
        "max_in_flight": IN_FLIGHT,
        // Nothing here should fail because the machine is slow.
        "timeout": "30s",
    });
    let accounts: Vec<String> = (0..ACCOUNTS).map(|n| format!("wx{n:04}")).collect();
    for (n, account) in accounts.iter().enumerate() {
        let endpoint = ["stable_token", "token"][n % 2];
        lab.add(account, json!({ "endpoint": endpoint }));
    }
    // Long enough that calls would pile up without a limit.
    lab.wechat.inject(None, Fault::new(FaultKind::Delay { delay_ms: 60 }));
    let daemon = lab.start().await;
    assert_eq!(daemon.get("/readyz").await.status, 503, "it has just begun");
    until("all are fresh", async || {
        let in_flight = daemon.metric("wxtokend_upstream_in_flight").await.unwrap();
        assert!(in_flight <= IN_FLIGHT as f64, "{in_flight}");
        daemon.metric("wxtokend_accounts{state=\"fresh\"}").await == Some(ACCOUNTS as f64)
    })
    .await;
    assert_eq!(daemon.get("/readyz").await.status, 200);
    let peak = relay.peak.load(Ordering::SeqCst);
    assert!((2..=IN_FLIGHT).contains(&peak), "{peak} calls at the same time");
    let mut arrivals: Vec<Duration> = Vec::new();
    for account in &accounts {
        assert_eq!(lab.wechat.calls(account), 1, "{account}");
        arrivals.push(lab.wechat.truth(&appid(account)).unwrap().living_tokens[0].minted_at);
    }
    arrivals.sort();
    let whole = arrivals[ACCOUNTS - 1] - arrivals[0];
    assert!(whole >= Duration::from_secs(ACCOUNTS as u64) / PER_SECOND as u32 * 4 / 5, "{whole:?} for all");
    let busiest = arrivals.iter().map(|from| {
        arrivals.iter().filter(|at| (*from..*from + Duration::from_secs(1)).contains(*at)).count()
    });
    // Calls that were in flight while the machine paused arrive together.
    let busiest = busiest.max().unwrap();
    assert!(busiest <= PER_SECOND + IN_FLIGHT * 2, "{busiest} calls within one second");
    let page = daemon.get("/v1/accounts?state=fresh&limit=10000").await.json();
    assert_eq!(page["accounts"].as_array().unwrap().len(), ACCOUNTS);
}
