//! The store when the disk is full, when another process has it, and when the file is not a store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use jiff::fmt::rfc2822::DateTimePrinter;
use redb::{Database, TableDefinition};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::json;
use tokio::process::Command;
use tokio::time::Instant;
use wxtokend::internals::{Backend as _, Batch, RedbBackend};
use wxtokend_core::clock::{ClockSource as _, SystemClock};
use wxtokend_sandbox::{Call, Fault, FaultKind};

use crate::harness::{Daemon, Lab, Reader, appid, until};

/// Starts a daemon that survives writing beyond its file size limit: it gets an error instead of a signal.
async fn start_without_sigxfsz(lab: &Lab) -> Daemon {
    lab.write();
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_wxtokend");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" run --log-format json", program]);
    Daemon::start(lab.prepared(command)).await
}

/// Limits the size of the files that the process writes, from now on.
fn limit_files_to(daemon: &Daemon, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None })
        .expect("prlimit of a child of ours");
}

#[tokio::test]
async fn a_full_disk_stops_no_serving_and_what_memory_holds_is_written_when_it_has_room_again() {
    let lab = Lab::new(5_000, 1_200).await.with_both();
    let daemon = start_without_sigxfsz(&lab).await;
    let mut readers = ["stable", "classic"].map(|account| (account, Reader::new(&lab.wechat, account)));
    for (account, reader) in &mut readers {
        daemon.until_state(account, "fresh").await;
        reader.read(&daemon).await.unwrap();
    }
    assert_eq!(daemon.metric("wxtokend_store_errors_total").await, Some(0.0));
    limit_files_to(&daemon, Some(0));
    for (account, reader) in &mut readers {
        let first = reader.read(&daemon).await.unwrap();
        until(&format!("{account} has two more tokens, and always one"), async || {
            reader.read(&daemon).await.expect("serving goes on").version >= first.version + 2
        })
        .await;
    }
    assert!(daemon.metric("wxtokend_store_errors_total").await.unwrap() >= 1.0);
    let line = daemon.event("store_failed", 1).await;
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().unwrap().contains("free space"), "{line}");
    assert!(line["error"].as_str().unwrap().contains("File too large"), "{line}");
    assert_eq!(daemon.get("/healthz").await.status, 200);

    limit_files_to(&daemon, None);
    let recovered = daemon.event("store_recovered", 1).await;
    assert_eq!(recovered["level"], "INFO", "{recovered}");
    daemon.kill().await;
    let daemon = lab.start().await;
    for (account, reader) in &mut readers {
        until(&format!("{account} is served, by a version that did not go back"), async || {
            reader.read(&daemon).await.is_some()
        })
        .await;
    }
}

#[tokio::test]
async fn a_store_that_another_daemon_has_is_left_to_it() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let token = daemon.token_value("stable").await;
    let before = fs::read(lab.path("store.redb")).unwrap();
    let second = lab.run(&["run"]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another wxtokend is using it"), "{second:?}");
    assert!(second.stderr.contains("store.path"), "it names a way out: {second:?}");
    assert_eq!(second.stdout, "");
    assert!(fs::read(lab.path("store.redb")).unwrap() == before, "the file is as it was");
    assert_eq!(daemon.token_value("stable").await, token);
    daemon.kill().await;
    assert_eq!(lab.start().await.token_value("stable").await, token);
}

/// A store with two accounts.
async fn true_store(lab: &Lab) -> Vec<u8> {
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    assert!(daemon.stop().await.success());
    fs::read(lab.path("store.redb")).unwrap()
}

fn strangers_store(path: &std::path::Path) -> Vec<u8> {
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<&str, &str>::new("theirs")).unwrap().insert("a", "b").unwrap();
    write.commit().unwrap();
    drop(database);
    fs::read(path).unwrap()
}

