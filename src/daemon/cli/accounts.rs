//! The accounts of a daemon, as a table.

use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use wxtokend_core::clock::{ClockSource, SystemClock};

use super::client::{DaemonClient, LastFault, read};
use super::failure::Failure;
use super::table::{Colour, ColumnHead, Table, printable};
use crate::daemon::telemetry::logging;

/// Shown in place of a missing value.
const NONE: &str = "-";
/// Tokens that are at risk and end within this many seconds are counted in the summary.
const ENDS_SOON_S: i64 = 300;

/// The states with their colours, the most urgent first.
const STATES: [(&str, Colour); 6] = [
    ("unavailable", Colour::Red),
    ("parked", Colour::Red),
    ("degraded", Colour::Yellow),
    ("starting", Colour::Yellow),
    ("refreshing", Colour::Cyan),
    ("fresh", Colour::Green),
];

#[derive(Deserialize)]
struct AccountList {
    accounts: Vec<Value>,
    next: Option<String>,
    #[serde(default)]
    hosts: Vec<ListedHost>,
}

/// The accounts and hosts of a daemon.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) accounts: Vec<Value>,
    pub(super) hosts: Vec<ListedHost>,
}

/// One of WeChat's hosts.
#[derive(Clone, Deserialize)]
pub(super) struct ListedHost {
    host: String,
    up: bool,
    down_since: Option<Timestamp>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct ListedAccount {
    appid: String,
    name: String,
    state: String,
    version: u64,
    issued_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    next_refresh_at: Option<Timestamp>,
    consecutive_failures: u32,
    last_fault: Option<LastFault>,
    budget: ListedBudget,
    #[serde(default)]
    tickets: Vec<ListedTicket>,
}

#[derive(Deserialize)]
struct ListedTicket {
    r#type: String,
    consecutive_failures: u32,
    last_fault: Option<LastFault>,
}

#[derive(Deserialize)]
struct ListedBudget {
    limit: u32,
    remaining: u32,
}

impl ListedAccount {
    fn has_token(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end > now)
    }

    /// Whether the token may end without a successor: something is wrong, or it ends soon while WeChat cannot
    /// be reached.
    fn is_at_risk(&self, unreachable: bool, now: Timestamp) -> bool {
        let is_well = self.last_fault.is_none() && ["fresh", "refreshing"].contains(&&*self.state);
        !is_well || unreachable && self.ends_soon(now)
    }

    fn ends_soon(&self, now: Timestamp) -> bool {
        let left = self.expires_at.map(|end| end.duration_since(now).as_secs());
        left.is_some_and(|left| (0..=ENDS_SOON_S).contains(&left))
    }

    /// Sort key of the table, lowest first, as on the status page: accounts without a token, then those at
    /// risk by the time left, then those with a failing ticket, then the rest.
    fn urgency(&self, unreachable: bool, now: Timestamp) -> (u8, i64) {
        if !self.has_token(now) {
            (0, i64::try_from(rank(&self.state)).unwrap_or(i64::MAX))
        } else if self.is_at_risk(unreachable, now) {
            (1, self.expires_at.map_or(0, Timestamp::as_millisecond))
        } else if self.failing_tickets().next().is_some() {
            (2, 0)
        } else {
            (3, 0)
        }
    }

    /// The tickets whose last call failed, with the fault.
    fn failing_tickets(&self) -> impl Iterator<Item = (&ListedTicket, &LastFault)> {
        self.tickets.iter().filter_map(|ticket| Some((ticket, ticket.last_fault.as_ref()?)))
    }
}

/// The current state of all accounts as a table, for stdout.
pub(super) fn as_table(listing: Listing) -> Result<String, Failure> {
    let accounts: Vec<ListedAccount> = listing.accounts.into_iter().map(read).collect::<Result<_, _>>()?;
    let now = SystemClock::new().now().timestamp();
    Ok(table_at(accounts, &listing.hosts, now, logging::colour(&io::stdout())))
}

