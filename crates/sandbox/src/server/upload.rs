//! The body of a request, of any length.

use std::future::poll_fn;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Body as _;
use sha2::{Digest, Sha256};

/// Longer bodies are counted and not kept. It is far more than calls have that say something in their body.
const KEPT: usize = 1 << 20;

/// How a body is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// As fast as it comes if this is `None`.
    pub(super) bytes_per_s: Option<NonZeroU64>,
    /// Computes its SHA-256.
    pub(super) hashes: bool,
}

/// What was read of a request's body.
pub(super) struct Upload {
    pub(super) length: u64,
    /// In hexadecimal; empty if it was not asked for.
    pub(super) sha256: String,
    /// The whole body, or nothing if it is long.
    pub(super) kept: Vec<u8>,
}

impl Upload {
    /// Reads the body to its end; `None` if the client breaks off.
    pub(super) async fn read(mut body: Body, pace: Pace) -> Option<Self> {
        let mut upload = Self { length: 0, sha256: String::new(), kept: Vec::new() };
        let mut hash = pace.hashes.then(Sha256::new);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(bytes) = frame.ok()?.into_data() else { continue };
            upload.length += bytes.len() as u64;
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
            if upload.length <= KEPT as u64 {
                upload.kept.extend_from_slice(&bytes);
            } else {
                upload.kept = Vec::new();
            }
            if let Some(bytes_per_s) = pace.bytes_per_s {
                let micros = bytes.len() as u64 * 1_000_000 / bytes_per_s;
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
        }
        upload.sha256 = hash.map(|hash| hex(&hash.finalize())).unwrap_or_default();
        Some(upload)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
