//! The file as an operator meets it: new, in use, foreign, damaged.

mod cuts;
mod disk;
mod failures;
mod hangs;
mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::memory::MemoryBackend;
use super::writer::{FIRST_RETRY, LAST_RETRY};
use super::*;
use crate::account::{Account, Endpoint};
use crate::clock::{Moment, TokioClock};
use crate::outcome::Answer;
use crate::secret::Secret;
use crate::ticket::{AskEnd, TicketKind};
use crate::token::HeldToken;

fn appid(text: &str) -> Appid {
    Appid::new(text).unwrap()
}

/// Issued in the very moment at which [`TokioClock`] starts.
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

/// Seen as [`example_token`] was issued.
fn holding_ticket(version: u64) -> TicketState {
    let mut state = TicketState { version: version - 1, ..TicketState::default() };
    let at = example_token().issued_at;
    let answer = Answer { value: Secret::new("ticket-1"), expires_in: Duration::from_secs(7200) };
    let account = Account::example(Endpoint::Token);
    state.end_ask(AskEnd { sent_at: Some(at), result: Ok(answer) }, &account, at, 0.5);
    TicketState { version, ..state }
}

fn new_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wxtokend.redb");
    (folder, path)
}

async fn open(path: &Path, clock: Clock) -> (Store, HashMap<Appid, AccountState>) {
    let backend = RedbBackend::open(path).unwrap();
    let hosts = vec!["api.weixin.qq.com".to_owned()];
    let (store, stored) = Store::open(Arc::new(backend), hosts, clock).await.unwrap();
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
async fn a_second_opener_is_told_that_the_store_is_in_use() {
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
            Ok(backend) => Store::open(Arc::new(backend), Vec::new(), TokioClock::new()).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("left as it is"), "{error}");
        assert!(fs::read(&path).unwrap() == damaged, "not a byte of it has changed");
    }
}

#[tokio::test]
async fn a_store_whose_program_was_killed_is_mended_or_left_as_it_is() {
    let (_folder, path) = new_file();
    let (store, _) = open(&path, TokioClock::new()).await;
    for n in 0..20 {
        store.commit(&appid(&format!("wx{n}")), &holding(n), 0).await.unwrap();
    }
    let killed = fs::read(&path).unwrap();
    store.close().await;
    drop(store);
    // What a full disk, or a copy that was broken off, leaves of it.
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
        Store::open(Arc::new(Arc::clone(&disk)), hosts, TokioClock::new()).await.unwrap()
    };
    let (store, _) = open(&["a", "b"]).await;
    store.commit(&appid("wx1"), &holding(7), 0).await.unwrap();
    store.commit_ticket(&ticket_of("wx1"), &holding_ticket(7), 0).await.unwrap();
    let (_, states) = open(&["b", "c"]).await;
    assert!(states.tickets[&ticket_of("wx1")].ticket.is_some());
    assert!(states.accounts[&appid("wx1")].token.is_some(), "one host is still the same");
    let (_, states) = open(&["d"]).await;
    let account = &states.accounts[&appid("wx1")];
    assert_eq!((account.version, &account.token), (7, &None));
    let ticket = &states.tickets[&ticket_of("wx1")];
    assert_eq!((ticket.version, ticket.ticket.is_none()), (7, true));
    let (_, states) = open(&["b"]).await;
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
    let read = |text: &str| record::decode::<AccountState>(text.as_bytes(), "this boot", Moment::default());
    let (state, of_another) = read(&written).unwrap();
    assert_eq!((state.token, of_another), (holding(1).token, false));
    let last = format!(r#"{{{},"boot":"this boot"}}"#, rest.strip_suffix('}').unwrap());
    let (state, of_another) = read(&last).unwrap();
    assert_eq!((state.token, of_another), (holding(1).token, false));
    for none in [&format!("{{{rest}"), "{}", "[]", r#"{"boot":1}"#, &written[..written.len() - 1]] {
        let told = read(none).unwrap_err();
        assert!(told.starts_with("no readable record at line 1 column"), "{none}: {told}");
    }
}

#[tokio::test]
async fn a_record_of_another_boot_is_told_on_the_clocks_of_this_one() {
    let now = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000 };
    let bytes = record::encode(&holding(1), "another boot");
    let (told, of_another): (AccountState, _) = record::decode(&bytes, "this boot", now).unwrap();
    let token = told.token.unwrap();
    let as_it_was = example_token();
    assert_eq!(token.expires_at.wall_ms, as_it_was.expires_at.wall_ms);
    assert_eq!(token.expires_at.boot_ms, 5_000 + as_it_was.expires_at.wall_ms - now.wall_ms);
    let (told, of_another_still): (AccountState, _) = record::decode(&bytes, "another boot", now).unwrap();
    assert_eq!((*told.token.unwrap()).clone(), as_it_was);
    assert!(of_another && !of_another_still);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_after_a_reboot_ages_no_token_at_the_next_start() {
    let (disk, clock) = (MemoryBackend::new(), TokioClock::new());
    let records = vec![
        (Credential::token(appid("wx1")), record::encode(&holding(1), "another boot")),
        (ticket_of("wx1"), record::encode(&holding_ticket(1), "another boot")),
    ];
    Arc::clone(&disk).write(Batch { records, hosts: Some(vec!["a".to_owned()]) }).await.unwrap();
    let open = async || {
        let opened =
            Store::open(Arc::new(Arc::clone(&disk)), vec!["a".to_owned()], clock.clone()).await.unwrap();
        let ticket = opened.1.tickets[&ticket_of("wx1")].ticket.clone().unwrap();
        (opened.1.accounts[&appid("wx1")].token.clone().unwrap().expires_at, ticket.expires_at)
    };
    let before = open().await;
    for _ in 0..100 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(disk.record("wx1").contains(r#""boot":"test""#));
    clock.jump_wall(3_600_000);
    assert_eq!(open().await, before);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_tried_again_until_it_is() {
    let disk = MemoryBackend::new();
    let clock = TokioClock::new();
    let (store, _) = Store::open(Arc::new(Arc::clone(&disk)), Vec::new(), clock).await.unwrap();
    disk.full.store(true, Ordering::SeqCst);
    let error = store.commit(&appid("wx1"), &holding(1), 0).await.unwrap_err();
    assert!(matches!(&*error, StoreError::Io { .. }), "{error}");
    assert!(store.commit(&appid("wx1"), &holding(2), 0).await.is_err());
    assert!(disk.record("wx1").is_empty());
    disk.full.store(false, Ordering::SeqCst);
    sleep(FIRST_RETRY * 2).await;
    assert!(disk.record("wx1").contains(r#""version":2"#), "{}", disk.record("wx1"));
}

#[tokio::test(start_paused = true)]
async fn commits_that_come_during_a_commit_share_the_next() {
    let disk = MemoryBackend::new();
    let (store, _) = Store::open(Arc::new(Arc::clone(&disk)), Vec::new(), TokioClock::new()).await.unwrap();
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
