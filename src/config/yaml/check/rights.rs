//! Warns of actions and accounts that no client has access to.

use std::sync::Arc;

use wxtokend_core::account::Account;
use wxtokend_core::ticket::TicketKind;

use super::publish::IndexedSink;
use crate::config::grants::{Allow, Client};
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;

/// Warns of everything that none of the clients may do, if there are clients.
pub(super) fn warn_of_unreachable_accounts(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    clients: &[Client],
    sinks: &[IndexedSink],
    at_accounts: &Place<'_>,
    accounts: &[Option<Arc<Account>>],
) {
    if clients.is_empty() {
        return;
    }
    if clients.iter().any(|client| client.allow.admin) {
        warn_of_accounts_without_admin(reader, at, clients, accounts);
    } else {
        reader.warn(at, "none is allowed admin: nobody can order a refresh");
    }
    for (index, account) in accounts.iter().enumerate() {
        let Some(account) = account else { continue };
        if sinks.iter().any(|indexed| indexed.sink.accounts.covers(account)) {
            continue;
        }
        if let Some(why) = unreadable_reason(clients, account) {
            reader.warn(&at_accounts.item(index), format!("no client may read it: {why}"));
        }
    }
}

/// Gives one warning for all such accounts, since there may be thousands.
fn warn_of_accounts_without_admin(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    clients: &[Client],
    accounts: &[Option<Arc<Account>>],
) {
    let admins: Vec<_> = clients.iter().filter(|client| client.allow.admin).collect();
    let mut without = accounts.iter().enumerate().filter(|(_, account)| {
        let is_covered = |account: &Arc<Account>| admins.iter().any(|client| client.accounts.covers(account));
        account.as_ref().is_some_and(|account| !is_covered(account))
    });
    let Some((first, _)) = without.next() else { return };
    let more = match without.count() {
        0 => String::new(),
        more => format!(" and of {more} more"),
    };
    let what = format!("none is allowed admin for accounts[{first}]: nobody can order a refresh of it{more}");
    reader.warn(at, what);
}

/// Why no client may read `account`, or at least have its pages signed; `None` if one may.
fn unreadable_reason(clients: &[Client], account: &Account) -> Option<&'static str> {
    let mut allowed = Allow::NONE;
    let mut is_covered = false;
    for client in clients.iter().filter(|client| client.accounts.covers(account)) {
        is_covered = true;
        allowed.read |= client.allow.read;
        allowed.sign |= client.allow.sign;
    }
    if allowed.read || allowed.sign && account.settings.tickets.has(TicketKind::Jsapi) {
        None
    } else if allowed.sign {
        Some("those that have it among their accounts are allowed to sign, and its tickets lack jsapi")
    } else if is_covered {
        Some("none of those that have it among their accounts is allowed read")
    } else {
        Some("none has it among its accounts")
    }
}
