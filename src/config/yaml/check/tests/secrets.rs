//! Secrets, keys, tags and variables that are refused, and those that only get a warning.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wxtokend_core::secret::{Secret, hex};

use crate::config::{Config, ConfigError};

const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "a-long-random-client-key";

/// Characters that slip into a value by copying, by `echo`, by an editor or from another machine.
const SLIPS: [&str; 14] = [
    "\n", "\r\n", "\r", " ", "\t", "\0", "\u{1}", "\u{7f}", "\u{85}", "\u{a0}", "\u{200b}", "\u{2028}",
    "\u{3000}", "\u{feff}",
];

/// `value` with a slip before, after and within it.
fn spoilt(value: &str) -> Vec<String> {
    let (head, tail) = value.split_at(value.len() / 2);
    let ways =
        |slip: &str| [format!("{slip}{value}"), format!("{value}{slip}"), format!("{head}{slip}{tail}")];
    SLIPS.into_iter().flat_map(ways).collect()
}

/// `text` in YAML double quotes.
fn quoted(text: &str) -> String {
    let escape = |char: char| match char {
        '"' | '\\' => format!("\\{char}"),
        ' '..='~' => char.to_string(),
        other => format!("\\u{:04x}", u32::from(other)),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

fn parse_with(text: &str, value: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| (name == "VALUE").then(|| OsString::from(value));
    Config::parse(text, Path::new("/nowhere/accounts.yaml"), env)
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(text, "")
}

/// The only problem of a file.
fn problem(read: Result<Config, ConfigError>) -> String {
    let Err(ConfigError::Problems { problems, .. }) = read else { panic!("a refusal expected: {read:?}") };
    let [problem] = &problems[..] else { panic!("one problem expected: {problems:?}") };
    assert!(problem.position.is_some(), "{problem}");
    format!("{}: {}", problem.key, problem.what)
}

fn with_key(key: &str) -> String {
    format!(
        "api: {{ clients: [{{ name: a, accounts: ['*'], {key} }}] }}\n\
         accounts: [{{ appid: wx0123456789abcdef, secret: {APP_SECRET} }}]\n"
    )
}

fn with_secret(secret: &str) -> String {
    format!("accounts: [{{ appid: wx0123456789abcdef, {secret} }}]\n")
}

/// The warnings, without those about the missing folder and the missing administrator, which all files here
/// have.
fn warnings(text: &str) -> Vec<String> {
    let config = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let message = config.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.what));
    message
        .filter(|message| !message.starts_with("store.path: ") && !message.starts_with("api.clients: "))
        .collect()
}

fn expect_warnings(text: &str, expected: &[&str]) {
    let found = warnings(text);
    let all =
        found.len() == expected.len() && expected.iter().zip(&found).all(|(part, is)| is.starts_with(part));
    assert!(all, "{text}\nfound    {found:#?}\nexpected {expected:#?}");
}

