//! Messages about the files and the folder that a configuration names.

use std::path::Path;

use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;
use crate::config::yaml::regular_file::Files;
use crate::config::{Config, ConfigError};

const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The result of parsing `text` while everything below `unreachable` hangs.
fn parse_with_unreachable(unreachable: &Path, text: &str) -> Result<Config, ConfigError> {
    Config::checked(
        text,
        "/nowhere/accounts.yaml".as_ref(),
        None,
        &|_| None,
        Files::with_unreachable(unreachable),
    )
}

#[test]
fn a_store_that_hangs_is_warned_of_and_takes_no_account_away() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, APP_SECRET).unwrap();
    let secret = secret.display();
    let text = format!(
        "store: {{ path: /away/w.redb }}\n\
         api: {{ clients: [{{ name: a, key_file: {secret}.key, accounts: ['*'], allow: [read, admin] }}] }}\n\
         accounts:\n  - {{ appid: wx0123456789abcdef, secret_file: {secret} }}\n"
    );
    std::fs::write(format!("{secret}.key"), "a-long-random-client-key").unwrap();
    let config = parse_with_unreachable("/away".as_ref(), &text).unwrap();
    assert_eq!((config.accounts.len(), config.api.clients.len()), (1, 1));
    let messages = config.warnings.iter().filter(|warning| warning.key == "store.path");
    let messages: Vec<_> = messages.map(ToString::to_string).collect();
    assert!(
        messages.len() == 1
            && messages[0].starts_with("store.path: cannot be checked: it was not read within"),
        "{messages:?}"
    );
}

#[test]
fn each_file_that_was_not_read_because_another_hung_is_reported_at_its_place() {
    let text = "publish: [{ redis_file: /here/a, preset: wechatpy, accounts: ['*'] }]\n\
                api: { clients: [{ name: a, key_file: /away/b, accounts: ['*'] }] }\n\
                accounts: [{ appid: a, secret_file: /here/c }, { appid: b, secret_file: /away/d }]\n";
    let Err(ConfigError::Problems { problems, .. }) = parse_with_unreachable("/away".as_ref(), text) else {
        panic!("problems expected")
    };
    let messages: Vec<_> =
        problems.iter().map(|problem| (problem.key.as_str(), problem.what.as_str())).collect();
    let [(client, hung), rest @ ..] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(*client, "api.clients[0].key_file");
    assert!(hung.starts_with("the file cannot be read: it was not read within"), "{hung}");
    let since = "the file was not read, since that of api.clients[0].key_file does not answer";
    let expected =
        ["publish[0].redis_file", "accounts[0].secret_file", "accounts[1].secret_file"].map(|at| (at, since));
    assert_eq!(rest, expected);
}

#[test]
fn a_path_at_which_no_store_can_be_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = at("accounts.yaml");
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::write(at("old.redb"), "").unwrap();
    for (link, target) in [("lost", "none/w.redb"), ("twice", "lost"), ("good", "folder/w.redb")] {
        std::os::unix::fs::symlink(target, at(link)).unwrap();
    }
    std::fs::hard_link(at("old.redb"), at("second")).unwrap();
    for (store, expected) in [
        ("folder", "is a folder; the store is a file"),
        (".", "is a folder; "),
        ("..", "is a folder; "),
        ("folder/", "ends with a slash, as a folder does"),
        ("w.redb/", "ends with a slash"),
        ("/dev/null", "is a device; the store is a regular file"),
        ("pipe", "is a pipe; "),
        ("accounts.yaml", "is this file itself; "),
        ("folder/../accounts.yaml", "is this file itself; "),
        ("none/w.redb", "the folder of this path does not exist; a start needs it"),
        ("old.redb/w.redb", "the folder of this path does not exist"),
        ("lost", "is a link into a folder that does not exist; "),
        ("twice", "is a link into a folder that does not exist; "),
        ("good", ""),
        ("old.redb", ""),
        ("second", ""),
        ("w.redb", ""),
    ] {
        let account = format!("accounts: [{{ appid: wx0123456789abcdef, secret: {APP_SECRET} }}]");
        std::fs::write(&config, format!("store: {{ path: {store} }}\n{account}\n")).unwrap();
        let read = Config::load(&config).unwrap();
        let messages = read.warnings.iter().filter(|warning| warning.key == "store.path");
        let messages: Vec<_> = messages.map(|warning| warning.what.as_str()).collect();
        match expected {
            "" => assert_eq!(messages, [""; 0], "{store}"),
            expected => {
                assert!(messages.len() == 1 && messages[0].starts_with(expected), "{store}: {messages:?}")
            }
        }
    }
}

#[test]
fn what_cannot_be_built_without_a_reason_given_is_a_problem_itself() {
    let mut reader = ConfigReader::new("accounts: [{}]", Path::new(""), &|_| None, Files::default());
    let accounts = Place::TOP.key("accounts");
    assert_eq!(reader.build_or_report(&accounts.item(0), |_| None::<()>), None);
    let problems = reader.finish().problems;
    assert!(problems.len() == 1 && problems[0].key == "accounts[0]", "{problems:?}");
    assert!(problems[0].position.is_some(), "{problems:?}");
}
