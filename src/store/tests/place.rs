//! A store whose file is deleted, replaced or written to by another program, or created where another file
//! appears.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::sync::Barrier;

use super::super::redb::LOOK_EVERY;
use super::disk::Disk;
use super::*;

/// A store of wx1 to wx3, version 1 each, whose program also knows wx4 and a ticket.
async fn running(path: &Path) -> StoreHandle {
    let (store, _) = open(path, TokioClock::new()).await;
    for name in ["wx1", "wx2", "wx3"] {
        store.commit(&appid(name), &holding(1), 0).await.unwrap();
    }
    store.keep_source(|| {
        let accounts = ["wx1", "wx2", "wx3", "wx4"].map(|name| (appid(name), holding(1)));
        let tickets = BTreeMap::from([(ticket_of("wx1"), holding_ticket(1))]);
        Some(Stored { accounts: BTreeMap::from(accounts), tickets })
    });
    store
}

/// What a killed process would leave at `path`: each account's version.
async fn left(path: &Path) -> Vec<u64> {
    let (_folder, copy) = new_file();
    fs::copy(path, &copy).unwrap();
    let backend = RedbBackend::open(&copy).unwrap();
    let hosts = backend.load().unwrap().hosts;
    assert_eq!(hosts, ["api.weixin.qq.com"]);
    let Opened { store: _store, stored, .. } =
        StoreHandle::open(Arc::new(backend), hosts, TokioClock::new()).await.unwrap();
    assert_eq!(stored.tickets.len(), 1);
    ["wx1", "wx2", "wx3", "wx4"].map(|name| stored.accounts[&appid(name)].version).to_vec()
}

type Mishap = fn(&Path);
type Putting = fn(&Path, &[u8]);

const LOSSES: [(&str, Mishap); 5] = [
    ("deleted", |path| fs::remove_file(path).unwrap()),
    ("moved away", |path| fs::rename(path, path.with_extension("bak")).unwrap()),
    ("emptied", |path| drop(File::create(path).unwrap())),
    ("replaced by an empty file", |path| {
        fs::remove_file(path).unwrap();
        File::create(path).unwrap();
    }),
    ("replaced by a link that leads nowhere", |path| {
        fs::remove_file(path).unwrap();
        symlink(path.with_extension("elsewhere"), path).unwrap();
    }),
];