#[test]
fn an_app_secret_or_a_key_into_which_something_has_slipped_is_refused_at_its_place_wherever_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    type Place<'a> = (&'a str, &'a str, fn(&str) -> String, &'a str, &'a str);
    let places: [Place<'_>; 2] = [
        ("accounts[0].secret", "secret", with_secret, APP_SECRET, "visible ASCII"),
        ("api.clients[0].key", "key", with_key, KEY, "visible characters"),
    ];
    for (place, key, text, value, rule) in places {
        // A blank within a key may separate the words of a passphrase.
        let harmless = |spoilt: &String| key == "key" && spoilt.trim() == spoilt && spoilt.contains(' ');
        for spoilt in spoilt(value).into_iter().filter(|spoilt| !harmless(spoilt)) {
            let inline = text(&format!("{key}: {}", quoted(&spoilt)));
            let variable = text(&format!("{key}: '${{VALUE}}'"));
            let mut ways =
                vec![(place.to_owned(), parse(&inline)), (place.to_owned(), parse_with(&variable, &spoilt))];
            // Files lose one trailing newline.
            if !["\n", "\r\n", "\r"].iter().any(|end| spoilt == format!("{value}{end}")) {
                std::fs::write(&file, &spoilt).unwrap();
                ways.push((
                    format!("{place}_file"),
                    parse(&text(&format!("{key}_file: {}", file.display()))),
                ));
                std::fs::write(&file, format!("{spoilt}\n")).unwrap();
                ways.push((
                    format!("{place}_file"),
                    parse(&text(&format!("{key}_file: {}", file.display()))),
                ));
            }
            for (place, read) in ways {
                let message = problem(read);
                assert!(
                    message.starts_with(&format!("{place}: ")) && message.contains(rule),
                    "{spoilt:?}: {message}"
                );
                assert!(!message.contains(&value[..8]), "{message}");
            }
        }
        for ends in ["\n", "\r\n", ""] {
            std::fs::write(&file, format!("{value}{ends}")).unwrap();
            assert!(parse(&text(&format!("{key}_file: {}", file.display()))).is_ok(), "{ends:?}");
        }
    }
    let block = format!("accounts:\n  - appid: wx0123456789abcdef\n    secret: |\n      {APP_SECRET}\n");
    let message = problem(parse(&block));
    assert!(
        message.starts_with("accounts[0].secret: the value ends with a line break; an AppSecret has"),
        "{message}"
    );
    assert!(message.ends_with("without | or > none is added"), "{message}");
    let message = problem(parse_with(&with_secret("secret: '${VALUE}'"), &format!("{APP_SECRET}\n")));
    assert!(message.contains("the environment variable VALUE ends with a line break"), "{message}");
}

#[test]
fn a_key_may_be_a_passphrase_in_any_language() {
    for key in ["correct horse; battery=staple", "花店的钥匙 一共有十六个字以上的"] {
        expect_warnings(&with_key(&format!("key: {}", quoted(key))), &[]);
    }
    for slip in [" a passphrase at its end ", "a passphrase\tin two columns"] {
        let message = problem(parse(&with_key(&format!("key: {}", quoted(slip)))));
        assert!(message.contains("a key has visible characters only"), "{message}");
    }
}

#[test]
fn blanks_around_other_values_are_refused_too() {
    let one = with_secret(&format!("secret: {APP_SECRET}, SETTING"));
    let account = |setting: &str| one.replace("SETTING", setting);
    let followed_by = |more: &str| with_secret(&format!("secret: {APP_SECRET}")) + more;
    for (text, place) in [
        (account("name: 'x '"), "accounts[0].name"),
        (account("name: \"\\uFEFFx\""), "accounts[0].name"),
        (account("name: \"x\\u2028y\""), "accounts[0].name"),
        (account("tags: [a, ' b']"), "accounts[0].tags[1]"),
        (
            followed_by(
                "api: { clients: [{ name: a, key: a-long-random-client-key, accounts: ['tag:a '] }] }",
            ),
            "api.clients[0].accounts[0]",
        ),
        (followed_by("store: { path: \"w.redb\\n\" }"), "store.path"),
        (followed_by("upstream: { base_urls: [\"https://a.example/\\n\"] }"), "upstream.base_urls[0]"),
        (followed_by("upstream: { base_urls: [\"https://a.exa\\tmple/\"] }"), "upstream.base_urls[0]"),
        (
            followed_by("publish: [{ redis: \"redis://:p@h\\n\", preset: wxjava, accounts: ['*'] }]"),
            "publish[0].redis",
        ),
        (
            followed_by("publish: [{ redis: \"redis://:p\\u00a0@h\", preset: wxjava, accounts: ['*'] }]"),
            "publish[0].redis",
        ),
        (
            followed_by("publish: [{ redis: 'redis://h', key: \"t:{appid}\\n\", accounts: ['*'] }]"),
            "publish[0].key",
        ),
    ] {
        let message = problem(parse(&text));
        assert!(message.starts_with(&format!("{place}: ")), "{text}: {message}");
    }
    // An emoji of several characters is allowed.
    assert!(parse(&account("name: '店 👩\u{200d}💻 ❤\u{fe0f}'")).is_ok());
}

