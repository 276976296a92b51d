//! The `accounts` lists of clients and sinks.

use std::collections::HashSet;
use std::sync::Arc;

use wxtokend_core::account::{Account, Appid};

use crate::config::grants::{Grant, Grants, InvalidGrant};
use crate::config::yaml::node::Node;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;

pub(super) type List = Node<Vec<Node<String>>>;

/// One entry of an `accounts` list.
pub(super) struct GrantEntry {
    /// The account, if the entry names exactly one.
    appid: Option<Appid>,
    grants: Grants,
    /// The entry as messages may show it.
    quoted: String,
    client: usize,
    entry: usize,
}

pub(super) fn grants(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    entries: List,
    client: usize,
    entries_to_check: &mut Vec<GrantEntry>,
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
        let Some((appid, grants)) = reader.convert(&at, &value, parse) else { continue };
        entries_to_check.push(GrantEntry { appid, grants, quoted: value.quoted(), client, entry });
        texts.push(value.text);
    }
    Grants::new(texts.iter().map(String::as_str)).ok()
}

/// Checks that entries match accounts. An appid that is not configured is a mistake. A glob or a tag may be
/// meant for future accounts, so there is only a warning. While an account cannot be read, nothing is
/// checked, since it may be the one that is meant.
pub(super) fn check_entries(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    entries_to_check: &[GrantEntry],
    accounts: &[Option<Arc<Account>>],
) {
    if accounts.is_empty() || accounts.iter().any(Option::is_none) {
        return;
    }
    let configured: HashSet<_> = accounts.iter().flatten().map(|account| &account.appid).collect();
    for GrantEntry { appid, grants, quoted, client, entry } in entries_to_check {
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
