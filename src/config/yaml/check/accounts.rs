//! Checks `accounts`, and their shared `defaults`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use wxtokend_core::account::{Account, AccountSettings, Appid, Retry};
use wxtokend_core::ticket::TicketKinds;

use crate::config::duration::show;
use crate::config::yaml::file;
use crate::config::yaml::node::Node;
use crate::config::yaml::parse;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;
use crate::config::yaml::secrets::{SecretUse, in_lower_case};

/// The number of accounts that one process is designed for.
const MAX_ACCOUNTS: usize = 100_000;

/// All accounts of the file; `None` for those that cannot be read.
pub(super) fn accounts(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    accounts: Node<Vec<Node<file::Account>>>,
    defaults: AccountSettings,
) -> Vec<Option<Arc<Account>>> {
    let accounts = reader.filled_list(at, accounts, "at least one account is needed");
    if accounts.len() > MAX_ACCOUNTS {
        reader.report(at, format!("has {} accounts; at most {MAX_ACCOUNTS} are possible", accounts.len()));
    }
    let mut first = HashMap::with_capacity(accounts.len());
    let mut secrets_at = Vec::with_capacity(accounts.len());
    let read = accounts.into_iter().enumerate().map(|(index, account)| {
        let at = at.item(index);
        reader.build_or_report(&at, |reader| {
            let account = reader.item(&at, account);
            let in_a_file = account.as_ref().is_some_and(|account| !account.secret_file.is_absent());
            secrets_at.push(if in_a_file { "secret_file" } else { "secret" });
            let mut account = account?;
            let appid = appid(reader, &at.key("appid"), std::mem::take(&mut account.appid));
            if let Some(other) = appid.as_ref().and_then(|appid| first.insert(appid.clone(), index)) {
                reader.report(&at.key("appid"), format!("is the same as accounts[{other}].appid"));
            }
            self::account(reader, &at, appid, account, defaults).map(Arc::new)
        })
    });
    let accounts: Vec<_> = read.collect();
    warn_of_equal_secrets(reader, at, &accounts, &secrets_at);
    accounts
}

/// Warns of equal AppSecrets. Each account has its own, so an equal one was copied by mistake.
fn warn_of_equal_secrets(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    accounts: &[Option<Arc<Account>>],
    secrets_at: &[&'static str],
) {
    let mut first = HashMap::with_capacity(accounts.len());
    for (index, (account, key)) in accounts.iter().zip(secrets_at).enumerate() {
        let Some(account) = account else { continue };
        // A copy may differ in case.
        match first.entry(in_lower_case(&account.secret).sha256()) {
            Entry::Vacant(new) => drop(new.insert((index, *key))),
            Entry::Occupied(known) => {
                let (other, other_key) = known.get();
                let what = format!("is the same as that of accounts[{other}].{other_key}");
                reader.warn(&at.item(index).key(key), what);
            }
        }
    }
}

fn appid(reader: &mut ConfigReader<'_>, at: &Place<'_>, node: Node<String>) -> Option<Appid> {
    let appid = reader.required(at, node, "every account has one")?;
    let parse = |text: &str| Appid::new(text).map_err(|why| format!("is not an appid: {why}"));
    let appid = reader.convert(at, &appid, parse)?;
    if !is_wechat_appid(appid.as_str()) {
        reader.warn(at, "is not wx and 16 hex digits, as WeChat's appids are");
    }
    Some(appid)
}

fn is_wechat_appid(appid: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    appid.strip_prefix("wx").is_some_and(|digits| digits.len() == 16 && digits.bytes().all(is_hex))
}

fn account(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    appid: Option<Appid>,
    account: file::Account,
    defaults: AccountSettings,
) -> Option<Account> {
    let at_name = at.key("name");
    let name = reader.value(&at_name, account.name).and_then(|name| reader.label(&at_name, name));
    let ways = [("secret", !account.secret.is_absent()), ("secret_file", !account.secret_file.is_absent())];
    let secret = reader.one_of(at, &ways).and_then(|way| match way {
        "secret" => reader.secret(&at.key(way), account.secret, SecretUse::AppSecret),
        _ => reader.secret_file(&at.key(way), account.secret_file, SecretUse::AppSecret),
    });
    let tags = tags(reader, &at.key("tags"), account.tags);
    let built = settings(reader, at, account.settings, defaults).account(appid?, secret?);
    Some(Account { name: name.unwrap_or(built.name), tags, ..built })
}

fn tags(reader: &mut ConfigReader<'_>, at: &Place<'_>, tags: Node<Vec<Node<String>>>) -> Vec<String> {
    let (mut checked, mut known) = (Vec::new(), HashSet::new());
    for (index, tag) in reader.list(at, tags).into_iter().enumerate() {
        let at = at.item(index);
        let tag = reader.value(&at, tag).and_then(|tag| reader.label(&at, tag));
        checked.extend(tag.filter(|tag| known.insert(tag.clone())));
    }
    checked
}

/// The settings of `base`, overridden by those given here.
pub(super) fn settings(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    own: file::Settings,
    base: AccountSettings,
) -> AccountSettings {
    let mut all = base;
    reader.set(&mut all.endpoint, &at.key("endpoint"), own.endpoint, parse::endpoint);
    reader.set(&mut all.daily_budget, &at.key("daily_budget"), own.daily_budget, parse::at_least(4));
    reader.set(&mut all.refresh_ahead, &at.key("refresh_ahead"), own.refresh_ahead, parse::refresh_ahead);
    all.retry = retry(reader, &at.key("retry"), own.retry, base.retry);
    let verify = at.key("verify_rejections");
    reader.set(&mut all.verify_rejections, &verify, own.verify_rejections, parse::yes_or_no);
    let cooldown = at.key("rejection_cooldown");
    reader.set(&mut all.rejection_cooldown, &cooldown, own.rejection_cooldown, parse::duration);
    reader.set(&mut all.audit, &at.key("audit"), own.audit, parse::duration_or_zero);
    reader.set(&mut all.check_budget, &at.key("check_budget"), own.check_budget, parse::at_least(8));
    if !own.tickets.is_absent() {
        all.tickets = tickets(reader, &at.key("tickets"), own.tickets);
    }
    all
}

fn tickets(reader: &mut ConfigReader<'_>, at: &Place<'_>, tickets: Node<Vec<Node<String>>>) -> TicketKinds {
    let mut kinds = Vec::new();
    for (index, ticket) in reader.list(at, tickets).into_iter().enumerate() {
        kinds.extend(reader.parsed(&at.item(index), ticket, parse::ticket));
    }
    kinds.into_iter().collect()
}

/// Either of the two may be left to `base`.
fn retry(reader: &mut ConfigReader<'_>, at: &Place<'_>, own: Node<file::Retry>, base: Retry) -> Retry {
    let own = reader.mapping(at, own);
    let is_given = !own.initial.is_absent() || !own.max.is_absent();
    let mut bound = |key, node: Node<String>, base| match node {
        Node::Absent => Some(base),
        node => reader.parsed(&at.key(key), node, parse::duration),
    };
    let (initial, max) = (bound("initial", own.initial, base.initial), bound("max", own.max, base.max));
    let (Some(initial), Some(max)) = (initial, max) else { return base };
    if is_given && initial > max {
        reader.report(at, format!("initial ({}) is longer than max ({})", show(initial), show(max)));
        return base;
    }
    Retry { initial, max }
}
