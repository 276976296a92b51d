//! `status --watch` and `token --watch`, which depend on the daemon's events.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use wxtokend_sandbox::{Fault, Outage};

use crate::harness::{Daemon, Lab, Log, TIMEOUT, appid, find, until};

/// A running command.
struct Watcher {
    child: Child,
    out: Log,
    stderr: Log,
}

impl Watcher {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (out, stderr) = (Log::of(child.stdout.take().unwrap()), Log::of(child.stderr.take().unwrap()));
        Self { child, out, stderr }
    }

    fn lines(&self) -> Vec<String> {
        self.out.text().lines().map(str::to_owned).collect()
    }

    /// The last drawn screen.
    fn screen(&self) -> String {
        self.out.text().rsplit("\x1b[H").next().unwrap_or_default().to_owned()
    }

    async fn line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        find(what, async || self.lines().into_iter().find(|line| is_it(line))).await
    }

    /// Interrupts the command as Ctrl-C does, and returns its exit code.
    async fn interrupt(mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id().expect("it runs")).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.ended().await
    }

    async fn ended(&mut self) -> Option<i32> {
        timeout(TIMEOUT, self.child.wait()).await.expect("an end").unwrap().code()
    }
}

fn watch(lab: &Lab, daemon: &Daemon, line: &str) -> Watcher {
    let mut command = lab.program(&line.split(' ').collect::<Vec<_>>());
    command.env("WXTOKEND_SERVER", daemon.address().to_string());
    Watcher::start(command)
}

fn watch_on_a_terminal(lab: &Lab, daemon: &Daemon) -> Watcher {
    // `script` provides a terminal, and is part of every Debian.
    let line = format!("{} status --watch --server {}", env!("CARGO_BIN_EXE_wxtokend"), daemon.address());
    let mut command = Command::new("script");
    command.args(["-qfec", &line, "/dev/null"]);
    let mut command = lab.prepared(command);
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    Watcher::start(command)
}

#[tokio::test]
async fn a_watcher_sees_each_token_also_after_the_daemon_was_killed() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    let address = daemon.address();
    let watcher = watch(&lab, &daemon, "token stable --watch");
    let first = daemon.token_value("stable").await;
    watcher.line("the first token", |line| line == first).await;
    daemon.refresh("stable", true).await;
    let second = daemon.token_value("stable").await;
    assert_ne!(first, second);
    watcher.line("the second token", |line| line == second).await;
    daemon.kill().await;
    until("it tells that the daemon is gone", async || watcher.stderr.text().contains("asked again")).await;
    lab.config["api"]["listen"] = json!(address.to_string());
    let daemon = lab.start().await;
    until("it tells that the daemon is back", async || watcher.stderr.text().contains("is back")).await;
    lab.wechat.replace_dead_stable_tokens();
    lab.wechat.kill_tokens(&appid("stable"));
    daemon.reject("stable", &second).await;
    let third = daemon.token_value("stable").await;
    watcher.line("the third token", |line| line == third).await;
    assert_eq!(watcher.lines(), [first, second, third], "each once");
    assert!(!watcher.stderr.text().contains("panicked"), "{}", watcher.stderr.text());
    assert_eq!(watcher.interrupt().await, Some(0));
}

#[tokio::test]
async fn a_watcher_of_all_accounts_gets_a_line_for_each_change_or_each_event_as_json() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let (people, machines) =
        (watch(&lab, &daemon, "status --watch"), watch(&lab, &daemon, "status --watch --json"));
    // Neither announces that it is listening; the first output shows it.
    until("both listen", async || {
        daemon.reload().await;
        people.out.text().contains("was read again") && machines.out.text().contains("\"reload\"")
    })
    .await;
    lab.wechat.inject(Some(&appid("stable")), Fault::errcode(40164));
    daemon.refresh("stable", false).await;
    let line = people.line("its trouble", |line| line.contains("parked")).await;
    assert!(line.contains("stable") && line.contains("40164") && line.contains("add IP 127.0.0.1"), "{line}");
    lab.wechat.clear_faults(Some(&appid("stable")));
    daemon.refresh("stable", true).await;
    let version = daemon.token("stable").await.json()["version"].clone();
    people.line("its token", |line| line.contains(&format!("version {version},"))).await;
    let is_token = |event: &Value| event["event"] == "token" && event["version"] == version;
    machines.line("its token", |line| is_token(&serde_json::from_str(line).unwrap())).await;
    let token = daemon.token_value("stable").await;
    for watcher in [people, machines] {
        assert!(!watcher.out.text().contains(&token), "no token in it");
        assert_eq!(watcher.interrupt().await, Some(0));
    }
}

