//! Target: the store's whole file, whether damaged, foreign or ours.
//!
//! An input whose first byte is even is the file. Otherwise it is a list of damages to a store of ours: an
//! offset of three bytes, a length, and that many bytes to put there; small inputs thus reach deep. The
//! second byte selects the store: one that was closed, or one whose program was killed.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use wxtokend::StoreError;
use wxtokend::internals::{Backend, Batch, RedbBackend};
use wxtokend_core::account::Appid;
use wxtokend_core::ticket::Credential;

/// A record in our stores, in addition to the format.
const RECORD: &str = r#"{"boot":"b","version":7,"token":null,"doubt":null,"intent":null,"ledger":{"main":null,"on_request":null},"forced":[]}"#;

struct Stores {
    runtime: Runtime,
    folder: TempDir,
    closed: Vec<u8>,
    killed: Vec<u8>,
}

thread_local! {
    static STORES: OnceCell<Stores> = const { OnceCell::new() };
}

/// Opens the file that `input` describes.
pub fn run(input: &[u8]) {
    STORES.with(|stores| {
        let stores = stores.get_or_init(Stores::new);
        match input {
            [kind, file @ ..] if kind & 1 == 0 => stores.open(file),
            [_, which, damages @ ..] => {
                let mut file = if which & 1 == 0 { stores.closed.clone() } else { stores.killed.clone() };
                damage(&mut file, damages);
                stores.open(&file);
            }
            _ => {}
        }
    });
}

fn damage(file: &mut Vec<u8>, mut damages: &[u8]) {
    while let [a, b, c, length, rest @ ..] = damages {
        let at = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if at >= file.len() {
            // An offset beyond the end truncates the file.
            file.truncate(usize::from(*length) * 4096);
            damages = rest;
            continue;
        }
        let length = usize::from(*length).min(rest.len()).min(file.len() - at);
        file[at..at + length].copy_from_slice(&rest[..length]);
        damages = &rest[length..];
    }
}

impl Stores {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        // In memory, where there is such a folder: these files need no disk.
        let memory = Some(Path::new("/dev/shm")).filter(|folder| folder.is_dir());
        let folder = memory.and_then(|memory| TempDir::new_in(memory).ok());
        let folder = folder.unwrap_or_else(|| tempfile::tempdir().expect("a folder"));
        let path = folder.path().join("ours.redb");
        let ours = RedbBackend::open(&path).expect("a new store");
        for account in 0..40 {
            let appid = Appid::new(&format!("wx{account:03}")).expect("an appid");
            let batch = Batch {
                records: vec![(Credential::token(appid), RECORD.as_bytes().to_vec())],
                hosts: (account == 0).then(|| vec!["api.weixin.qq.com".to_owned()]),
            };
            runtime.block_on(ours.write(batch)).expect("a write");
        }
        let killed = fs::read(&path).expect("the file");
        drop(ours);
        let closed = fs::read(&path).expect("the file");
        Self { runtime, folder, closed, killed }
    }

    fn open(&self, content: &[u8]) {
        let path = self.folder.path().join("wxtokend.redb");
        fs::write(&path, content).expect("a file");
        match RedbBackend::open(&path) {
            Ok(backend) => self.read_and_write(&backend, &path, content),
            Err(error) => refused(&error, &path, content),
        }
        let left: Vec<PathBuf> = fs::read_dir(self.folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert!(left.len() <= 2, "something is left behind: {left:?}");
    }

    fn read_and_write(&self, backend: &RedbBackend, path: &Path, content: &[u8]) {
        match backend.load() {
            Ok(_) => {
                let appid = Appid::new("wx-new").expect("an appid");
                let batch = Batch {
                    records: vec![(Credential::token(appid), RECORD.as_bytes().to_vec())],
                    hosts: None,
                };
                // It may fail if the damage is only met now.
                let _ = self.runtime.block_on(backend.write(batch));
            }
            Err(error) => refused(&error, path, content),
        }
    }
}

fn refused(error: &StoreError, path: &Path, content: &[u8]) {
    let fits = matches!(error, StoreError::Foreign { .. } | StoreError::Damaged { .. });
    assert!(fits && error.to_string().contains("left as it is"), "{error:?}");
    assert!(
        fs::read(path).expect("the file") == content,
        "it is refused, and yet not left as it is: {error}"
    );
}
