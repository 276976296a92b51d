//! Loads the CA certificates that TLS hosts are verified with.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` may name a pipe or lie on a share that does not respond, and then
//! reading them hangs. So a dedicated thread reads them, one at a time: callers wait for it no longer than
//! [`PATIENCE`], and those that ask meanwhile start no second one. It is not one of the runtime's threads,
//! since the runtime's shutdown would wait for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::load_native_certs;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long reading may take; a healthy share answers within a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Certificates that are all usable.
pub(crate) type Certificates = Vec<CertificateDer<'static>>;

/// The result of a reading; `None` while it is running.
type CertificatesResult = Option<Result<Certificates, Missing>>;

/// Why there are no CA certificates to verify a host with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Missing(String);

static SYSTEM: CertificateReader =
    CertificateReader { read: || usable(load_native_certs()), running: Mutex::new(None) };

/// The system's current CA certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
/// When there are none, or they are not read within 5 s.
pub(crate) async fn system() -> Result<Certificates, Missing> {
    SYSTEM.certificates(PATIENCE).await
}

/// Where the environment says that CA certificates are.
pub(crate) fn places() -> String {
    let settings = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .into_iter()
        .filter_map(|name| std::env::var_os(name).map(|value| format!("{name} is {}", value.display())));
    let settings: Vec<_> = settings.collect();
    if settings.is_empty() {
        "there are none where this system keeps them".to_owned()
    } else {
        settings.join(", ")
    }
}

/// Reads certificates in a thread of its own, apart from the callers that wait for them.
struct CertificateReader {
    read: fn() -> Result<Certificates, Missing>,
    /// The most recent reading.
    running: Mutex<Option<watch::Receiver<CertificatesResult>>>,
}

impl CertificateReader {
    async fn certificates(&self, patience: Duration) -> Result<Certificates, Missing> {
        let mut reading = self.join_or_start().map_err(|error| Missing(error.to_string()))?;
        match timeout(patience, reading.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Ok(Vec::new())),
            Ok(Err(_)) => Err(Missing("the reading thread has ended".to_owned())),
            Err(_) => {
                let seconds = patience.as_secs();
                Err(Missing(format!(
                    "they were not read within {seconds} s: a pipe, or a share that does not answer"
                )))
            }
        }
    }

    /// Joins the reading that is running, or starts one.
    fn join_or_start(&self) -> io::Result<watch::Receiver<CertificatesResult>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let joined =
            running.as_ref().filter(|reading| reading.borrow().is_none() && reading.has_changed().is_ok());
        if let Some(reading) = joined {
            return Ok(reading.clone());
        }
        let (done, reading) = watch::channel(None);
        let read = self.read;
        thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            // No receiver is left once the callers have timed out.
            let _ = done.send(Some(read()));
        })?;
        *running = Some(reading.clone());
        Ok(reading)
    }
}

/// The usable certificates. One broken file among many does not affect the others.
fn usable(found: rustls_native_certs::CertificateResult) -> Result<Certificates, Missing> {
    let is_usable =
        |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone()).is_ok();
    let usable: Certificates = found.certs.into_iter().filter(is_usable).collect();
    if !usable.is_empty() {
        return Ok(usable);
    }
    let why =
        found.errors.first().map_or_else(|| "no CA certificate was found".to_owned(), ToString::to_string);
    Err(Missing(why))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use super::*;

    static READINGS: AtomicUsize = AtomicUsize::new(0);
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    /// Hangs like a pipe without a writer, until the gate is opened.
    fn hang() -> Result<Certificates, Missing> {
        READINGS.fetch_add(1, Ordering::SeqCst);
        let (is_open, opened) = &GATE;
        let _open = opened.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap();
        Ok(vec![CertificateDer::from_slice(b"read")])
    }

    #[tokio::test]
    async fn a_caller_of_a_reading_that_hangs_gets_an_error_and_starts_no_other() {
        let reader = CertificateReader { read: hang, running: Mutex::new(None) };
        for _ in 0..3 {
            let outcome =
                timeout(Duration::from_secs(20), reader.certificates(Duration::from_millis(50))).await;
            let late = outcome.expect("an end of the wait").unwrap_err();
            assert!(late.to_string().contains("not read within"), "{late}");
        }
        assert_eq!(READINGS.load(Ordering::SeqCst), 1, "one thread hangs, and no more");
        *GATE.0.lock().unwrap() = true;
        GATE.1.notify_all();
        let read = reader.certificates(Duration::from_secs(20)).await.unwrap();
        assert_eq!(read.len(), 1, "it goes on once it can");
        let readings = READINGS.load(Ordering::SeqCst);
        reader.certificates(Duration::from_secs(20)).await.unwrap();
        assert_eq!(READINGS.load(Ordering::SeqCst), readings + 1, "they are read again each time");
    }

    #[tokio::test]
    async fn a_reading_that_panics_is_an_error_and_the_next_is_tried() {
        let reader = CertificateReader { read: || panic!("a bug"), running: Mutex::new(None) };
        for _ in 0..2 {
            let outcome = reader.certificates(Duration::from_secs(20)).await.unwrap_err().to_string();
            assert_eq!(outcome, "the reading thread has ended");
        }
    }
}
