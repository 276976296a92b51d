//! A store whose process or machine dies between any two operations on its file.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wxtokend_core::budget::Bucket;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::state::Intent;

use super::disk::{Disk, Op, Remains, kinds};
use super::*;

/// All that is stored, in a comparable form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct WholeStore {
    records: BTreeMap<Credential, Vec<u8>>,
    hosts: Vec<String>,
}

impl WholeStore {
    fn of(backend: &impl Backend) -> Self {
        let Contents { records, hosts } = backend.load().unwrap();
        Self { records: records.into_iter().collect(), hosts }
    }

    fn with(&self, batch: &Batch) -> Self {
        let mut stored = self.clone();
        stored.records.extend(batch.records.iter().cloned());
        stored.hosts = batch.hosts.clone().unwrap_or(stored.hosts);
        stored
    }

    /// The version of each account, for failure messages.
    fn versions(&self) -> BTreeMap<String, u64> {
        let version = |record: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(record).unwrap()["version"].as_u64().unwrap()
        };
        self.records.iter().map(|(of, record)| (of.to_string(), version(record))).collect()
    }
}

/// One process: the file as it found it, its operations on it, and the writes that were acknowledged by then.
struct Life {
    found: Option<Remains>,
    ops: Vec<Op>,
    acknowledged: Vec<(usize, WholeStore)>,
}

/// A state that grows with its version, as all parts of a real one do.
fn grown(version: u64, random: &mut StdRng) -> Vec<u8> {
    let now = Moment { wall_ms: 1_790_000_000_000, boot_ms: 1_000_000 } + Duration::from_secs(version);
    let mut state = holding(version);
    let mut token = example_token();
    let length = random.random_range(110..512);
    token.value =
        Secret::new((0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect::<String>());
    token.version = version;
    state.token = Some(Arc::new(token));
    for _ in 0..version % 7 {
        let _ = state.ledger.charge(Bucket::Calls, 2000, now);
    }
    state.intent = version.is_multiple_of(3).then_some(Intent { at: now, trusted_until: now });
    state.forced = vec![now; usize::try_from(version % 21).unwrap()];
    if version % 11 == 10 {
        state = state.tombstone();
    }
    record::encode(&state, "test")
}

/// What a fleet writes: mostly one record, sometimes many, sometimes hosts.
fn batches(seed: u64, count: u64) -> Vec<Batch> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut batch = |n| {
        let accounts = if n % 6 == 5 { random.random_range(20..60) } else { random.random_range(1..4) };
        let appid = |random: &mut StdRng| appid(&format!("wx{:04}", random.random_range(0..60)));
        let mut record = |_| {
            let (appid, version) = (appid(&mut random), seed * 1000 + n);
            // Some accounts have tickets.
            if random.random_range(0..4) == 0 {
                let of = Credential::ticket(appid, TicketKind::ALL[random.random_range(0..2)]);
                (of, record::encode(&holding_ticket(version + 1), "test"))
            } else {
                (Credential::token(appid), grown(version, &mut random))
            }
        };
        let records = (0..accounts).map(&mut record).collect();
        Batch { records, hosts: (n % 9 == 4).then(|| vec![format!("host{n}.test"), "b.test".to_owned()]) }
    };
    (0..count).map(&mut batch).collect()
}

/// Opens the store that is in `found`, writes `batches`, and closes it cleanly.
async fn live(found: Option<Remains>, batches: Vec<Batch>) -> Life {
    live_on(&Disk::new(), found, batches).await
}

/// The same on a disk that may fail: each batch is retried until it is written.
async fn live_on(disk: &Arc<Disk>, found: Option<Remains>, batches: Vec<Batch>) -> Life {
    let (_folder, path) = new_file();
    if let Some(found) = &found {
        fs::write(&path, found.when_all_was_done()).unwrap();
    }
    let backend = RedbBackend::open_by(&path, disk.open_file()).unwrap();
    let mut acknowledged = vec![(disk.ops_so_far(), WholeStore::of(&backend))];
    for batch in batches {
        let stored = acknowledged.last().unwrap().1.with(&batch);
        while let Err(error) = backend.write(batch.clone()).await {
            assert!(!disk.failed().is_empty(), "{error}");
        }
        acknowledged.push((disk.ops_so_far(), stored));
    }
    drop(backend);
    Life { found, ops: disk.ops(), acknowledged }
}

/// What a cut life leaves: the file, where it is, and what it may contain.
struct Left<'a> {
    what: String,
    file: Vec<u8>,
    /// Whether it is where a new store is created rather than in its place.
    in_making: bool,
    allowed: &'a [(usize, WholeStore)],
}

impl Life {
    /// What is left of the file after the first `cut` operations.
    fn remains(&self, cut: usize) -> Remains {
        let mut remains = self.found.clone().unwrap_or_default();
        self.ops[..cut].iter().for_each(|op| remains.add(op));
        remains
    }

