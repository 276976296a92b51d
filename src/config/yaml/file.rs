//! The mirror of `accounts.yaml`: its mappings, with whatever stands in them.
//!
//! The one file that knows serde_yaml.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess};

use super::node::{
    AliasAllowance, KeyMatch, Mapping, Node, NodeReader, ReadOptions, ScalarMode, UnknownKeys, mapping,
};
use super::place::Place;
use super::tags::{self, TagFinder};
use crate::config::problem::{Position, Problem};

/// The parser looks at every open bracket again with each word: a file of nothing else would keep it busy for days.
const MOST_OPEN: usize = 10_000;

/// A single value, before it is known what it stands for.
type Single = String;
type List<T> = Vec<Node<T>>;

mapping! {
    /// The whole file.
    File { api: Api, metrics: Metrics, store: Store, upstream: Upstream, publish: List<Sink>, defaults: Settings, accounts: List<Account> }
}
mapping! {
    /// `api`
    Api { listen: Single, wechat_path: Single, clients: List<Client> }
}
mapping! {
    /// `api.clients[…]`
    Client { name: Single, key: Single, key_file: Single, key_sha256: Single, accounts: List<Single>, allow: List<Single>, urls: List<Single> }
}
mapping! {
    /// `metrics`
    Metrics { listen: Single, per_account: Single }
}
mapping! {
    /// `store`
    Store { path: Single }
}
mapping! {
    /// `upstream`
    Upstream { base_urls: List<Single>, timeout: Single, overlap: Single, max_in_flight: Single, max_per_second: Single }
}
mapping! {
    /// `publish[…]`
    Sink {
        name: Single,
        redis: Single,
        redis_file: Single,
        preset: Single,
        prefix: Single,
        key: Single,
        value: Single,
        accounts: List<Single>,
    }
}
mapping! {
    /// `defaults`, and the same keys on an account
    Settings {
        endpoint: Single,
        daily_budget: Single,
        refresh_ahead: Single,
        retry: Retry,
        verify_rejections: Single,
        rejection_cooldown: Single,
        tickets: List<Single>,
    }
}
mapping! {
    /// `defaults.retry`
    Retry { initial: Single, max: Single }
}
mapping! {
    /// `accounts[…]`
    Account { appid: Single, name: Single, secret: Single, secret_file: Single, tags: List<Single> } + settings: Settings
}

/// Reads the file as it stands. What is no YAML at all is one problem, in the parser's words.
pub(crate) fn read(text: &str) -> Result<Node<File>, Problem> {
    if open_at_once(text) > MOST_OPEN {
        let what = "not YAML that can be read here: too many [ or { are open at once".to_owned();
        return Err(Problem { position: None, key: String::new(), what });
    }
    let read = |leaves| {
        let manner = ReadOptions { leaves, allowance: &AliasAllowance::of(text) };
        NodeReader::<File>::new(manner).deserialize(serde_yaml::Deserializer::from_str(text))
    };
    if let Ok(file) = read(ScalarMode::Verbatim) {
        return Ok(file);
    }
    // The parser's own messages quote nothing of the file; those of serde may, so they are not shown.
    if let Err(error) = IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(text)) {
        let position = position(&error);
        let said =
            position.map_or_else(String::new, |at| format!(" at line {} column {}", at.line, at.column));
        let what = format!("not YAML: {}", error.to_string().replacen(&said, "", 1));
        return Err(Problem { position, key: String::new(), what });
    }
    read(ScalarMode::AnyForm).map_err(|error| Problem {
        position: position(&error),
        key: String::new(),
        what: "cannot be read here: too many levels or aliases".to_owned(),
    })
}

/// How many brackets are open at the deepest place, counting those in texts, too.
fn open_at_once(text: &str) -> usize {
    let mut open = 0_usize;
    let depths = text.bytes().map(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open
    });
    depths.max().unwrap_or_default()
}

/// Tells every place of `text` where a YAML tag stands, and whether the whole text could be walked through.
pub(crate) fn tagged(text: &str, told: &mut dyn FnMut(&Place<'_>)) -> bool {
    if !text.contains('!') {
        return true;
    }
    let text = tags::made_local(text);
    let known = all_keys().into_iter().flat_map(|(_, keys)| keys).collect::<HashSet<_>>();
    let manner = ReadOptions { leaves: ScalarMode::AnyForm, allowance: &AliasAllowance::of(&text) };
    let walk = TagFinder { place: &Place::TOP, exact: true, known: &known, manner, told };
    walk.deserialize(serde_yaml::Deserializer::from_str(&text)).is_ok()
}

/// Where in `text` the place is, or the nearest thing above it that is there.
pub(crate) fn locate(text: &str, place: &Place<'_>) -> Option<Position> {
    let sought = place.seek().deserialize(serde_yaml::Deserializer::from_str(text));
    position(&sought.err()?)
}

fn position(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|at| Position { line: at.line(), column: at.column() })
}

/// Every key that may stand in a file, with the mapping that it stands in.
pub(crate) fn all_keys() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("", File::keys()),
        ("api", Api::keys()),
        ("clients", Client::keys()),
        ("metrics", Metrics::keys()),
        ("store", Store::keys()),
        ("upstream", Upstream::keys()),
        ("publish", Sink::keys()),
        ("defaults", Settings::keys()),
        ("retry", Retry::keys()),
        ("accounts", Account::keys()),
    ]
}
