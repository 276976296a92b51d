//! `wxtokend status --watch`: a table that is kept up to date, or a line for each change.
//!
//! Events only say which accounts have changed. Their state is then fetched, so that the output always shows
//! what the daemon reports.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::accounts::{ListedHost, Listing, as_table, list};
use super::client::DaemonClient;
use super::failure::Failure;
use super::output;
use super::signals::Stop;
use super::stream::{EventStream, StreamItem};
use super::table::printable;

/// Redraw interval, since ages change even while nothing happens.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// Up to this many changed accounts are fetched one by one; otherwise the whole list is.
const MAX_SINGLE_FETCHES: usize = 20;

pub(super) async fn watch(client: &DaemonClient, json: bool) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let watching = async {
        match (json, io::stdout().is_terminal()) {
            (true, _) => lines(client, |_, data| Some(format!("{data}\n"))).await,
            (false, true) => screen(client).await,
            (false, false) => lines(client, line).await,
        }
    };
    tokio::select! {
        ended = watching => ended,
        _ = stop.recv() => Ok(()),
    }
}

/// Prints each event as formatted by `format`, until stdout is closed.
async fn lines(
    client: &DaemonClient,
    format: impl Fn(&str, &Value) -> Option<String>,
) -> Result<(), Failure> {
    let mut stream = EventStream::new(client, None);
    loop {
        if let StreamItem::Event { name, data } = stream.next_reporting().await?
            && let Some(line) = format(&name, &data)
            && let ControlFlow::Break(()) = output::print_part(&line)?
        {
            return Ok(());
        }
    }
}

/// `2026-11-24T17:17:12.94Z  wx1  parked  was fresh: parked 40164: invalid ip → add it`
fn line(name: &str, data: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(printable).unwrap_or_default();
    let (at, appid) = (text(&data["at"]), text(&data["appid"]));
    let what = match name {
        "token" => format!("token    version {}, until {}", data["version"], text(&data["expires_at"])),
        "ticket" => {
            let (kind, until) = (text(&data["type"]), text(&data["expires_at"]));
            format!("ticket   {kind} version {}, until {until}", data["version"])
        }
        "ticket_fault" => format!("ticket   {} failed{}", text(&data["type"]), fault_suffix(data)),
        "ticket_unchanged" => format!("ticket   {} works again", text(&data["type"])),
        "host" if data["up"] == true => format!("host     {} answers again", text(&data["host"])),
        "host" => format!("host     {} is down: {}", text(&data["host"]), text(&data["reason"])),
        "state" => {
            let (state, was) = (text(&data["state"]), text(&data["was"]));
            // Each refresh makes an account refreshing and fresh again; the token event shows that already.
            if state == "refreshing" || (was.as_str(), state.as_str()) == ("refreshing", "fresh") {
                return None;
            }
            format!("{state:<12} was {was}{}", fault_suffix(&data["last_fault"]))
        }
        "reload" if data["successful"] == true => "reload   the configuration was read again".to_owned(),
        "reload" => "reload   the configuration cannot be used; everything runs on as it was".to_owned(),
        "gap" => return Some("some events were missed\n".to_owned()),
        _ => return None,
    };
    Some(match appid.as_str() {
        "" => format!("{at}  {what}\n"),
        appid => format!("{at}  {appid}  {what}\n"),
    })
}

fn fault_suffix(fault: &Value) -> String {
    let text = |field: &str| fault[field].as_str().map(printable).unwrap_or_default();
    if fault.is_null() {
        return String::new();
    }
    let code = fault["errcode"].as_i64().map_or_else(String::new, |code| format!(" {code}"));
    format!(": {}{code}: {} → {}", text("kind"), text("message"), text("advice"))
}

/// Redraws the table every second.
async fn screen(client: &DaemonClient) -> Result<(), Failure> {
    let mut stream = EventStream::new(client, None);
    let mut known = WatchedFleet::default();
    let mut changed = Changed::All;
    let mut lost = None;
    let mut next_draw = Instant::now();
    loop {
        // Kept across redraws: restarting it each second would restart its timeout, and a silent daemon would
        // never be noticed.
        let mut item = pin!(stream.next());
        let item = loop {
            tokio::select! {
                item = &mut item => break item?,
                () = sleep_until(next_draw) => {
                    next_draw = Instant::now() + REDRAW_INTERVAL;
                    match known.update(client, &changed).await {
                        Ok(()) => changed = Changed::These(BTreeSet::new()),
                        // The stream reports when the daemon is gone and when it is back.
                        Err(Failure::Later(_)) => {}
                        Err(failure) => return Err(failure),
                    }
                    if let ControlFlow::Break(()) = draw(known.listing(), lost.as_deref())? {
                        return Ok(());
                    }
                }
            }
        };
        changed.add(&item);
        lost = match item {
            StreamItem::Lost(why) => Some(why),
            StreamItem::Open | StreamItem::Event { .. } => None,
        };
    }
}

/// The accounts that have to be fetched again.
enum Changed {
    All,
    These(BTreeSet<String>),
}

impl Changed {
    fn add(&mut self, item: &StreamItem) {
        match (self, item) {
            (Self::These(these), StreamItem::Event { data, .. }) if data["appid"].is_string() => {
                these.extend(data["appid"].as_str().map(str::to_owned));
            }
            (all, _) => *all = Self::All,
        }
    }
}

/// The accounts and hosts as last reported by the daemon.
#[derive(Default)]
struct WatchedFleet {
    accounts: BTreeMap<String, Value>,
    hosts: Vec<ListedHost>,
}