#[test]
fn the_digest_of_no_key_is_refused() {
    for nothing in [
        "",
        "\n",
        "\r\n",
        " ",
        "  ",
        "\t",
        "\0",
        "\u{feff}",
        "\u{feff}\n",
        " \n",
        "\n\n",
        "k\n",
        "k ",
        "-n \n",
        "-n",
        "-e \n",
        "\"\"",
        "\"\"\r\n",
        "''",
        "$KEY",
        "$KEY\n",
        "${KEY}",
        "%KEY%\r\n",
    ] {
        let digest = hex(&Secret::new(nothing).sha256());
        for digest in [digest.clone(), digest.to_uppercase()] {
            let message = problem(parse(&with_key(&format!("key_sha256: {digest}"))));
            assert!(
                message.starts_with("api.clients[0].key_sha256: is the digest of "),
                "{nothing:?}: {message}"
            );
        }
    }
}

#[test]
fn a_key_that_is_an_app_secret_is_refused_by_its_digest_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, APP_SECRET).unwrap();
    let digest = hex(&Secret::new(APP_SECRET).sha256());
    for (place, key) in [
        ("key", format!("key: {APP_SECRET}")),
        ("key_file", format!("key_file: {}", file.display())),
        ("key_sha256", format!("key_sha256: {digest}")),
    ] {
        let message = problem(parse(&with_key(&key)));
        let expected =
            format!("api.clients[0].{place}: is the AppSecret of accounts[0]; give the client a key");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_key_that_is_an_app_secret_but_for_its_case_or_a_blank_is_refused_too() {
    let upper = APP_SECRET.to_uppercase();
    let mixed = APP_SECRET.replace('a', "A");
    let digest = |text: &str| hex(&Secret::new(text).sha256());
    for key in [
        format!("key: {upper}"),
        format!("key: {mixed}"),
        format!("key_sha256: {}", digest(&format!("{APP_SECRET}\n"))),
        format!("key_sha256: {}", digest(&format!("{APP_SECRET}\r\n"))),
        format!("key_sha256: {}", digest(&upper)),
        format!("key_sha256: {}", digest(&format!("{upper}\n"))),
    ] {
        let message = problem(parse(&with_key(&key)));
        assert!(
            message.contains("is the AppSecret of accounts[0] but for its case or a blank"),
            "{key}: {message}"
        );
    }
}

#[test]
fn a_key_that_begins_or_ends_with_what_nobody_sees_is_refused() {
    for invisible in
        ["\u{200c}", "\u{200d}", "\u{fe0f}", "\u{fe00}", "\u{e0001}", "\u{e0020}", "\u{e0100}", "\u{180f}"]
    {
        for (key, verb) in
            [(format!("{invisible}{KEY}"), "begins with"), (format!("{KEY}{invisible}"), "ends with")]
        {
            let message = problem(parse_with(&with_key("key: '${VALUE}'"), &key));
            assert!(
                message.starts_with("api.clients[0].key: ") && message.contains(verb),
                "{key:?}: {message}"
            );
            assert!(message.contains("an invisible character (U+"), "{message}");
        }
    }
    let joined = "a pass phrase 👩\u{200d}💻 of sorts";
    expect_warnings(&with_key(&format!("key: {joined}")), &[]);
}

#[test]
fn a_placeholder_that_was_never_filled_in_is_warned_of_wherever_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    let message = |text: &str, value: &str| {
        let config = parse_with(text, value).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let message =
            config.warnings.iter().filter(|warning| warning.what.contains("looks like a placeholder"));
        message.map(|warning| warning.key.clone()).collect::<Vec<_>>()
    };
    type Place<'a> = (&'a str, &'a str, fn(&str) -> String);
    let places: [Place<'_>; 2] =
        [("accounts[0].secret", "secret", with_secret), ("api.clients[0].key", "key", with_key)];
    for (place, key, text) in places {
        let (variable, in_a_file) =
            (format!("{key}: '${{VALUE}}'"), format!("{key}_file: {}", file.display()));
        for value in [
            "$CRM_KEY",
            "${CRM_KEY}",
            "prefix-${CRM_KEY}-suffix",
            "$(cat/run/secrets/crm)",
            "{{.Values.crm.key}}",
            "x-{{crm}}",
            "<your-client-key>",
            "%CRM_KEY%",
            "@CRM_KEY@",
        ] {
            assert_eq!(message(&text(&variable), value), [place], "{value}");
            std::fs::write(&file, format!("{value}\n")).unwrap();
            assert_eq!(message(&text(&in_a_file), value), [format!("{place}_file")], "{value}");
            if !value.contains("${") {
                let inline = text(&format!("{key}: '{value}'"));
                assert_eq!(message(&inline, value), [place], "{value}");
            }
        }
        for value in ["a$b", "a{b}c", "p%q%r", "<a", "a{{b", "a@b"] {
            assert_eq!(message(&text(&variable), value), [""; 0], "{value}");
        }
    }
    let url = with_secret(&format!("secret: {APP_SECRET}"))
        + "publish: [{ redis: '${VALUE}', preset: wechatpy, accounts: ['*'] }]";
    assert_eq!(message(&url, "redis://:${REDIS_PASSWORD}@h"), ["publish[0].redis"]);
}

#[test]
fn a_tagged_value_is_refused_everywhere() {
    let before = "accounts:\n  - appid: wx0123456789abcdef\n    ";
    for tag in
        ["!vault", "!secret", "!", "!!binary", "!!str", "!<tag:yaml.org,2002:str>", "&a !!binary", "!!str &a"]
    {
        for value in [
            "flower",
            "'flower'",
            "\"flower\"",
            "|\n      flower",
            "[flower]",
            "{ flower: a }",
            "123",
            "~",
            "",
        ] {
            for (place, key) in
                [("accounts[0].secret", "secret"), ("accounts[0]", "scret"), ("accounts[0].tags", "tags")]
            {
                let text = format!("{before}{key}: {tag} {value}\n");
                let Err(ConfigError::Problems { problems, .. }) = parse(&text) else { panic!("{text}") };
                let message: Vec<_> =
                    problems.iter().filter(|problem| problem.what.contains("a tagged value")).collect();
                assert_eq!(message.len(), 1, "{text}: {problems:?}");
                assert!(message[0].key == place && message[0].position.is_some(), "{text}: {problems:?}");
                assert!(!format!("{problems:?}").contains("flower"), "{problems:?}");
            }
        }
    }
    let rest = format!("appid: wx0123456789abcdef, secret: {APP_SECRET}");
    let behind = |start: &str| {
        format!("{start}%TAG ! tag:yaml.org,2002:\n---\naccounts: [{{ {rest}, name: !binary b }}]")
    };
    for (text, place) in [
        (format!("accounts: [{{ {rest}, tags: [a, !t b] }}]"), "accounts[0].tags[1]"),
        (format!("accounts: [{{ {rest}, ? !t name : b }}]"), "accounts[0]"),
        (format!("accounts: [{{ {rest}, !!str name: b }}]"), "accounts[0]"),
        (format!("accounts: [!account {{ {rest} }}]"), "accounts[0]"),
        (format!("accounts: !!seq [{{ {rest} }}]"), "accounts"),
        (format!("--- !!map\naccounts: [{{ {rest} }}]"), ""),
        (
            format!("%TAG !y! tag:yaml.org,2002:\n---\naccounts: [{{ {rest}, name: !y!str b }}]"),
            "accounts[0].name",
        ),
        (
            format!("%TAG ! tag:yaml.org,2002:\n---\naccounts: [{{ {rest}, name: !str b }}]"),
            "accounts[0].name",
        ),
        (format!("accounts: [{{ {rest}, retry: {{ max: !d 5m }} }}]"), "accounts[0].retry.max"),
        (behind("\u{feff}"), "accounts[0].name"),
        (behind("# x\r"), "accounts[0].name"),
        (behind("# x\u{85}"), "accounts[0].name"),
        (behind("# x\u{2028}"), "accounts[0].name"),
        (behind("# x\u{2029}"), "accounts[0].name"),
    ] {
        let Err(ConfigError::Problems { problems, .. }) = parse(&text) else { panic!("{text}") };
        assert_eq!(problems[0].key, place, "{text}: {problems:?}");
        assert!(problems[0].what.contains("a tagged value"), "{text}: {problems:?}");
    }
    // Text that only looks like a tag is not one.
    let text = format!(
        "# !x\naccounts: [{{ {rest}, name: 'a !b', tags: [a !b, \"!c\", 'x!!y', \"<!>\"] }}] # !!x\nstore: {{ path: \"!<a>\" }}\n"
    );
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.accounts[0].tags, ["a !b", "!c", "x!!y", "<!>"]);
    assert!(config.store.path.ends_with("!<a>"));
}

