//! `wxtokend status`.

use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::args::Status;
use super::client::{Client, LastFault, read};
use super::failure::Failure;
use super::output;
use super::table::{Colour, Head, Table};
use super::watch::watch;
use crate::clock::{ClockSource, SystemClock};
use crate::telemetry::logging;

/// What has no value.
const NONE: &str = "-";

/// The states with their colours, those that want attention first.
const STATES: [(&str, Colour); 6] = [
    ("unavailable", Colour::Red),
    ("parked", Colour::Red),
    ("degraded", Colour::Yellow),
    ("starting", Colour::Yellow),
    ("refreshing", Colour::Cyan),
    ("fresh", Colour::Green),
];

#[derive(Deserialize)]
struct Page {
    accounts: Vec<Value>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    appid: String,
    name: String,
    state: String,
    version: u64,
    issued_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    next_refresh_at: Option<Timestamp>,
    consecutive_failures: u32,
    last_fault: Option<LastFault>,
    budget: Budget,
    #[serde(default)]
    tickets: Vec<Ticket>,
}

#[derive(Deserialize)]
struct Ticket {
    r#type: String,
    consecutive_failures: u32,
    last_fault: Option<LastFault>,
}

#[derive(Deserialize)]
struct Budget {
    limit: u32,
    remaining: u32,
}

impl Account {
    /// Those whose last call failed, with why.
    fn tickets_in_trouble(&self) -> impl Iterator<Item = (&Ticket, &LastFault)> {
        self.tickets.iter().filter_map(|ticket| Some((ticket, ticket.last_fault.as_ref()?)))
    }
}

pub(super) async fn status(args: Status) -> Result<(), Failure> {
    let client = Client::new(args.server)?;
    if args.watch {
        return watch(&client, args.json).await;
    }
    let accounts = all_accounts(&client).await?;
    if args.json {
        return output::print(&as_json(&accounts));
    }
    output::print(&as_table(accounts)?)
}

/// The accounts as they are now, for stdout.
pub(super) fn as_table(accounts: Vec<Value>) -> Result<String, Failure> {
    let accounts: Vec<Account> = accounts.into_iter().map(read).collect::<Result<_, _>>()?;
    let now = SystemClock::new().now().timestamp();
    Ok(table_at(accounts, now, logging::colour(&io::stdout())))
}

pub(super) async fn all_accounts(client: &Client) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let query: Vec<_> = after.iter().map(|after| ("after", after.as_str())).collect();
        let page: Page = read(client.get(&["v1", "accounts"], &query).await?)?;
        all.extend(page.accounts);
        match page.next {
            // They come by appid: a list that does not move on never ends.
            Some(next) if Some(&next) > after.as_ref() => after = Some(next),
            Some(_) => return Err(Failure::Failed("the daemon's list of accounts has no end".to_owned())),
            None => return Ok(all),
        }
    }
}

/// One array, one account a line.
fn as_json(accounts: &[Value]) -> String {
    let lines: Vec<_> = accounts.iter().map(Value::to_string).collect();
    if lines.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", lines.join(",\n")) }
}

fn table_at(mut accounts: Vec<Account>, now: Timestamp, coloured: bool) -> String {
    accounts.sort_by_key(|account| (rank(&account.state), account.tickets_in_trouble().count() == 0));
    let mut table = Table::new([
        Head::Left("STATE"),
        Head::Left("APPID"),
        Head::Left("NAME"),
        Head::Right("VERSION"),
        Head::Right("AGE"),
        Head::Right("EXPIRES IN"),
        Head::Right("NEXT"),
        Head::Right("BUDGET"),
        Head::Left("FAULT"),
    ]);
    for account in &accounts {
        let (cells, notes) = row(account, now);
        table.push(STATES.get(rank(&account.state)).map_or(Colour::Yellow, |state| state.1), cells, &notes);
    }
    format!("{}{}\n", table.render(coloured), summary(&accounts))
}

/// Where a state stands in [`STATES`]; one of another version comes last.
fn rank(state: &str) -> usize {
    STATES.iter().position(|(name, _)| *name == state).unwrap_or(STATES.len())
}

