//! Rules of settings, however they are made: from a file or in Rust.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::Url;
use wxtokend_core::account::{Account, RefreshAhead};

use super::checked::Config;
use super::duration::MAX;
use super::problem::InvalidSetting;

impl Config {
    /// Checks what a file's checks hold for its settings, for settings that were built in Rust.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub(crate) fn require_valid(&self) -> Result<(), InvalidSetting> {
        let invalid = |key: &str, what| Err(InvalidSetting { key: key.to_owned(), what });
        let upstream = &self.upstream;
        if upstream.base_urls.is_empty() {
            return invalid("upstream.base_urls", "is empty");
        }
        for url in &upstream.base_urls {
            if let Some(what) = problem_of_url(url) {
                return invalid("upstream.base_urls", what);
            }
        }
        for (key, time) in [
            ("upstream.timeout", upstream.timeout),
            ("upstream.overlap", upstream.overlap),
            ("proxy.stale", self.proxy.stale),
        ] {
            if let Some(what) = problem_of_time(time) {
                return invalid(key, what);
            }
        }
        if upstream.max_in_flight == 0 || upstream.max_per_second == 0 {
            return invalid("upstream.max_in_flight or max_per_second", "is 0");
        }
        self.accounts.iter().try_for_each(|account| match problem_of_account(account) {
            Some((key, what)) => invalid(&format!("{key} of {}", account.appid), what),
            None => Ok(()),
        })
    }

    /// Ends the path of each base URL in a slash, and keeps, of accounts with the same appid, the last.
    pub(crate) fn normalize(&mut self) {
        self.upstream.base_urls.iter_mut().for_each(end_in_slash);
        let mut known = HashSet::with_capacity(self.accounts.len());
        let mut last: Vec<_> = self.accounts.drain(..).rev().collect();
        last.retain(|account| known.insert(account.appid.clone()));
        last.reverse();
        self.accounts = last;
    }
}

fn problem_of_account(account: &Account) -> Option<(&'static str, &'static str)> {
    let settings = &account.settings;
    let (budget, retry) = (settings.daily_budget, settings.retry);
    let ahead = match settings.refresh_ahead {
        RefreshAhead::Share(share) if share > 0.0 && share <= 0.5 => None,
        RefreshAhead::Share(_) => Some("is no share above 0 and up to 0.5"),
        RefreshAhead::Fixed(time) => problem_of_time(time),
    };
    let retry = problem_of_time(retry.initial)
        .or_else(|| problem_of_time(retry.max))
        .or_else(|| (retry.initial > retry.max).then_some("has an initial wait that is longer than its max"));
    [
        ("secret", account.secret.expose().is_empty().then_some("is empty")),
        ("daily_budget", (budget < 4).then_some("is less than 4")),
        ("refresh_ahead", ahead),
        ("retry", retry),
        ("rejection_cooldown", problem_of_time(settings.rejection_cooldown)),
        ("audit", if settings.audit.is_zero() { None } else { problem_of_time(settings.audit) }),
        ("check_budget", (settings.check_budget < 8).then_some("is less than 8")),
    ]
    .into_iter()
    .find_map(|(key, what)| Some((key, what?)))
}

fn problem_of_time(time: Duration) -> Option<&'static str> {
    match time {
        Duration::ZERO => Some("is 0"),
        time if time > MAX => Some("is longer than 100 years"),
        _ => None,
    }
}

/// What is wrong with a base URL of WeChat's API.
pub(super) fn problem_of_url(url: &Url) -> Option<&'static str> {
    match url.scheme() {
        "https" | "http" if !url.username().is_empty() || url.password().is_some() => {
            Some("must not hold credentials")
        }
        "https" | "http" if url.query().is_some() || url.fragment().is_some() => {
            Some("must not have a query or a fragment")
        }
        "http" if !is_loopback(url) => Some("must be https://; http:// only on a loopback address"),
        "https" | "http" => None,
        _ => Some("must be an https:// URL"),
    }
}

