//! Property tests with generated files: every setting in a file arrives, and every mistake is reported at its
//! place.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use reqwest::Url;
use serde_json::{Map, Value, json};
use wxtokend_core::account::{Appid, Endpoint, RefreshAhead, Retry};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::TicketKind;

use super::checked::ApiConfig;
use super::{
    Allow, Client, Config, ConfigError, Defaults, Grants, PerAccount, Problem, StoreConfig, UpstreamConfig,
};

/// A part of every secret that occurs in no other value.
const CANARY: &str = "5ecre7canary";
const PATH: &str = "/etc/wxtokend/accounts.yaml";

/// A value as written in the file, and its meaning.
type Written<T> = (Value, T);
type MaybeTime = Option<Written<Duration>>;

fn duration() -> impl Strategy<Value = Written<Duration>> {
    let unit = prop::sample::select(vec![
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ]);
    (1_u64..400, unit).prop_map(|(number, (unit, ms))| {
        (json!(format!("{number}{unit}")), Duration::from_millis(number * ms))
    })
}

fn refresh_ahead() -> impl Strategy<Value = Written<RefreshAhead>> {
    let share = (1_u32..=500).prop_map(|tenths| {
        let percent = format!("{}.{}", tenths / 10, tenths % 10);
        (json!(format!("{percent}%")), RefreshAhead::Share(percent.parse::<f64>().unwrap() / 100.0))
    });
    prop_oneof![share, duration().prop_map(|(written, time)| (written, RefreshAhead::Fixed(time)))]
}

fn number(min: u32) -> impl Strategy<Value = Written<u32>> {
    prop_oneof![min..min + 5, min..=u32::MAX].prop_map(|number| (json!(number), number))
}

/// A human-readable label: anything on one line.
fn label() -> impl Strategy<Value = Written<String>> {
    "[a-z0-9花店茶馆:#'\"{}&*!|>%@`,?~-][a-z0-9 花店茶馆:#'\"{}&*!|>%@`,?~-]{0,11}[a-z花]"
        .prop_map(|text| (json!(text), text))
}

/// `defaults`, or the same keys on an account. A key that is left out inherits its value.
#[derive(Debug, Clone)]
struct Settings {
    endpoint: Option<Endpoint>,
    daily_budget: Option<Written<u32>>,
    refresh_ahead: Option<Written<RefreshAhead>>,
    /// `initial` and `max`; either may be left out.
    retry: Option<(MaybeTime, MaybeTime)>,
    verify_rejections: Option<bool>,
    rejection_cooldown: Option<Written<Duration>>,
    audit: Option<Written<Duration>>,
    check_budget: Option<Written<u32>>,
    tickets: Option<Vec<TicketKind>>,
}

fn settings() -> impl Strategy<Value = Settings> {
    let endpoint = prop::sample::select(vec![Endpoint::StableToken, Endpoint::Token]);
    let retry = (prop::option::of(duration()), prop::option::of(duration()));
    let all = (
        prop::option::of(endpoint),
        prop::option::of(number(4)),
        prop::option::of(refresh_ahead()),
        prop::option::of(retry),
        prop::option::of(any::<bool>()),
        prop::option::of(duration()),
        prop::option::of(prop_oneof![duration(), Just((json!("0s"), Duration::ZERO))]),
        prop::option::of(number(8)),
        prop::option::of(prop::sample::subsequence(TicketKind::ALL.to_vec(), 0..=TicketKind::ALL.len())),
    );
    all.prop_map(|all| {
        let (endpoint, daily_budget, refresh_ahead, retry, verify, cooldown, audit, check_budget, tickets) =
            all;
        Settings {
            endpoint,
            daily_budget,
            refresh_ahead,
            retry,
            verify_rejections: verify,
            rejection_cooldown: cooldown,
            audit,
            check_budget,
            tickets,
        }
    })
}

