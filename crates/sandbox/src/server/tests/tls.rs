//! The simulated WeChat over HTTPS.

use reqwest::{Certificate, Client};
use wxtokend_core::clock::{ClockSource, SystemClock};

use super::*;
use crate::Tls;

/// The true time, by which clients judge certificates.
fn wall_s() -> u64 {
    (SystemClock::new().now().wall_ms / 1000).unsigned_abs()
}

/// A client that trusts the CA and takes the sandbox for WeChat.
fn client(tls: &Tls, address: SocketAddr, name: &str) -> Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    let ca = Certificate::from_pem(tls.ca_pem().as_bytes()).unwrap();
    let client = Client::builder().no_proxy().tls_certs_only([ca]).resolve(name, address);
    client.build().unwrap()
}

async fn over_tls(names: &[String]) -> (Sandbox, SocketAddr, Tls) {
    let accounts = vec![(Appid::new("wx01").unwrap(), Secret::new("s3"))];
    let sandbox = Sandbox::new(Settings { accounts, ..Settings::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls::new(names, wall_s()).unwrap();
    let (served, its_tls) = (sandbox.clone(), tls.clone());
    drop(tokio::spawn(async move { served.serve_tls(listener, &its_tls, std::future::pending()).await }));
    (sandbox, address, tls)
}

fn mint_at(name: &str, port: u16) -> String {
    format!("https://{name}:{port}/cgi-bin/token?grant_type=client_credential&appid=wx01&secret=s3")
}

#[tokio::test]
async fn clients_that_trust_the_ca_reach_it_by_each_of_its_names() {
    let (_sandbox, address, tls) = over_tls(&["wechat.test".to_owned()]).await;
    for name in ["api.weixin.qq.com", "localhost", "127.0.0.1", "wechat.test"] {
        let answer = client(&tls, address, name).get(mint_at(name, address.port())).send().await.unwrap();
        assert!(answer.text().await.unwrap().contains("access_token"), "{name}");
    }
    let other = "else.test";
    client(&tls, address, other).get(mint_at(other, address.port())).send().await.unwrap_err();
    let stranger = Tls::new(&[], wall_s()).unwrap();
    client(&stranger, address, "localhost")
        .get(mint_at("localhost", address.port()))
        .send()
        .await
        .unwrap_err();
    let pem = tls.ca_pem();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----") && !pem.contains("PRIVATE"), "{pem}");
    assert!(Tls::new(&["\u{e9}.test".to_owned()], wall_s()).is_err());
}

#[tokio::test]
async fn failures_reach_the_client_through_tls_as_well() {
    let (sandbox, address, tls) = over_tls(&[]).await;
    let client = client(&tls, address, "localhost");
    for kind in [FaultKind::Reset, FaultKind::Half] {
        sandbox.inject(None, Fault::new(kind.clone()).times(1));
        let answer = client.get(mint_at("localhost", address.port())).send().await;
        let text = match answer {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        assert!(text.is_err(), "{kind:?}: {text:?}");
    }
    sandbox.inject(None, Fault::new(FaultKind::Raw(serde_json::from_str(r#"{"status":299}"#).unwrap())));
    let answer = client.get(mint_at("localhost", address.port())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (299, String::new()));
}
