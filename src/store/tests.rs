//! The file as an operator meets it: new, in use, foreign, damaged.

mod cuts;
mod disk;
mod failures;
mod hangs;
mod place;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use wxtokend_core::account::{Account, Endpoint};
use wxtokend_core::clock::{ClockSource as _, Moment};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::{TicketCallEnd, TicketKind};
use wxtokend_core::token::HeldToken;
use wxtokend_core::token::transition::Answer;
use wxtokend_testkit::TokioClock;

use super::error::SLOWEST_COMMIT;
use super::memory::MemoryBackend;
use super::writer::{MAX_RETRY_DELAY, MIN_RETRY_DELAY};
use super::*;

fn appid(text: &str) -> Appid {
    Appid::new(text).unwrap()
}

/// Issued at the instant at which [`TokioClock`] starts.
fn example_token() -> HeldToken {
    let issued_at = Moment { wall_ms: 1_790_000_000_000, boot_ms: 1_000_000 };
    HeldToken::example(&Account::example(Endpoint::Token), issued_at, Duration::from_secs(7200))
}

fn holding(version: u64) -> AccountState {
    AccountState { version, token: Some(Arc::new(example_token())), ..AccountState::default() }
}

fn ticket_of(name: &str) -> Credential {
    Credential::ticket(appid(name), TicketKind::Jsapi)
}

/// Received at the instant at which [`example_token`] was issued.
fn holding_ticket(version: u64) -> TicketState {
    let mut state = TicketState { version: version - 1, ..TicketState::default() };
    let at = example_token().issued_at;
    let answer = Answer { value: Secret::new("ticket-1"), expires_in: Duration::from_secs(7200) };
    let account = Account::example(Endpoint::Token);
    state.end_ask(TicketCallEnd { sent_at: Some(at), result: Ok(answer) }, &account, at, 0.5);
    TicketState { version, ..state }
}

fn new_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wxtokend.redb");
    (folder, path)
}

async fn open(path: &Path, clock: Clock) -> (StoreHandle, BTreeMap<Appid, AccountState>) {
    let backend = RedbBackend::open(path).unwrap();
    let hosts = vec!["api.weixin.qq.com".to_owned()];
    let Opened { store, stored, .. } = StoreHandle::open(Arc::new(backend), hosts, clock).await.unwrap();
    (store, stored.accounts)
}