#[tokio::test]
async fn watching_the_token_of_a_removed_account_ends_with_a_message() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    let mut watcher = watch(&lab, &daemon, "token stable --watch");
    until("its token", async || !watcher.lines().is_empty()).await;
    lab.config["accounts"].as_array_mut().unwrap().remove(0);
    lab.write();
    daemon.reload().await;
    assert_eq!(watcher.ended().await, Some(1));
    until("it says why", async || watcher.stderr.text().contains("no account of that appid")).await;
}

#[tokio::test]
async fn events_have_the_names_that_they_have_in_the_log() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.write();
    let mut command = lab.program(&["run", "--log-format", "json"]);
    command.env("RUST_LOG", "wxtokend=debug");
    let daemon = Daemon::start(command).await;
    daemon.until_state("stable", "fresh").await;
    let machines = watch(&lab, &daemon, "status --watch --json");
    until("it listens", async || {
        daemon.reload().await;
        machines.out.text().contains("\"reload\"")
    })
    .await;
    let token = daemon.token_value("stable").await;
    daemon.reject("stable", &token).await;
    daemon.refresh("stable", false).await;
    lab.wechat.inject(Some(&appid("stable")), Fault::errcode(40164));
    daemon.refresh("stable", false).await;
    lab.account("stable")["name"] = json!("Renamed");
    lab.write();
    daemon.reload().await;
    let history = async || {
        let history = daemon.get("/v1/accounts/stable/history").await.json();
        let events = history["events"].as_array().unwrap().iter();
        events.map(|event| event["event"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let kept = ["check", "configured", "fault", "refresh", "rejection", "state", "token", "token_unchanged"];
    until("all of it is history", async || history().await.iter().eq(kept)).await;
    for name in kept.into_iter().chain(["reload"]) {
        assert!(!daemon.log.events(name).is_empty(), "no log line is called {name}");
    }
}

#[tokio::test]
async fn a_host_that_is_down_is_shown_first_and_its_return_too() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.write();
    let daemon = Daemon::start(lab.program(&["run", "--log-format", "json"])).await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let (host, server) = (lab.wechat.address.to_string(), daemon.address().to_string());
    let listed = async || daemon.get("/v1/accounts?limit=1").await.json()["hosts"].clone();
    let well = json!([{ "host": host, "up": true, "down_since": null, "reason": null }]);
    assert_eq!(listed().await, well);
    let people = watch(&lab, &daemon, "status --watch");
    until("it listens", async || {
        daemon.reload().await;
        people.out.text().contains("was read again")
    })
    .await;
    let screen = watch_on_a_terminal(&lab, &daemon);
    lab.wechat.set_outage(Some(Outage::Refuse));
    daemon.refresh("stable", false).await;
    people.line("the host is down", |line| line.contains(&format!("host     {host} is down: "))).await;
    let first = format!(
        "WeChat has been unreachable since {}",
        listed().await[0]["down_since"].as_str().unwrap().split('.').next().unwrap()
    );
    until("on the screen", async || screen.screen().lines().next().is_some_and(|line| line.contains(&first)))
        .await;
    let status = lab.run(&["status", "--server", &server]).await;
    assert!(
        status.stdout.starts_with(&first) && status.stdout.lines().next().unwrap().contains(&host),
        "{status:?}"
    );
    let logged = daemon.event("host", 1).await;
    assert_eq!(json!([logged["host"], logged["up"]]), json!([host, false]));
    lab.wechat.set_outage(None);
    people.line("the host is back", |line| line.contains(&format!("host     {host} answers again"))).await;
    until("the list says so", async || listed().await == well).await;
    assert_eq!(daemon.event("host", 2).await["up"], true);
    let status = lab.run(&["status", "--server", &server]).await;
    assert!(status.stdout.starts_with("STATE"), "{status:?}");
}

#[tokio::test]
async fn on_a_terminal_the_table_is_kept_up_to_date() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let watcher = watch_on_a_terminal(&lab, &daemon);
    let screen = || watcher.screen();
    until("the table", async || screen().contains("2 accounts: 2 fresh")).await;
    lab.wechat.inject(Some(&appid("stable")), Fault::errcode(40164));
    daemon.refresh("stable", false).await;
    until("its trouble on top", async || {
        let screen = screen();
        screen.contains("1 parked, 1 fresh") && screen.find("parked") < screen.find("fresh ")
    })
    .await;
}

