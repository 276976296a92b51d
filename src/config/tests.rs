//! The example file, the table of settings, the defaults, and secrets that no text may show.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use proptest::prelude::*;
use wxtokend_core::account::{Account, AccountSettings, Endpoint, RefreshAhead};
use wxtokend_core::reference::setting::{DefaultValue, Setting};
use wxtokend_core::reference::settings::{SECTIONS, Section};
use wxtokend_core::ticket::TicketKind;

use super::{Allow, Config, ConfigError, Defaults, PerAccount, StoreConfig, UpstreamConfig};
use crate::config::yaml::file;

const EXAMPLE: &str = include_str!("../../accounts.example.yaml");
const MINIMAL: &str = "accounts: [{ appid: wx1, secret: s }]";

fn no_env(_: &str) -> Option<OsString> {
    None
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/wxtokend/accounts.yaml"), no_env)
}

#[test]
fn the_example_loads_as_it_is_and_shows_variety() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.accounts.len(), 6);
    assert!(config.api.clients.is_empty());
    let endpoints: BTreeSet<_> =
        config.accounts.iter().map(|account| account.settings.endpoint.as_str()).collect();
    assert_eq!(endpoints.len(), 2);
    let tea = config.accounts.iter().find(|account| account.name.contains("茶馆")).unwrap();
    assert_eq!(
        (tea.settings.daily_budget, tea.settings.retry.initial.as_secs(), tea.settings.retry.max.as_secs()),
        (1000, 2, 300)
    );
}

#[test]
fn the_example_is_warned_of_its_made_up_secrets_only() {
    let config = Config::parse(EXAMPLE, Path::new("accounts.yaml"), no_env).unwrap();
    let reported: Vec<_> =
        config.warnings.iter().map(|warning| (warning.key.as_str(), warning.what.as_str())).collect();
    let keys: Vec<_> = (0..6).map(|index| format!("accounts[{index}].secret")).collect();
    let expected: Vec<_> =
        keys.iter().map(|key| (key.as_str(), "is not 32 hex digits, as WeChat's AppSecrets are")).collect();
    assert_eq!(reported, expected);
}

#[test]
fn the_commented_out_parts_of_the_example_work() {
    let clients: String = EXAMPLE
        .lines()
        .skip_while(|line| *line != "  # clients:")
        .take_while(|line| line.starts_with("  #"))
        .map(|line| line.replacen("# ", "", 1) + "\n")
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("shop");
    std::fs::write(&key_file, "shop-key\n").unwrap();
    let clients = clients.replace("/run/secrets/shop", key_file.to_str().unwrap());
    let text = EXAMPLE.replace("  clients: []\n", &clients);
    let env = |name: &str| ["CRM_KEY", "NEWSLETTER_KEY"].contains(&name).then(|| OsString::from(name));
    let config = Config::parse(&text, Path::new("accounts.yaml"), env).unwrap();
    let [crm, shop, newsletter, reports] = &config.api.clients[..] else {
        panic!("four clients: {config:?}")
    };
    assert_eq!(crm.allow, Allow { read: true, refresh: true, ..Allow::NONE });
    assert_eq!(shop.allow, Allow { sign: true, ..Allow::NONE });
    assert_eq!((&crm.urls[..], &shop.urls[..]), (&[][..], &["https://shop.example.com/".to_owned()][..]));
    assert_eq!(newsletter.allow, Allow { call: true, ..Allow::NONE });
    assert!(newsletter.may_call("/cgi-bin/message/send") && !newsletter.may_call("/cgi-bin/user/get"));
    assert!(config.accounts.iter().all(|account| reports.accounts.covers(account)));
    assert_eq!(config.accounts.iter().filter(|account| shop.accounts.covers(account)).count(), 3);
    // The digest in the example file is that of this text.
    assert_eq!(reports.key_sha256, wxtokend_core::secret::Secret::new("password-of-reports").sha256());
}