#[tokio::test]
async fn what_is_committed_is_there_after_reopening_and_the_file_is_the_owners_alone() {
    let (_folder, path) = new_file();
    let (store, states) = open(&path, TokioClock::new()).await;
    assert!(states.is_empty());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    store.commit(&appid("wx1"), &holding(7), 0).await.unwrap();
    store.close().await;
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (_store, states) = open(&path, TokioClock::new()).await;
    assert_eq!(states[&appid("wx1")].version, 7);
    assert_eq!(states[&appid("wx1")].token, holding(7).token);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_second_opener_learns_that_the_store_is_in_use() {
    let (_folder, path) = new_file();
    let _first = RedbBackend::open(&path).unwrap();
    let error = RedbBackend::open(&path).unwrap_err();
    assert!(matches!(&error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another wxtokend is using it"));
}

#[test]
fn a_file_that_is_not_ours_is_left_as_it_is() {
    let (folder, path) = new_file();
    for content in [&b"dear diary"[..], &[0_u8; 9000], b"redb"] {
        fs::write(&path, content).unwrap();
        let error = RedbBackend::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. } | StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("left as it is"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    let other = ::redb::Database::create(&path).unwrap();
    drop(other);
    let content = fs::read(&path).unwrap();
    let error = RedbBackend::open(&path).unwrap_err();
    assert!(error.to_string().contains("some other program's redb file"), "{error}");
    assert!(fs::read(&path).unwrap() == content, "not a byte of it has changed");
    assert!(RedbBackend::open(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    let nowhere = folder.path().join("no/such/folder/wxtokend.redb");
    assert!(matches!(RedbBackend::open(&nowhere).unwrap_err(), StoreError::Io { operation: "create", .. }));
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_the_way_out_and_left_as_it_is() {
    let (_folder, path) = new_file();
    let (store, _) = open(&path, TokioClock::new()).await;
    for n in 0..200 {
        store.commit(&appid(&format!("wx{n}")), &holding(n), 0).await.unwrap();
    }
    store.close().await;
    drop(store);
    let whole = fs::read(&path).unwrap();
    // The record of one account, the beginning of the file, its end.
    let record = whole.windows(6).position(|bytes| bytes == b"\"boot\"").unwrap();
    let mut overwritten = whole.clone();
    overwritten[record..record + 6].copy_from_slice(b"XXXXXX");
    let mut beheaded = whole.clone();
    beheaded[..320].fill(0xff);
    let halved = whole[..whole.len() / 2].to_vec();
    for damaged in [overwritten, beheaded, halved] {
        fs::write(&path, &damaged).unwrap();
        let opened = match RedbBackend::open(&path) {
            Ok(backend) => {
                StoreHandle::open(Arc::new(backend), Vec::new(), TokioClock::new()).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("left as it is"), "{error}");
        assert!(fs::read(&path).unwrap() == damaged, "not a byte of it has changed");
    }
}

#[tokio::test]
async fn a_store_whose_program_was_killed_is_repaired_or_left_as_it_is() {
    let (_folder, path) = new_file();
    let (store, _) = open(&path, TokioClock::new()).await;
    for n in 0..20 {
        store.commit(&appid(&format!("wx{n}")), &holding(n), 0).await.unwrap();
    }
    let killed = fs::read(&path).unwrap();
    store.close().await;
    drop(store);
    // What a full disk or an interrupted copy leaves of it.
    for cut in [100, 2 * 4096, killed.len() / 4] {
        fs::write(&path, &killed[..cut]).unwrap();
        let error = RedbBackend::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(fs::read(&path).unwrap() == killed[..cut], "not a byte of it has changed");
    }
    fs::write(&path, &killed).unwrap();
    let (_store, states) = open(&path, TokioClock::new()).await;
    assert_eq!(states.len(), 20);
}

#[tokio::test]
async fn a_crash_while_the_store_was_made_leaves_none_and_the_next_start_makes_it() {
    let (_folder, path) = new_file();
    fs::write(path.with_extension("redb.new"), b"half of a new store").unwrap();
    RedbBackend::open(&path).unwrap();
    assert!(!path.with_extension("redb.new").exists());
}

#[tokio::test]
async fn another_upstreams_tokens_are_erased_and_versions_and_budgets_kept() {
    let disk = MemoryBackend::new();
    let open = async |hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        StoreHandle::open(Arc::new(Arc::clone(&disk)), hosts, TokioClock::new()).await.unwrap()
    };
    let Opened { store, .. } = open(&["a", "b"]).await;
    store.commit(&appid("wx1"), &holding(7), 0).await.unwrap();
    store.commit_ticket(&ticket_of("wx1"), &holding_ticket(7), 0).await.unwrap();
    let Opened { stored: states, .. } = open(&["b", "c"]).await;
    assert!(states.tickets[&ticket_of("wx1")].ticket.is_some());
    assert!(states.accounts[&appid("wx1")].token.is_some(), "one host is still the same");
    let Opened { stored: states, .. } = open(&["d"]).await;
    let account = &states.accounts[&appid("wx1")];
    assert_eq!((account.version, &account.token), (7, &None));
    let ticket = &states.tickets[&ticket_of("wx1")];
    assert_eq!((ticket.version, ticket.ticket.is_none()), (7, true));
    let Opened { stored: states, .. } = open(&["b"]).await;
    assert!(states.accounts[&appid("wx1")].token.is_none(), "what was erased is erased on disk too");
    assert!(states.tickets[&ticket_of("wx1")].ticket.is_none());
}

#[test]
fn an_upstream_is_known_by_a_host_and_its_path_and_to_older_stores_by_the_host_alone() {
    let is_one = |before: &str, now: &str| is_one_upstream(&[before.to_owned()], &[now.to_owned()]);
    assert!(is_one("gateway:8080/one/", "gateway:8080/one/"));
    assert!(!is_one("gateway:8080/one/", "gateway:8080/two/"));
    assert!(!is_one("gateway/", "gateway/one/"));
    assert!(!is_one("gateway/one/", "gateway/"));
    assert!(is_one("gateway", "gateway/") && is_one("gateway", "gateway/one/"));
    assert!(!is_one("gateway", "gateway:8080/") && !is_one("gateway", "gateway.test/"));
}

#[test]
fn a_record_is_read_wherever_its_boot_stands_and_none_is_without() {
    let written = String::from_utf8(record::encode(&holding(1), "this boot")).unwrap();
    let rest = written.strip_prefix(r#"{"boot":"this boot","#).unwrap();
    let read = |text: &str| record::decode::<AccountState>(text.as_bytes(), "this boot");
    let (state, of_another) = read(&written).unwrap();
    assert_eq!((state.token, of_another), (holding(1).token, false));
    let last = format!(r#"{{{},"boot":"this boot"}}"#, rest.strip_suffix('}').unwrap());
    let (state, of_another) = read(&last).unwrap();
    assert_eq!((state.token, of_another), (holding(1).token, false));
    for none in [&format!("{{{rest}"), "{}", "[]", r#"{"boot":1}"#, &written[..written.len() - 1]] {
        let error = read(none).unwrap_err();
        assert!(error.starts_with("no readable record at line 1 column"), "{none}: {error}");
    }
}

#[test]
fn a_record_of_another_boot_is_converted_to_the_clocks_of_this_one_by_the_true_time() {
    let bytes = record::encode(&holding(1), "another boot");
    let (written, of_another): (AccountState, _) = record::decode(&bytes, "this boot").unwrap();
    let (_, of_another_still): (AccountState, _) = record::decode(&bytes, "another boot").unwrap();
    assert!(of_another && !of_another_still);
    let as_it_was = example_token();
    assert_eq!(*written.token.clone().unwrap(), as_it_was);
    let withheld = || Stored {
        accounts: BTreeMap::from([(appid("wx1"), written.clone())]),
        tickets: BTreeMap::from([(ticket_of("wx1"), holding_ticket(1))]),
    };
    // The last case: by the wall clock it was issued an hour from now.
    for (wall_ms, later_ms) in [(60_000, 0), (60_000, 600_000), (-3_600_000, 3_660_000)] {
        let now = Moment { wall_ms: as_it_was.issued_at.wall_ms + wall_ms, boot_ms: 5_000 };
        let converted = withheld().rebased(now, (later_ms, later_ms));
        let token = converted.accounts[&appid("wx1")].token.clone().unwrap();
        let ticket = converted.tickets[&ticket_of("wx1")].ticket.clone().unwrap();
        for (converted, was) in [
            (token.expires_at, as_it_was.expires_at),
            (ticket.expires_at, holding_ticket(1).ticket.unwrap().expires_at),
        ] {
            assert_eq!(converted.wall_ms, was.wall_ms);
            assert_eq!(converted.boot_ms, 5_000 + was.wall_ms - (now.wall_ms + later_ms));
        }
    }
    let now = Moment { wall_ms: as_it_was.issued_at.wall_ms - 3_600_000, boot_ms: 5_000 };
    assert!(
        withheld().rebased(now, (0, 0)).accounts[&appid("wx1")].token.is_none(),
        "nothing tells how old it is"
    );
}

/// A disk on which another boot has written an account with its token, and a ticket.
async fn of_another_boot() -> Arc<MemoryBackend> {
    let disk = MemoryBackend::new();
    let records = vec![
        (Credential::token(appid("wx1")), record::encode(&holding(1), "another boot")),
        (ticket_of("wx1"), record::encode(&holding_ticket(1), "another boot")),
    ];
    Arc::clone(&disk).write(Batch { records, hosts: Some(vec!["a".to_owned()]) }).await.unwrap();
    disk
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_after_a_reboot_ages_no_token_at_the_next_start() {
    let (disk, clock) = (of_another_boot().await, TokioClock::new());
    let open = async || {
        StoreHandle::open(Arc::new(Arc::clone(&disk)), vec!["a".to_owned()], clock.clone()).await.unwrap()
    };
    let ends = |stored: &Stored| {
        let ticket = stored.tickets[&ticket_of("wx1")].ticket.clone().unwrap();
        (stored.accounts[&appid("wx1")].token.clone().unwrap().expires_at, ticket.expires_at)
    };
    let Opened { store, withheld, .. } = open().await;
    let before = withheld.rebased(clock.now(), (600_000, 600_000));
    store.rewrite(&before);
    for _ in 0..100 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(disk.record("wx1").contains(r#""boot":"test""#));
    clock.jump_wall(3_600_000);
    let again = open().await;
    assert!(again.withheld.is_empty());
    assert_eq!(ends(&again.stored), ends(&before));
}

#[tokio::test(start_paused = true)]
async fn what_only_the_wall_clock_dates_is_withheld_unless_it_says_that_it_has_ended() {
    for (jump_ms, elsewhere, is_withheld) in [
        (0, false, true),
        (-3_600_000, false, true),
        (7_199_000, false, true),
        (7_200_000, false, false),
        (0, true, false),
    ] {
        let (disk, clock) = (of_another_boot().await, TokioClock::new());
        clock.jump_wall(jump_ms);
        let hosts = vec![if elsewhere { "b" } else { "a" }.to_owned()];
        let Opened { store, stored, withheld } =
            StoreHandle::open(Arc::new(Arc::clone(&disk)), hosts, clock.clone()).await.unwrap();
        let case = format!("{jump_ms} ms, elsewhere: {elsewhere}");
        let (state, ticket) = (&stored.accounts[&appid("wx1")], &stored.tickets[&ticket_of("wx1")]);
        assert_eq!((state.version, ticket.version), (1, 1), "{case}");
        assert_eq!(withheld.credentials().count(), if is_withheld { 2 } else { 0 }, "{case}");
        if is_withheld {
            assert!(state.token.is_none() && ticket.ticket.is_none(), "{case}");
        }
        store.close().await;
        // A process that is killed now must ask again.
        let is_of_another = r#""boot":"another boot""#;
        assert_eq!(disk.record("wx1").contains(is_of_another), is_withheld, "{case}");
        assert_eq!(
            disk.ticket_record("wx1", TicketKind::Jsapi).contains(is_of_another),
            is_withheld,
            "{case}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_tried_again_until_it_is() {
    let disk = MemoryBackend::new();
    let clock = TokioClock::new();
    let Opened { store, .. } =
        StoreHandle::open(Arc::new(Arc::clone(&disk)), Vec::new(), clock).await.unwrap();
    disk.full.store(true, Ordering::SeqCst);
    let error = store.commit(&appid("wx1"), &holding(1), 0).await.unwrap_err();
    assert!(matches!(&*error, StoreError::Io { .. }), "{error}");
    assert!(store.commit(&appid("wx1"), &holding(2), 0).await.is_err());
    assert!(disk.record("wx1").is_empty());
    disk.full.store(false, Ordering::SeqCst);
    sleep(MIN_RETRY_DELAY * 2).await;
    assert!(disk.record("wx1").contains(r#""version":2"#), "{}", disk.record("wx1"));
}

#[tokio::test(start_paused = true)]
async fn commits_that_come_during_a_commit_share_the_next() {
    let disk = MemoryBackend::new();
    let Opened { store, .. } =
        StoreHandle::open(Arc::new(Arc::clone(&disk)), Vec::new(), TokioClock::new()).await.unwrap();
    let before = disk.commits.load(Ordering::SeqCst);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = store.clone();
        writers
            .spawn(async move { store.commit(&appid(&format!("wx{n}")), &AccountState::default(), 0).await });
    }
    assert!(writers.join_all().await.iter().all(Result::is_ok));
    assert!(disk.commits.load(Ordering::SeqCst) - before <= 3);
}