#[test]
fn a_secret_that_stands_where_a_variables_name_is_due_is_not_shown() {
    for (name, is_shown) in [
        ("FLOWER_SECRET", true),
        ("_2ND", true),
        ("REDIS7_URL_OF_SHOP_12", true),
        ("deadbeefdeadbeefdeadbeefdeadbeef", false),
        ("DEADBEEF0EADBEEFDEADBEEFDEADBEEF", false),
        ("correct_horse_battery", false),
        ("A8F3K2J4L5M6N7P8Q9R0", false),
        ("hunter2", false),
    ] {
        for text in
            [with_secret(&format!("secret: '${{{name}}}'")), with_key(&format!("key_file: '${{{name}}}'"))]
        {
            let message = problem(parse(&text));
            assert!(message.contains("environment variable") && message.contains("is not set"), "{message}");
            assert_eq!(message.contains(name), is_shown, "{message}");
        }
    }
    // A missing blank joins key and value.
    let message =
        parse("accounts: [{ appid: wx1, secret: s, key:hunter2, secret:hunter2 }]").unwrap_err().to_string();
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_warned_of_at_its_place() {
    let good = format!("appid: wx0123456789abcdef, secret: {APP_SECRET}");
    expect_warnings(&format!("accounts: [{{ {good} }}]"), &[]);
    expect_warnings(&with_key(&format!("key: {KEY}")), &[]);
    for (appid, secret, expected) in [
        ("wx0123456789abcde", APP_SECRET, &["accounts[0].appid: is not wx and 16 hex digits"][..]),
        ("wx0123456789abcdeg", APP_SECRET, &["accounts[0].appid: is not wx and 16 hex digits"]),
        ("gh_0123456789abcd", APP_SECRET, &["accounts[0].appid: is not wx and 16 hex digits"]),
        ("wx0123456789abcdef", &APP_SECRET[1..], &["accounts[0].secret: is not 32 hex digits"]),
        (
            "wx0123456789abcdef",
            "0123456789abcdef0123456789abcdeg",
            &["accounts[0].secret: is not 32 hex digits"],
        ),
        (
            "wx0123456789abcdef",
            "$FLOWER_SECRET",
            &[
                "accounts[0].secret: the value is used as it is, but looks like a placeholder that was never",
                "accounts[0].secret: is not",
            ],
        ),
    ] {
        expect_warnings(&format!("accounts: [{{ appid: {appid}, secret: {secret} }}]"), expected);
    }
    let second = format!("appid: wxfedcba9876543210, secret: {APP_SECRET}");
    expect_warnings(
        &format!("accounts: [{{ {good} }}, {{ {second} }}]"),
        &["accounts[1].secret: is the same as that of accounts[0].secret"],
    );
    let second = format!("appid: wxfedcba9876543210, secret: {}", APP_SECRET.to_uppercase());
    expect_warnings(
        &format!("accounts: [{{ {good} }}, {{ {second} }}]"),
        &["accounts[1].secret: is the same as that of accounts[0].secret"],
    );
    let second = "appid: wxfedcba9876543210, secret: fedcba9876543210fedcba9876543210, tags: [x]";
    let clients = |accounts: &str, allow: &str| {
        format!(
            "api: {{ clients: [{{ name: a, key: {KEY}, accounts: [{accounts}], allow: [{allow}] }}] }}\n\
             accounts: [{{ {good} }}, {{ {second} }}]\n"
        )
    };
    for (accounts, allow, expected) in [
        ("'wx*'", "read", &[][..]),
        ("'tag:x'", "read", &["accounts[0]: no client may read it: none has it among its accounts"]),
    ] {
        expect_warnings(&clients(accounts, allow), expected);
    }
    let published =
        clients("'tag:x'", "read") + "publish: [{ redis: 'redis://h', preset: wxjava, accounts: ['*'] }]\n";
    expect_warnings(&published, &[]);
    let no_clients = |allow: &str| {
        let config = parse(&clients("'*'", allow)).unwrap();
        config.warnings.iter().any(|warning| warning.key == "api.clients" && warning.what.contains("admin"))
    };
    assert!(no_clients("read, refresh") && !no_clients("read, admin"));
    for (key, expected) in [
        ("key: a-key-15-bytes-", &["api.clients[0].key: has 15 characters"][..]),
        ("key: a-key-16-bytes--", &[]),
        ("key: k", &["api.clients[0].key: has 1 characters"]),
        // The digest of `k`.
        (
            "key_sha256: 8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a",
            &["api.clients[0].key_sha256: is the digest of a single character"],
        ),
    ] {
        expect_warnings(&with_key(key), expected);
    }
}

#[test]
fn a_file_with_secrets_that_everybody_can_read_and_a_folder_that_is_missing_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.yaml");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, APP_SECRET).unwrap();
    let warned = |text: &str, mode: u32, secret_mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(secret_mode)).unwrap();
        let config = Config::load(&path).unwrap();
        config.warnings.iter().map(|warning| warning.to_string()).collect::<Vec<_>>()
    };
    let inline = with_secret(&format!("secret: {APP_SECRET}"));
    let in_a_file = with_secret("secret_file: secret");
    for private in [0o600, 0o640] {
        assert_eq!(warned(&inline, private, 0o644), Vec::<String>::new());
        assert_eq!(warned(&in_a_file, 0o644, private), Vec::<String>::new());
    }
    for (message, begins) in [
        (
            warned(&inline, 0o644, 0o600),
            "this file holds secrets, and every user of this machine can read it (mode 0644)",
        ),
        (
            warned(&in_a_file, 0o644, 0o604),
            "accounts[0].secret_file: the file holds secrets, and every user of this machine",
        ),
        (
            warned(&in_a_file, 0o644, 0o602),
            "accounts[0].secret_file: the file holds secrets, and every user of this machine can change it (mode 0602)",
        ),
        (
            warned(&inline, 0o606, 0o600),
            "this file holds secrets, and every user of this machine can read and change it (mode 0606)",
        ),
        (warned(&in_a_file, 0o646, 0o600), "every user of this machine can change this file (mode 0646)"),
        (
            warned(&(in_a_file.clone() + "store: { path: none/w.redb }"), 0o600, 0o600),
            "store.path: the folder of this path does not exist",
        ),
        (
            warned(
                &(in_a_file.clone()
                    + "publish: [{ redis: 'redis://:p@h', preset: wxjava, accounts: ['*'] }]"),
                0o644,
                0o600,
            ),
            "this file holds secrets",
        ),
    ] {
        assert!(message.len() == 1 && message[0].starts_with(begins), "{message:?}");
    }
    let open = in_a_file + "publish: [{ redis: 'redis://h', preset: wxjava, accounts: ['*'] }]";
    assert_eq!(warned(&open, 0o644, 0o600), Vec::<String>::new());
}