impl WatchedFleet {
    async fn update(&mut self, client: &DaemonClient, changed: &Changed) -> Result<(), Failure> {
        match changed {
            Changed::These(these) if these.len() <= MAX_SINGLE_FETCHES => {
                for appid in these {
                    let account = client.get(&["v1", "accounts", appid], &[]).await;
                    match account {
                        Ok(account) => drop(self.accounts.insert(appid.clone(), account)),
                        Err(Failure::Failed(_)) => drop(self.accounts.remove(appid)),
                        Err(failure) => return Err(failure),
                    }
                }
            }
            Changed::All | Changed::These(_) => {
                let Listing { accounts, hosts } = list(client).await?;
                let by_appid = |account: Value| Some((account["appid"].as_str()?.to_owned(), account));
                self.accounts = accounts.into_iter().filter_map(by_appid).collect();
                self.hosts = hosts;
            }
        }
        Ok(())
    }

    fn listing(&self) -> Listing {
        Listing { accounts: self.accounts.values().cloned().collect(), hosts: self.hosts.clone() }
    }
}

/// Redraws the screen. Only what fits is shown, which is the most urgent accounts first, with the reason for
/// stale data at the end.
fn draw(listing: Listing, lost: Option<&str>) -> Result<ControlFlow<()>, Failure> {
    // Some terminals report 0 rows.
    let rows = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_row));
    let rows = if rows == 0 { 24 } else { rows.max(4) };
    let table = as_table(listing)? + lost.and_then(|why| why.lines().next()).unwrap_or_default();
    output::print_part(&on_screen(&table, rows))
}

/// Moves to the top and overwrites each line to its end, which avoids flicker. Long lines are cut.
fn on_screen(table: &str, rows: usize) -> String {
    let lines: Vec<_> = table.lines().collect();
    let (last, body) = lines.split_last().map_or(("", &[][..]), |(last, body)| (*last, body));
    let mut text = "\x1b[?7l\x1b[H".to_owned();
    for line in body.iter().take(rows - 2) {
        text.extend([line, "\x1b[K\n"]);
    }
    text.extend([last, "\x1b[K\x1b[J\n\x1b[?7h"]);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_one_line_that_says_what_to_do_and_moves_no_cursor() {
        let fault =
            json!({"kind": "parked", "errcode": 40164, "message": "invalid ip\u{1b}[2J", "advice": "add it"});
        let data = json!({"at": "T", "appid": "wx1", "state": "parked", "was": "fresh", "last_fault": fault});
        assert_eq!(
            line("state", &data).unwrap(),
            "T  wx1  parked       was fresh: parked 40164: invalid ip\u{fffd}[2J → add it\n"
        );
        let data = json!({"at": "T", "appid": "wx1", "version": 7, "expires_at": "U"});
        assert_eq!(line("token", &data).unwrap(), "T  wx1  token    version 7, until U\n");
        let data = json!({"at": "T", "appid": "wx1", "type": "jsapi", "version": 7, "expires_at": "U"});
        assert_eq!(line("ticket", &data).unwrap(), "T  wx1  ticket   jsapi version 7, until U\n");
        let data = json!({"at": "T", "appid": "wx1", "type": "jsapi", "kind": "parked", "errcode": 48001, "message": "m", "advice": "a"});
        assert_eq!(
            line("ticket_fault", &data).unwrap(),
            "T  wx1  ticket   jsapi failed: parked 48001: m → a\n"
        );
        assert_eq!(line("ticket_unchanged", &data).unwrap(), "T  wx1  ticket   jsapi works again\n");
        let data =
            json!({"at": "T", "host": "api.test", "up": false, "down_since": "T", "reason": "re\u{1b}fused"});
        assert_eq!(line("host", &data).unwrap(), "T  host     api.test is down: re\u{fffd}fused\n");
        let data = json!({"at": "T", "host": "api.test", "up": true, "down_since": null, "reason": null});
        assert_eq!(line("host", &data).unwrap(), "T  host     api.test answers again\n");
        let usual = json!({"state": "fresh", "was": "refreshing", "last_fault": null});
        assert_eq!(line("state", &usual), None);
        assert!(line("reload", &json!({"at": "T", "successful": false})).unwrap().contains("cannot be used"));
    }

    #[test]
    fn a_table_longer_than_the_screen_ends_with_its_summary() {
        let table = "head\na\nb\nc\nd\nsummary\n";
        assert_eq!(on_screen(table, 4), "\x1b[?7l\x1b[Hhead\x1b[K\na\x1b[K\nsummary\x1b[K\x1b[J\n\x1b[?7h");
        assert_eq!(on_screen(table, 50).matches('\n').count(), 6);
    }

    #[test]
    fn only_what_has_changed_is_asked_for() {
        let event = |data: Value| StreamItem::Event { name: "state".to_owned(), data };
        let mut changed = Changed::These(BTreeSet::new());
        changed.add(&event(json!({"appid": "wx1"})));
        assert!(matches!(&changed, Changed::These(these) if these.len() == 1));
        changed.add(&event(json!({"successful": true})));
        assert!(matches!(changed, Changed::All), "accounts may have come or gone");
        changed.add(&event(json!({"appid": "wx1"})));
        assert!(matches!(changed, Changed::All));
        let mut changed = Changed::These(BTreeSet::new());
        changed.add(&event(json!({"host": "api.test", "up": false})));
        assert!(matches!(changed, Changed::All), "the list tells of the hosts");
    }
}
