//! The mirror of `accounts.yaml`: its mappings, with whatever values they contain.
//!
//! The only file that uses serde_yaml.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess};

use super::node::{
    AliasAllowance, KeyMatch, Mapping, Node, NodeReader, ReadOptions, ScalarMode, UnknownKeys, mapping,
};
use super::place::Place;
use super::tags::{self, TagFinder};
use crate::config::problem::{Position, Problem};

/// Limit of open brackets. The parser rescans every open bracket at each word: a file of brackets alone would
/// take it days.
const MAX_OPEN_BRACKETS: usize = 10_000;

/// A scalar value that has not been interpreted yet.
type Single = String;
type List<T> = Vec<Node<T>>;

mapping! {
    /// The whole file.
    File { api: Api, metrics: Metrics, store: Store, upstream: Upstream, proxy: Proxy, publish: List<Sink>, defaults: Settings, accounts: List<Account> }
}
mapping! {
    /// `api`
    Api { listen: Single, wechat_path: Single, trusted_proxies: List<Single>, clients: List<Client> }
}
mapping! {
    /// `api.clients[…]`
    Client { name: Single, key: Single, key_file: Single, key_sha256: Single, accounts: List<Single>, allow: List<Single>, urls: List<Single>, paths: List<Single>, promise_at_most: Single }
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
    /// `proxy`
    Proxy { keep_body: Single, timeout: Single, max_connections: Single, stale: Single, transparent: List<Transparent> }
}
mapping! {
    /// `proxy.transparent[…]`
    Transparent { client: Single, from: List<Single> }
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
        audit: Single,
        check_budget: Single,
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

/// Parses the file without interpreting it. A file that is not YAML gives one problem, with the parser's
/// message.
pub(crate) fn read(text: &str) -> Result<Node<File>, Problem> {
    if max_open_brackets(text) > MAX_OPEN_BRACKETS {
        let what = "not YAML that can be read here: too many [ or { are open at once".to_owned();
        return Err(Problem { position: None, key: String::new(), what });
    }
    let read = |scalars| {
        let options = ReadOptions { scalars, allowance: &AliasAllowance::of(text) };
        NodeReader::<File>::new(options).deserialize(serde_yaml::Deserializer::from_str(text))
    };
    if let Ok(file) = read(ScalarMode::Verbatim) {
        return Ok(file);
    }
    // The parser's own messages quote nothing from the file. Those of serde may, so they are not shown.
    if let Err(error) = IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(text)) {
        let position = position(&error);
        let suffix =
            position.map_or_else(String::new, |at| format!(" at line {} column {}", at.line, at.column));
        let what = format!("not YAML: {}", error.to_string().replacen(&suffix, "", 1));
        return Err(Problem { position, key: String::new(), what });
    }
    read(ScalarMode::AnyForm).map_err(|error| Problem {
        position: position(&error),
        key: String::new(),
        what: "cannot be read here: too many levels or aliases".to_owned(),
    })
}

/// The maximum number of brackets open at once, including those within strings.
fn max_open_brackets(text: &str) -> usize {
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

/// Calls `on_tag` for every place in `text` that has a YAML tag. Returns whether the whole text could be
/// traversed.
pub(crate) fn find_tags(text: &str, on_tag: &mut dyn FnMut(&Place<'_>)) -> bool {
    if !text.contains('!') {
        return true;
    }
    let text = tags::localize_tags(text);
    let known = all_keys().into_iter().flat_map(|(_, keys)| keys).collect::<HashSet<_>>();
    let options = ReadOptions { scalars: ScalarMode::AnyForm, allowance: &AliasAllowance::of(&text) };
    let finder = TagFinder { place: &Place::TOP, exact: true, known: &known, options, on_tag };
    finder.deserialize(serde_yaml::Deserializer::from_str(&text)).is_ok()
}

/// The position in `text` of `place`, or of its nearest ancestor that exists.
pub(crate) fn locate(text: &str, place: &Place<'_>) -> Option<Position> {
    let found = place.seek().deserialize(serde_yaml::Deserializer::from_str(text));
    position(&found.err()?)
}

fn position(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|at| Position { line: at.line(), column: at.column() })
}

/// Every key that a file may have, with the mapping that contains it.
pub(crate) fn all_keys() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("", File::keys()),
        ("api", Api::keys()),
        ("clients", Client::keys()),
        ("metrics", Metrics::keys()),
        ("store", Store::keys()),
        ("upstream", Upstream::keys()),
        ("proxy", Proxy::keys()),
        ("transparent", Transparent::keys()),
        ("publish", Sink::keys()),
        ("defaults", Settings::keys()),
        ("retry", Retry::keys()),
        ("accounts", Account::keys()),
    ]
}