#[test]
fn the_commented_out_sinks_of_the_example_work() {
    let sinks: String = EXAMPLE
        .lines()
        .skip_while(|line| *line != "# publish:")
        .take_while(|line| line.starts_with("# "))
        .map(|line| line[2..].to_owned() + "\n")
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let redis_file = folder.path().join("redis");
    std::fs::write(&redis_file, "rediss://:hunter2@redis.example/3\n").unwrap();
    let sinks = sinks.replace("/run/secrets/redis", redis_file.to_str().unwrap());
    let text = EXAMPLE.replace("publish: []\n", &sinks);
    let env = |name: &str| (name == "REDIS_URL").then(|| OsString::from("redis://u:hunter2@127.0.0.1"));
    let config = Config::parse(&text, Path::new("accounts.yaml"), env).unwrap();
    let summary = config.summary();
    let shown = "publish:
  - name: wxjava@127.0.0.1:6379/0
    redis: redis://127.0.0.1:6379/0
    preset: wxjava
    prefix: wx
    accounts: [wx*, tag:retail]
  - name: reports
    redis: rediss://redis.example:6379/3
    preset: raw
    key: token:{appid}
    value: {\"token\":\"{access_token}\",\"until\":{expires_at}}
    accounts: [*]
";
    assert!(summary.contains(shown), "{summary}");
    assert!(!format!("{summary}{config:?}").contains("hunter2"));
}

#[test]
fn every_problem_of_a_sink_is_reported_with_its_place_and_without_its_url() {
    let text = "
publish:
  - { redis: 'redis://:hunter2@h#insecure', preset: wxjava, accounts: ['*'] }
  - { redis: 'redis://:hunter2@h', preset: jedis, accounts: [] }
  - { redis: 'redis://:hunter2@h', redis_file: x, preset: silenceper, prefix: a, key: b, accounts: [wx9] }
  - { preset: raw, key: token, value: '{appid}' }
  - { redis: 'redis://h', accounts: ['*'] }
  - { redis: 'redis://h', preset: wechatpy, accounts: ['*'] }
  - { redis: 'rediss://h', preset: wechatpy, accounts: ['*'] }
  - { redis: 'redis://h', key: 't:{name}', accounts: ['*'] }
accounts: [{ appid: wx1, secret: s, name: same }, { appid: wx2, secret: s, name: same }]
";
    let Err(ConfigError::Problems { problems, .. }) = parse(text) else { panic!("problems") };
    let reported: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "publish[0].redis",
        "publish[1].accounts",
        "publish[1].preset",
        "publish[2].redis_file",
        "publish[2].prefix",
        "publish[2].key",
        "publish[3].redis",
        "publish[3].accounts",
        "publish[3].key",
        "publish[3].value",
        "publish[4].preset",
        "publish[6].name",
        "publish[2].accounts[0]",
        "publish[7].key",
    ];
    assert_eq!(reported, expected, "{problems:?}");
    assert!(!format!("{problems:?}").contains("hunter2"));
}

#[test]
fn a_size_has_a_unit_or_is_a_number_of_bytes() {
    for (text, bytes) in [("0", 0), ("1000", 1000), ("64KiB", 65_536), ("1MiB", 1 << 20), ("1GiB", 1 << 30)] {
        let config =
            parse(&format!("proxy: {{ keep_body: {text} }}\naccounts: [{{ appid: wx1, secret: s }}]"));
        assert_eq!(config.unwrap().proxy.keep_body, bytes, "{text}");
    }
    for text in ["-1", "1.5MiB", "1 MiB", "1MB", "1m", "KiB", "2GiB", "1048577KiB", "99999999999"] {
        let Err(ConfigError::Problems { problems, .. }) =
            parse(&format!("proxy: {{ keep_body: {text} }}\naccounts: [{{ appid: wx1, secret: s }}]"))
        else {
            panic!("{text}")
        };
        assert!(problems[0].to_string().contains("is not a size up to 1GiB"), "{problems:?}");
    }
}

#[test]
fn networks_that_need_no_key_are_those_of_a_client_that_may_call() {
    let with = |proxy: &str| {
        let client = "{ name: app, key: hunter2-hunter2-hunter2, accounts: ['*'], allow: [call] }";
        let reader = "{ name: reader, key: hunter2-hunter2-another, accounts: ['*'] }";
        parse(&format!(
            "api: {{ trusted_proxies: [127.0.0.1, fd00::/8], clients: [{client}, {reader}] }}\n\
             proxy: {{ transparent: [{proxy}] }}\naccounts: [{{ appid: wx1, secret: s }}]"
        ))
    };
    let config = with("{ client: app, from: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32'] }").unwrap();
    let networks: Vec<_> = config.proxy.transparent[0].from.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!(config.api.trusted_proxies.len(), 2);
    for (entry, problem) in [
        ("{ client: nobody, from: [10.0.0.0/8] }", "client: is not the name of a client of api.clients"),
        ("{ client: reader, from: [10.0.0.0/8] }", "client: may have no calls passed on"),
        ("{ client: app }", "from: is missing or empty; list the networks"),
        ("{ client: app, from: [] }", "from: is missing or empty"),
        ("{ from: [10.0.0.0/8] }", "client: is missing; whose calls they count as"),
        ("{ client: app, from: [10.0.0.1/8] }", "is an address in a network; the network is 10.0.0.0/8"),
        ("{ client: app, from: [10.0.0.0/33] }", "is neither a network nor an address"),
        ("{ client: app, from: [localhost] }", "is neither a network nor an address"),
    ] {
        let Err(ConfigError::Problems { problems, .. }) = with(entry) else { panic!("{entry}") };
        assert!(problems[0].to_string().contains(problem), "{entry}: {problems:?}");
    }
}

