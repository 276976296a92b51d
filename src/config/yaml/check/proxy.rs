//! Checks `proxy`.

use ipnet::IpNet;

use super::grants::List;
use crate::config::checked::{ProxyConfig, Transparent};
use crate::config::grants::Client;
use crate::config::yaml::file;
use crate::config::yaml::node::Node;
use crate::config::yaml::parse;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;

pub(super) fn proxy(reader: &mut ConfigReader<'_>, at: &Place<'_>, proxy: Node<file::Proxy>) -> ProxyConfig {
    let mut all = ProxyConfig::default();
    let own = reader.mapping(at, proxy);
    reader.set(&mut all.keep_body, &at.key("keep_body"), own.keep_body, parse::size);
    reader.set(&mut all.timeout, &at.key("timeout"), own.timeout, parse::duration);
    reader.set(&mut all.max_connections, &at.key("max_connections"), own.max_connections, parse::at_least(1));
    reader.set(&mut all.stale, &at.key("stale"), own.stale, parse::duration);
    let at_transparent = at.key("transparent");
    for (index, entry) in reader.list(&at_transparent, own.transparent).into_iter().enumerate() {
        let at_entry = at_transparent.item(index);
        let Some(entry) = reader.item(&at_entry, entry) else { continue };
        let client = reader.required(&at_entry.key("client"), entry.client, "whose calls they count as");
        let at_from = at_entry.key("from");
        let needed = "list the networks that they call from; such as 10.0.0.0/8";
        let mut from = Vec::new();
        for (index, network) in reader.filled_list(&at_from, entry.from, needed).into_iter().enumerate() {
            from.extend(reader.parsed(&at_from.item(index), network, parse::network));
        }
        all.transparent.extend(client.map(|client| Transparent { client: client.text, from }));
    }
    all
}

/// A list of networks; none if it is absent.
pub(super) fn networks(reader: &mut ConfigReader<'_>, at: &Place<'_>, networks: List) -> Vec<IpNet> {
    let mut checked = Vec::new();
    for (index, network) in reader.list(at, networks).into_iter().enumerate() {
        checked.extend(reader.parsed(&at.item(index), network, parse::network));
    }
    checked
}

/// Checks that each entry of `transparent` names a client that may have calls passed on.
pub(super) fn check_clients(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    proxy: &ProxyConfig,
    clients: &[Client],
) {
    let at_transparent = at.key("transparent");
    for (index, entry) in proxy.transparent.iter().enumerate() {
        let problem = match clients.iter().find(|client| client.name == entry.client) {
            None => "is not the name of a client of api.clients",
            Some(client) if !client.allow.call => {
                "may have no calls passed on; its client needs allow: [call]"
            }
            Some(_) => continue,
        };
        reader.report(&at_transparent.item(index).key("client"), problem);
    }
}
