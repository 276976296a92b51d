//! A table of every rule of `accounts.yaml`, and a search for secrets in messages about a file.

mod files;
mod rights;
mod secrets;

use std::ffi::OsString;
use std::path::Path;

use crate::config::{Config, ConfigError, Position};

/// Values that messages must not contain: the first, which looks like an AppSecret, wherever it is written,
/// and the second where it is written in place of a secret.
const CANARIES: [&str; 2] = ["c0ffee5ecre7c0ffee5ecre7c0ffee5e", "hunter2canary"];

/// A valid account, for files that test something else.
const ONE: &str = "accounts: [{ appid: wx1, secret: s }]\n";

fn env(name: &str) -> Option<OsString> {
    match name {
        "EMPTY" => Some(OsString::new()),
        "CANARY" => Some(CANARIES.concat().into()),
        "SEVEN" => Some("7".into()),
        #[cfg(unix)]
        "LATIN1" => Some(std::os::unix::ffi::OsStringExt::from_vec(vec![0xe9])),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/nowhere/accounts.yaml"), env)
}

/// The problems without their positions; empty for a valid file.
fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Problems { problems, .. }) => {
            let text = problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.what));
            text.collect()
        }
        Err(error) => panic!("{error}"),
    }
}

fn expect(text: &str, expected: &[&str]) {
    let found = problems(text);
    let all =
        found.len() == expected.len() && expected.iter().all(|part| found.iter().any(|is| is.contains(part)));
    assert!(all, "{text}\nfound    {found:#?}\nexpected {expected:#?}");
}

#[test]
fn rules_of_the_file_as_a_whole() {
    for (text, expected) in [
        (ONE, &[][..]),
        ("", &[": is empty"]),
        ("# nothing\n", &[": is empty"]),
        ("[]", &[": must be a mapping, not a list"]),
        ("x", &[": must be a mapping, not a single value"]),
        ("{}", &["accounts: is missing or empty; at least one account is needed"]),
        ("accounts:", &["accounts: is missing or empty"]),
        ("accounts: []", &["accounts: is missing or empty"]),
        ("accounts: {}", &["accounts: must be a list, not a mapping"]),
        ("accounts: [x, , [y]]", &[": not YAML: "]),
        (
            "accounts: [x, ~, [y], !z {}]",
            &[
                "accounts[0]: must be a mapping, not a single value",
                "accounts[1]: is empty",
                "accounts[2]: must be a mapping, not a list",
                "accounts[3]: must not be a tagged value",
            ],
        ),
        ("accounts: [{ appid: wx1, secret: s }]\n---\n{}", &["more than one document"]),
        ("accounts: *nobody", &["unknown anchor"]),
        ("accounts: !!int x", &["accounts: must not be a tagged value"]),
        (
            "acounts: 1\napi: { lisen: 2 }",
            &[
                "acounts: unknown key; known here: api, metrics, store, upstream, proxy, publish, defaults, accounts",
                "api.lisen: unknown key; known here: listen, wechat_path, trusted_proxies, clients",
                "accounts: is missing",
            ],
        ),
        ("? [a]\n: 1\naccounts: [{ appid: wx1, secret: s }]", &[": has an unknown key"]),
        (
            "store: { path: a }\nstore: { path: b }\naccounts: [{ appid: wx1, secret: s, appid: wx2 }]",
            &["store: is given twice", "accounts[0].appid: is given twice"],
        ),
        ("api:\nmetrics:\nstore:\nupstream:\ndefaults:\naccounts: [{ appid: wx1, secret: s, retry: }]", &[]),
    ] {
        expect(text, expected);
    }
}

