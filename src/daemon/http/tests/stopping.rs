use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn those_who_wait_are_answered_when_the_server_stops() {
    let plan = TestApi {
        faults: vec![("wx2", Fault::new(wxtokend_sandbox::FaultKind::Hang))],
        timeout: Duration::from_secs(15),
        ..TestApi::default()
    };
    let rig = Rig::start_at_once(plan).await;
    let version = rig.fleet.token("wx1").await.unwrap().version();
    let idle = TcpStream::connect(rig.address).await.unwrap();
    let path = format!("/v1/accounts/wx1/token?after={version}&wait=60s");
    let started = Instant::now();
    let (polled, waited, refreshed, ()) = tokio::join!(
        rig.get(&path),
        rig.get("/v1/accounts/wx2/token"),
        rig.post("/v1/accounts/wx2/token/refresh"),
        async {
            sleep(Duration::from_millis(300)).await;
            rig.stop.cancel();
        }
    );
    for answer in [polled, waited, refreshed] {
        rig.is_problem(&answer, "shutting_down");
    }
    timeout(LONG, rig.served).await.expect("it returns").unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(TcpStream::connect(rig.address).await.is_err(), "nobody new is let in");
    drop(idle);
}

#[tokio::test]
async fn a_stopping_fleet_stops_the_server() {
    let rig = Rig::start(TestApi::default()).await;
    let version = rig.fleet.token("wx1").await.unwrap().version();
    let path = format!("/v1/accounts/wx1/token?after={version}&wait=60s");
    let (polled, ()) = tokio::join!(rig.get(&path), async {
        sleep(Duration::from_millis(200)).await;
        rig.fleet.shutdown().await;
    });
    rig.is_problem(&polled, "shutting_down");
    timeout(LONG, rig.served).await.expect("it returns").unwrap();
}

#[tokio::test]
async fn a_client_that_never_ends_is_cut() {
    let rig = Rig::start(TestApi::default()).await;
    let mut slow = TcpStream::connect(rig.address).await.unwrap();
    let head = "POST /v1/accounts/wx1/token/reject HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    slow.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    rig.stop.cancel();
    timeout(LONG, rig.served).await.expect("it returns").unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