#[tokio::test]
async fn what_is_no_sound_store_of_ours_is_refused_and_left_as_it_is() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let sound = true_store(&lab).await;
    let mut damaged = sound.clone();
    // Everything after the header, so that no copy of a page stays intact.
    damaged[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    let truncated = sound[..sound.len() / 2].to_vec();
    let text = "appid,token\nwx01,abc\n".repeat(500).into_bytes();
    let theirs = strangers_store(&lab.path("theirs.redb"));
    for (what, bytes, expected) in [
        ("damaged", damaged, "move it away"),
        ("truncated", truncated, "move it away"),
        ("text", text, "correct store.path"),
        ("another program's", theirs, "correct store.path"),
    ] {
        fs::write(lab.path("store.redb"), &bytes).unwrap();
        let ended = lab.run(&["run"]).await;
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        let message = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(message.contains("store.redb") && message.contains(expected), "{what}: {ended:?}");
        assert!(fs::read(lab.path("store.redb")).unwrap() == bytes, "{what}: it was changed");
        assert!(!ended.stderr.contains("panicked"), "{what}: {ended:?}");
    }
    fs::write(lab.path("store.redb"), &sound).unwrap();
    assert!(lab.start().await.stop().await.success(), "and the sound one is taken");
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_or_made_is_an_error_that_names_it() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    fs::create_dir(lab.path("folder")).unwrap();
    for (path, message) in [
        ("folder", "not a regular file"),
        ("missing/store.redb", "No such file or directory"),
        ("accounts.yaml/store.redb", "Not a directory"),
        ("/proc/wxtokend.redb", "/proc/wxtokend.redb"),
    ] {
        lab.config["store"]["path"] = json!(path);
        lab.write();
        let ended = lab.run(&["run"]).await;
        assert_eq!(ended.code, Some(1), "{path}: {ended:?}");
        assert!(ended.stderr.contains(path) && ended.stderr.contains(message), "{path}: {ended:?}");
    }
}

#[tokio::test]
async fn only_its_owner_can_read_the_store_whatever_its_mode_was() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.write();
    let mode = || fs::metadata(lab.path("store.redb")).unwrap().permissions().mode() & 0o777;
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_wxtokend");
    command.args(["-c", "umask 000; exec \"$0\" run --log-format json", program]);
    let daemon = Daemon::start(lab.prepared(command)).await;
    assert_eq!(mode(), 0o600);
    daemon.kill().await;
    fs::set_permissions(lab.path("store.redb"), fs::Permissions::from_mode(0o644)).unwrap();
    let _daemon = lab.start().await;
    assert_eq!(mode(), 0o600);
}

fn calls_of(lab: &Lab) -> u64 {
    lab.wechat.calls("stable") + lab.wechat.calls("classic")
}

#[tokio::test]
async fn a_store_that_is_deleted_while_it_runs_is_written_anew_and_a_kill_then_loses_nothing() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let mut daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let store = lab.path("store.redb");
    let losses: [fn(&std::path::Path); 3] = [
        |store| fs::remove_file(store).unwrap(),
        |store| fs::rename(store, store.with_extension("moved")).unwrap(),
        |store| fs::write(store, "").unwrap(),
    ];
    for lose in losses {
        let tokens = [daemon.token_value("stable").await, daemon.token_value("classic").await];
        lose(&store);
        assert_eq!(daemon.event("store_gone", 1).await["level"], "ERROR");
        daemon.event("store_written_anew", 1).await;
        assert!(daemon.metric("wxtokend_store_errors_total").await.unwrap() >= 1.0);
        daemon.kill().await;
        let calls = calls_of(&lab);
        daemon = lab.start().await;
        assert_eq!([daemon.token_value("stable").await, daemon.token_value("classic").await], tokens);
        assert_eq!(calls_of(&lab), calls, "stored tokens need no call");
    }
}

#[tokio::test]
async fn a_foreign_file_in_place_of_the_store_is_left_alone_and_reported() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let store = lab.path("store.redb");
    let token = daemon.token_value("stable").await;
    fs::remove_file(&store).unwrap();
    fs::write(&store, "dear diary").unwrap();
    let line = daemon.event("store_failed", 2).await;
    assert!(line["error"].as_str().unwrap().contains("another file is in its place"), "{line}");
    assert_eq!(daemon.token_value("stable").await, token);
    assert!(daemon.stop().await.success());
    assert_eq!(fs::read(&store).unwrap(), b"dear diary");
}

#[tokio::test]
async fn a_first_start_follows_a_link_that_leads_nowhere_yet() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let (store, place) = (lab.path("store.redb"), lab.path("volume.redb"));
    std::os::unix::fs::symlink("volume.redb", &store).unwrap();
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    assert!(fs::symlink_metadata(&store).unwrap().is_symlink() && place.is_file());
}

/// Makes all stored records look as if they came from another boot.
async fn reboot(lab: &Lab) {
    let store = RedbBackend::open(&lab.path("store.redb")).unwrap();
    let written_by = format!("\"boot\":\"{}\"", SystemClock::new().boot_id());
    let records = store.load().unwrap().records.into_iter().map(|(of, record)| {
        let record = String::from_utf8(record).unwrap();
        assert!(record.contains(&written_by), "{of} is this boot's");
        (of, record.replace(&written_by, "\"boot\":\"another\"").into_bytes())
    });
    let records = records.collect();
    store.write(Batch { records, hosts: None }).await.unwrap();
}