impl Settings {
    /// Writes the settings into `mapping` and returns `base` with them applied. A retry whose `initial` would
    /// exceed `max` is left out.
    fn insert_into(&self, mapping: &mut Map<String, Value>, base: Defaults) -> Defaults {
        let mut resolved = base;
        let mut insert_into = |key: &str, value: Value| drop(mapping.insert(key.to_owned(), value));
        if let Some(endpoint) = self.endpoint {
            insert_into("endpoint", json!(endpoint.as_str()));
            resolved.endpoint = endpoint;
        }
        if let Some((written, budget)) = &self.daily_budget {
            insert_into("daily_budget", written.clone());
            resolved.daily_budget = *budget;
        }
        if let Some((written, refresh_ahead)) = &self.refresh_ahead {
            insert_into("refresh_ahead", written.clone());
            resolved.refresh_ahead = *refresh_ahead;
        }
        if let Some((initial, max)) = &self.retry {
            let of = |written: &MaybeTime, base| written.as_ref().map_or(base, |(_, time)| *time);
            let retry = Retry { initial: of(initial, base.retry.initial), max: of(max, base.retry.max) };
            if retry.initial <= retry.max {
                let written = [("initial", initial), ("max", max)];
                let written = written
                    .into_iter()
                    .filter_map(|(key, written)| Some((key.to_owned(), written.as_ref()?.0.clone())));
                insert_into("retry", Value::Object(written.collect()));
                resolved.retry = retry;
            }
        }
        if let Some(verify) = self.verify_rejections {
            insert_into("verify_rejections", json!(verify));
            resolved.verify_rejections = verify;
        }
        if let Some((written, cooldown)) = &self.rejection_cooldown {
            insert_into("rejection_cooldown", written.clone());
            resolved.rejection_cooldown = *cooldown;
        }
        if let Some((written, audit)) = &self.audit {
            insert_into("audit", written.clone());
            resolved.audit = *audit;
        }
        if let Some((written, budget)) = &self.check_budget {
            insert_into("check_budget", written.clone());
            resolved.check_budget = *budget;
        }
        if let Some(kinds) = &self.tickets {
            insert_into("tickets", json!(kinds));
            resolved.tickets = kinds.iter().copied().collect();
        }
        resolved
    }
}

type AccountParts = (Option<Written<String>>, Vec<usize>, Settings);
type ClientParts = (Vec<usize>, Vec<usize>);
type UpstreamParts = (
    Option<Written<Duration>>,
    Option<Written<Duration>>,
    Option<Written<u32>>,
    Option<Written<u32>>,
    Vec<usize>,
);

const TAGS: [&str; 3] = ["retail", "花店", "x y"];
const SCOPES: [&str; 5] = ["read", "refresh", "admin", "sign", "call"];
const URLS: [&str; 3] = ["https://api.weixin.qq.com/", "http://127.0.0.1:8080/wx/", "https://[::1]/"];

fn some_of(max: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..max, 0..=max)
}

/// A valid file and its meaning.
fn file() -> impl Strategy<Value = (Value, Config)> {
    let account = (prop::option::of(label()), some_of(TAGS.len()), settings());
    let client = (some_of(4), some_of(SCOPES.len()));
    let upstream = (
        prop::option::of(duration()),
        prop::option::of(duration()),
        prop::option::of(number(1)),
        prop::option::of(number(1)),
        some_of(URLS.len()),
    );
    let parts = (
        prop::collection::vec(account, 1..6),
        prop::collection::vec(client, 0..4),
        settings(),
        upstream,
        (any::<bool>(), prop::option::of(1_u16..), prop::option::of(per_account()), any::<bool>()),
    );
    parts.prop_map(|(accounts, clients, defaults, upstream, rest)| {
        build_file(&accounts, &clients, &defaults, upstream, rest)
    })
}

fn per_account() -> impl Strategy<Value = PerAccount> {
    prop::sample::select(vec![PerAccount::All, PerAccount::Troubled, PerAccount::None])
}

