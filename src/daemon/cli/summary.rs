//! Prints the resolved settings, to compare with what was intended.

use std::fmt::{self, Write as _};

use wxtokend_core::account::{Account, RefreshAhead};
use wxtokend_core::sdk::layout::Layout;
use wxtokend_core::ticket::TicketKind;

use super::table::{ColumnHead, Table};
use crate::config::duration::show;
use crate::config::{Client, Config, Sink};

/// How many accounts are listed individually.
const MAX_LISTED: usize = 50;

impl Config {
    /// All settings in effect, as lines of text without secrets. Of keys it shows the first 8 hex digits of
    /// the digest, and of accounts the first 50.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_summary(&mut text);
        text
    }

    fn write_summary(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "api:\n  listen: {}", self.api.listen)?;
        writeln!(text, "  wechat_path: {}", self.api.wechat_path)?;
        if !self.api.trusted_proxies.is_empty() {
            writeln!(text, "  trusted_proxies: {}", list(self.api.trusted_proxies.iter()))?;
        }
        if self.api.clients.is_empty() {
            writeln!(text, "  clients: none; every local caller may do everything")?;
        } else {
            writeln!(text, "  clients:")?;
        }
        for client in &self.api.clients {
            write_client(text, client)?;
        }
        match self.metrics.listen {
            Some(listen) => writeln!(text, "metrics:\n  listen: {listen}")?,
            None if self.api.listen.ip().to_canonical().is_loopback() => {
                writeln!(text, "metrics:\n  listen: with the api")?;
            }
            None => writeln!(text, "metrics:\n  listen: nowhere")?,
        }
        writeln!(text, "  per_account: {}", self.metrics.per_account.as_str())?;
        writeln!(text, "store:\n  path: {}", self.store.path.display())?;
        let upstream = &self.upstream;
        writeln!(text, "upstream:\n  base_urls: {}", list(upstream.base_urls.iter()))?;
        writeln!(text, "  timeout: {}", show(upstream.timeout))?;
        writeln!(text, "  overlap: {}", show(upstream.overlap))?;
        writeln!(text, "  max_in_flight: {}", upstream.max_in_flight)?;
        writeln!(text, "  max_per_second: {}", upstream.max_per_second)?;
        let proxy = &self.proxy;
        writeln!(text, "proxy:\n  keep_body: {}", size(proxy.keep_body))?;
        writeln!(text, "  timeout: {}", show(proxy.timeout))?;
        writeln!(text, "  max_connections: {}", proxy.max_connections)?;
        writeln!(text, "  stale: {}", show(proxy.stale))?;
        for transparent in &proxy.transparent {
            let from = list(transparent.from.iter());
            writeln!(text, "  transparent: {} from {from}", transparent.client)?;
        }
        if !self.publish.is_empty() {
            writeln!(text, "publish:")?;
        }
        for sink in &self.publish {
            write_sink(text, sink)?;
        }
        write_accounts(text, self)
    }
}

fn write_client(text: &mut String, client: &Client) -> fmt::Result {
    writeln!(text, "    - name: {}", client.name)?;
    writeln!(text, "      key: sha256:{}", client.key_fingerprint())?;
    writeln!(text, "      accounts: {}", list(client.accounts.entries()))?;
    writeln!(text, "      allow: {}", list(client.allow.names()))?;
    for (key, prefixes) in [("urls", &client.urls), ("paths", &client.paths)] {
        if !prefixes.is_empty() {
            writeln!(text, "      {key}: {}", list(prefixes.iter()))?;
        }
    }
    if let Some(most) = client.promise_at_most {
        writeln!(text, "      promise_at_most: {}", show(most))?;
    }
    Ok(())
}

/// A number of bytes as the file has it.
fn size(bytes: u32) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    fits.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn write_sink(text: &mut String, sink: &Sink) -> fmt::Result {
    writeln!(text, "  - name: {}", sink.name)?;
    writeln!(text, "    redis: {}", sink.address())?;
    writeln!(text, "    preset: {}", sink.layout.name())?;
    match &sink.layout {
        Layout::WxJava { prefix: own } | Layout::EasyWeChat6 { namespace: own } if !own.is_empty() => {
            writeln!(text, "    prefix: {own}")?;
        }
        Layout::Raw { key, value } => {
            writeln!(text, "    key: {}\n    value: {}", key.as_str(), value.as_str())?;
        }
        _ => {}
    }
    writeln!(text, "    accounts: {}", list(sink.accounts.entries()))
}

