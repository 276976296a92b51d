//! Checks `api.clients`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wxtokend_core::account::Account;
use wxtokend_core::secret::Secret;

use super::grants::{GrantEntry, List, grants};
use crate::config::grants::{Allow, Client};
use crate::config::yaml::file;
use crate::config::yaml::node::Node;
use crate::config::yaml::parse;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;
use crate::config::yaml::secrets::{SecretUse, in_lower_case};

/// The clients, and data for checks that need the accounts.
pub(super) struct ClientDrafts {
    pub(super) list: Vec<Client>,
    pub(super) entries_to_check: Vec<GrantEntry>,
    /// By digest: the index of the client and the key under which it is given.
    keys: HashMap<Digest, (usize, &'static str)>,
    /// The same by the digest of the key in lower case, for clients whose key is known in plain text.
    in_lower_case: HashMap<Digest, (usize, &'static str)>,
}

/// What is shorter is warned of: SDKs renew a token up to 5 min before its end.
const SHORT_PROMISE: Duration = Duration::from_secs(10 * 60);

/// SHA-256.
type Digest = [u8; 32];

/// A client's key.
#[derive(Clone, Copy)]
struct Key {
    sha256: Digest,
    /// The digest of the key in lower case, if its text is known.
    in_lower_case: Option<Digest>,
    /// Which of the three alternative keys of the file gives it.
    given_as: &'static str,
}

pub(super) fn clients(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    clients: Node<Vec<Node<file::Client>>>,
) -> ClientDrafts {
    let mut known = ClientDrafts {
        list: Vec::new(),
        entries_to_check: Vec::new(),
        keys: HashMap::new(),
        in_lower_case: HashMap::new(),
    };
    let mut names = HashMap::new();
    for (index, client) in reader.list(at, clients).into_iter().enumerate() {
        let at_client = at.item(index);
        let client = reader.build_or_report(&at_client, |reader| {
            let client = reader.item(&at_client, client)?;
            let at_name = at_client.key("name");
            let name = reader.required(&at_name, client.name, "logs call the client by it");
            let name = name.and_then(|name| reader.label(&at_name, name));
            if let Some(other) = name.as_ref().and_then(|name| names.insert(name.clone(), index)) {
                reader.report(&at_name, format!("is the same as {at}[{other}].name"));
            }
            let key = key(reader, &at_client, client.key, client.key_file, client.key_sha256);
            if let Some(Key { sha256, in_lower_case, given_as }) = key {
                known.in_lower_case.extend(in_lower_case.map(|digest| (digest, (index, given_as))));
                if let Some((other, _)) = known.keys.insert(sha256, (index, given_as)) {
                    reader.report(&at_client.key(given_as), format!("is the key of {at}[{other}], too"));
                }
            }
            let at_accounts = at_client.key("accounts");
            let accounts = grants(reader, &at_accounts, client.accounts, index, &mut known.entries_to_check);
            let allow = allow(reader, &at_client.key("allow"), client.allow);
            let at_urls = at_client.key("urls");
            let needed = "list how the addresses of pages begin; such as https://shop.example.com/";
            let urls = prefixes(reader, &at_urls, client.urls, needed, parse::page_prefix);
            if allow.read && !urls.is_empty() {
                // `read` is also the default where `allow` is missing.
                let why =
                    "would keep nobody from signing who may read tickets; set allow: [sign], without read";
                reader.report(&at_urls, why);
            }
            let at_paths = at_client.key("paths");
            let needed = "list how the paths of calls begin; such as /cgi-bin/message/";
            let paths = prefixes(reader, &at_paths, client.paths, needed, parse::url_path);
            if !allow.call && !paths.is_empty() {
                reader.report(&at_paths, "limits calls, and this client may make none; set allow: [call]");
            }
            let at_promise = at_client.key("promise_at_most");
            let promise_at_most = promise(reader, &at_promise, client.promise_at_most);
            if !allow.read && promise_at_most.is_some() {
                reader.warn(&at_promise, "changes nothing: without allow: [read] nothing is promised to it");
            }
            let (key_sha256, name, accounts) = (key?.sha256, name?, accounts?);
            Some(Client { name, key_sha256, accounts, allow, urls, paths, promise_at_most })
        });
        known.list.extend(client);
    }
    known
}

/// A client's key must not be an AppSecret: with an AppSecret anybody can fetch tokens without us.
pub(super) fn check_keys_are_not_app_secrets(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    clients: &ClientDrafts,
    accounts: &[Option<Arc<Account>>],
) {
    if clients.keys.is_empty() {
        return;
    }
    let mut reported = HashSet::new();
    for (index, account) in accounts.iter().enumerate() {
        let Some(account) = account else { continue };
        let exact = clients.keys.get(&account.secret.sha256()).map(|client| (client, ""));
        let but_for = " but for its case or a blank behind it";
        let found = exact
            .or_else(|| client_with_similar_key(clients, &account.secret).map(|client| (client, but_for)));
        if let Some(((client, given_as), but_for)) = found
            && reported.insert(*client)
        {
            let what =
                format!("is the AppSecret of accounts[{index}]{but_for}; give the client a key of its own");
            reader.report(&at.item(*client).key(given_as), what);
        }
    }
}

/// The client whose key is this AppSecret in another case or with what `echo` adds. Such variants take no
/// time to try.
fn client_with_similar_key<'a>(
    clients: &'a ClientDrafts,
    secret: &Secret,
) -> Option<&'a (usize, &'static str)> {
    let lower = in_lower_case(secret);
    if let Some(found) = clients.in_lower_case.get(&lower.sha256()) {
        return Some(found);
    }
    let upper = Secret::new(secret.expose().to_ascii_uppercase());
    let cases = [secret, &lower, &upper].into_iter();
    let ends = ["", "\n", "\r\n", " "];
    let mut written =
        cases.flat_map(|case| ends.map(|end| Secret::new(format!("{}{end}", case.expose())).sha256()));
    written.find_map(|digest| clients.keys.get(&digest))
}