#[test]
fn the_example_mentions_every_key() {
    let mentioned: BTreeSet<&str> = EXAMPLE
        .split(|char: char| !(char.is_ascii_alphanumeric() || char == '_' || char == ':'))
        .filter_map(|word| word.strip_suffix(':'))
        .collect();
    for (mapping, keys) in file::all_keys() {
        for key in keys {
            assert!(mentioned.contains(key), "{mapping}.{key} is not in the example");
        }
    }
}

#[test]
fn the_example_documents_the_programs_defaults() {
    let (example, minimal) = (parse(EXAMPLE).unwrap(), parse(MINIMAL).unwrap());
    assert_eq!(example.api, minimal.api);
    assert_eq!(example.metrics, minimal.metrics);
    assert_eq!(example.store, minimal.store);
    assert_eq!(example.upstream, minimal.upstream);
    let plain = example.accounts.iter().find(|account| account.name == "Flower Shop").unwrap();
    let same = Account { appid: plain.appid.clone(), ..(*minimal.accounts[0]).clone() };
    let same =
        Account { name: plain.name.clone(), secret: plain.secret.clone(), tags: plain.tags.clone(), ..same };
    assert_eq!(**plain, same);
}

#[test]
fn the_table_of_settings_has_every_key_of_a_file_and_no_other() {
    let mut table: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Section { path, settings, .. } in SECTIONS {
        table.entry("").or_default().extend(path.split(['.', '[']).next());
        let name = path.trim_end_matches("[]").rsplit('.').next().unwrap();
        table.entry(name).or_default().extend(settings.iter().map(|setting| setting.key));
    }
    let shared = table["defaults"].clone();
    table.get_mut("accounts").unwrap().extend(shared);
    let keys = file::all_keys().into_iter();
    let mut known: BTreeMap<_, BTreeSet<_>> =
        keys.map(|(mapping, keys)| (mapping, keys.into_iter().collect())).collect();
    // A mapping on one line: the row of its own key describes it.
    let retry = known.remove("retry").unwrap();
    assert_eq!(known, table);
    let row = AccountSettings::TABLE.iter().find(|setting| setting.key == "retry").unwrap();
    assert!(retry.iter().all(|key| row.doc.contains(&format!("`{key}`"))), "{row:?}");
}

