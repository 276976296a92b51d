//! A disk that neither writes nor fails.

use super::*;

async fn hanging() -> (Arc<MemoryBackend>, StoreHandle) {
    let disk = MemoryBackend::new();
    let Opened { store, .. } =
        StoreHandle::open(Arc::new(Arc::clone(&disk)), Vec::new(), TokioClock::new()).await.unwrap();
    disk.hangs.store(true, Ordering::SeqCst);
    (disk, store)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_waited_for_once_and_then_by_nobody() {
    let (disk, store) = hanging().await;
    let start = Instant::now();
    let error = store.commit(&appid("wx1"), &holding(1), 0).await.unwrap_err();
    assert!(matches!(&*error, StoreError::Slow), "{error}");
    assert!(start.elapsed() >= SLOWEST_COMMIT);
    let start = Instant::now();
    for version in 2..1_000 {
        assert!(store.commit(&appid("wx1"), &holding(version), 0).await.is_err());
    }
    store.close().await;
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    disk.hangs.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert!(disk.record("wx1").contains(r#""version":999"#), "{}", disk.record("wx1"));
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_record_of_each_account_waits_for_a_disk_that_hangs() {
    let (disk, store) = hanging().await;
    let before = disk.commits.load(Ordering::SeqCst);
    let mut writers = tokio::task::JoinSet::new();
    for version in 1..=10_000 {
        let store = store.clone();
        // Callers that give up before the disk is known to hang.
        writers.spawn(async move {
            let account = appid(&format!("wx{}", version % 10));
            let _ =
                tokio::time::timeout(Duration::from_millis(1), store.commit(&account, &holding(version), 0))
                    .await;
        });
        sleep(Duration::from_micros(100)).await;
    }
    writers.join_all().await;
    let (records, callers) = store.waiting();
    assert!(records <= 10 && callers < 200, "{records} records and {callers} callers wait");
    disk.hangs.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    for n in 0..10 {
        let newest = format!(r#""version":{}"#, if n == 0 { 10_000 } else { 9_990 + n });
        assert!(disk.record(&format!("wx{n}")).contains(&newest), "wx{n}");
    }
    assert!(disk.commits.load(Ordering::SeqCst) - before <= 3);
}
