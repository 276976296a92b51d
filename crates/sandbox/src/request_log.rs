//! The requests that arrived of late, for a test to assert on.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wxtokend_core::account::Appid;

use super::canned::CannedBody;
use super::wire::{Answer, Request, Wire};

/// How many requests are remembered.
const CAPACITY: usize = 10_000;

/// A request that arrived, and what it got. It has no secrets: neither query nor body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoggedRequest {
    /// When it arrived, by the sandbox's clock.
    pub at: Timestamp,
    /// The account that it names, or whose token it carries; `None` for no account that exists.
    pub appid: Option<Appid>,
    /// The method in capitals.
    pub method: String,
    /// The path as it arrived.
    pub path: String,
    /// The status of the answer; `None` if there was no answer.
    pub status: Option<u16>,
    /// The `errcode` of the answer; `None` if it has none.
    pub errcode: Option<i64>,
    /// The length of the request's body in bytes.
    pub length: u64,
}

/// Which requests are wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    appid: Option<Appid>,
    /// A path, or with a trailing `*` a prefix of paths.
    path: Option<String>,
    /// Only those that arrived later.
    since: Option<Timestamp>,
}

/// The latest requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct RequestLog(VecDeque<LoggedRequest>);

impl RequestLog {
    /// Adds `request` with a body of `length` bytes, which arrived at `at` and gets `wire`.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        appid: Option<Appid>,
        (request, length): (&Request, u64),
        wire: &Wire,
    ) {
        let (status, errcode) = said(wire);
        let (method, path) = (request.method.clone(), request.path.clone());
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(LoggedRequest { at, appid, method, path, status, errcode, length });
    }

    pub(super) fn wanted(&self, wanted: &Wanted) -> Vec<LoggedRequest> {
        let fits = |request: &&LoggedRequest| {
            let path = Request::plain(&request.path);
            wanted.appid.as_ref().is_none_or(|appid| request.appid.as_ref() == Some(appid))
                && wanted.path.as_ref().is_none_or(|pattern| Request::path_fits(&path, pattern))
                && wanted.since.is_none_or(|since| request.at > since)
        };
        self.0.iter().filter(fits).cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The status and the errcode that a client sees.
fn said(wire: &Wire) -> (Option<u16>, Option<i64>) {
    match wire {
        Wire::Answer(Answer { status, body, .. })
        | Wire::HalfAnswer { answer: Answer { status, body, .. }, .. } => (Some(*status), errcode(body)),
        Wire::Canned(canned) => (
            Some(canned.status),
            match &canned.body {
                CannedBody::Json(value) => value["errcode"].as_i64(),
                CannedBody::Text(text) => errcode(text.as_bytes()),
                CannedBody::Base64(bytes) => errcode(bytes),
                CannedBody::Size(_) | CannedBody::Echo => None,
            },
        ),
        Wire::Hang | Wire::Reset | Wire::Refuse => (None, None),
    }
}

fn errcode(body: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Said {
        errcode: i64,
    }
    serde_json::from_slice::<Said>(body).ok().map(|said| said.errcode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> Request {
        let (method, source_ip) = ("GET".to_owned(), [127, 0, 0, 1].into());
        let path = path.to_owned();
        Request { method, path, query: Vec::new(), content_length: None, body: Vec::new(), source_ip }
    }

    #[test]
    fn only_the_latest_requests_are_remembered() {
        let mut log = RequestLog::default();
        for number in 0..=CAPACITY {
            log.add(Timestamp::UNIX_EPOCH, None, (&request(&format!("/{number}")), 0), &Wire::Hang);
        }
        let all = log.wanted(&Wanted::default());
        assert_eq!((all.len(), &*all[0].path, &*all[CAPACITY - 1].path), (CAPACITY, "/1", "/10000"));
    }
}
