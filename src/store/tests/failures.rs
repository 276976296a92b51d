//! A store whose disk fails, once or for a while, at any operation, while the process continues.

use std::fs;
use std::ops::Range;

use super::disk::{Disk, Op};
use super::*;

const APPIDS: [&str; 3] = ["wx1", "wx2", "wx3"];

fn hosts() -> Vec<String> {
    vec!["api.weixin.qq.com".to_owned()]
}

/// The versions that a killed process would leave in `path`, read from a copy, since it is still running.
async fn left(path: &Path) -> Vec<u64> {
    let (_folder, copy) = new_file();
    fs::copy(path, &copy).unwrap();
    versions(&copy).await
}

/// The versions that the next process finds.
async fn versions(path: &Path) -> Vec<u64> {
    let backend = RedbBackend::open_by(path, Disk::new().open_file()).unwrap();
    let Opened { store: _store, stored: states, .. } =
        StoreHandle::open(Arc::new(backend), hosts(), TokioClock::new()).await.unwrap();
    APPIDS.iter().map(|name| states.accounts.get(&appid(name)).map_or(0, |state| state.version)).collect()
}

/// Creates a store in which each account has version 1, closed or killed.
async fn made(path: &Path, killed: bool) {
    let backend = RedbBackend::open_by(path, Disk::new().open_file()).unwrap();
    let Opened { store, .. } =
        StoreHandle::open(Arc::new(backend), hosts(), TokioClock::new()).await.unwrap();
    let accounts = BTreeMap::from(APPIDS.map(|name| (appid(name), holding(1))));
    store.commit_all(&Stored { accounts, ..Default::default() }).await.unwrap();
    let image = fs::read(path).unwrap();
    store.close().await;
    if killed {
        fs::write(path, image).unwrap();
    }
}

/// Asserts that the error names the disk's failure.
fn assert_io_error(error: &StoreError, what: &str) {
    assert!(matches!(error, StoreError::Io { .. }), "{what}: {error}");
}

/// Runs a process whose disk fails during `failing`, counted from where it opens the store. Returns how many
/// operations the disk received.
async fn live_through(failing: Range<usize>, killed: bool) -> usize {
    let (_folder, path) = new_file();
    made(&path, killed).await;
    let disk = Disk::new();
    disk.fail(failing.clone());
    let what =
        format!("a disk that fails for {failing:?}, of a store {}", if killed { "killed" } else { "closed" });
    let backend = match RedbBackend::open_by(&path, disk.open_file()) {
        Ok(backend) => backend,
        Err(error) => {
            assert_io_error(&error, &what);
            assert_eq!(left(&path).await, [1, 1, 1], "{}", what);
            return disk.asked();
        }
    };
    let store = match StoreHandle::open(Arc::new(backend), hosts(), TokioClock::new()).await {
        Ok(opened) => opened.store,
        Err(error) => {
            assert_io_error(&error, &what);
            return disk.asked();
        }
    };
    let (mut newest, mut acknowledged) = ([1; 3], [1; 3]);
    for version in 2..5 {
        for (n, name) in APPIDS.iter().enumerate() {
            newest[n] = version;
            match store.commit(&appid(name), &holding(version), 0).await {
                // What was pending was written with it.
                Ok(()) => acknowledged = newest,
                Err(error) => assert_io_error(&error, &what),
            }
            if !disk.failed().is_empty() {
                let left = left(&path).await;
                let case = format!("{}: {left:?} of {acknowledged:?} to {newest:?}", what);
                let kept = |n: usize| (acknowledged[n]..=newest[n]).contains(&left[n]);
                assert!((0..3).all(kept), "{case}");
            }
        }
    }
    for _ in 0..=failing.len() {
        sleep(MAX_RETRY_DELAY).await;
    }
    assert_eq!(left(&path).await, newest, "{what}: what was pending is written");
    store.close().await;
    assert_eq!(left(&path).await, newest, "{what}: and it was closed");
    disk.asked()
}