#[test]
fn a_list_key_without_a_value_is_refused_everywhere() {
    let client = "api: { clients: [{ name: a, key: k, accounts: ['*'], allow: [sign], LIST }] }";
    let sink = "publish: [{ redis: 'redis://h', preset: wechatpy, LIST }]";
    for (text, place) in [
        ("api: { LIST }", "api.clients"),
        ("api: { listen: 0.0.0.0:1, LIST }", "api.clients"),
        ("LIST", "publish"),
        ("defaults: { LIST }", "defaults.tickets"),
        ("upstream: { LIST }", "upstream.base_urls"),
        (client, "api.clients[0].urls"),
        (&client.replace("allow: [sign], ", ""), "api.clients[0].allow"),
        (&client.replace("accounts: ['*'], ", ""), "api.clients[0].accounts"),
        (sink, "publish[0].accounts"),
        ("accounts: [{ appid: wx1, secret: s, LIST }]", "accounts[0].tags"),
        ("accounts: [{ appid: wx1, secret: s, LIST }]", "accounts[0].tickets"),
        ("LIST", "accounts"),
    ] {
        let list = place.rsplit('.').next().unwrap_or(place);
        let one = if text.starts_with("accounts") || list == place && list == "accounts" { "" } else { ONE };
        for null in ["", "~", "null"] {
            let text = text.replace("LIST", &format!("{list}: {null}"));
            let messages = problems(&format!("{one}{text}\n"));
            assert!(
                messages.len() == 1 && messages[0].starts_with(&format!("{place}: is ")),
                "{text}: {messages:?}"
            );
            assert!(messages[0].contains("empty"), "{messages:?}");
        }
    }
    // Empty lists must be written explicitly.
    expect(&format!("{ONE}api: {{ clients: [] }}\npublish: []\ndefaults: {{ tickets: [] }}"), &[]);
    // A list whose only client is commented out.
    let commented = "api:\n  clients:\n    # - name: crm\n    #   key: k\n    #   accounts: ['*']\n";
    expect(&format!("{ONE}{commented}"), &["api.clients: is empty; write [] for none"]);
}

