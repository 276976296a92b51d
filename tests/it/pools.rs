//! Connection pools of real clients, which reuse connections after any idle time.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;
use wxtokend::http::Metrics;
use wxtokend::internals::ApiServer;
use wxtokend::{Config, Fleet};

use crate::harness::{Http, Lab, Nginx, node_packages, python_with, said, tool, words};

/// In place of 80 s; clients are given 2 s in place of 75.
const IDLE: Duration = Duration::from_secs(3);
/// In place of the 60 s for which nginx keeps its connections.
const NGINX_KEEPS: &str = "2s";
/// Requests of each client on each connection, and its number of connections.
const REQUESTS: usize = 6;
const CONNECTIONS: usize = 6;

/// Runs the API in this process: with the program's own limit of 80 s a test would take minutes.
async fn serve(lab: &Lab) -> (SocketAddr, SocketAddr) {
    let text = lab.config.to_string();
    let config = Config::parse(&text, &lab.path("accounts.yaml"), |_| None).unwrap();
    let fleet = Fleet::start(config.clone()).await.unwrap();
    let api = ApiServer::bind(&config, fleet, Metrics::detached()).await.unwrap().keep_idle(IDLE);
    let addresses = (api.address(), api.metrics_address().unwrap());
    drop(tokio::spawn(api.serve(std::future::pending())));
    Http::to(addresses.0).until_state("stable", "fresh").await;
    addresses
}

/// Runs a script that prints a list of what went wrong.
async fn run(lab: &Lab, mut program: Command, script: &str, api: SocketAddr, metrics: SocketAddr) {
    program.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks").join(script));
    let mut program = lab.prepared(program);
    let environment: [(&str, OsString); 6] = [
        ("PATH", std::env::var_os("PATH").unwrap()),
        ("API", format!("http://{api}").into()),
        ("METRICS", format!("http://{metrics}").into()),
        ("IDLE", IDLE.as_secs().to_string().into()),
        ("REQUESTS", REQUESTS.to_string().into()),
        ("CONNECTIONS", CONNECTIONS.to_string().into()),
    ];
    program.env_clear().envs(environment);
    let ended = said(program).await;
    assert!(ended.status.success(), "{script}: {}", words(&ended));
    let failed: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(failed, json!([]), "{script}");
}

/// Requests through nginx, which reuses connections to us after any idle time.
async fn through_nginx(hub: Http) {
    let mut all = JoinSet::new();
    for n in 0..CONNECTIONS {
        let hub = hub.clone();
        all.spawn(async move {
            for round in 0..REQUESTS {
                let rest = rand::rng().random_range(0.0..1.5);
                sleep(IDLE.mul_f64(rest)).await;
                let secret = "grant_type=client_credential&appid=stable&secret=any";
                let request = match (n + round) % 2 {
                    0 => hub.request(Method::GET, &format!("/cgi-bin/token?{secret}")),
                    _ => hub.request(Method::POST, "/cgi-bin/stable_token").body(
                        json!({ "grant_type": "client_credential", "appid": "stable", "secret": "any" })
                            .to_string(),
                    ),
                };
                let answer = Http::try_send(request).await.expect("an answer of nginx");
                assert!(answer.json()["access_token"].is_string(), "after {rest}: {answer:?}");
            }
        });
    }
    all.join_all().await;
}

#[tokio::test]
async fn real_pools_lose_no_request_whenever_they_use_a_kept_connection_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks");
    let requirements = folder.join("requirements.txt");
    let (python, ()) = tokio::join!(python_with(&requirements), node_packages(&folder));
    let node = tool("node", "nodejs").await.as_std().get_program().to_owned();
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["store"]["path"] = json!(lab.path("store.redb"));
    lab.config["metrics"]["listen"] = json!("127.0.0.1:0");
    let (api, metrics) = serve(&lab).await;
    let nginx = Nginx::before(&lab, api, NGINX_KEEPS).await;
    tokio::join!(
        through_nginx(nginx.http.clone()),
        run(&lab, Command::new(python), "pool_of_requests.py", api, metrics),
        run(&lab, Command::new(node), "pool_of_undici.mjs", api, metrics),
    );
}