/// Fails anywhere in the life of a process, once and for a while.
async fn fail_everywhere(killed: bool) {
    for (long, step) in [(1, 1), (12, 9)] {
        let mut first = 0;
        while live_through(first..first + long, killed).await > first {
            first += step;
        }
        assert!(first > 80, "a life is longer than {first} operations");
    }
}

#[tokio::test(start_paused = true)]
async fn whenever_the_disk_fails_the_caller_knows_and_what_is_pending_is_written_when_it_works_again() {
    fail_everywhere(false).await;
}

#[tokio::test(start_paused = true)]
async fn whenever_the_disk_fails_after_a_crash_the_caller_knows_and_what_is_pending_is_written_later() {
    fail_everywhere(true).await;
}

#[tokio::test]
async fn whenever_the_disk_fails_while_a_store_is_made_the_next_start_makes_it() {
    for first in 0.. {
        let (_folder, path) = new_file();
        let disk = Disk::new();
        disk.fail(first..first + 1);
        if let Err(error) = RedbBackend::open_by(&path, disk.open_file()) {
            assert_io_error(&error, &format!("the disk fails at {first}"));
        } else if disk.asked() <= first {
            break;
        }
        assert_eq!(versions(&path).await, [0, 0, 0]);
    }
}

#[tokio::test]
async fn a_store_that_somebody_else_took_while_the_disk_failed_is_left_to_them() {
    let (_folder, path) = new_file();
    let disk = Disk::new();
    let first = RedbBackend::open_by(&path, disk.open_file()).unwrap();
    let batch = |version| Batch {
        records: vec![(Credential::token(appid("wx1")), record::encode(&holding(version), "test"))],
        hosts: None,
    };
    let asked = disk.asked();
    disk.fail(asked..asked + 1);
    assert_io_error(&first.write(batch(1)).await.unwrap_err(), "the disk fails");
    let second = RedbBackend::open_by(&path, Disk::new().open_file()).unwrap();
    second.write(batch(2)).await.unwrap();
    let writes = || disk.ops().iter().filter(|op| matches!(op, Op::Write { .. })).count();
    let before = writes();
    assert!(matches!(first.write(batch(1)).await.unwrap_err(), StoreError::InUse(_)));
    assert_eq!(writes(), before, "nothing was written to it");
    drop(second);
    first.write(batch(3)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_is_asked_less_and_less_often_and_not_given_the_whole_file_each_time() {
    let (_folder, path) = new_file();
    let disk = Disk::new();
    let backend = RedbBackend::open_by(&path, disk.open_file()).unwrap();
    let Opened { store, .. } =
        StoreHandle::open(Arc::new(backend), hosts(), TokioClock::new()).await.unwrap();
    let accounts = BTreeMap::from_iter((0..3_000).map(|n| (appid(&format!("wx{n}")), holding(1))));
    store.commit_all(&Stored { accounts, ..Default::default() }).await.unwrap();
    let long = fs::metadata(&path).unwrap().len();
    let ops = disk.ops_so_far();
    disk.set_full(true);
    assert_io_error(&store.commit(&appid("wx1"), &holding(2), 0).await.unwrap_err(), "the disk is full");
    for second in 0..600 {
        sleep(Duration::from_secs(1)).await;
        // Later commits fail at once, and cause no attempt.
        let version = 3 + second;
        assert!(store.commit(&appid("wx1"), &holding(version), 0).await.is_err());
    }
    let ops = disk.ops().split_off(ops);
    let tries = ops.iter().filter(|op| matches!(op, Op::Opened(_))).count();
    assert!((8..=20).contains(&tries), "{tries} tries in 10 min");
    let written = ops.iter().map(|op| if let Op::Write { data, .. } = op { data.len() } else { 0 });
    let written = u64::try_from(written.sum::<usize>()).unwrap();
    assert!(written < long, "{written} bytes were written over and over, to a file of {long}");
    disk.set_full(false);
    sleep(MAX_RETRY_DELAY + MIN_RETRY_DELAY).await;
    let (_folder, copy) = new_file();
    fs::copy(&path, &copy).unwrap();
    let (_store, states) = open(&copy, TokioClock::new()).await;
    assert_eq!((states.len(), states[&appid("wx1")].version), (3_000, 602));
}
