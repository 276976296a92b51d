//! CA certificates, which are needed only if an upstream uses TLS.

use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::harness::{Daemon, Lab, TIMEOUT, ended, until};

/// Three ways to describe a machine without certificates.
const WITHOUT: [(&str, &str); 3] =
    [("SSL_CERT_FILE", "/nowhere.pem"), ("SSL_CERT_FILE", "empty.pem"), ("SSL_CERT_DIR", "/nowhere")];

fn without(mut command: Command, (name, value): (&str, &str)) -> Command {
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env(name, value);
    command
}

#[tokio::test]
async fn a_fleet_that_needs_no_ca_certificates_runs_without_any() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.write();
    std::fs::write(lab.path("empty.pem"), "").unwrap();
    for none in WITHOUT {
        let sandboxed = ["run", "--sandbox", "--config", "accounts.yaml", "--log-format", "json"];
        for arguments in [&["run", "--log-format", "json"][..], &sandboxed] {
            let daemon = Daemon::start(without(lab.program(arguments), none)).await;
            daemon.until_state("stable", "fresh").await;
            assert!(daemon.stop().await.success(), "{none:?} {arguments:?}");
        }
    }
}

#[tokio::test]
async fn missing_ca_certificates_are_reported_with_the_place_and_what_to_do() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let good = lab.config["upstream"]["base_urls"].clone();
    let https = json!([good[0], "https://api.weixin.qq.com"]);
    std::fs::write(lab.path("empty.pem"), "").unwrap();
    for none in WITHOUT {
        lab.config["upstream"]["base_urls"] = https.clone();
        lab.write();
        let failed = ended(without(lab.program(&["run"]), none)).await;
        assert_eq!(failed.code, Some(1), "{failed:?}");
        let asked = format!("{} is {}", none.0, none.1);
        let message = ["api.weixin.qq.com", "upstream.base_urls", &asked, "ca-certificates"];
        assert!(message.iter().all(|part| failed.stderr.contains(part)), "{failed:?}");
    }

    lab.config["upstream"]["base_urls"] = good;
    lab.write();
    let daemon = Daemon::start(without(lab.program(&["run", "--log-format", "json"]), WITHOUT[0])).await;
    daemon.until_state("stable", "fresh").await;
    let token = daemon.token_value("stable").await;
    lab.config["upstream"]["base_urls"] = https;
    lab.write();
    daemon.signal(rustix::process::Signal::HUP);
    let line = daemon.event("reload", 1).await;
    assert_eq!(line["successful"], false, "{line}");
    assert!(line["problems"].as_str().unwrap().contains("SSL_CERT_FILE is /nowhere.pem"), "{line}");
    assert_eq!(daemon.token_value("stable").await, token, "everything runs on as it was");
}

/// A pipe without a writer in place of the certificates; returns its environment variable.
fn pipe(lab: &Lab) -> (&'static str, &'static str) {
    let made = std::process::Command::new("mkfifo").arg(lab.path("pipe.pem")).status().unwrap();
    assert!(made.success());
    ("SSL_CERT_FILE", "pipe.pem")
}

#[tokio::test]
async fn a_start_that_waits_for_ca_certificates_ends_by_itself_and_when_it_is_asked_to() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["upstream"]["base_urls"] = json!(["https://api.weixin.qq.com"]);
    lab.write();
    let hung = pipe(&lab);
    let failed = ended(without(lab.program(&["run"]), hung)).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let message = ["SSL_CERT_FILE is pipe.pem", "not read within 5 s", "SSL_CERT_DIR"];
    assert!(message.iter().all(|part| failed.stderr.contains(part)), "{failed:?}");

    let mut waiting = without(lab.program(&["run"]), hung).stderr(Stdio::piped()).spawn().unwrap();
    // Opening the pipe for writing succeeds once it has a reader, and the reader is blocked for as long as it
    // is open.
    let mut write = std::fs::OpenOptions::new();
    write.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let mut opened = None;
    until("it reads the pipe", async || {
        opened = write.open(lab.path("pipe.pem")).ok();
        opened.is_some()
    })
    .await;
    let pid = rustix::process::Pid::from_raw(waiting.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let asked = Instant::now();
    let status = timeout(TIMEOUT, waiting.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_reload_that_waits_for_ca_certificates_is_refused_and_the_next_is_carried_out() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.write();
    let good = lab.config["upstream"]["base_urls"].clone();
    let daemon = Daemon::start(without(lab.program(&["run", "--log-format", "json"]), pipe(&lab))).await;
    daemon.until_state("stable", "fresh").await;
    let token = daemon.token_value("stable").await;
    lab.config["upstream"]["base_urls"] = json!(["https://api.weixin.qq.com"]);
    lab.write();
    for n in 1..=2 {
        daemon.signal(rustix::process::Signal::HUP);
        let line = daemon.event("reload", n).await;
        assert_eq!(line["successful"], false, "{line}");
        assert!(line["problems"].as_str().unwrap().contains("not read within 5 s"), "{line}");
        assert_eq!(daemon.token_value("stable").await, token, "everything runs on as it was");
    }
    lab.config["upstream"]["base_urls"] = good;
    lab.write();
    daemon.reload().await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_redis_whose_ca_certificates_hang_is_down_for_that_and_all_else_goes_on() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let sink =
        json!({ "name": "main", "redis": "rediss://127.0.0.1:1", "key": "t:{appid}", "accounts": ["*"] });
    lab.config["publish"] = json!([sink]);
    lab.write();
    let daemon = Daemon::start(without(lab.program(&["run", "--log-format", "json"]), pipe(&lab))).await;
    daemon.until_state("stable", "fresh").await;
    let error = daemon.event("redis_down", 1).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("SSL_CERT_FILE is pipe.pem") && error.contains("not read within 5 s"), "{error}");
    assert!(daemon.stop().await.success());
}
