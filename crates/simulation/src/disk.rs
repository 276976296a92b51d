//! A disk that is slow, fails, and forgets writes that were unfinished when the process died.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use wxtokend::StoreError;
use wxtokend::internals::{Backend, Batch, Contents};

use super::sim::{Sim, lock};

pub(super) struct SimDisk(pub(super) Arc<Sim>);

impl Backend for SimDisk {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn load(&self) -> Result<Contents, StoreError> {
        let disk = lock(&self.0.disk);
        Ok(Contents { records: disk.records.clone().into_iter().collect(), hosts: disk.hosts.clone() })
    }

    fn write(&self, batch: Batch) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
        let sim = Arc::clone(&self.0);
        Box::pin(async move {
            let (slow_ms, fails) = {
                let disk = lock(&sim.disk);
                (disk.slow_ms, disk.fails)
            };
            let half_ms = sim.between(0, 8 + slow_ms / 2);
            let half = Duration::from_millis(u64::try_from(half_ms).unwrap());
            sleep(half).await;
            look_at(&sim, &batch);
            if fails {
                sim.count("failed writes");
                return Err(StoreError::Io {
                    operation: "write to",
                    path: "memory".to_owned(),
                    source: std::io::Error::from(std::io::ErrorKind::StorageFull),
                });
            }
            put(&sim, &batch);
            // From here on it is written, but no one knows it yet.
            look_at(&sim, &batch);
            sleep(half).await;
            look_at(&sim, &batch);
            Ok(())
        })
    }
}

fn look_at(sim: &Sim, batch: &Batch) {
    for account in batch.records.iter().filter_map(|(of, _)| sim.index(of.appid.as_str())) {
        sim.look(account);
    }
}

fn put(sim: &Sim, batch: &Batch) {
    for (of, record) in &batch.records {
        lock(&sim.disk).records.insert(of.clone(), record.clone());
        if of.ticket.is_some() {
            continue;
        }
        let account = sim.index(of.appid.as_str());
        let written: serde_json::Value = serde_json::from_slice(record).unwrap();
        sim.note("written", account, || {
            format!("version {} intent {} doubt {}", written["version"], written["intent"], written["doubt"])
        });
        if let Some(account) = account {
            sim.oracle().checkers[account].on_disk = written["version"].as_u64().unwrap();
        }
    }
    if let Some(hosts) = &batch.hosts {
        lock(&sim.disk).hosts.clone_from(hosts);
    }
}
