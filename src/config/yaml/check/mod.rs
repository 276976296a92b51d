//! Converts the mirror of the file to the checked settings.

mod accounts;
mod clients;
mod grants;
mod proxy;
mod publish;
mod rights;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use reqwest::Url;

use super::file;
use super::node::Node;
use super::parse;
use super::place::Place;
use super::reader::{ConfigReader, Diagnostics, Env};
use super::regular_file::Files;
use crate::config::checked::{ApiConfig, Config, Defaults, MetricsConfig, UpstreamConfig};

/// Parses `text` as the content of the file at `path`: returns the settings, or everything that is wrong.
/// `mode` has the file's permission bits.
pub(super) fn config(
    text: &str,
    path: &Path,
    mode: Option<u32>,
    env: Env<'_>,
    files: Files,
) -> Result<Config, Diagnostics> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut reader = ConfigReader::new(text, folder, env, files);
    reader.refuse_tags();
    let file = match file::read(text) {
        Ok(file) => reader.item(&Place::TOP, file),
        Err(problem) => {
            let diagnostics = reader.finish();
            return Err(if diagnostics.problems.is_empty() {
                Diagnostics { problems: vec![problem], ..diagnostics }
            } else {
                diagnostics
            });
        }
    };
    let Some(file) = file else { return Err(reader.finish()) };
    let top = Place::TOP;
    let at_api = top.key("api");
    let at_clients = at_api.key("clients");
    let (api, clients) = api(&mut reader, &at_api, file.api);
    let metrics = metrics(&mut reader, &top.key("metrics"), file.metrics);
    let store = store::store(&mut reader, &top.key("store"), file.store, path);
    let upstream = upstream(&mut reader, &top.key("upstream"), file.upstream);
    let at_proxy = top.key("proxy");
    let proxy = proxy::proxy(&mut reader, &at_proxy, file.proxy);
    let at_publish = top.key("publish");
    let (sinks, sink_entries) = publish::sinks(&mut reader, &at_publish, file.publish);
    let at_defaults = top.key("defaults");
    let defaults = reader.mapping(&at_defaults, file.defaults);
    let defaults = accounts::settings(&mut reader, &at_defaults, defaults, Defaults::default());
    let at_accounts = top.key("accounts");
    let accounts = accounts::accounts(&mut reader, &at_accounts, file.accounts, defaults);
    grants::check_entries(&mut reader, &at_clients, &clients.entries_to_check, &accounts);
    clients::check_keys_are_not_app_secrets(&mut reader, &at_clients, &clients, &accounts);
    grants::check_entries(&mut reader, &at_publish, &sink_entries, &accounts);
    publish::check_distinct_keys(&mut reader, &at_publish, &sinks, &accounts);
    let clients = clients.list;
    proxy::check_clients(&mut reader, &at_proxy, &proxy, &clients);
    rights::warn_of_unreachable_accounts(&mut reader, &at_clients, &clients, &sinks, &at_accounts, &accounts);
    match mode {
        Some(mode) if reader.holds_secrets() => reader.warn_if_world_accessible(&top, mode, "this file"),
        Some(mode) => reader.warn_if_world_writable(mode),
        None => {}
    }

    let Diagnostics { problems, warnings } = reader.finish();
    if !problems.is_empty() {
        return Err(Diagnostics { problems, warnings });
    }
    let accounts = accounts.into_iter().flatten().collect();
    let publish = sinks.into_iter().map(|indexed| indexed.sink).collect();
    let api = ApiConfig { clients, ..api };
    Ok(Config { path: path.to_owned(), api, metrics, store, upstream, proxy, publish, accounts, warnings })
}

/// Returns the clients separately, since they are checked again once the accounts are known.
fn api(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    api: Node<file::Api>,
) -> (ApiConfig, clients::ClientDrafts) {
    let api = reader.mapping(at, api);
    let mut all = ApiConfig::default();
    let at_listen = at.key("listen");
    reader.set(&mut all.listen, &at_listen, api.listen, parse::address);
    let no_clients = match &api.clients {
        Node::Absent => true,
        Node::Value(clients) => clients.is_empty(),
        // This is reported elsewhere.
        Node::Null | Node::Wrong(_) => false,
    };
    if no_clients && !all.listen.ip().to_canonical().is_loopback() {
        reader.report(&at_listen, "must be a loopback address as long as there are no api.clients");
    }
    all.trusted_proxies = proxy::networks(reader, &at.key("trusted_proxies"), api.trusted_proxies);
    let clients = clients::clients(reader, &at.key("clients"), api.clients);
    reader.set(&mut all.wechat_path, &at.key("wechat_path"), api.wechat_path, parse::url_path);
    (all, clients)
}

fn metrics(reader: &mut ConfigReader<'_>, at: &Place<'_>, metrics: Node<file::Metrics>) -> MetricsConfig {
    let own = reader.mapping(at, metrics);
    let listen = match own.listen {
        Node::Null => None,
        listen => reader.parsed(&at.key("listen"), listen, parse::address),
    };
    let per_account = reader.parsed(&at.key("per_account"), own.per_account, parse::per_account);
    MetricsConfig { listen, per_account: per_account.unwrap_or_default() }
}

fn upstream(reader: &mut ConfigReader<'_>, at: &Place<'_>, upstream: Node<file::Upstream>) -> UpstreamConfig {
    let mut all = UpstreamConfig::default();
    let own = reader.mapping(at, upstream);
    if !own.base_urls.is_absent() {
        all.base_urls = base_urls(reader, &at.key("base_urls"), own.base_urls);
    }
    reader.set(&mut all.timeout, &at.key("timeout"), own.timeout, parse::duration);
    reader.set(&mut all.overlap, &at.key("overlap"), own.overlap, parse::duration);
    reader.set(&mut all.max_in_flight, &at.key("max_in_flight"), own.max_in_flight, parse::at_least(1));
    reader.set(&mut all.max_per_second, &at.key("max_per_second"), own.max_per_second, parse::at_least(1));
    all
}

fn base_urls(reader: &mut ConfigReader<'_>, at: &Place<'_>, urls: Node<Vec<Node<String>>>) -> Vec<Url> {
    let mut first = HashMap::new();
    let mut checked = Vec::new();
    for (index, url) in reader.filled_list(at, urls, "at least one URL is needed").into_iter().enumerate() {
        let at_url = at.item(index);
        let Some(url) = reader.parsed(&at_url, url, parse::base_url) else { continue };
        match first.get(&url) {
            Some(other) => reader.report(&at_url, format!("is the same as {at}[{other}]")),
            None => {
                first.insert(url.clone(), index);
                checked.push(url);
            }
        }
    }
    checked
}