/// Fetches all accounts and the hosts that they depend on.
pub(super) async fn list(client: &DaemonClient) -> Result<Listing, Failure> {
    let mut all = Listing::default();
    let mut after: Option<String> = None;
    loop {
        let query: Vec<_> = after.iter().map(|after| ("after", after.as_str())).collect();
        let page: AccountList = read(client.get(&["v1", "accounts"], &query).await?)?;
        all.accounts.extend(page.accounts);
        all.hosts = page.hosts;
        match page.next {
            // Pages are ordered by appid; without this check a list that does not advance would never end.
            Some(next) if Some(&next) > after.as_ref() => after = Some(next),
            Some(_) => return Err(Failure::Failed("the daemon's list of accounts has no end".to_owned())),
            None => return Ok(all),
        }
    }
}

fn table_at(
    mut accounts: Vec<ListedAccount>,
    hosts: &[ListedHost],
    now: Timestamp,
    coloured: bool,
) -> String {
    let unreachable = !hosts.is_empty() && hosts.iter().all(|host| !host.up);
    // The list is ordered by appid, and a stable sort keeps that order within equal urgency.
    accounts.sort_by_key(|account| account.urgency(unreachable, now));
    let mut table = Table::new([
        ColumnHead::Left("STATE"),
        ColumnHead::Left("APPID"),
        ColumnHead::Left("NAME"),
        ColumnHead::Right("VERSION"),
        ColumnHead::Right("AGE"),
        ColumnHead::Right("EXPIRES IN"),
        ColumnHead::Right("NEXT"),
        ColumnHead::Right("BUDGET"),
        ColumnHead::Left("FAULT"),
    ]);
    for account in &accounts {
        let (cells, notes) = row(account, now);
        let colour = STATES.get(rank(&account.state)).map_or(Colour::Yellow, |state| state.1);
        table.push(Some(colour), cells, &notes);
    }
    let down_lines = down_lines(hosts, unreachable, now, coloured);
    format!("{down_lines}{}{}\n", table.render(coloured), summary(&accounts, unreachable, now))
}

/// One line for WeChat if it cannot be reached; otherwise one for each host that is down.
fn down_lines(hosts: &[ListedHost], unreachable: bool, now: Timestamp, coloured: bool) -> String {
    let since =
        |at: Timestamp| format!("since {} ({})", at.strftime("%Y-%m-%dT%H:%M:%SZ"), format_span(at, now));
    let why = |host: &ListedHost| host.reason.clone().unwrap_or_default();
    let mut lines = Vec::new();
    if unreachable {
        let last = hosts.iter().filter_map(|host| host.down_since).max().unwrap_or(now);
        let all: Vec<_> = hosts.iter().map(|host| format!("{}: {}", host.host, why(host))).collect();
        lines.push(format!("WeChat has been unreachable {}: {}", since(last), all.join("; ")));
    } else {
        for host in hosts.iter().filter(|host| !host.up) {
            let since = since(host.down_since.unwrap_or(now));
            lines.push(format!(
                "{} has been down {since}, calls go to the other hosts: {}",
                host.host,
                why(host)
            ));
        }
    }
    let colour_line = |line: String| match coloured {
        true => format!("\x1b[{}m{}\x1b[0m\n", Colour::Red as u8, printable(&line)),
        false => printable(&line) + "\n",
    };
    lines.into_iter().map(colour_line).collect()
}

/// The index of a state in [`STATES`]. Unknown states, of a daemon of another version, come last.
fn rank(state: &str) -> usize {
    STATES.iter().position(|(name, _)| *name == state).unwrap_or(STATES.len())
}