/// Sets WeChat's clock ahead of this machine's by `by`.
fn wechats_clock_is_ahead(lab: &Lab, by: Duration) {
    let now = (SystemClock::new().now() + by).timestamp();
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
    let answer = json!({ "status": 200, "headers": { "Date": date }, "body": r#"{"errcode":40001}"# });
    let kind = FaultKind::Raw(serde_json::from_value(answer).unwrap());
    lab.wechat.clear_faults(None);
    lab.wechat.inject(None, Fault::new(kind).on(Call::Check));
}

async fn tokens(daemon: &Daemon) -> [String; 2] {
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    [daemon.token_value("stable").await, daemon.token_value("classic").await]
}

#[tokio::test]
async fn after_a_reboot_wechats_clock_judges_what_is_stored_and_no_call_is_made_within_a_boot() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    let first = tokens(&daemon).await;
    daemon.kill().await;
    let calls = calls_of(&lab);

    reboot(&lab).await;
    wechats_clock_is_ahead(&lab, Duration::from_secs(600));
    let daemon = lab.start().await;
    assert_eq!(tokens(&daemon).await, first, "they have a good hour left");
    let line = daemon.event("clock_behind", 1).await;
    assert_eq!((&line["level"], &line["accounts"]), (&json!("WARN"), &json!(2)), "{line}");
    assert!((590..=600).contains(&line["behind_s"].as_u64().unwrap()), "{line}");
    assert!(line["message"].as_str().unwrap().contains("NTP"), "{line}");
    let left = daemon.token("stable").await.json()["expires_in"].as_u64().unwrap();
    assert!(left <= 6_600, "{left}");
    // The current state is on disk.
    assert!(daemon.stop().await.success());

    // Within the same boot, WeChat's clock does not matter.
    wechats_clock_is_ahead(&lab, Duration::from_secs(100_000));
    let daemon = lab.start().await;
    assert_eq!(tokens(&daemon).await, first);
    let left = daemon.token("stable").await.json()["expires_in"].as_u64().unwrap();
    assert!(left <= 6_600, "{left}");
    assert!(daemon.log.events("clock_behind").is_empty());
    assert_eq!(calls_of(&lab), calls);
    assert!(daemon.stop().await.success());

    // The machine was off for hours, and its clock has not advanced.
    reboot(&lab).await;
    ["stable", "classic"].iter().for_each(|account| lab.wechat.kill_tokens(&appid(account)));
    lab.wechat.replace_dead_stable_tokens();
    wechats_clock_is_ahead(&lab, Duration::from_secs(10_000));
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        let token = daemon.token(account).await;
        assert!(token.status == 503 || lab.wechat.is_alive(&token.access_token()), "{token:?}");
    }
    assert!(tokens(&daemon).await.iter().all(|token| lab.wechat.is_alive(token)));
}

#[tokio::test]
async fn after_a_reboot_a_silent_wechat_holds_up_neither_health_nor_a_stop_and_readers_for_a_call_only() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    let first = tokens(&daemon).await;
    assert!(daemon.stop().await.success());
    let calls = calls_of(&lab);
    reboot(&lab).await;
    lab.wechat.inject(None, Fault::new(FaultKind::Hang));

    lab.config["upstream"]["timeout"] = json!("300s");
    let start = Instant::now();
    let mut daemon = lab.start().await;
    assert_eq!(daemon.get("/healthz").await.status, 200);
    assert_eq!(
        (daemon.get("/readyz").await.status, daemon.state("classic").await),
        (503, "starting".to_owned())
    );
    let http = daemon.http.clone();
    let reader = tokio::spawn(async move { http.token("stable").await });
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::TERM);
    assert!(daemon.ended().await.success());
    assert!(start.elapsed() < Duration::from_secs(200), "{:?}", start.elapsed());
    drop(reader);

    lab.config["upstream"]["timeout"] = json!("1s");
    let daemon = lab.start().await;
    assert_eq!(tokens(&daemon).await, first);
    let line = daemon.event("clock_unverified", 1).await;
    assert_eq!((&line["level"], &line["accounts"]), (&json!("WARN"), &json!(2)), "{line}");
    assert_eq!(calls_of(&lab), calls);
}