/// A client's key, given in one of three ways.
fn key(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    key: Node<String>,
    key_file: Node<String>,
    key_sha256: Node<String>,
) -> Option<Key> {
    let ways = [
        ("key", !key.is_absent()),
        ("key_file", !key_file.is_absent()),
        ("key_sha256", !key_sha256.is_absent()),
    ];
    let way = reader.one_of(at, &ways)?;
    let at = at.key(way);
    let key = match way {
        "key" => reader.secret(&at, key, SecretUse::Key)?,
        "key_file" => reader.secret_file(&at, key_file, SecretUse::Key)?,
        _ => {
            // The value is not quoted, since it may be the key itself.
            let digest = parse::sha256_hex(&reader.value(&at, key_sha256)?.text);
            if digest.is_none() {
                reader.report(&at, "must be the SHA-256 of the key in 64 hex digits");
            }
            let sha256 = reader.key_digest(&at, digest?)?;
            return Some(Key { sha256, in_lower_case: None, given_as: way });
        }
    };
    Some(Key { sha256: key.sha256(), in_lower_case: Some(in_lower_case(&key).sha256()), given_as: way })
}

fn allow(reader: &mut ConfigReader<'_>, at: &Place<'_>, names: List) -> Allow {
    if names.is_absent() {
        return Allow::default();
    }
    let known = format!("allowed: {}", Allow::NAMES.join(", "));
    let mut allow = Allow::NONE;
    for (index, name) in reader.filled_list(at, names, &known).into_iter().enumerate() {
        let with = |text: &str| match text {
            "read" => Ok(Allow { read: true, ..allow }),
            "refresh" => Ok(Allow { refresh: true, ..allow }),
            "admin" => Ok(Allow { admin: true, ..allow }),
            "sign" => Ok(Allow { sign: true, ..allow }),
            "call" => Ok(Allow { call: true, ..allow }),
            _ => Err(format!("is nothing to allow; {known}")),
        };
        allow = reader.parsed(&at.item(index), name, with).unwrap_or(allow);
    }
    allow
}

/// A list of prefixes. Without it everything is allowed; an empty one is a mistake.
fn prefixes(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    list: List,
    needed: &str,
    parse: fn(&str) -> Result<String, String>,
) -> Vec<String> {
    if list.is_absent() {
        return Vec::new();
    }
    let mut checked = Vec::new();
    for (index, prefix) in reader.filled_list(at, list, needed).into_iter().enumerate() {
        checked.extend(reader.parsed(&at.item(index), prefix, parse));
    }
    checked
}

/// How long a promise may be, at most.
fn promise(reader: &mut ConfigReader<'_>, at: &Place<'_>, most: Node<String>) -> Option<Duration> {
    let most = reader.parsed(at, most, parse::promise)?;
    if most < SHORT_PROMISE {
        let why =
            "is so short that SDKs, which renew a token minutes before its end, ask for it at every call";
        reader.warn(at, why);
    }
    Some(most)
}