fn build_file(
    accounts: &[AccountParts],
    clients: &[ClientParts],
    defaults: &Settings,
    (timeout, overlap, in_flight, per_second, urls): UpstreamParts,
    (open, metrics_port, per_account, store): (bool, Option<u16>, Option<PerAccount>, bool),
) -> (Value, Config) {
    let mut written =
        json!({ "api": {}, "metrics": {}, "store": {}, "upstream": {}, "defaults": {}, "accounts": [] });
    let mut config = Config::new([]);
    config.path = PATH.into();
    config.store = StoreConfig { path: "/etc/wxtokend/wxtokend.redb".into() };
    if store {
        written["store"]["path"] = json!("data/w.redb");
        config.store.path = "/etc/wxtokend/data/w.redb".into();
    }
    if let Some(port) = metrics_port {
        written["metrics"]["listen"] = json!(format!("0.0.0.0:{port}"));
        config.metrics.listen = Some(SocketAddr::from(([0, 0, 0, 0], port)));
    }
    if let Some(accounts) = per_account {
        written["metrics"]["per_account"] = json!(accounts.as_str());
        config.metrics.per_account = accounts;
    }
    let UpstreamConfig { base_urls, .. } = UpstreamConfig::default();
    let distinct: BTreeSet<_> = urls.into_iter().collect();
    let urls: Vec<Url> = distinct.iter().map(|index| Url::parse(URLS[*index]).unwrap()).collect();
    if !urls.is_empty() {
        // A missing slash at the end is added by the parser.
        let listed = urls.iter().map(|url| json!(url.as_str().trim_end_matches('/')));
        written["upstream"]["base_urls"] = listed.collect();
    }
    config.upstream.base_urls = if urls.is_empty() { base_urls } else { urls };
    for (key, time, place) in [
        ("timeout", timeout, &mut config.upstream.timeout),
        ("overlap", overlap, &mut config.upstream.overlap),
    ] {
        if let Some((json_value, time)) = time {
            written["upstream"][key] = json_value;
            *place = time;
        }
    }
    for (key, number, place) in [
        ("max_in_flight", in_flight, &mut config.upstream.max_in_flight),
        ("max_per_second", per_second, &mut config.upstream.max_per_second),
    ] {
        if let Some((json_value, number)) = number {
            written["upstream"][key] = json_value;
            *place = number;
        }
    }
    let defaults = defaults.insert_into(written["defaults"].as_object_mut().unwrap(), Defaults::default());
    for (index, (name, tags, own)) in accounts.iter().enumerate() {
        let (appid, secret) = (format!("wx{index}"), format!("{CANARY}-{index}"));
        let mut mapping = Map::new();
        mapping.insert("appid".to_owned(), json!(appid));
        mapping.insert("secret".to_owned(), json!(secret));
        let resolved = own.insert_into(&mut mapping, defaults);
        let mut account = resolved.account(Appid::new(&appid).unwrap(), Secret::new(secret));
        if let Some((json_value, name)) = name {
            mapping.insert("name".to_owned(), json_value.clone());
            account.name.clone_from(name);
        }
        if !tags.is_empty() {
            mapping.insert("tags".to_owned(), tags.iter().map(|tag| TAGS[*tag]).collect());
            for tag in tags.iter().map(|tag| TAGS[*tag]) {
                if !account.tags.iter().any(|has| has == tag) {
                    account.tags.push(tag.to_owned());
                }
            }
        }
        written["accounts"].as_array_mut().unwrap().push(Value::Object(mapping));
        config.accounts.push(account.into());
    }
    for (index, (grants, scopes)) in clients.iter().enumerate() {
        let all = ["*", "wx?", "tag:retail", "wx0"];
        let mut grants: Vec<&str> = grants.iter().map(|grant| all[*grant]).collect();
        if grants.is_empty() {
            grants.push("*");
        }
        let (name, key) = (format!("client {index}"), format!("{CANARY}-key-{index}"));
        let mut client = json!({ "name": name, "key": key, "accounts": grants });
        let mut allow = Allow::default();
        if !scopes.is_empty() {
            let has = |scope: usize| scopes.contains(&scope);
            allow = Allow { read: has(0), refresh: has(1), admin: has(2), sign: has(3), call: has(4) };
            client["allow"] = scopes.iter().map(|scope| SCOPES[*scope]).collect();
        }
        if written["api"]["clients"].is_null() {
            written["api"]["clients"] = json!([]);
        }
        written["api"]["clients"].as_array_mut().unwrap().push(client);
        config.api.clients.push(Client {
            name,
            key_sha256: Secret::new(key).sha256(),
            accounts: Grants::new(grants).unwrap(),
            allow,
            urls: Vec::new(),
            paths: Vec::new(),
            promise_at_most: None,
        });
    }
    if open && !clients.is_empty() {
        written["api"]["listen"] = json!("0.0.0.0:80");
        written["api"]["wechat_path"] = json!("/wx");
        config.api = ApiConfig {
            listen: SocketAddr::from(([0, 0, 0, 0], 80)),
            wechat_path: "/wx".to_owned(),
            trusted_proxies: Vec::new(),
            ..config.api
        };
    }
    (written, config)
}

