//! CA certificates: needed where an upstream speaks TLS, and nowhere else.

use serde_json::json;
use tokio::process::Command;

use crate::harness::{Daemon, Lab, ended};

/// A machine without certificates, told in three ways.
const WITHOUT: [(&str, &str); 3] =
    [("SSL_CERT_FILE", "/nowhere.pem"), ("SSL_CERT_FILE", "empty.pem"), ("SSL_CERT_DIR", "/nowhere")];

fn without(mut command: Command, (name, value): (&str, &str)) -> Command {
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env(name, value);
    command
}

#[tokio::test]
async fn who_needs_no_ca_certificates_runs_without_any() {
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
async fn who_needs_ca_certificates_and_has_none_is_told_where_and_what_to_do() {
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
        let told = ["api.weixin.qq.com", "upstream.base_urls", &asked, "ca-certificates"];
        assert!(told.iter().all(|part| failed.stderr.contains(part)), "{failed:?}");
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