#[tokio::test(start_paused = true)]
async fn a_store_that_is_gone_is_written_anew_from_memory_within_seconds_though_nothing_changes() {
    for (what, lose) in LOSSES {
        let (_folder, path) = new_file();
        let store = running(&path).await;
        // Newer than what readers see, as happens for a moment.
        store.commit(&appid("wx1"), &holding(7), 0).await.unwrap();
        lose(&path);
        sleep(LOOK_EVERY * 2).await;
        assert_eq!(left(&path).await, [7, 1, 1, 1], "{what}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{what}");
        store.commit(&appid("wx2"), &holding(8), 0).await.unwrap();
        assert_eq!(left(&path).await, [7, 8, 1, 1], "{what}");
        store.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_after_the_store_is_gone_is_in_its_place() {
    for (what, lose) in LOSSES {
        let (_folder, path) = new_file();
        let store = running(&path).await;
        lose(&path);
        store.commit(&appid("wx3"), &holding(9), 0).await.unwrap();
        assert_eq!(left(&path).await, [1, 1, 9, 1], "{what}");
        lose_again_and_close(lose, &path, &store).await;
        assert_eq!(left(&path).await, [1, 1, 9, 1], "{what}, right before the end");
    }
}

async fn lose_again_and_close(lose: Mishap, path: &Path, store: &StoreHandle) {
    let elsewhere = path.with_extension("elsewhere");
    if elsewhere.exists() {
        fs::remove_file(elsewhere).unwrap();
    }
    lose(path);
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreign_file_in_place_of_the_store_is_left_alone_until_it_is_moved_away() {
    fn others(path: &Path) -> Vec<u8> {
        let other = path.with_extension("other");
        drop(RedbBackend::open(&other).unwrap());
        let bytes = fs::read(&other).unwrap();
        fs::remove_file(other).unwrap();
        bytes
    }
    let replace: Putting = |path, bytes| {
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let overwrite: Putting = |path, bytes| fs::write(path, bytes).unwrap();
    let ways: [(&str, Putting); 2] = [("replaced", replace), ("overwritten", overwrite)];
    for (way, put) in ways {
        for bytes in [b"dear diary".to_vec(), vec![7; 70_000], others(&new_file().1)] {
            let (_folder, path) = new_file();
            let store = running(&path).await;
            let what = format!("{way} by {} bytes", bytes.len());
            put(&path, &bytes);
            sleep(LOOK_EVERY * 2).await;
            let error = store.commit(&appid("wx1"), &holding(2), 0).await.unwrap_err();
            assert!(matches!(&*error, StoreError::Replaced { .. }), "{what}: {error}");
            sleep(MAX_RETRY_DELAY * 3).await;
            assert!(fs::read(&path).unwrap() == bytes, "{what}: it was changed");
            fs::rename(&path, path.with_extension("theirs")).unwrap();
            sleep(MAX_RETRY_DELAY + MIN_RETRY_DELAY).await;
            assert_eq!(left(&path).await, [2, 1, 1, 1], "{what}, moved away");
            put(&path, &bytes);
            store.close().await;
            drop(store);
            assert!(fs::read(&path).unwrap() == bytes, "{what}: it was changed at the end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_put_back_is_used_again() {
    let (_folder, path) = new_file();
    let store = running(&path).await;
    let aside = path.with_extension("aside");
    let moved = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    moved(&path, &aside);
    fs::write(&path, "in between").unwrap();
    assert!(store.commit(&appid("wx1"), &holding(2), 0).await.is_err());
    moved(&aside, &path);
    sleep(MAX_RETRY_DELAY).await;
    store.commit(&appid("wx2"), &holding(3), 0).await.unwrap();
    store.close().await;
    drop(store);
    let (_store, states) = open(&path, TokioClock::new()).await;
    assert_eq!(["wx1", "wx2", "wx3"].map(|name| states[&appid(name)].version), [2, 3, 1]);
}

#[test]
fn of_many_first_starts_at_one_path_one_has_the_store() {
    for round in 0..20 {
        let (folder, path) = new_file();
        if round % 2 == 1 {
            File::create(&path).unwrap();
        }
        let (start, rounds) = (Barrier::new(6), 0..6);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let starts = rounds.map(|_| {
                scope.spawn(|| {
                    start.wait();
                    RedbBackend::open(&path)
                })
            });
            let starts: Vec<_> = starts.collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let refused = opened.iter().filter_map(|opened| opened.as_ref().err());
        for error in refused {
            assert!(matches!(error, StoreError::InUse(_)), "{error}");
        }
        let winners: Vec<_> = opened.iter().flatten().collect();
        assert!(winners.len() <= 1, "{} have it at once", winners.len());
        for winner in winners {
            winner.look_now().unwrap();
        }
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["wxtokend.redb"]);
    }
}

#[test]
fn what_comes_into_being_while_a_store_is_made_is_not_replaced() {
    for by_link in [false, true] {
        let (_folder, path) = new_file();
        let place = if by_link { path.with_extension("target") } else { path.clone() };
        if by_link {
            symlink(&place, &path).unwrap();
        }
        let open_file = {
            let (open_file, place) = (Disk::new().open_file(), place.clone());
            move |file| {
                // The new store is being created: another program is quicker now.
                if !place.exists() {
                    fs::write(&place, "dear diary").unwrap();
                }
                open_file(file)
            }
        };
        let error = RedbBackend::open_by(&path, open_file).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. } | StoreError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&place).unwrap(), b"dear diary");
        assert_eq!(fs::symlink_metadata(&path).unwrap().is_symlink(), by_link);
    }
}

#[tokio::test]
async fn a_link_that_leads_nowhere_yet_is_followed_and_stays() {
    let (folder, path) = new_file();
    let place = folder.path().join("volume/store.redb");
    symlink("volume/store.redb", &path).unwrap();
    assert!(matches!(RedbBackend::open(&path).unwrap_err(), StoreError::Io { operation: "create", .. }));
    fs::create_dir(folder.path().join("volume")).unwrap();
    let (store, _) = open(&path, TokioClock::new()).await;
    store.commit(&appid("wx1"), &holding(7), 0).await.unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && place.is_file());
    assert!(matches!(RedbBackend::open(&place).unwrap_err(), StoreError::InUse(_)));
}