/// Writes `value` as hand-written YAML: one key per line, strings in quotes.
fn yaml(value: &Value, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(mapping) if !mapping.is_empty() => {
            for (key, value) in mapping {
                write!(text, "\n{margin}{key}:").unwrap();
                yaml(value, indent + 2, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                write!(text, "\n{margin}-").unwrap();
                yaml(item, indent + 2, text);
            }
        }
        Value::String(written) => write!(text, " '{}'", written.replace('\'', "''")).unwrap(),
        other => write!(text, " {other}").unwrap(),
    }
}

fn as_yaml(value: &Value) -> String {
    let mut text = "# Ours.".to_owned();
    yaml(value, 0, &mut text);
    text + "\n"
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(PATH), |_| None)
}

/// A change that breaks a valid file, and the place where the problem must be reported.
#[derive(Debug, Clone)]
struct Corruption {
    /// Path of the mapping to change.
    mapping: Vec<String>,
    /// The key in it.
    key: &'static str,
    /// The new value; `None` removes the key.
    new_value: Option<Value>,
    /// The part of the reported place after the key.
    suffix: &'static str,
}

fn corrupt(mapping: &str, key: &'static str, new_value: Value) -> Corruption {
    let mapping = mapping.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    Corruption { mapping, key, new_value: Some(new_value), suffix: "" }
}

impl Corruption {
    fn reported_below(self, suffix: &'static str) -> Self {
        Self { suffix, ..self }
    }

    fn place(&self) -> String {
        let above: String = self.mapping.iter().map(|part| format!("{part}.")).collect();
        format!("{above}{}{}", self.key, self.suffix)
    }

    fn apply(&self, file: &mut Value) {
        let mut at = file;
        for part in &self.mapping {
            let (name, index) = part.split_once('[').map_or((part.as_str(), None), |(name, index)| {
                (name, index.trim_end_matches(']').parse::<usize>().ok())
            });
            at = &mut at[name];
            if let Some(index) = index {
                at = &mut at[index];
            }
        }
        let mapping = at.as_object_mut().unwrap();
        match &self.new_value {
            Some(value) => drop(mapping.insert(self.key.to_owned(), value.clone())),
            None => drop(mapping.remove(self.key)),
        }
    }
}