fn row(account: &Account, now: Timestamp) -> ([String; 9], Vec<String>) {
    let ahead = |at: Option<Timestamp>| at.map_or_else(|| NONE.to_owned(), |at| lapse(now, at));
    let age = account.issued_at.map_or_else(|| NONE.to_owned(), |at| lapse(at, now));
    let (mut faults, mut notes) = (Vec::new(), Vec::new());
    if let Some(fault) = &account.last_fault {
        faults.push(told(fault, account.consecutive_failures));
        notes.extend([fault.message.clone(), format!("→ {}", fault.advice)]);
    }
    for (ticket, fault) in account.tickets_in_trouble() {
        faults.push(format!("{}: {}", ticket.r#type, told(fault, ticket.consecutive_failures)));
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

/// `parked 40164 (3 times)`.
fn told(fault: &LastFault, failures: u32) -> String {
    let code = fault.errcode.map_or_else(String::new, |code| format!(" {code}"));
    let times = match failures {
        0 | 1 => String::new(),
        times => format!(" ({times} times)"),
    };
    format!("{}{code}{times}", fault.kind)
}

/// `3 accounts: 1 parked, 2 fresh; 1 ticket in trouble`.
fn summary(accounts: &[Account]) -> String {
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
    match accounts.iter().flat_map(Account::tickets_in_trouble).count() {
        0 => {}
        1 => text += "; 1 ticket in trouble",
        more => drop(write!(text, "; {more} tickets in trouble")),
    }
    text
}

/// The time from one instant to another in its two largest units: `1h 58m`; `now` when it is over.
fn lapse(from: Timestamp, to: Timestamp) -> String {
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
        table_at(accounts, "2026-09-21T10:12:05Z".parse().unwrap(), coloured)
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
3 accounts: 1 unavailable, 1 parked, 1 fresh
";
        assert_eq!(table(false), expected);
        assert!(table(true).contains("\x1b[31mparked\x1b[0m"));
    }

    #[test]
    fn a_ticket_in_trouble_is_told_by_its_type_beside_what_its_account_has() {
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
4 accounts: 1 unavailable, 1 parked, 2 fresh; 2 tickets in trouble
";
        assert_eq!(table_of(accounts, false), expected);
    }

    #[test]
    fn a_lapse_is_told_in_its_two_largest_units() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (seconds, told) in [
            (-5, "now"),
            (0, "now"),
            (59, "59s"),
            (60, "1m 00s"),
            (3_599, "59m 59s"),
            (7_080, "1h 58m"),
            (90_000, "1d 01h"),
        ] {
            assert_eq!(lapse(at(1_000_000), at(1_000_000 + seconds)), told);
        }
    }

    /// A daemon whose list has these pages, each found by its `after`.
    async fn daemon(pages: Value) -> Client {
        use axum::extract::{Query, State};
        use axum::{Json, Router, routing::get};
        type Asked = std::collections::HashMap<String, String>;
        let page = async |State(pages): State<Value>, Query(asked): Query<Asked>| {
            Json(pages[asked.get("after").map_or("", String::as_str)].clone())
        };
        let router = Router::new().route("/v1/accounts", get(page)).with_state(pages);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        crate::cli::client::tests::client(&server, None)
    }

    #[tokio::test]
    async fn all_pages_are_asked_for() {
        let pages = json!({
            "": {"accounts": [1, 2], "next": "wx&2"},
            "wx&2": {"accounts": [3], "next": "wx3"},
            "wx3": {"accounts": [], "next": null},
        });
        assert_eq!(all_accounts(&daemon(pages).await).await.unwrap(), [json!(1), json!(2), json!(3)]);
    }

    #[tokio::test]
    async fn a_list_that_does_not_move_on_is_given_up() {
        let pages = json!({"": {"accounts": [], "next": "wx1"}, "wx1": {"accounts": [], "next": "wx1"}});
        let failure = all_accounts(&daemon(pages).await).await.unwrap_err();
        assert!(failure.to_string().contains("has no end"), "{failure}");
    }

    #[test]
    fn json_is_one_array_of_what_the_daemon_said() {
        assert_eq!(serde_json::from_str::<Vec<Value>>(&as_json(&accounts())).unwrap(), accounts());
        assert_eq!(as_json(&[]), "[]\n");
    }
}