#[test]
fn each_default_of_the_table_is_what_a_key_is_if_it_is_left_out() {
    let mut checked = 0;
    for Section { path, settings, .. } in SECTIONS {
        let file = match *path {
            "api.clients[]" => "api: { clients: [{ name: a, key: k, accounts: ['*'], KEY }] }",
            "publish[]" => "publish: [{ redis: 'redis://h', key: 't:{appid}', accounts: ['*'], KEY }]",
            "accounts[]" => "accounts: [{ appid: wx1, secret: s, KEY }]",
            path => &format!("{path}: {{ KEY }}"),
        };
        let one = if file.contains("accounts: [{") { "" } else { MINIMAL };
        let read = |key: &str| {
            let text = format!("{one}\n{}\n", file.replace("KEY", key));
            let config = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            Config { warnings: Vec::new(), ..config }
        };
        for Setting { key, default, .. } in *settings {
            let DefaultValue::Literal(value) = default else { continue };
            assert_eq!(read(&format!("{key}: {value}")), read(""), "{path}: {key}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn each_key_of_an_account_changes_a_setting_of_its_own() {
    let values = ["token", "9", "7s", "false", "{ max: 7m }", "[jsapi]"];
    let mut seen = Vec::new();
    for Setting { key, .. } in AccountSettings::TABLE {
        let changed = values.iter().find_map(|value| {
            let text = format!("accounts: [{{ appid: wx1, secret: s, {key}: {value} }}]");
            let settings = parse(&text).ok()?.accounts[0].settings;
            (settings != AccountSettings::default()).then_some(settings)
        });
        let settings = changed.unwrap_or_else(|| panic!("{key} changes nothing"));
        assert!(!seen.contains(&settings), "{key} changes what another key does");
        seen.push(settings);
    }
}

#[test]
fn a_minimal_file_has_the_defaults_of_the_library() {
    let config = parse(MINIMAL).unwrap();
    let account = (*config.accounts[0]).clone();
    let built = Defaults::default().account(account.appid.clone(), account.secret.clone());
    assert_eq!(account, built);
    let mut expected = Config::new([built]);
    expected.path.clone_from(&config.path);
    expected.warnings.clone_from(&config.warnings);
    expected.store = StoreConfig { path: "/etc/wxtokend/wxtokend.redb".into() };
    assert_eq!(config, expected);
}

#[test]
fn everything_that_is_said_arrives() {
    let text = "
api: { listen: '[::1]:0' }
metrics: { listen: 0.0.0.0:9187, per_account: troubled }
store: { path: data/w.redb }
upstream:
  base_urls: ['http://127.0.0.1:9/wx', 'http://localhost:9', 'http://[::1]:9/', 'https://a.example/b/']
  timeout: 1500ms
  overlap: 10s
  max_in_flight: 1
  max_per_second: 7
defaults: { endpoint: token, daily_budget: 4, refresh_ahead: 12.5%, retry: { initial: 1s, max: 1s },
            verify_rejections: false, rejection_cooldown: 1m,
            audit: 0s, check_budget: 8, tickets: [wx_card] }
accounts:
  - { appid: a, secret: 00123456, name: '007', tags: [2024, x, x] }
  - { appid: 12e4, secret: 1e400, endpoint: stable_token, daily_budget: 4294967295, refresh_ahead: 30m,
      retry: { max: 1d }, verify_rejections: true, rejection_cooldown: 1ms, audit: 1h, tickets: [] }
";
    let config = parse(text).unwrap();
    assert_eq!(config.api.listen.to_string(), "[::1]:0");
    assert_eq!(config.metrics.listen.unwrap().port(), 9187);
    assert_eq!(config.metrics.per_account, PerAccount::Troubled);
    assert_eq!(config.store.path, Path::new("/etc/wxtokend/data/w.redb"));
    let urls: Vec<_> = config.upstream.base_urls.iter().map(|url| url.as_str()).collect();
    let expected =
        ["http://127.0.0.1:9/wx/", "http://localhost:9/", "http://[::1]:9/", "https://a.example/b/"];
    assert_eq!(urls, expected);
    let ms = |millis| std::time::Duration::from_millis(millis);
    let UpstreamConfig { timeout, overlap, max_in_flight, max_per_second, .. } = config.upstream;
    assert_eq!((timeout, overlap, max_in_flight, max_per_second), (ms(1500), ms(10_000), 1, 7));
    let [a, b] = &config.accounts[..] else { panic!("two accounts") };
    assert_eq!(
        (a.settings.endpoint, a.settings.daily_budget, a.settings.verify_rejections),
        (Endpoint::Token, 4, false)
    );
    assert_eq!(
        (a.settings.refresh_ahead, a.settings.rejection_cooldown),
        (RefreshAhead::Share(0.125), ms(60_000))
    );
    assert_eq!((a.name.as_str(), &a.tags[..]), ("007", &["2024".to_owned(), "x".to_owned()][..]));
    assert_eq!(
        (b.settings.endpoint, b.settings.daily_budget, b.settings.verify_rejections),
        (Endpoint::StableToken, u32::MAX, true)
    );
    assert_eq!(
        (b.settings.refresh_ahead, b.settings.rejection_cooldown),
        (RefreshAhead::Fixed(ms(1_800_000)), ms(1))
    );
    assert_eq!((b.settings.retry.initial, b.settings.retry.max), (ms(1_000), ms(86_400_000)));
    let checks = [a, b].map(|account| (account.settings.audit, account.settings.check_budget));
    assert_eq!(checks, [(ms(0), 8), (ms(3_600_000), 8)]);
    let tickets = [a, b].map(|account| account.settings.tickets.iter().collect::<Vec<_>>());
    assert_eq!(tickets, [vec![TicketKind::WxCard], vec![]]);
    // A string that looks like a number is not converted.
    assert_eq!((a.secret.expose(), b.secret.expose()), ("00123456", "1e400"));
    assert_eq!((b.appid.as_str(), b.name.as_str()), ("12e4", "12e4"));
}

#[test]
fn a_missing_file_is_reported_with_the_systems_reason() {
    let error = Config::load(Path::new("/nowhere/accounts.yaml")).unwrap_err();
    assert_eq!(error.to_string(), "read /nowhere/accounts.yaml");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("No such file"), "{source}");
}

#[test]
fn a_file_is_loaded_with_paths_relative_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.yaml");
    std::fs::write(folder.path().join("secret"), "hunter2\r\n").unwrap();
    std::fs::write(folder.path().join("two"), "hunter2").unwrap();
    let text = "accounts: [{ appid: a, secret_file: secret }, { appid: b, secret_file: ./two }]";
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.store.path, folder.path().join("wxtokend.redb"));
    assert_eq!(config.accounts[0].secret.expose(), "hunter2");
    assert_eq!(config.accounts[1].secret.expose(), "hunter2");
    assert_eq!(config.path, path);
}