/// Every single mistake that is possible in a file with this many accounts and clients.
fn corruptions(accounts: usize, clients: usize) -> Vec<Corruption> {
    let mut all = vec![
        corrupt("", "acounts", json!([])),
        corrupt("api", "listen", json!("nowhere")),
        corrupt("metrics", "listen", json!("127.0.0.1")),
        corrupt("metrics", "per_account", json!("some")),
        corrupt("store", "path", json!("")),
        corrupt("upstream", "base_urls", json!(["https://a.example", "http://b.example"]))
            .reported_below("[1]"),
        corrupt("upstream", "timeout", json!("0s")),
        corrupt("upstream", "overlap", json!({})),
        corrupt("upstream", "max_in_flight", json!(0)),
        corrupt("upstream", "max_per_second", json!("many")),
        corrupt("upstream", "proxy", json!("x")),
        corrupt("defaults", "endpoint", json!("stable")),
        corrupt("defaults", "daily_budget", json!(-1)),
        corrupt("defaults", "refresh_ahead", json!("0%")),
        corrupt("defaults", "verify_rejections", json!("no")),
        corrupt("defaults", "secret", json!("s")),
    ];
    for index in 0..accounts {
        let at = format!("accounts[{index}]");
        all.extend([
            corrupt(&at, "appid", json!("wx 1")),
            corrupt(&at, "name", json!("")),
            corrupt(&at, "secret", json!("")),
            Corruption { new_value: None, ..corrupt(&at, "secret", json!("")) },
            corrupt(&at, "secret_file", json!("secrets/one")),
            corrupt(&at, "tags", json!("retail")),
            corrupt(&at, "tags", json!(["retail", ["x"]])).reported_below("[1]"),
            corrupt(&at, "endpoint", json!("stabletoken")),
            corrupt(&at, "daily_budget", json!(3)),
            corrupt(&at, "refresh_ahead", json!("51%")),
            corrupt(&at, "retry", json!({ "initial": "2s", "max": "1s" })),
            corrupt(&at, "retry", json!({ "initial": "soon" })).reported_below(".initial"),
            corrupt(&at, "retry", json!({ "max": 5 })).reported_below(".max"),
            corrupt(&at, "retry", json!({ "least": "1s" })).reported_below(".least"),
            corrupt(&at, "verify_rejections", json!("yes")),
            corrupt(&at, "rejection_cooldown", json!(5)),
            corrupt(&at, "audit", json!(0)),
            corrupt(&at, "check_budget", json!(7)),
            corrupt(&at, "budget", json!(5)),
        ]);
        if index > 0 {
            all.push(corrupt(&at, "appid", json!("wx0")));
        }
    }
    for index in 0..clients {
        let at = format!("api.clients[{index}]");
        all.extend([
            Corruption { new_value: None, ..corrupt(&at, "name", json!("")) },
            corrupt(&at, "key", json!("")),
            corrupt(&at, "key_sha256", json!("00")),
            corrupt(&at, "accounts", json!([])),
            corrupt(&at, "accounts", json!(["wx0", "tag:"])).reported_below("[1]"),
            corrupt(&at, "allow", json!(["read", "write"])).reported_below("[1]"),
            corrupt(&at, "scopes", json!(["read"])),
        ]);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_is_said_in_a_file_arrives_and_what_is_left_out_is_inherited((written, expected) in file()) {
        let text = as_yaml(&written);
        let config = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        // The generated secrets and appids cause warnings.
        let warnings = config.warnings.clone();
        let expected = Config { warnings: warnings.clone(), ..expected };
        prop_assert_eq!(&config, &expected, "{}", text);
        // JSON is YAML.
        let json = parse(&written.to_string()).unwrap();
        prop_assert_eq!(Config { warnings, ..json }, expected);
        let shown = format!("{}{config:?}", config.summary());
        prop_assert!(!shown.contains(CANARY), "{}", shown);
    }

    #[test]
    fn all_problems_are_reported_in_one_run_each_at_its_place_and_without_secrets(
        (written, config) in file(),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let all = corruptions(config.accounts.len(), config.api.clients.len());
        let mut keys = BTreeSet::new();
        let mut broken = written;
        let mut expected = Vec::new();
        for corruption in chosen.iter().map(|index| index.get(&all)) {
            // Make only one of several mistakes that interact: the ways to give a secret, and equal appids.
            let group = match corruption.key {
                key if key.starts_with("secret") => "secret",
                key if key.starts_with("key") => "key",
                key => key,
            };
            let mapping = if group == "appid" { Vec::new() } else { corruption.mapping.clone() };
            if keys.insert((mapping, group)) {
                corruption.apply(&mut broken);
                expected.push(corruption.place());
            }
        }
        let text = as_yaml(&broken);
        let Err(ConfigError::Problems { problems, path, warnings }) = parse(&text) else {
            return Err(TestCaseError::fail(format!("{expected:?} went unnoticed in\n{text}")));
        };
        let mut reported: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
        reported.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(reported, expected, "{}", text);
        let lines = text.lines().count();
        for Problem { position, key, .. } in &problems {
            prop_assert!(position.is_some_and(|at| at.line <= lines), "{key} without a line");
        }
        let error = ConfigError::Problems { problems, path, warnings };
        let written = format!("{error} {error:?}");
        prop_assert!(!written.contains(CANARY), "{}", written);
        prop_assert!(written.starts_with(PATH));
    }
}

#[test]
fn each_single_mistake_is_reported_at_its_place_and_line() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = file()
        .prop_filter("with clients", |(_, config)| config.accounts.len() > 1 && config.api.clients.len() > 1);
    let (written, config) = prop::strategy::ValueTree::current(&tree.new_tree(&mut runner).unwrap());
    for corruption in corruptions(config.accounts.len(), config.api.clients.len()) {
        let mut broken = written.clone();
        corruption.apply(&mut broken);
        let text = as_yaml(&broken);
        let Err(ConfigError::Problems { problems, .. }) = parse(&text) else { panic!("{corruption:?}") };
        let [problem] = &problems[..] else { panic!("{corruption:?}: {problems:?}") };
        assert_eq!(problem.key, corruption.place());
        let line = text.lines().nth(problem.position.unwrap().line - 1).unwrap();
        // A missing key is reported where its mapping begins.
        assert!(
            corruption.new_value.is_none() || line.contains(corruption.key) || !corruption.suffix.is_empty(),
            "{line}"
        );
    }
}
