//! Checks docs/sandbox.md against `wxtokend sandbox`: its commands are run, and its control calls made.

use reqwest::{Certificate, Client, Method};

use crate::harness::{Daemon, Http, Lab};
use crate::readme::{blocks, fits, run_all};

const PAGE: &str = include_str!("../../docs/sandbox.md");
const ROUTES: &str = include_str!("../../crates/sandbox/src/control.rs");

async fn sandbox(lab: &Lab, more: &[&str]) -> Daemon {
    let usual = ["sandbox", "--listen", "127.0.0.1:0", "--log-format", "json", "--token-lifetime", "2h"];
    Daemon::start(lab.program(&[&usual, more].concat())).await
}

#[tokio::test]
async fn the_example_of_the_page_answers_what_it_says() {
    let lab = Lab::new(60_000, 10_000).await;
    let sandbox = sandbox(&lab, &[]).await;
    let blocks = blocks(PAGE);
    let commands: Vec<_> = blocks.iter().filter(|block| block.info == "sh test").collect();
    let address = sandbox.address().to_string();
    let listed = run_all(&lab, address.clone(), &address, &commands).await;
    assert_eq!((listed.len(), commands.len()), (3, 3), "a command ended the shell: {listed:?}");
    for (command, (said, code)) in commands.iter().zip(listed) {
        let answer = blocks.iter().find(|block| block.opens == command.closes + 1).unwrap();
        let place = format!("docs/sandbox.md:{}", command.opens + 1);
        assert_eq!(code, "0", "{place}:\n{said}");
        assert!(fits(&answer.text, &said), "{place}: it says\n{}\nbut in truth\n{said}", answer.text);
    }
}

/// The control calls of the page's tables: method, path and example of a body.
fn calls() -> Vec<(Method, &'static str, &'static str)> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| {
        let mut cells = row.split(" | ");
        let call = cells.next()?.trim_end_matches([' ', '|', '`']);
        Some((call.split_once(' ')?, cells.next()?.trim_matches('`')))
    });
    let known = |((method, path), body): ((&str, &'static str), &'static str)| {
        let body = if body.starts_with('{') { body } else { "" };
        Some((method.parse().ok()?, path, body))
    };
    cells.filter_map(known).collect()
}

#[tokio::test]
async fn every_control_call_of_the_page_works_and_every_one_is_on_it() {
    let lab = Lab::new(60_000, 10_000).await;
    let sandbox = sandbox(&lab, &[]).await;
    let calls = calls();
    let add = sandbox.request(Method::PUT, "/_sandbox/accounts/wx01").body(r#"{"secret":"s"}"#);
    assert!(Http::try_send(add).await.is_some());
    for (method, path, body) in &calls {
        let place = format!("/_sandbox{}", path.replace("{appid}", "wx01"));
        let answer = Http::try_send(sandbox.request(method.clone(), &place).body(*body)).await.unwrap();
        assert!(
            answer.status == 200 && answer.json()["error"].is_null(),
            "{method} {path} {body}: {answer:?}"
        );
    }
    let routes = ROUTES.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let listed = |route: &str| calls.iter().any(|(_, path, _)| path.split('?').next() == Some(route));
    let missing: Vec<_> = routes.filter(|route| !listed(route)).collect();
    assert!(missing.is_empty() && calls.len() > 40, "{} calls are listed, and not {missing:?}", calls.len());
}

#[tokio::test]
async fn clients_that_trust_the_written_ca_take_it_for_wechat() {
    let lab = Lab::new(60_000, 10_000).await;
    let sandbox = sandbox(&lab, &["--tls-ca", "ca.pem", "--tls-name", "wechat.test"]).await;
    let pem = std::fs::read_to_string(lab.path("ca.pem")).unwrap();
    assert!(!pem.contains("PRIVATE"), "{pem}");
    let address = sandbox.address();
    for name in ["api.weixin.qq.com", "wechat.test"] {
        let ca = Certificate::from_pem(pem.as_bytes()).unwrap();
        let client =
            Client::builder().no_proxy().tls_certs_only([ca]).resolve(name, address).build().unwrap();
        let url = format!("https://{name}:{}/cgi-bin/user/get?access_token=stale", address.port());
        assert!(client.get(url).send().await.unwrap().text().await.unwrap().contains("40001"), "{name}");
    }
    assert!(sandbox.try_get("/_sandbox/clock").await.is_none(), "it speaks HTTPS only");
}
