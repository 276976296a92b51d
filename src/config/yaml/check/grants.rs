//! The `accounts` of clients and of sinks.

use std::collections::HashSet;
use std::sync::Arc;

use wxtokend_core::account::{Account, Appid};

use crate::config::grants::{Grant, Grants, InvalidGrant};
use crate::config::yaml::node::Node;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;

pub(super) type List = Node<Vec<Node<String>>>;

/// One entry of the accounts that a client is granted.
pub(super) struct GrantEntry {
    /// The account that it names, if it names just one.
    appid: Option<Appid>,
    grants: Grants,
    /// As a message may show it.
    quoted: String,
    client: usize,
    entry: usize,
}

pub(super) fn grants(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    entries: List,
    client: usize,
    wanted: &mut Vec<GrantEntry>,
) -> Option<Grants> {
    let needed = "list appids, globs of appids or tag:NAME; [\"*\"] for all";
    let mut texts = Vec::new();
    for (entry, node) in reader.filled_list(at, entries, needed).into_iter().enumerate() {
        let at = at.item(entry);
        let Some(value) = reader.value(&at, node) else { continue };
        let parse = |text: &str| {
            let both = || Ok((Grant::parse(text)?.appid(), Grants::new([text])?));
            both().map_err(|why: InvalidGrant| format!("names no accounts; {why}"))
        };
        let Some((appid, grants)) = reader.understood(&at, &value, parse) else { continue };
        wanted.push(GrantEntry { appid, grants, quoted: value.quoted(), client, entry });
        texts.push(value.text);
    }
    Grants::new(texts.iter().map(String::as_str)).ok()
}

/// An appid that a client is granted and nobody configured is a slip of the pen. A glob or a tag may wait for
/// accounts to come, so it is only warned of. While an account cannot be read, it may be the one that is meant.
pub(super) fn wanted_are_configured(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    wanted: &[GrantEntry],
    accounts: &[Option<Arc<Account>>],
) {
    if accounts.is_empty() || accounts.iter().any(Option::is_none) {
        return;
    }
    let configured: HashSet<_> = accounts.iter().flatten().map(|account| &account.appid).collect();
    for GrantEntry { appid, grants, quoted, client, entry } in wanted {
        let place = at.item(*client);
        let place = place.key("accounts");
        let place = place.item(*entry);
        match appid {
            Some(appid) if !configured.contains(appid) => {
                reader.report(&place, format!("{quoted} is the appid of no account"));
            }
            None if !accounts.iter().flatten().any(|account| grants.covers(account)) => {
                reader.warn(&place, format!("{quoted} covers no account"));
            }
            _ => {}
        }
    }
}