#[test]
fn rules_of_the_api() {
    let client = "name: a, key: k, accounts: [wx1]";
    let with = |clients: &str| format!("{ONE}api: {{ clients: [{clients}] }}");
    for (text, expected) in [
        (
            format!("{ONE}api: {{ listen: nowhere }}"),
            &["api.listen: \"nowhere\" is not an address with a port"][..],
        ),
        (format!("{ONE}api: {{ listen: 127.0.0.1 }}"), &["api.listen: \"127.0.0.1\" is not an address"]),
        (format!("{ONE}api: {{ listen: }}"), &["api.listen: is empty"]),
        (format!("{ONE}api: {{ listen: '127.0.0.9:0' }}"), &[]),
        (
            format!("{ONE}api: {{ listen: 0.0.0.0:1 }}"),
            &["api.listen: must be a loopback address as long as"],
        ),
        (
            format!("{ONE}api: {{ listen: 0.0.0.0:1, clients: [] }}"),
            &["api.listen: must be a loopback address"],
        ),
        (format!("{ONE}api: {{ listen: 0.0.0.0:1, clients: x }}"), &["api.clients: must be a list"]),
        (format!("{ONE}api: {{ listen: 0.0.0.0:1, clients: [{{ {client} }}] }}"), &[]),
        (format!("{ONE}api: {{ wechat_path: wx }}"), &["api.wechat_path: \"wx\" is no path; such as /wx"]),
        (format!("{ONE}api: {{ wechat_path: '/a b' }}"), &["api.wechat_path: this value is no path"]),
        (format!("{ONE}api: {{ wechat_path: /wx/hub/ }}"), &[]),
        (format!("{ONE}metrics: {{ listen: x }}"), &["metrics.listen: \"x\" is not an address"]),
        (format!("{ONE}metrics: {{ listen: 0.0.0.0:1 }}"), &[]),
        (format!("{ONE}metrics: {{ listen: ~ }}"), &[]),
        (
            format!("{ONE}metrics: {{ per_account: some }}"),
            &["metrics.per_account: \"some\" names no accounts; allowed: all, troubled, none"],
        ),
        (format!("{ONE}metrics: {{ per_account: ~ }}"), &["metrics.per_account: is empty"]),
        (format!("{ONE}metrics: {{ per_account: none }}"), &[]),
        (format!("{ONE}store: {{ path: '' }}"), &["store.path: is empty"]),
        (
            with("{}"),
            &[
                "api.clients[0].name: is missing",
                "api.clients[0].key: is missing; give key or key_file or key_sha256",
                "api.clients[0].accounts: is missing or empty; list appids",
            ],
        ),
        (with("{ name: '', key: k, accounts: [wx1] }"), &["api.clients[0].name: is empty"]),
        (with("{ name: \"a\\n\", key: k, accounts: [wx1] }"), &["api.clients[0].name: must be one line"]),
        (with("{ name: a, key: '', accounts: [wx1] }"), &["api.clients[0].key: is empty"]),
        (
            with(&format!("{{ {client} }}, {{ {client} }}")),
            &[
                "api.clients[1].name: is the same as api.clients[0].name",
                "api.clients[1].key: is the key of api.clients[0], too",
            ],
        ),
        (
            with(&format!("{{ {client}, key_file: f, key_sha256: 0 }}")),
            &[
                "api.clients[0].key_file: cannot be given together with key; keep one of them",
                "api.clients[0].key_sha256: cannot be given together with key",
            ],
        ),
        (
            with("{ name: a, key_sha256: abc, accounts: ['*'] }"),
            &["api.clients[0].key_sha256: must be the SHA-256"],
        ),
        (
            with(&format!("{{ name: a, key_sha256: {}, accounts: ['*'] }}", "xF".repeat(32))),
            &["must be the SHA-256"],
        ),
        (with(&format!("{{ name: a, key_sha256: {}, accounts: ['*'] }}", "0F".repeat(32))), &[]),
        (
            with("{ name: a, key_file: none, accounts: ['*'] }"),
            &["api.clients[0].key_file: the file cannot be read: No such file or directory"],
        ),
        (with("{ name: a, key: k, accounts: [] }"), &["api.clients[0].accounts: is missing or empty"]),
        (
            with("{ name: a, key: k, accounts: wx1 }"),
            &["api.clients[0].accounts: must be a list, not a single"],
        ),
        (
            with("{ name: a, key: k, accounts: [wx1, wx2, 'wx9*', 'tag:none', 'wx[1]*', 'tag:', ''] }"),
            &[
                "api.clients[0].accounts[1]: \"wx2\" is the appid of no account",
                "api.clients[0].accounts[4]: \"wx[1]*\" names no accounts; allowed: an appid, a glob",
                "api.clients[0].accounts[5]: \"tag:\" names no accounts",
                "api.clients[0].accounts[6]: \"\" names no accounts",
            ],
        ),
        (
            with(&format!("{{ {client}, allow: [write, refresh] }}")),
            &["api.clients[0].allow[0]: \"write\" is nothing to allow; allowed: read, refresh, admin, sign"],
        ),
        (
            with(&format!("{{ {client}, allow: [] }}")),
            &["api.clients[0].allow: is missing or empty; allowed: read"],
        ),
        (with(&format!("{{ {client}, allow: read }}")), &["api.clients[0].allow: must be a list"]),
        (
            with(&format!("{{ {client}, urls: ['https://x/'] }}")),
            &["api.clients[0].urls: would keep nobody from signing who may read tickets"],
        ),
        (
            with(&format!("{{ {client}, allow: [read, sign], urls: ['https://x/'] }}")),
            &["api.clients[0].urls: would keep nobody from signing who may read tickets"],
        ),
        (
            with(&format!("{{ {client}, urls: [] }}")),
            &["api.clients[0].urls: is missing or empty; list how the addresses of pages begin"],
        ),
        (
            with(&format!(
                "{{ {client}, allow: [sign], urls: [x, 'ftp://x/', 'https://u:p@x/', 'https://x/#a', 'https://x', 'https://X/', \
                 'https://x:443/', 'https://x/a/../b', 'https://x/a?b'] }}"
            )),
            &[
                "api.clients[0].urls[0]: \"x\" is no URL",
                "api.clients[0].urls[1]: \"ftp://x/\" is no page",
                "api.clients[0].urls[2]: \"https://u:p@x/\" is no page",
                "api.clients[0].urls[3]: \"https://x/#a\" must not have a fragment",
                "api.clients[0].urls[4]: \"https://x\" is not as a browser writes it",
                "api.clients[0].urls[5]: \"https://X/\" is not as a browser writes it",
                "api.clients[0].urls[6]: \"https://x:443/\" is not as a browser writes it",
                "api.clients[0].urls[7]: \"https://x/a/../b\" is not as a browser writes it",
            ],
        ),
        (
            with(&format!("{{ {client}, paths: [/cgi-bin/] }}")),
            &["api.clients[0].paths: limits calls, and this client may make none; set allow: [call]"],
        ),
        (
            with(&format!("{{ {client}, promise_at_most: 59999ms }}")),
            &["api.clients[0].promise_at_most: \"59999ms\" is less than 1m"],
        ),
        (
            with(&format!("{{ {client}, promise_at_most: 30 }}")),
            &["api.clients[0].promise_at_most: \"30\" is not a duration"],
        ),
        (with(&format!("{{ {client}, promise_at_most: 60s }}")), &[]),
        (
            with(&format!("{{ {client}, allow: [call], paths: [] }}")),
            &["api.clients[0].paths: is missing or empty; list how the paths of calls begin"],
        ),
        (
            with(&format!("{{ {client}, allow: [call], paths: [cgi-bin, '/a?b', /wxa/] }}")),
            &[
                "api.clients[0].paths[0]: \"cgi-bin\" is no path",
                "api.clients[0].paths[1]: \"/a?b\" is no path",
            ],
        ),
    ] {
        expect(&text, expected);
    }
}