#[test]
fn a_few_lines_that_stand_for_more_than_memory_holds_are_refused() {
    let refused = |text: &str| {
        let Err(ConfigError::Problems { problems, .. }) = parse(text) else { panic!("a refusal") };
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].what.clone()
    };
    // Ten to the power of nine nodes, by nested levels of ten aliases.
    let next =
        |above: char, this: char| format!("{this}: &{this} [{}]\n", vec![format!("*{above}"); 10].join(", "));
    let laughs: String = ('a'..'j').zip('b'..='j').map(|(above, this)| next(above, this)).collect();
    let laughs = format!("a: &a [x]\n{laughs}accounts: *j\n");
    assert!(refused(&laughs).contains("too many levels or aliases"));
    // Two thousand accounts that share two thousand tags.
    let tags = (0..2000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let shared = |n| format!("  - {{ appid: wx{n}, secret: s, tags: *t }}\n");
    let shared: String = (0..2000).map(shared).collect();
    let tags = format!("accounts:\n  - {{ appid: a, secret: s, tags: &t [{tags}] }}\n{shared}");
    assert!(refused(&tags).contains("too many levels or aliases"));
    for open in ["[", "{"] {
        assert!(refused(&open.repeat(1_000_000)).contains("open at once"));
    }
}

#[test]
fn what_accounts_share_may_stand_under_an_alias() {
    let shared = |n| format!("  - {{ appid: wx{n}, secret: s, tags: *t, retry: *r }}\n");
    let shared: String = (0..1000).map(shared).collect();
    let text = format!(
        "accounts:\n  - {{ appid: a, secret: s, tags: &t [x, y], retry: &r {{ max: 5m }} }}\n{shared}"
    );
    assert_eq!(parse(&text).unwrap().accounts.len(), 1001);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = parse(&text);
    }

    /// Text built from pieces of YAML and of this file format gets further than random noise.
    #[test]
    fn scrambled_files_never_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "accounts:", "api:", "clients:", "- ", "  ", "\n", "\n  ", "appid: a", "secret: ", "${", "}", "{", "}",
                "[", "]", "&a ", "*a", "!t ", "!!int ", "? ", ": ", "\"", "'", "|\n", "~", "1e9", "retry: ", "--- ",
                "defaults:", "# ", "<<: ", "%", "\t", "name:", "key: k", ",",
            ]),
            0..40,
        )
    ) {
        let _ = parse(&parts.concat());
    }
}

/// Ignored by default, since the time limit holds only in release builds (`cargo test --release -- --ignored
/// hundred_thousand`).
#[test]
#[ignore = "measures; run it in release"]
fn a_hundred_thousand_accounts_load_in_about_a_second() {
    let account = |index| {
        format!(
            "  - appid: wx{index:016x}\n    name: Account {index}\n    secret: {index:032x}\n    tags: [retail, x]\n"
        )
    };
    let text = (0..100_000).fold("accounts:\n".to_owned(), |text, index| text + &account(index));
    let started = tokio::time::Instant::now();
    assert_eq!(parse(&text).unwrap().accounts.len(), 100_000);
    let good = started.elapsed();
    let started = tokio::time::Instant::now();
    let Err(ConfigError::Problems { problems, .. }) = parse(&text.replace("tags: [retail, x]", "tags: x"))
    else {
        panic!("every account has a problem")
    };
    assert_eq!(problems.len(), 100_000);
    let bad = started.elapsed();
    assert!(good.as_secs() < 2 && bad.as_secs() < 6, "all good: {good:?}, all bad: {bad:?}");
}