/// Ends the path of `url` in a slash, so that [`Url::join`] appends to it.
pub(super) fn end_in_slash(url: &mut Url) {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use wxtokend_core::account::{AccountSettings, Appid, Retry};
    use wxtokend_core::secret::Secret;

    use super::*;

    fn account() -> Account {
        Account::new(Appid::new("wx1").unwrap(), Secret::new("hunter2"))
    }

    fn problem(change: impl FnOnce(&mut Config)) -> Option<String> {
        let mut config = Config::new([account()]);
        change(&mut config);
        config.require_valid().err().map(|invalid| invalid.to_string())
    }

    fn problem_with(change: impl FnOnce(&mut AccountSettings)) -> Option<String> {
        problem(|config| config.accounts = vec![account().with(change).into()])
    }

    fn with_url(text: &str) -> Option<String> {
        problem(|config| config.upstream.base_urls = vec![text.parse().unwrap()])
    }

    #[test]
    fn settings_built_in_rust_are_held_to_the_rules_of_a_file() {
        assert_eq!(problem(|_| {}), None);
        for good in ["https://h/", "https://h/wx/", "http://127.0.0.1:1/", "http://localhost/"] {
            assert_eq!(with_url(good), None, "{good}");
        }
        for bad in ["http://h/", "https://u:hunter2@h/", "https://h/?a", "https://h/#a", "ftp://h/"] {
            let found = with_url(bad).unwrap_or_default();
            assert!(
                found.starts_with("upstream.base_urls must ") && !found.contains("hunter2"),
                "{bad}: {found}"
            );
        }
        assert_eq!(
            problem(|config| config.upstream.base_urls.clear()).unwrap(),
            "upstream.base_urls is empty"
        );
        let timeout = |time| problem(|config| config.upstream.timeout = time).unwrap_or_default();
        assert_eq!(timeout(Duration::ZERO), "upstream.timeout is 0");
        assert_eq!(timeout(Duration::MAX), "upstream.timeout is longer than 100 years");
        assert_eq!(problem(|config| config.proxy.stale = Duration::ZERO).unwrap(), "proxy.stale is 0");
        assert!(problem(|config| config.upstream.max_in_flight = 0).is_some());
        assert!(problem(|config| config.upstream.max_per_second = 0).is_some());
        for share in [0.0, -0.25, 25.0, f64::NAN, f64::INFINITY] {
            let found = problem_with(|settings| settings.refresh_ahead = RefreshAhead::Share(share));
            assert_eq!(found.unwrap(), "refresh_ahead of wx1 is no share above 0 and up to 0.5", "{share}");
        }
        assert!(problem_with(|settings| settings.daily_budget = 3).is_some());
        assert!(problem_with(|settings| settings.rejection_cooldown = Duration::ZERO).is_some());
        assert!(problem_with(|settings| settings.check_budget = 7).is_some());
        assert_eq!(problem_with(|settings| settings.audit = Duration::ZERO), None);
        assert!(problem_with(|settings| settings.audit = Duration::MAX).is_some());
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(problem_with(|settings| settings.retry = Retry { initial: short, max: long }), None);
        assert!(problem_with(|settings| settings.retry = Retry { initial: long, max: short }).is_some());
        let nameless = Account { secret: Secret::new(""), ..account() };
        assert!(problem(|config| config.accounts = vec![nameless.into()]).is_some());
    }

    #[test]
    fn of_accounts_with_one_appid_the_last_counts_and_paths_end_in_a_slash() {
        let other = Account::new(Appid::new("wx2").unwrap(), Secret::new("hunter2"));
        let last = account().with(|settings| settings.daily_budget = 7);
        let mut config = Config::new([account(), other.clone(), last.clone()]);
        config.upstream.base_urls = vec!["https://h/wx".parse().unwrap()];
        config.normalize();
        assert_eq!(config.upstream.base_urls[0].as_str(), "https://h/wx/");
        assert_eq!(config.accounts, [other, last].map(Into::into));
    }
}
