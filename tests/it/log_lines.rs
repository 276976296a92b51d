//! Standard error that is not read.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::harness::{Daemon, Http, Lab, Port, TIMEOUT, until};

/// The time that a supervisor gives a process before it kills it, plus some for a slow machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const DROPPED: &str = "wxtokend_log_lines_dropped_total";

/// Writes an invalid configuration whose problems make a long log line.
fn break_configuration(lab: &Lab) {
    let accounts: Vec<_> = (0..100).map(|n| json!({ "appid": format!("account {n}") })).collect();
    std::fs::write(lab.path("accounts.yaml"), json!({ "accounts": accounts }).to_string()).unwrap();
}

/// Reloads until lines are dropped.
async fn until_lines_are_dropped(daemon: &Daemon) -> f64 {
    until("lines are dropped", async || {
        daemon.signal(Signal::HUP);
        daemon.metric(DROPPED).await.unwrap() > 0.0
    })
    .await;
    daemon.metric(DROPPED).await.unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_reads_nor_refreshes_nor_a_stop() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let mut daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    assert_eq!(daemon.metric(DROPPED).await, Some(0.0));
    daemon.log.set_stuck(true);
    break_configuration(&lab);
    until_lines_are_dropped(&daemon).await;
    for _ in 0..20 {
        assert_eq!(daemon.get("/healthz").await.status, 200);
        let before = daemon.token_value("stable").await;
        if daemon.refresh("stable", true).await.word("outcome") == "refreshed" {
            assert_ne!(daemon.token_value("stable").await, before);
        }
    }
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    let status = daemon.ended().await;
    assert!(status.success() && asked.elapsed() < STOP_TIMEOUT, "{status} {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_log_that_is_read_again_shows_how_many_lines_it_lacks_and_goes_on() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    daemon.log.set_stuck(true);
    break_configuration(&lab);
    let dropped = until_lines_are_dropped(&daemon).await;
    daemon.log.set_stuck(false);
    let reported = daemon.event("log_lines_dropped", 1).await;
    assert!(reported["lines"].as_f64().unwrap() >= dropped, "{reported}");
    lab.write();
    until("the right configuration is taken, and told", async || {
        daemon.signal(Signal::HUP);
        daemon.log.events("reload").last().is_some_and(|line| line["successful"] == true)
    })
    .await;
    let log = daemon.log.clone();
    assert!(daemon.stop().await.success());
    until("the last line is there", async || log.events("stopped").len() == 1).await;
    for line in log.text().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no whole line: {line}");
    }
}

/// A pipe that is full and is not read.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    // Blocks until the reader is gone.
    std::thread::spawn(move || while filling.write_all(&[b'x'; 4_096]).is_ok() {});
    (reader, Stdio::from(writer))
}

async fn ends_well(mut child: Child) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let status = timeout(TIMEOUT, child.wait()).await.expect("it never ended").unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn with_a_log_that_was_stuck_from_the_start_it_starts_serves_and_ends_and_so_does_the_sandbox() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let reserved = Port::reserve();
    let port = reserved.address;
    lab.config["api"]["listen"] = json!(port.to_string());
    lab.write();
    for (line, path) in [
        ("run --sandbox --config accounts.yaml", "/healthz"),
        ("run --log-format json", "/healthz"),
        (&format!("sandbox --config accounts.yaml --listen {port}"), "/_sandbox/accounts"),
    ] {
        let (reader, stderr) = full_pipe();
        let mut command: Command = lab.program(&line.split(' ').collect::<Vec<_>>());
        let child = command.stderr(stderr).spawn().unwrap();
        let http = Http::to(port);
        until(&format!("{line} answers"), async || {
            http.try_get(path).await.is_some_and(|answer| answer.status == 200)
        })
        .await;
        ends_well(child).await;
        drop(reader);
    }
}
