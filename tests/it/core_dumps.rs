//! Core dumps of the real program.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Daemon, Lab};

fn limit(pid: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    line.split_ascii_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn no_core_is_dumped_unless_it_is_asked_for() {
    let lab = Lab::new(7_200_000, 300_000).await.with("stable", json!({}));
    lab.write();
    for line in
        ["run --log-format json", "sandbox --log-format json --config accounts.yaml --listen 127.0.0.1:0"]
    {
        let words: Vec<_> = line.split(' ').collect();
        let mut daemon = Daemon::start(lab.program(&words)).await;
        assert_eq!(limit(&daemon.pid().to_string()), "0 0", "{line}");
        daemon.signal(Signal::ABORT);
        let status = daemon.ended().await;
        assert!(status.signal().is_some() && !status.core_dumped(), "{line}: {status}");

        let daemon = Daemon::start(lab.program(&[&words[..], &["--core-dumps"]].concat())).await;
        assert_eq!(limit(&daemon.pid().to_string()), limit("self"), "{line}: as it was");
        daemon.kill().await;
    }
}
