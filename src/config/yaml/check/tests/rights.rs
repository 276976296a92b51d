//! Warnings of clients whose rights cover nothing, and of accounts that no right covers.

use std::path::Path;

use crate::config::Config;

/// The messages about these clients, each given by its accounts and its permissions, for one account without
/// tickets and one with a ticket. Messages about the store are left out.
fn messages(clients: &[(&str, &str)]) -> Vec<String> {
    let client = |(index, (accounts, allow)): (usize, &(&str, &str))| {
        let key = format!("{index}-long-random-client-key");
        format!("    - {{ name: c{index}, key: {key}, accounts: [{accounts}], allow: [{allow}] }}\n")
    };
    let clients: String = clients.iter().enumerate().map(client).collect();
    let text = format!(
        "api:\n  clients:\n{clients}\
         accounts:\n\
         \x20 - {{ appid: wx0123456789abcdef, secret: 0123456789abcdef0123456789abcdef }}\n\
         \x20 - {{ appid: wxfedcba9876543210, secret: fedcba9876543210fedcba9876543210, tags: [retail], tickets: [jsapi] }}\n"
    );
    let config = Config::parse(&text, Path::new("/nowhere/accounts.yaml"), |_| None).unwrap();
    let messages = config.warnings.iter().filter(|warning| warning.key != "store.path");
    messages.map(|warning| format!("{}: {}", warning.key, warning.what)).collect()
}

#[test]
fn an_account_that_no_administrator_has_is_reported() {
    let all = ("'*'", "read");
    assert_eq!(messages(&[("'*'", "read, admin")]), [""; 0]);
    assert_eq!(messages(&[("'tag:retail'", "admin"), ("wx0123456789abcdef", "admin"), all]), [""; 0]);
    let no_clients = "api.clients: none is allowed admin: nobody can order a refresh";
    assert_eq!(messages(&[all]), [no_clients]);
    let first = "api.clients: none is allowed admin for accounts[0]: nobody can order a refresh of it";
    assert_eq!(messages(&[all, ("'tag:retail'", "admin")]), [first]);
    assert_eq!(
        messages(&[all, ("'tag:nobody'", "admin")]),
        ["api.clients[1].accounts[0]: \"tag:nobody\" covers no account", &format!("{first} and of 1 more")]
    );
}

#[test]
fn an_entry_that_covers_no_account_is_reported() {
    let messages = messages(&[
        ("'*'", "read, admin"),
        ("'tag:retial', 'gh_*', 'tag:retail', 'wx?123456789abcdef'", "read"),
    ]);
    let expected = ["0]: \"tag:retial\"", "1]: \"gh_*\""]
        .map(|entry| format!("api.clients[1].accounts[{entry} covers no account"));
    assert_eq!(messages, expected);
}

#[test]
fn an_account_that_no_client_reads_is_reported_with_what_is_missing() {
    let admin = ("'*'", "admin");
    let read = |why: &str| format!("accounts[0]: no client may read it: {why}");
    let not_allowed = "none of those that have it among their accounts is allowed read";
    let second = format!("accounts[1]: no client may read it: {not_allowed}");
    assert_eq!(messages(&[("'*'", "refresh, admin")]), [read(not_allowed), second]);
    let no_ticket = "those that have it among their accounts are allowed to sign, and its tickets lack jsapi";
    assert_eq!(messages(&[admin, ("'*'", "sign")]), [read(no_ticket)]);
    assert_eq!(messages(&[admin, ("'*'", "sign"), ("wx0123456789abcdef", "read")]), [""; 0]);
    let elsewhere = messages(&[("wxfedcba9876543210", "read")]);
    assert_eq!(elsewhere[1], read("none has it among its accounts"));
}