    /// What may be stored after the first `cut` operations: the last acknowledged batch, or the one after it.
    fn allowed(&self, cut: usize) -> &[(usize, WholeStore)] {
        let acknowledged = self.acknowledged.partition_point(|(ops, _)| *ops <= cut);
        &self.acknowledged[acknowledged.saturating_sub(1)..self.acknowledged.len().min(acknowledged + 1)]
    }

    /// Cuts the life off after each of its operations, by a kill and by losses of power. Opens what is left
    /// each time.
    async fn cut_everywhere(&self, seed: u64) {
        self.cut_from(0, seed, losses()).await;
    }

    async fn cut_from(&self, first: usize, seed: u64, losses: usize) {
        let mut random = StdRng::seed_from_u64(seed);
        for cut in first..=self.ops.len() {
            let remains = self.remains(cut);
            let opened = self.ops[..cut].iter().rev().find_map(|op| match op {
                Op::Opened(name) => Some(name.as_str()),
                _ => None,
            });
            let in_making = opened.is_some_and(|name| name.ends_with(".new"));
            let allowed = self.allowed(cut);
            let what = format!("killed after operation {cut}");
            revive(Left { what, file: remains.when_all_was_done(), in_making, allowed }).await;
            for n in (0..losses).take_while(|_| !remains.is_synced()) {
                let what = format!("power lost after operation {cut}, seed {seed}, loss {n}");
                let file = remains.when_power_is_lost(&mut random);
                revive(Left { what, file, in_making, allowed }).await;
            }
        }
    }
}

/// How many losses of power are tried at each operation.
fn losses() -> usize {
    std::env::var("WXTOKEND_STORE_LOSSES").map_or(3, |losses| losses.parse().unwrap())
}

/// Opens what is left as the program does at its start, and writes to it.
async fn revive(left: Left<'_>) {
    let Left { what, file, in_making, allowed } = left;
    let (_folder, path) = new_file();
    let place = if in_making { path.with_extension("redb.new") } else { path.clone() };
    if !file.is_empty() {
        fs::write(place, file).unwrap();
    }
    let opened = RedbBackend::open_by(&path, Disk::new().open_file());
    let backend = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let stored = WholeStore::of(&backend);
    assert!(
        allowed.iter().any(|(_, allowed)| *allowed == stored),
        "{what}: {:?} where {:?} is allowed",
        stored.versions(),
        allowed.iter().map(|(_, stored)| stored.versions()).collect::<Vec<_>>()
    );
    let hosts = stored.hosts.clone();
    let Opened { stored: states, .. } =
        StoreHandle::open(Arc::new(backend.clone()), hosts, TokioClock::new()).await.unwrap();
    assert_eq!(states.accounts.len() + states.tickets.len(), stored.records.len(), "{what}");
    let then = batches(9, 1).remove(0);
    let both = stored.with(&then);
    backend.write(then).await.unwrap_or_else(|error| panic!("{what}, then: {error}"));
    assert!(WholeStore::of(&backend) == both, "{what}: what was written then is not what is stored");
}

#[tokio::test]
async fn a_store_whose_first_life_is_cut_anywhere_is_whole_and_has_all_that_was_acknowledged() {
    let life = live(None, batches(1, 13)).await;
    assert_eq!(kinds(&life.ops), HashSet::from(["opened", "write", "set_len", "sync_data", "close"]));
    life.cut_everywhere(1).await;
}

#[tokio::test]
async fn a_store_whose_later_life_is_cut_anywhere_is_whole_and_has_all_that_was_acknowledged() {
    let first = live(None, batches(1, 20)).await;
    let life = live(Some(first.remains(first.ops.len())), batches(2, 10)).await;
    let lengths = life.ops.iter().filter_map(|op| if let Op::SetLen(len) = op { Some(len) } else { None });
    assert!(!lengths.is_sorted(), "it grows and shrinks");
    life.cut_everywhere(2).await;
}

#[tokio::test]
async fn a_store_that_is_cut_while_it_is_repaired_is_whole_and_has_all_that_was_acknowledged() {
    let first = live(None, batches(1, 12)).await;
    // In the middle of a commit.
    let killed = first.remains(first.acknowledged[10].0 + 4);
    assert!(!killed.is_synced());
    live(Some(killed), batches(3, 2)).await.cut_everywhere(3).await;
}

#[tokio::test]
async fn a_store_whose_sync_failed_is_whole_after_a_loss_of_power_and_has_what_was_acknowledged() {
    let first = live(None, batches(1, 3)).await;
    for n in 1.. {
        let disk = Disk::new();
        disk.fail_sync(n);
        let life = live_on(&disk, Some(first.remains(first.ops.len())), batches(4, 2)).await;
        let Some(failed) = life.ops.iter().position(|op| matches!(op, Op::SyncFailed)) else { break };
        life.cut_from(failed + 1, 4, losses().div_ceil(3)).await;
        // The next process may build on that: what the last one knew to be stored was there when it began.
        let mut next = live(Some(life.remains(failed + 1)), batches(5, 1)).await;
        let known = life.allowed(failed + 1)[0].1.clone();
        next.acknowledged.insert(0, (0, known));
        next.cut_from(0, 5, losses().div_ceil(3)).await;
    }
}
