//! The `accounts` of clients and of sinks.

use std::collections::HashSet;
use std::sync::Arc;

use crate::account::{Account, Appid};
use crate::config::grants::{Grant, Grants};
use crate::config::node::Node;
use crate::config::place::Place;
use crate::config::reader::Reader;

pub(super) type List = Node<Vec<Node<String>>>;

/// An appid that a client is granted by its name.
pub(super) struct Wanted {
    appid: Appid,
    /// As a message may show it.
    quoted: String,
    client: usize,
    entry: usize,
}

pub(super) fn grants(
    reader: &mut Reader<'_>,
    at: &Place<'_>,
    entries: List,
    client: usize,
    wanted: &mut Vec<Wanted>,
) -> Option<Grants> {
    let needed = "list appids, globs of appids or tag:NAME; [\"*\"] for all";
    let mut texts = Vec::new();
    for (entry, node) in reader.filled_list(at, entries, needed).into_iter().enumerate() {
        let at = at.item(entry);
        let Some(value) = reader.value(&at, node) else { continue };
        let parse = |text: &str| {
            Grant::parse(text).map(Grant::appid).map_err(|why| format!("names no accounts; {why}"))
        };
        let Some(appid) = reader.understood(&at, &value, parse) else { continue };
        wanted.extend(appid.map(|appid| Wanted { appid, quoted: value.quoted(), client, entry }));
        texts.push(value.text);
    }
    Grants::new(texts.iter().map(String::as_str)).ok()
}

/// An appid that a client is granted and nobody configured is a slip of the pen. A glob or a tag may wait for
/// accounts to come. While an account cannot be read, it may be the one that is meant.
pub(super) fn wanted_are_configured(
    reader: &mut Reader<'_>,
    at: &Place<'_>,
    wanted: &[Wanted],
    accounts: &[Option<Arc<Account>>],
) {
    if accounts.is_empty() || accounts.iter().any(Option::is_none) {
        return;
    }
    let configured: HashSet<_> = accounts.iter().flatten().map(|account| &account.appid).collect();
    for want in wanted.iter().filter(|want| !configured.contains(&want.appid)) {
        let place = at.item(want.client);
        let place = place.key("accounts");
        reader.report(&place.item(want.entry), format!("{} is the appid of no account", want.quoted));
    }
}