#[test]
fn a_promise_that_is_too_short_for_sdks_or_changes_nothing_is_warned_of() {
    for (allow, most, warned) in [
        ("read", "9m", Some("is so short that SDKs")),
        ("read", "10m", None),
        ("sign, call", "10m", Some("changes nothing")),
    ] {
        let client = format!("name: a, key: k, accounts: [wx1], allow: [{allow}], promise_at_most: {most}");
        let config = parse(&format!("{ONE}api: {{ clients: [{{ {client} }}] }}")).unwrap();
        let key = "api.clients[0].promise_at_most";
        let warning = config.warnings.iter().find(|warning| warning.key == key);
        let begins = warning.zip(warned).map(|(warning, warned)| warning.what.starts_with(warned));
        assert_eq!(begins, warned.map(|_| true), "{allow} {most}: {warning:?}");
        assert_eq!(warning.is_some(), warned.is_some(), "{allow} {most}: {warning:?}");
    }
}

#[test]
fn an_appid_that_may_be_meant_by_a_broken_account_is_not_missed() {
    let text =
        "api: { clients: [{ name: a, key: k, accounts: [wx2] }] }\naccounts: [{ appid: wx 2, secret: s }]";
    expect(text, &["accounts[0].appid: this value is not an appid: an appid is 1 to 64 characters"]);
}

#[test]
fn rules_of_the_upstream() {
    let with = |upstream: &str| format!("{ONE}upstream: {{ {upstream} }}");
    for (upstream, expected) in [
        ("base_urls: []", &["upstream.base_urls: is missing or empty; at least one URL is needed"][..]),
        ("base_urls: https://a.example", &["upstream.base_urls: must be a list, not a single value"]),
        ("base_urls: [api.weixin.qq.com]", &["upstream.base_urls[0]: \"api.weixin.qq.com\" is no URL"]),
        ("base_urls: ['http://a.example']", &["must be https://; http:// only on a loopback address"]),
        ("base_urls: ['http://127.0.0.1.nip.io']", &["must be https://"]),
        ("base_urls: ['http://localhost.example']", &["must be https://"]),
        ("base_urls: ['http://0.0.0.0']", &["must be https://"]),
        ("base_urls: ['http://127.9.9.9:1', 'http://LOCALHOST', 'http://[::1]:7/x']", &[]),
        ("base_urls: ['ftp://a.example']", &["must be an https:// URL"]),
        ("base_urls: ['https://u@a.example']", &["must not hold credentials"]),
        ("base_urls: ['https://:p@a.example']", &["must not hold credentials"]),
        ("base_urls: ['https://a.example?q']", &["must not have a query or a fragment"]),
        ("base_urls: ['https://a.example#f']", &["must not have a query or a fragment"]),
        (
            "base_urls: ['https://a.example/p', 'https://A.example:443/p/']",
            &["upstream.base_urls[1]: is the same as upstream.base_urls[0]"],
        ),
        (
            "timeout: 0s, overlap: 5",
            &[
                "upstream.timeout: \"0s\" is not a duration: a duration is a positive whole number with its unit: 500ms",
                "upstream.overlap: \"5\" is not a duration",
            ],
        ),
        (
            "max_in_flight: 0, max_per_second: -1",
            &[
                "upstream.max_in_flight: \"0\" is not a whole number from 1 to 4294967295",
                "upstream.max_per_second: \"-1\" is not a whole number from 1",
            ],
        ),
        (
            "max_in_flight: [1], max_per_second: { a: 1 }",
            &[
                "upstream.max_in_flight: must be a single value, not a list",
                "upstream.max_per_second: must be a single value, not a mapping",
            ],
        ),
    ] {
        expect(&with(upstream), expected);
    }
}