/// Writes one line for each account.
fn write_accounts(text: &mut String, config: &Config) -> fmt::Result {
    let accounts = &config.accounts;
    writeln!(text, "accounts: {}", accounts.len())?;
    let listed = &accounts[..accounts.len().min(MAX_LISTED)];
    let mut table = Table::new([
        ColumnHead::Left("appid"),
        ColumnHead::Left("name"),
        ColumnHead::Left("endpoint"),
        ColumnHead::Right("budget"),
        ColumnHead::Right("ahead"),
        ColumnHead::Left("retry"),
        ColumnHead::Left("verify"),
        ColumnHead::Right("cooldown"),
        ColumnHead::Right("audit"),
        ColumnHead::Right("checks"),
        ColumnHead::Left("tickets"),
        ColumnHead::Left("tags"),
    ]);
    for account in listed {
        table.push(None, cells(account), &[]);
    }
    for line in table.render(false).lines() {
        writeln!(text, "  {line}")?;
    }
    match accounts.len() - listed.len() {
        0 => Ok(()),
        more => writeln!(text, "  … and {more} more"),
    }
}

fn cells(account: &Account) -> [String; 12] {
    let settings = &account.settings;
    let ahead = match settings.refresh_ahead {
        RefreshAhead::Share(share) => format!("{}%", (share * 10_000.0).round() / 100.0),
        RefreshAhead::Fixed(time) => show(time),
    };
    [
        account.appid.to_string(),
        account.name.clone(),
        settings.endpoint.as_str().to_owned(),
        settings.daily_budget.to_string(),
        ahead,
        format!("{} to {}", show(settings.retry.initial), show(settings.retry.max)),
        if settings.verify_rejections { "yes" } else { "no" }.to_owned(),
        show(settings.rejection_cooldown),
        if settings.audit.is_zero() { "off".to_owned() } else { show(settings.audit) },
        settings.check_budget.to_string(),
        list(settings.tickets.iter().map(TicketKind::as_str)),
        list(account.tags.iter()),
    ]
}

fn list(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_summary_resolves_everything_and_lists_at_most_fifty_accounts() {
        let text = "
api:
  listen: 0.0.0.0:8787
  clients:
    - { name: crm, key: hunter2-key, accounts: [wx-1, 'w*', tag:x], allow: [sign, admin], urls: ['https://x.example/'] }
    - { name: app, key: hunter2-app, accounts: [wx-2], promise_at_most: 600s }
    - { name: bot, key: hunter2-bot, accounts: [wx-2], allow: [call], paths: [/cgi-bin/message/] }
upstream: { timeout: 90s }
proxy: { keep_body: 1000 }
accounts:
"
        .to_owned();
        let account =
            |index| format!("  - {{ appid: wx-{index}, name: 店{index}, secret: hunter2, tags: [x] }}\n");
        let text = (1..=53).fold(text, |text, index| text + &account(index));
        let summary =
            Config::parse(&text, Path::new("/etc/wxtokend/accounts.yaml"), |_| None).unwrap().summary();
        for expected in [
            "  listen: 0.0.0.0:8787\n",
            "    - name: crm\n      key: sha256:8be9fd3c\n      accounts: [wx-1, w*, tag:x]\n      allow: [admin, sign]\n      urls: [https://x.example/]\n",
            "metrics:\n  listen: nowhere\n  per_account: all\n",
            "      allow: [read]\n      promise_at_most: 10m\n",
            "      allow: [call]\n      paths: [/cgi-bin/message/]\n",
            "proxy:\n  keep_body: 1000\n  timeout: 1m\n  max_connections: 256\n  stale: 2h\n",
            "  path: /etc/wxtokend/wxtokend.redb\n",
            "  base_urls: [https://api.weixin.qq.com/]\n  timeout: 90s\n  overlap: 5m\n",
            "accounts: 53\n",
            "  wx-50  店50  stable_token    2000    25%  2s to 1m  yes           5s     5m     400  []       [x]\n  … and 3 more\n",
        ] {
            assert!(summary.contains(expected), "{expected:?} is not in\n{summary}");
        }
        assert!(!summary.contains("hunter2") && !summary.contains("wx-51"), "{summary}");
    }

    #[test]
    fn a_size_is_shown_as_the_file_has_it() {
        for (bytes, shown) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1KiB"),
            (65_536, "64KiB"),
            (1 << 20, "1MiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
