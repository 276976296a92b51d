//! Checks `publish`.

use std::collections::HashMap;
use std::sync::Arc;

use wxtokend_core::account::Account;
use wxtokend_core::sdk::layout::{Layout, Promised, Template};
use wxtokend_core::secret::Secret;

use super::grants::{GrantEntry, grants};
use crate::config::sink::{self, Sink};
use crate::config::yaml::file;
use crate::config::yaml::node::Node;
use crate::config::yaml::place::Place;
use crate::config::yaml::reader::ConfigReader;
use crate::config::yaml::secrets::SecretUse;
use crate::config::yaml::value::not_one_line;

/// A sink and its index in the list.
pub(super) struct IndexedSink {
    index: usize,
    pub(super) sink: Sink,
}

pub(super) fn sinks(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    sinks: Node<Vec<Node<file::Sink>>>,
) -> (Vec<IndexedSink>, Vec<GrantEntry>) {
    let mut names = HashMap::new();
    let (mut checked, mut entries_to_check) = (Vec::new(), Vec::new());
    for (index, sink) in reader.list(at, sinks).into_iter().enumerate() {
        let at = at.item(index);
        let at_name = at.key("name");
        let sink = reader.build_or_report(&at, |reader| {
            let mut sink = reader.item(&at, sink)?;
            let name = reader.value(&at_name, std::mem::take(&mut sink.name));
            let name = name.map(|name| reader.label(&at_name, name));
            let url = url(reader, &at, std::mem::take(&mut sink.redis), std::mem::take(&mut sink.redis_file));
            let accounts = std::mem::take(&mut sink.accounts);
            let accounts = grants(reader, &at.key("accounts"), accounts, index, &mut entries_to_check);
            let layout = layout(reader, &at, sink);
            let ((url, address), layout, accounts) = (url?, layout?, accounts?);
            let by_default = || Some(sink::default_name(&layout, &address));
            Some(Sink { name: name.unwrap_or_else(by_default)?, url, layout, accounts })
        });
        let Some(sink) = sink else { continue };
        if let Some(other) = names.get(&sink.name) {
            let what = format!("is the same as that of publish[{other}]; give each a name of its own");
            reader.report(&at_name, what);
            continue;
        }
        names.insert(sink.name.clone(), index);
        checked.push(IndexedSink { index, sink });
    }
    (checked, entries_to_check)
}

/// The URL, which is a secret, and the part of it that is not.
fn url(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    redis: Node<String>,
    redis_file: Node<String>,
) -> Option<(Secret, String)> {
    let ways = [("redis", !redis.is_absent()), ("redis_file", !redis_file.is_absent())];
    let way = reader.one_of(at, &ways)?;
    let at = at.key(way);
    let url = match way {
        "redis" => reader.secret(&at, redis, SecretUse::Url)?,
        _ => reader.secret_file(&at, redis_file, SecretUse::Url)?,
    };
    match sink::parse(url.expose()) {
        Ok(address) => Some((url, address)),
        Err(what) => {
            reader.report(&at, what);
            None
        }
    }
}

fn layout(reader: &mut ConfigReader<'_>, at: &Place<'_>, mut sink: file::Sink) -> Option<Layout> {
    let known = format!("allowed: {}", Layout::NAMES.join(", "));
    let at_preset = at.key("preset");
    let preset = if !sink.preset.is_absent() {
        let known = |text: &str| {
            let preset = Layout::NAMES.into_iter().find(|name| *name == text);
            preset.ok_or_else(|| format!("is no preset; {known}"))
        };
        reader.parsed(&at_preset, sink.preset, known)?
    } else if !sink.key.is_absent() {
        "raw"
    } else {
        reader.report(&at_preset, format!("is missing; {known}; or give a key"));
        return None;
    };
    let with_prefix = ["wxjava", "easywechat6"].contains(&preset);
    for (key, node, fits) in [
        ("prefix", &sink.prefix, with_prefix),
        ("key", &sink.key, preset == "raw"),
        ("value", &sink.value, preset == "raw"),
    ] {
        if !node.is_absent() && !fits {
            reader.report(&at.key(key), format!("has no place beside preset {preset}"));
        }
    }
    let own = std::mem::take(&mut sink.prefix);
    let prefix_or = |reader: &mut ConfigReader<'_>, default: &str| match own {
        Node::Absent => Some(default.to_owned()),
        prefix => {
            let at = at.key("prefix");
            let value = reader.value(&at, prefix)?;
            reader.label(&at, value)
        }
    };
    Some(match preset {
        "wxjava" => Layout::WxJava { prefix: prefix_or(reader, "wx")? },
        "easywechat6" => Layout::EasyWeChat6 { namespace: prefix_or(reader, "")? },
        "silenceper" => Layout::Silenceper,
        "silenceper-stable" => Layout::SilenceperStable,
        "easywechat5" => Layout::EasyWeChat5,
        "powerwechat" => Layout::PowerWeChat,
        "wechatpy" => Layout::Wechatpy,
        "weixin_authorize" => Layout::WeixinAuthorize,
        _ => {
            let at_key = at.key("key");
            let key = reader.required(&at_key, sink.key, "such as access_token:{appid}")?;
            let template = |text: &str| match not_one_line(text) {
                Some(what) => Err(what.to_owned()),
                None => Template::key(text).map_err(|why| why.to_string()),
            };
            let key = reader.convert(&at_key, &key, template);
            let value = match sink.value {
                Node::Absent => Some(Template::token()),
                value => reader.parsed(&at.key("value"), value, Template::value),
            };
            Layout::Raw { key: key?, value: value? }
        }
    })
}

/// Two accounts with the same key would overwrite each other's tokens forever.
pub(super) fn check_distinct_keys(
    reader: &mut ConfigReader<'_>,
    at: &Place<'_>,
    sinks: &[IndexedSink],
    accounts: &[Option<Arc<Account>>],
) {
    let promised = Promised { value: "", expires_in_s: 0, expires_at_s: 0 };
    for IndexedSink { index, sink } in sinks.iter().filter(|indexed| indexed.sink.layout.name() == "raw") {
        let mut keys = HashMap::new();
        for account in accounts.iter().flatten().filter(|account| sink.accounts.covers(account)) {
            for entry in sink.layout.entries(account, promised) {
                if let Some(other) = keys.insert(entry.key.expose().to_owned(), &account.appid) {
                    let what = format!("is the same for {other} and {}", account.appid);
                    return reader.report(&at.item(*index).key("key"), what);
                }
            }
        }
    }
}