#[test]
fn rules_of_accounts_and_of_what_they_share() {
    let key_rules = [
        (
            "endpoint: stabletoken",
            &["endpoint: \"stabletoken\" is not an endpoint; allowed: stable_token, token"][..],
        ),
        ("endpoint:", &["endpoint: is empty"]),
        ("daily_budget: 3", &["daily_budget: \"3\" is not a whole number from 4 to 4294967295"]),
        ("daily_budget: 4294967296", &["daily_budget: \"4294967296\" is not"]),
        ("daily_budget: 1e3", &["daily_budget: \"1e3\" is not"]),
        ("daily_budget: '${SEVEN}'", &[]),
        ("refresh_ahead: 50%", &[]),
        (
            "refresh_ahead: 50.1%",
            &["refresh_ahead: \"50.1%\" is neither a percentage above 0% and up to 50% nor a"],
        ),
        ("refresh_ahead: 0%", &["refresh_ahead: \"0%\" is neither"]),
        ("refresh_ahead: nan%", &["refresh_ahead: \"nan%\" is neither"]),
        ("refresh_ahead: -5%", &["refresh_ahead: \"-5%\" is neither"]),
        ("refresh_ahead: 0.25", &["refresh_ahead: \"0.25\" is neither"]),
        ("refresh_ahead: 0s", &["refresh_ahead: \"0s\" is neither"]),
        ("retry: 5s", &["retry: must be a mapping, not a single value"]),
        ("retry: { initial: 5s, max: 5s }", &[]),
        ("retry: { initial: 6s, max: 5s }", &["retry: initial (6s) is longer than max (5s)"]),
        ("retry: { initial: 2m }", &["retry: initial (2m) is longer than max (1m)"]),
        ("retry: { initial: 2m, max: x }", &["retry.max: \"x\" is not a duration"]),
        ("retry: { least: 1s }", &["retry.least: unknown key; known here: initial, max"]),
        ("tickets: [jsapi, card]", &["tickets[1]: \"card\" is no ticket; allowed: jsapi, wx_card"]),
        ("tickets: jsapi", &["tickets: must be a list, not a single value"]),
        ("tickets: [wx_card, wx_card]", &[]),
        ("verify_rejections: yes", &["verify_rejections: \"yes\" is neither true nor false"]),
        ("rejection_cooldown: 5 s", &["rejection_cooldown: this value is not a duration"]),
    ];
    for (rule, expected) in key_rules {
        for (prefix, text) in [
            ("defaults.", format!("{ONE}defaults: {{ {rule} }}")),
            ("accounts[0].", format!("accounts: [{{ appid: wx1, secret: s, {rule} }}]")),
        ] {
            let expected: Vec<_> = expected.iter().map(|what| format!("{prefix}{what}")).collect();
            expect(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
    for (accounts, expected) in [
        (
            "{}",
            &["accounts[0].appid: is missing", "accounts[0].secret: is missing; give secret or secret_file"]
                [..],
        ),
        ("{ appid: a/b, secret: s }", &["accounts[0].appid: \"a/b\" is not an appid: an appid is 1 to 64"]),
        (
            "{ appid: a }, { appid: b, secret: s }, { appid: a, secret: s }",
            &["accounts[0].secret: is missing", "accounts[2].appid: is the same as accounts[0].appid"],
        ),
        ("{ appid: a, secret: '' }", &["accounts[0].secret: is empty"]),
        ("{ appid: a, secret: }", &["accounts[0].secret: is empty"]),
        (
            "{ appid: a, secret: '${EMPTY}' }",
            &["accounts[0].secret: is empty: the environment variable EMPTY holds"],
        ),
        (
            "{ appid: a, secret: '${UNSET}' }",
            &["accounts[0].secret: the environment variable UNSET is not set"],
        ),
        (
            "{ appid: a, secret: '${LATIN1}' }",
            &["accounts[0].secret: the environment variable LATIN1 is not UTF-8"],
        ),
        ("{ appid: a, secret: 'a${CANARY}' }", &["accounts[0].secret: ${NAME} must be the whole value"]),
        (
            "{ appid: a, secret: s, name: '${SEVEN} days' }",
            &["accounts[0].name: ${NAME} must be the whole value"],
        ),
        (
            "{ appid: a, secret: s, tags: ['${1}', '${}'] }",
            &["accounts[0].tags[0]: ${NAME}", "tags[1]: ${NAME}"],
        ),
        ("{ appid: a, secret: s, endpoint: '${CANARY}' }", &["the value of ${CANARY} is not an endpoint"]),
        (
            "{ appid: a, secret: s, secret_file: f }",
            &["accounts[0].secret_file: cannot be given together with secret"],
        ),
        ("{ appid: a, secret_file: f }", &["accounts[0].secret_file: the file cannot be read: No such file"]),
        (
            "{ appid: a, secret_file: /dev/null }",
            &[
                "accounts[0].secret_file: the file cannot be read: it is a device, and only a regular file can",
            ],
        ),
        (
            "{ appid: a, secret_file: /dev }",
            &["accounts[0].secret_file: the file cannot be read: it is a folder"],
        ),
        ("{ appid: a, secret: s, name: '' }", &["accounts[0].name: is empty"]),
        (
            "{ appid: a, secret: s, tags: [ok, '', [x]] }",
            &["tags[1]: is empty", "tags[2]: must be a single value"],
        ),
        ("{ appid: a, secret: s, tags: retail }", &["accounts[0].tags: must be a list, not a single value"]),
        (
            "{ appid: a, secret: s, tag: x }",
            &[
                "accounts[0].tag: unknown key; known here: appid, name, secret, secret_file, tags, endpoint, daily_budget",
            ],
        ),
    ] {
        expect(&format!("accounts: [{accounts}]"), expected);
    }
}

#[test]
fn one_account_too_many_is_reported() {
    let account = |index| format!("- {{ appid: a{index}, secret: s }}\n");
    let text = (0..100_001).fold("accounts:\n".to_owned(), |text, index| text + &account(index));
    expect(&text, &["accounts: has 100001 accounts; at most 100000 are possible"]);
}

#[test]
fn a_broken_default_is_reported_once() {
    let text = "defaults: { retry: { initial: 2h }, daily_budget: 1 }\n\
                accounts: [{ appid: a, secret: s }, { appid: b, secret: s }]";
    expect(text, &["defaults.retry: initial", "defaults.daily_budget: \"1\""]);
}

#[test]
fn every_problem_is_one_line_with_file_place_and_position() {
    let text = "\
api:
  lisen: x
store: { path: a }
accounts:
  - appid: wx1
    endpoint: stabletoken
    retry: { max: 1 }
  - appid: wx1
    secret:
      [s]
store:
  path: b
";
    let expected = "\
/nowhere/accounts.yaml: store: is given twice (line 11, column 1)
/nowhere/accounts.yaml: api.lisen: unknown key; known here: listen, wechat_path, trusted_proxies, clients (line 2, column 3)
/nowhere/accounts.yaml: accounts[0].secret: is missing; give secret or secret_file (line 5, column 5)
/nowhere/accounts.yaml: accounts[0].endpoint: \"stabletoken\" is not an endpoint; allowed: stable_token, token (line 6, column 5)
/nowhere/accounts.yaml: accounts[0].retry.max: \"1\" is not a duration: a duration is a positive whole number with its unit: 500ms, 5s, 2m, 1h, 7d (at most 36500d) (line 7, column 14)
/nowhere/accounts.yaml: accounts[1].appid: is the same as accounts[0].appid (line 8, column 5)
/nowhere/accounts.yaml: accounts[1].secret: must be a single value, not a list (line 9, column 5)";
    let text = parse(text).unwrap_err().to_string();
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(expected), "{text}");
}

#[test]
fn what_is_not_yaml_is_reported_with_line_and_column() {
    let Err(ConfigError::Problems { problems, .. }) = parse("api:\n  listen: [\naccounts: }") else {
        panic!()
    };
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(problem.position, Some(Position { line: 3, column: 11 }));
    assert!(problem.what.starts_with("not YAML: ") && !problem.what.contains("line 3"), "{problem}");
}

/// Puts the canary at every place where a secret or a key may be, on purpose or by mistake.
#[test]
fn no_secret_is_in_any_text_about_a_file() {
    let shapes = [
        "CANARY",
        "[CANARY]",
        "{ CANARY: x }",
        "{ x: CANARY }",
        "!CANARYtag x",
        "!t CANARY",
        "!!int CANARY",
        "!!null CANARY",
        "!!float CANARY",
        "!!bool CANARY",
        "a${CANARY",
        "${CANARY",
        "${CANARY}x",
        "'${CANARY}'",
        "\"CANARY\\n\"",
        "|\n      CANARY\n",
        "x CANARY",
        "x\n      CANARY",
        "\"CANARY",
        "'CANARY",
        "[CANARY",
        "{CANARY",
        "CANARY: x",
        "&CANARY x",
        "*CANARY",
        "%CANARY",
        "@CANARY",
        "`CANARY",
        "\tCANARY",
        "- CANARY",
        "{CANARY}",
        "{{CANARY}}",
        "? CANARY",
        "CANARYCANARYCANARY",
        "<<: CANARY",
        "\"\\CANARY\"",
        "\"\\xCANARY\"",
    ];
    // The keys for secrets, and keys that could be mistaken for them.
    let secret_keys =
        ["secret", "secrets", "secret_file", "Secret", "app_secret", "key", "keys", "key_file", "key_sha256"];
    let other_keys = ["appid", "endpoint", "retry", "tags", "daily_budget", "listen", "accounts", "allow"];
    let (mut texts, mut other_texts) = (Vec::new(), Vec::new());
    for shape in shapes {
        for (keys, texts) in [(&secret_keys[..], &mut texts), (&other_keys[..], &mut other_texts)] {
            for key in keys {
                texts.push(format!("accounts:\n  - appid: wx1\n    {key}: {shape}\n    endpoint: x\n"));
                texts.push(format!("accounts:\n  - appid: wx1\n    {key}: {shape}\n    {key}: {shape}\n"));
                texts.push(format!("accounts:\n  - {key}: {shape}\n"));
                texts.push(format!("defaults:\n  {key}: {shape}\n{ONE}"));
                texts.push(format!("{key}: {shape}\n{ONE}"));
                texts.push(format!(
                    "api:\n  clients:\n    - name: a\n      accounts: ['*']\n      {key}: {shape}\n{ONE}"
                ));
                texts.push(format!("api:\n  clients:\n    - {key}: {shape}\n{ONE}"));
                texts.push(format!("api:\n  {key}: {shape}\n{ONE}"));
            }
        }
        for place in ["api", "api:\n  clients", "accounts", "defaults", "upstream", "store", "metrics"] {
            other_texts.push(format!("{place}: {shape}\n"));
            other_texts.push(format!("{place}:\n    - {shape}\n"));
        }
        other_texts.push(shape.to_owned());
        // A missing colon joins the next line to the value before it.
        texts.push(format!("accounts:\n  - appid: wx1\n    secret {shape}\n"));
        texts.push(format!(
            "accounts:\n  - secret: s\n    appid: wx1\n    endpoint: token\n      secret {shape}\n"
        ));
    }
    other_texts.push(format!("upstream: {{ base_urls: ['https://u:CANARY@a.example', 'x:CANARY'] }}\n{ONE}"));
    let everywhere = texts.iter().chain(&other_texts).map(|text| (CANARIES[0], text));
    let for_secrets = texts.iter().map(|text| (CANARIES[1], text));
    let mut refused = 0;
    for (canary, text) in everywhere.chain(for_secrets) {
        // `${CANARY}` stands for the variable's value, not for its name.
        let text = text.replace("${CANARY", "$\0").replace("CANARY", canary).replace("$\0", "${CANARY");
        let text = match parse(&text) {
            // A value that is correctly taken for a tag is shown.
            Ok(_) if text.contains("tags:") => continue,
            Ok(config) => format!("{config:?}\n{config:#?}\n{}", config.summary()),
            Err(error) => {
                refused += 1;
                format!("{error}\n{error:?}\n{error:#?}")
            }
        };
        assert!(!text.contains(canary), "{text}\nsaid\n{text}");
    }
    assert!(refused > 1000, "{refused}");
}
