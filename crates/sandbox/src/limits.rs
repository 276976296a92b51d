//! Daily limits of calls with a token, beyond which WeChat answers 45009.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wxtokend_core::account::Appid;

use super::account_record::Quota;
use super::wire::Request;

/// How many calls an account may make in a day of WeChat's at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLimit {
    /// The path, or with a trailing `*` a prefix of paths, whose calls count together.
    pub path: String,
    /// The calls per day; those that are refused for their token or for this do not count.
    pub per_day: u32,
}

/// A limit with what was used of it.
#[derive(Debug, Serialize)]
pub(super) struct LimitUse<'a> {
    #[serde(flatten)]
    limit: &'a CallLimit,
    used: BTreeMap<&'a Appid, u32>,
}

#[derive(Debug)]
struct Limited {
    /// `None` for each account.
    account: Option<Appid>,
    limit: CallLimit,
    used: BTreeMap<Appid, Quota>,
}

impl Limited {
    fn fits(&self, appid: &Appid, path: &str) -> bool {
        self.account.as_ref().is_none_or(|account| account == appid)
            && Request::path_fits(path, &self.limit.path)
    }

    fn used(&self, appid: &Appid, day: u64) -> u32 {
        self.used.get(appid).map_or(0, |quota| quota.used(day))
    }
}

/// All limits.
#[derive(Debug, Default)]
pub(super) struct Limits(Vec<Limited>);

impl Limits {
    /// Limits the calls of one account, or of each, in place of an earlier limit for the same path.
    pub(super) fn put(&mut self, account: Option<&Appid>, limit: CallLimit) {
        let account = account.cloned();
        self.0.retain(|earlier| earlier.account != account || earlier.limit.path != limit.path);
        self.0.push(Limited { account, limit, used: BTreeMap::new() });
    }

    /// Removes the limits of one account, or those of each.
    pub(super) fn remove(&mut self, account: Option<&Appid>) {
        self.0.retain(|limited| limited.account.as_ref() != account);
    }

    /// Returns the limits of one account, or those of each, and what was used of them on `day`.
    pub(super) fn list(&self, account: Option<&Appid>, day: u64) -> Vec<LimitUse<'_>> {
        let own = self.0.iter().filter(|limited| limited.account.as_ref() == account);
        own.map(|limited| LimitUse {
            limit: &limited.limit,
            used: limited.used.iter().map(|(appid, quota)| (appid, quota.used(day))).collect(),
        })
        .collect()
    }

    /// Counts a call on `day` and returns true, or returns false if a limit is reached.
    pub(super) fn admit(&mut self, appid: &Appid, path: &str, day: u64) -> bool {
        let mut fitting: Vec<_> = self.0.iter_mut().filter(|limited| limited.fits(appid, path)).collect();
        let admitted = fitting.iter().all(|limited| limited.used(appid, day) < limited.limit.per_day);
        if admitted {
            fitting.iter_mut().for_each(|limited| limited.used.entry(appid.clone()).or_default().charge(day));
        }
        admitted
    }

    /// Returns the limit that leaves the fewest calls at `path`, and what was used of it on `day`.
    pub(super) fn tightest(&self, appid: &Appid, path: &str, day: u64) -> Option<(u32, u32)> {
        let fitting = self.0.iter().filter(|limited| limited.fits(appid, path));
        let states = fitting.map(|limited| (limited.limit.per_day, limited.used(appid, day)));
        states.min_by_key(|(per_day, used)| per_day.saturating_sub(*used))
    }

    /// Gives one account, or each, all its calls back.
    pub(super) fn clear_used(&mut self, account: Option<&Appid>) {
        for limited in &mut self.0 {
            match account {
                Some(appid) => drop(limited.used.remove(appid)),
                None => limited.used.clear(),
            }
        }
    }
}
