//! A client that reads tokens and checks them against the sandbox.

use std::time::Duration;

use wxtokend_sandbox::Sandbox;

use super::{Answer, Http};

/// A token as a client received it, with its version and its promise.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) access_token: String,
    pub(crate) version: u64,
    /// The sandbox's time before the request was sent; every promise counts from a later instant.
    pub(crate) asked_at: Duration,
    pub(crate) expires_in: Duration,
    pub(crate) max_age: Duration,
}

/// Reads the tokens of one account. Panics over a dead token, a version that decreases, or a broken promise.
pub(crate) struct Reader {
    sandbox: Sandbox,
    appid: String,
    last_version: u64,
    /// Readings with the instants until which their tokens are promised to live.
    promises: Vec<(Duration, Reading)>,
    /// The number of promises that were kept to their end.
    pub(crate) kept: usize,
}

impl Reading {
    fn of(answer: &Answer, asked_at: Duration) -> Self {
        let json = answer.json();
        let max_age = answer.header("cache-control").unwrap().strip_prefix("private, max-age=").unwrap();
        Self {
            access_token: answer.access_token(),
            version: json["version"].as_u64().unwrap(),
            asked_at,
            expires_in: Duration::from_secs(json["expires_in"].as_u64().unwrap()),
            max_age: Duration::from_secs(max_age.parse().unwrap()),
        }
    }
}

impl Reader {
    pub(crate) fn new(sandbox: &Sandbox, appid: &str) -> Self {
        Self {
            sandbox: sandbox.clone(),
            appid: appid.to_owned(),
            last_version: 0,
            promises: Vec::new(),
            kept: 0,
        }
    }

    /// Reads once. `None` if the daemon is gone, or answers that it has no token.
    pub(crate) async fn read(&mut self, http: &Http) -> Option<Reading> {
        let asked_at = self.sandbox.now();
        let answer = http.try_token(&self.appid).await?;
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{answer:?}");
            return None;
        }
        let reading = Reading::of(&answer, asked_at);
        let truth = self.sandbox.token_truth(&reading.access_token);
        let truth = truth.unwrap_or_else(|| panic!("{}: not WeChat's token: {reading:?}", self.appid));
        // The token was served after `asked_at`: if it was dead by then, it was dead when it was served.
        assert!(truth.dies_at > asked_at, "{}: a dead token: {reading:?}, {truth:?}", self.appid);
        assert!(reading.version >= self.last_version, "{}: a version went back: {reading:?}", self.appid);
        self.last_version = reading.version;
        Some(reading)
    }

    /// Reads once and remembers both promises of the answer.
    pub(crate) async fn read_and_keep(&mut self, http: &Http) -> Option<Reading> {
        let reading = self.read(http).await?;
        for promise in [reading.expires_in, reading.max_age] {
            if promise > Duration::ZERO {
                self.promises.push((reading.asked_at + promise, reading.clone()));
            }
        }
        self.judge();
        Some(reading)
    }

    /// Checks all promises: one that can no longer be kept is broken, and one whose end has come is kept.
    pub(crate) fn judge(&mut self) {
        let now = self.sandbox.now();
        for (end, reading) in std::mem::take(&mut self.promises) {
            // WeChat forgets tokens that have long been dead. While the promise was open, it was checked
            // often enough.
            let truth = self.sandbox.token_truth(&reading.access_token);
            if let Some(truth) = &truth {
                assert!(
                    truth.dies_at >= end,
                    "{}: promised until {end:?}: {reading:?}, {truth:?}",
                    self.appid
                );
            }
            if end > now {
                self.promises.push((end, reading));
            } else {
                self.kept += usize::from(truth.is_some());
            }
        }
    }

    /// The number of open promises.
    pub(crate) fn promised(&self) -> usize {
        self.promises.len()
    }
}