#[tokio::test]
async fn on_a_terminal_the_table_says_for_as_long_as_it_may_be_old() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    let address = daemon.address();
    let watcher = watch_on_a_terminal(&lab, &daemon);
    until("the table", async || watcher.screen().contains("2 accounts")).await;
    // Only the stream reports this: without it, a daemon that is gone looks like one that was never there.
    lab.add("third", json!({}));
    lab.write();
    daemon.reload().await;
    until("the stream", async || watcher.screen().contains("3 accounts")).await;
    daemon.kill().await;
    let redraws = || watcher.out.text().matches("no answer from").count();
    until("each draw says so", async || redraws() >= 4).await;
    assert!(!watcher.out.text().contains("is the daemon running?"), "more lines would move the table");
    lab.config["api"]["listen"] = json!(address.to_string());
    let _daemon = lab.start().await;
    until("it is up to date again", async || {
        let screen = watcher.screen();
        screen.contains("3 accounts") && !screen.contains("no answer from")
    })
    .await;
}

#[tokio::test]
async fn a_watcher_ends_when_its_output_is_closed_and_fails_where_it_is_refused() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let clients =
        json!([{ "name": "crm", "key": "key-of-crm", "accounts": ["stable"], "allow": ["read", "refresh"] }]);
    lab.config["api"]["clients"] = clients;
    let daemon = lab.start().await;
    for (line, key, expected) in [
        ("status --watch", "", "wants a client key"),
        ("status --watch", "wrong", "does not know the key"),
        ("token classic --watch", "key-of-crm", "may not deal with that account"),
    ] {
        let mut command = lab.program(&line.split(' ').collect::<Vec<_>>());
        command.env("WXTOKEND_SERVER", daemon.address().to_string()).env("WXTOKEND_KEY", key);
        let mut watcher = Watcher::start(command);
        assert_eq!(watcher.ended().await, Some(1), "{line}");
        until("it says why", async || watcher.stderr.text().contains(expected)).await;
    }
    let line =
        format!("{} token stable --watch --server {}", env!("CARGO_BIN_EXE_wxtokend"), daemon.address());
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", &format!("{line} | head -n1")]);
    let mut command = lab.prepared(command);
    command.env("WXTOKEND_KEY", "key-of-crm");
    let mut watcher = Watcher::start(command);
    until("its token", async || !watcher.lines().is_empty()).await;
    lab.wechat.replace_dead_stable_tokens();
    let ended = async {
        let ops = daemon.with_key("key-of-crm");
        loop {
            // The next output finds the pipe closed.
            let token = ops.token_value("stable").await;
            lab.wechat.kill_tokens(&appid("stable"));
            ops.try_reject("stable", &token).await;
        }
    };
    tokio::select! {
        code = watcher.ended() => assert_eq!(code, Some(0)),
        () = ended => {}
    }
}
