//! Target: `accounts.yaml`, in whatever state an editor, a template or haste has left it.
//!
//! Secrets are planted: the word `PLANTED` in the text stands for one, and variables and a file hold others.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use wxtokend::{Config, ConfigError};
use wxtokend_core::account::RefreshAhead;

/// As long as an AppSecret.
const IN_TEXT: &str = "5ec2e70000000000000000000000text";
const IN_VARIABLE: &str = "5ec2e70000000000000000000000env0";
const IN_FILE: &str = "5ec2e70000000000000000000000file";
const HUNDRED_YEARS: Duration = Duration::from_secs(36_500 * 86_400);

/// Problems with a file as a whole, which have no position.
const WITHOUT_POSITION: [&str; 6] = [
    "is empty",
    "must be a mapping",
    "not YAML: deserializing from YAML containing more than one document",
    "cannot be read here: too many levels or aliases",
    "must not be a tagged value",
    "not YAML that can be read here: too many [ or { are open at once",
];

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// Parses `input` as the file.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let text = text.replace("PLANTED", IN_TEXT);
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("planted"), IN_FILE).expect("a file");
            std::fs::write(folder.path().join("empty"), "\n").expect("a file");
            folder
        });
        read(&text, &folder.path().join("accounts.yaml"));
    });
}

fn read(text: &str, path: &Path) {
    let env = |name: &str| match name {
        "PLANTED_KEY" => Some(OsString::from(IN_VARIABLE)),
        "OTHER" => Some(OsString::from("other")),
        "EMPTY" => Some(OsString::new()),
        _ => None,
    };
    match Config::parse(text, path, env) {
        Ok(config) => {
            is_valid(&config);
            is_shown_without_secrets(&config);
            let again = Config::parse(text, path, env).expect("what was taken once is taken again");
            assert!(again == config, "the same text means the same");
        }
        Err(error) => says_where_and_shows_no_secret(&error),
    }
}

fn is_valid(config: &Config) {
    let alone = config.api.clients.is_empty();
    assert!(!alone || config.api.listen.ip().to_canonical().is_loopback(), "open to everybody");
    let names: HashSet<_> = config.api.clients.iter().map(|client| &client.name).collect();
    let keys: HashSet<_> = config.api.clients.iter().map(|client| client.key_sha256).collect();
    assert_eq!((names.len(), keys.len()), (config.api.clients.len(), config.api.clients.len()));
    for client in &config.api.clients {
        assert!(is_label(&client.name) && client.accounts.entries().next().is_some());
    }

    let upstream = &config.upstream;
    assert!(!upstream.base_urls.is_empty());
    for url in &upstream.base_urls {
        assert!(url.path().ends_with('/') && url.query().is_none() && url.fragment().is_none(), "{url}");
        assert!(url.username().is_empty() && url.password().is_none(), "a URL with credentials");
        let host = url.host_str().unwrap_or_default();
        let local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        assert!(url.scheme() == "https" || url.scheme() == "http" && local, "{url}");
    }
    for time in [upstream.timeout, upstream.overlap] {
        is_time(time);
    }
    assert!(upstream.max_in_flight >= 1 && upstream.max_per_second >= 1);

    let names: HashSet<_> = config.publish.iter().map(|sink| &sink.name).collect();
    assert_eq!(names.len(), config.publish.len(), "two sinks have one name");
    for sink in &config.publish {
        assert!(is_label(&sink.name) && sink.accounts.entries().next().is_some());
        let address = sink.address();
        assert!(address.starts_with("redis://") || address.starts_with("rediss://"), "{address}");
        assert!(!address.contains('@'), "an address with credentials");
    }

    assert!((1..=100_000).contains(&config.accounts.len()));
    let appids: HashSet<_> = config.accounts.iter().map(|account| account.appid.as_str()).collect();
    assert_eq!(appids.len(), config.accounts.len(), "an appid stands there twice");
    for account in &config.accounts {
        let appid = account.appid.as_str();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        assert!((1..=64).contains(&appid.len()) && appid.bytes().all(allowed), "{appid:?}");
        assert!(is_label(&account.name) && account.tags.iter().all(|tag| is_label(tag)));
        assert!(!account.secret.expose().is_empty(), "an empty secret");
        assert!(account.settings.daily_budget >= 4);
        match account.settings.refresh_ahead {
            RefreshAhead::Share(share) => assert!(share > 0.0 && share <= 0.5, "{share}"),
            RefreshAhead::Fixed(time) => is_time(time),
        }
        for time in
            [account.settings.retry.initial, account.settings.retry.max, account.settings.rejection_cooldown]
        {
            is_time(time);
        }
        assert!(account.settings.retry.initial <= account.settings.retry.max);
    }
}

fn is_time(time: Duration) {
    assert!(time > Duration::ZERO && time <= HUNDRED_YEARS, "{time:?}");
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

fn is_shown_without_secrets(config: &Config) {
    let shown = config.summary() + &format!("{config:?}");
    // A secret that is used as an account's name was disclosed by the file itself.
    let mut named = config.store.path.display().to_string();
    for client in &config.api.clients {
        named =
            client.accounts.entries().fold(named + "\n" + &client.name, |named, entry| named + "\n" + &entry);
    }
    for sink in &config.publish {
        named += &format!("\n{}\n{}\n{:?}\n{:?}", sink.name, sink.address(), sink.layout, sink.accounts);
    }
    for account in &config.accounts {
        named = account.tags.iter().fold(named, |named, tag| named + "\n" + tag);
        named = named + "\n" + &account.name + "\n" + account.appid.as_str();
    }
    named = config.upstream.base_urls.iter().fold(named, |named, url| named + "\n" + url.as_str());
    for planted in [IN_TEXT, IN_VARIABLE, IN_FILE] {
        assert!(named.contains(planted) || !shown.contains(planted), "a secret is shown");
    }
}

fn says_where_and_shows_no_secret(error: &ConfigError) {
    let ConfigError::Problems { problems, .. } = error else { panic!("a text is readable") };
    assert!(!problems.is_empty(), "refused without a reason");
    for problem in problems {
        assert!(!problem.what.is_empty());
        let has_no_position = WITHOUT_POSITION.iter().any(|what| problem.what.starts_with(what));
        assert!(
            !problem.key.is_empty() || problem.position.is_some() || has_no_position,
            "nowhere: {problem}"
        );
        if let Some(at) = problem.position {
            assert!(at.line >= 1 && at.column >= 1, "{problem}");
        }
    }
    let shown = format!("{error} {error:?}");
    for planted in [IN_TEXT, IN_VARIABLE, IN_FILE] {
        assert!(!shown.contains(planted), "a problem tells a secret");
    }
}