fn row(account: &ListedAccount, now: Timestamp) -> ([String; 9], Vec<String>) {
    let ahead = |at: Option<Timestamp>| at.map_or_else(|| NONE.to_owned(), |at| format_span(now, at));
    let age = account.issued_at.map_or_else(|| NONE.to_owned(), |at| format_span(at, now));
    let (mut faults, mut notes) = (Vec::new(), Vec::new());
    if let Some(fault) = &account.last_fault {
        faults.push(describe_fault(fault, account.consecutive_failures));
        notes.extend([fault.message.clone(), format!("→ {}", fault.advice)]);
    }
    for (ticket, fault) in account.failing_tickets() {
        faults.push(format!("{}: {}", ticket.r#type, describe_fault(fault, ticket.consecutive_failures)));
        notes.extend([format!("{}: {}", ticket.r#type, fault.message), format!("→ {}", fault.advice)]);
    }
    let fault = if faults.is_empty() { NONE.to_owned() } else { faults.join(", ") };
    let cells = [
        account.state.clone(),
        account.appid.clone(),
        account.name.clone(),
        account.version.to_string(),
        age,
        ahead(account.expires_at),
        ahead(account.next_refresh_at),
        format!("{}/{}", account.budget.remaining, account.budget.limit),
        fault,
    ];
    (cells, notes)
}

/// Formats a fault: `parked 40164 (3 times)`.
fn describe_fault(fault: &LastFault, failures: u32) -> String {
    let code = fault.errcode.map_or_else(String::new, |code| format!(" {code}"));
    let times = match failures {
        0 | 1 => String::new(),
        times => format!(" ({times} times)"),
    };
    format!("{}{code}{times}", fault.kind)
}

/// Formats the summary: `3 accounts: 1 unavailable, 2 fresh; 1 has no token, 2 end within 5 min; 1 ticket in
/// trouble`.
fn summary(accounts: &[ListedAccount], unreachable: bool, now: Timestamp) -> String {
    let mut text = match accounts.len() {
        1 => "1 account".to_owned(),
        more => format!("{more} accounts"),
    };
    let mut separator = ": ";
    for (name, _) in STATES {
        let count = accounts.iter().filter(|account| account.state == name).count();
        if count > 0 {
            let _ = write!(text, "{separator}{count} {name}");
            separator = ", ";
        }
    }
    let without = accounts.iter().filter(|account| !account.has_token(now)).count();
    let is_ending = |account: &&ListedAccount| {
        account.has_token(now) && account.ends_soon(now) && account.is_at_risk(unreachable, now)
    };
    let impact = [
        (without, "has no token", "have no token"),
        (accounts.iter().filter(is_ending).count(), "ends within 5 min", "end within 5 min"),
    ];
    separator = "; ";
    for (count, one, more) in impact.into_iter().filter(|(count, ..)| *count > 0) {
        let _ = write!(text, "{separator}{count} {}", if count == 1 { one } else { more });
        separator = ", ";
    }
    match accounts.iter().flat_map(ListedAccount::failing_tickets).count() {
        0 => {}
        1 => text += "; 1 ticket in trouble",
        more => drop(write!(text, "; {more} tickets in trouble")),
    }
    text
}

/// The time between two instants in its two largest units, such as `1h 58m`; `now` if none is left.
fn format_span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second());
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        ..1 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(appid: &str, name: &str, state: &str, fault: &Value) -> Value {
        let token = state != "unavailable";
        json!({
            "appid": appid, "name": name, "tags": [], "endpoint": "token", "state": state, "version": 12,
            "issued_at": token.then_some("2026-09-21T10:00:00Z"),
            "expires_at": token.then_some("2026-09-21T12:00:00.500Z"),
            "next_refresh_at": "2026-09-21T11:30:00Z",
            "consecutive_failures": if fault.is_null() { 0 } else { 3 },
            "last_fault": fault, "budget": {"limit": 2000, "remaining": 999},
        })
    }

    fn accounts() -> Vec<Value> {
        let parked = json!({"kind": "parked", "errcode": 40164, "message": "invalid ip 203.0.113.7",
            "advice": "add IP 203.0.113.7 to the whitelist", "at": "2026-09-21T10:00:00Z", "rid": null});
        let host = json!({"kind": "transient", "errcode": null, "message": "connection refused",
            "advice": "check the network", "at": "2026-09-21T10:00:00Z", "rid": null});
        vec![
            account("wx1", "Flower Shop", "fresh", &Value::Null),
            account("wx2", "城市图书馆", "parked", &parked),
            account("wx3", "Tea House 茶馆", "unavailable", &host),
        ]
    }

    fn table(coloured: bool) -> String {
        table_of(accounts(), coloured)
    }

    fn table_of(accounts: Vec<Value>, coloured: bool) -> String {
        let accounts = accounts.into_iter().map(|account| read(account).unwrap()).collect();
        table_at(accounts, &[], now(), coloured)
    }

    fn now() -> Timestamp {
        "2026-09-21T10:12:05Z".parse().unwrap()
    }

    fn hosts(hosts: Value) -> Vec<ListedHost> {
        serde_json::from_value(hosts).unwrap()
    }

    #[test]
    fn those_without_a_token_stand_first_then_those_in_trouble_by_the_time_left_then_the_rest() {
        let fault = json!({"kind": "parked", "errcode": 40164, "message": "m", "advice": "a"});
        let mut all: Vec<Value> = [
            ("wx01", "parked", Some(3)),
            ("wx02", "parked", None),
            ("wx03", "unavailable", None),
            ("wx04", "degraded", Some(1)),
            ("wx05", "fresh", Some(1)),
            ("wx06", "starting", None),
            ("wx07", "refreshing", Some(2)),
            ("wx08", "degraded", Some(2)),
            ("wx09", "unavailable", None),
            ("wx10", "fresh", Some(2)),
        ]
        .into_iter()
        .map(|(appid, state, hours)| {
            let trouble = ["parked", "degraded", "unavailable"].contains(&state);
            let mut account = account(appid, appid, state, if trouble { &fault } else { &Value::Null });
            account["expires_at"] = json!(hours.map(|hours| format!("2026-09-21T{:02}:12:05Z", 10 + hours)));
            account
        })
        .collect();
        all[9]["tickets"] =
            json!([{"type": "jsapi", "state": "parked", "consecutive_failures": 1, "last_fault": fault}]);
        let table = table_of(all.clone(), false);
        let order = |table: &str| {
            let words = table.lines().filter_map(|line| line.split_whitespace().nth(1));
            words.filter(|word| word.starts_with("wx")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&table), "wx03 wx09 wx02 wx06 wx04 wx08 wx01 wx10 wx05 wx07");
        assert!(table.ends_with("; 4 have no token; 1 ticket in trouble\n"), "{table}");
        // The next token of one that ends soon cannot be fetched while WeChat is unreachable.
        for account in &mut all[3..5] {
            account["expires_at"] = json!("2026-09-21T10:16:00Z");
        }
        let down_lines =
            json!([{"host": "a", "up": false, "down_since": "2026-09-21T10:00:00Z", "reason": "refused"}]);
        let read_all = |all: &[Value]| all.iter().cloned().map(|account| read(account).unwrap()).collect();
        for (hosts, order_now, ending) in [
            (hosts(down_lines), "wx03 wx09 wx02 wx06 wx04 wx05 wx08 wx01 wx10 wx07", "2 end within 5 min"),
            (Vec::new(), "wx03 wx09 wx02 wx06 wx04 wx08 wx01 wx10 wx05 wx07", "1 ends within 5 min"),
        ] {
            let table = table_at(read_all(&all), &hosts, now(), false);
            assert_eq!(order(&table), order_now);
            assert!(
                table.ends_with(&format!("; 4 have no token, {ending}; 1 ticket in trouble\n")),
                "{table}"
            );
        }
    }

    #[test]
    fn a_host_that_is_down_stands_in_the_first_line() {
        let down_lines = |host: &str, at: &str| json!({"host": host, "up": false, "down_since": format!("2026-09-21T10:{at}.123Z"), "reason": "refused\u{1b}[2J"});
        let up = json!({"host": "c", "up": true, "down_since": null, "reason": null});
        for (all, first) in [
            (
                json!([down_lines("a", "00:00"), down_lines("b:80", "12:00")]),
                "WeChat has been unreachable since 2026-09-21T10:12:00Z (5s): a: refused\u{fffd}[2J; b:80: refused\u{fffd}[2J",
            ),
            (
                json!([up, down_lines("a", "00:00")]),
                "a has been down since 2026-09-21T10:00:00Z (12m 05s), calls go to the other hosts: refused\u{fffd}[2J",
            ),
            (json!([up]), "STATE"),
            (json!([]), "STATE"),
        ] {
            let table = table_at(Vec::new(), &hosts(all), now(), false);
            assert!(table.lines().next().unwrap().starts_with(first), "{table}");
        }
    }

    #[test]
    fn the_table_shows_trouble_first_and_says_what_to_do() {
        let expected = "\
STATE        APPID  NAME            VERSION      AGE  EXPIRES IN    NEXT    BUDGET  FAULT
unavailable  wx3    Tea House 茶馆       12        -           -  1h 17m  999/2000  transient (3 times)
    connection refused
    → check the network
parked       wx2    城市图书馆           12  12m 05s      1h 47m  1h 17m  999/2000  parked 40164 (3 times)
    invalid ip 203.0.113.7
    → add IP 203.0.113.7 to the whitelist
fresh        wx1    Flower Shop          12  12m 05s      1h 47m  1h 17m  999/2000  -
3 accounts: 1 unavailable, 1 parked, 1 fresh; 1 has no token
";
        assert_eq!(table(false), expected);
        assert!(table(true).contains("\x1b[31mparked\x1b[0m"));
    }

    #[test]
    fn a_ticket_in_trouble_is_shown_by_its_type_in_addition_to_its_accounts_fault() {
        let fault = |code, message: &str, advice: &str| {
            json!({"kind": "parked", "errcode": code, "message": message,
            "advice": advice, "at": "2026-09-21T10:00:00Z", "rid": null})
        };
        let mut accounts = accounts();
        accounts.push(account("wx4", "Zoo", "fresh", &Value::Null));
        let refused = fault(48001, "api unauthorized", "check its permissions");
        accounts[3]["tickets"] = json!([
            {"type": "jsapi", "state": "fresh", "consecutive_failures": 0, "last_fault": null},
            {"type": "wx_card", "state": "parked", "consecutive_failures": 2, "last_fault": refused},
        ]);
        let banned = fault(48004, "api forbidden", "see the notice");
        accounts[1]["tickets"] =
            json!([{"type": "jsapi", "state": "parked", "consecutive_failures": 1, "last_fault": banned}]);
        let expected = "\
STATE        APPID  NAME            VERSION      AGE  EXPIRES IN    NEXT    BUDGET  FAULT
unavailable  wx3    Tea House 茶馆       12        -           -  1h 17m  999/2000  transient (3 times)
    connection refused
    → check the network
parked       wx2    城市图书馆           12  12m 05s      1h 47m  1h 17m  999/2000  parked 40164 (3 times), jsapi: parked 48004
    invalid ip 203.0.113.7
    → add IP 203.0.113.7 to the whitelist
    jsapi: api forbidden
    → see the notice
fresh        wx4    Zoo                  12  12m 05s      1h 47m  1h 17m  999/2000  wx_card: parked 48001 (2 times)
    wx_card: api unauthorized
    → check its permissions
fresh        wx1    Flower Shop          12  12m 05s      1h 47m  1h 17m  999/2000  -
4 accounts: 1 unavailable, 1 parked, 2 fresh; 1 has no token; 2 tickets in trouble
";
        assert_eq!(table_of(accounts, false), expected);
    }

    #[test]
    fn a_span_is_shown_in_its_two_largest_units() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (seconds, describe_fault) in [
            (-5, "now"),
            (0, "now"),
            (59, "59s"),
            (60, "1m 00s"),
            (3_599, "59m 59s"),
            (7_080, "1h 58m"),
            (90_000, "1d 01h"),
        ] {
            assert_eq!(format_span(at(1_000_000), at(1_000_000 + seconds)), describe_fault);
        }
    }

    /// A fake daemon whose list of accounts has these pages, each selected by its `after`.
    async fn daemon(pages: Value) -> DaemonClient {
        use axum::extract::{Query, State};
        use axum::{Json, Router, routing::get};
        type Asked = std::collections::HashMap<String, String>;
        let page = async |State(pages): State<Value>, Query(recv): Query<Asked>| {
            Json(pages[recv.get("after").map_or("", String::as_str)].clone())
        };
        let router = Router::new().route("/v1/accounts", get(page)).with_state(pages);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        crate::daemon::cli::client::tests::client(&server, None)
    }

    #[tokio::test]
    async fn all_pages_are_asked_for() {
        let pages = json!({
            "": {"accounts": [1, 2], "next": "wx&2"},
            "wx&2": {"accounts": [3], "next": "wx3"},
            "wx3": {"accounts": [], "next": null},
        });
        assert_eq!(list(&daemon(pages).await).await.unwrap().accounts, [json!(1), json!(2), json!(3)]);
    }

    #[tokio::test]
    async fn a_list_that_does_not_move_on_is_given_up() {
        let pages = json!({"": {"accounts": [], "next": "wx1"}, "wx1": {"accounts": [], "next": "wx1"}});
        let failure = list(&daemon(pages).await).await.err().unwrap();
        assert!(failure.to_string().contains("has no end"), "{failure}");
    }
}
