//! Each row of the fault table, with real requests.

use jiff::Timestamp;
use serde_json::{Value, json};
use wxtokend_sandbox::{Fault, FaultKind};

use crate::harness::{Answer, Daemon, Lab, appid, find, until};

/// An account in trouble, and what it must look like.
struct FaultRow {
    account: String,
    /// The fault at WeChat; `None` if the mistake is in the configuration.
    fault: Option<FaultKind>,
    endpoint: &'static str,
    kind: &'static str,
    errcode: Option<i64>,
    advice: &'static str,
    /// Minimum and maximum seconds until the next call.
    wait_s: (i64, i64),
}

/// The lab's `retry.initial` and `retry.max` are 200 ms and 1 s. If the machine is too busy even for a probe,
/// the host counts as down, and the next probe takes up to 2 s.
const BACK_OFF: (i64, i64) = (0, 2);
const PARKED: (i64, i64) = (300, 300);

/// Errcodes, their kind, a part of the advice, and the wait.
type Line = (&'static [i64], &'static str, &'static str, (i64, i64));

fn errcodes() -> Vec<FaultRow> {
    let table: &[Line] = &[
        (&[-1], "transient", "busy", BACK_OFF),
        (&[45011], "throttled", "per minute", (60, 60)),
        (&[45009], "throttled", "quota reset", (3600, 3600)),
        (&[40001, 40125], "parked", "put the right one into the file", PARKED),
        (&[40013], "parked", "correct it in the file", PARKED),
        (&[40002, 41002, 41004, 43002, 44002, 47001], "parked", "bug of ours", PARKED),
        (&[40164], "parked", "add IP 127.0.0.1 to the account's IP whitelist", PARKED),
        (&[61004], "parked", "account's IP whitelist", PARKED),
        (&[410, 48017], "transient", "is retired: remove it from the hosts file", BACK_OFF),
        (&[40243], "parked", "unfreeze", PARKED),
        (&[48001, 48004, 50002, 50004, 50007], "parked", "console", PARKED),
        (&[61024], "parked", "third-party platform", PARKED),
        (&[89501, 89502, 89503, 89504, 89505], "parked", "administrator", PARKED),
        (&[89507], "parked", "1 hour", (3600, 3600)),
        (&[89506], "parked", "24 hours", (86_400, 86_400)),
        (&[99_999], "parked", "does not know", (0, 600)),
    ];
    let rows = table.iter().flat_map(|(codes, kind, advice, wait_s)| {
        codes.iter().map(|code| FaultRow {
            account: format!("code{}", code.unsigned_abs()),
            fault: Some(FaultKind::Errcode { errcode: *code, errmsg: None }),
            endpoint: "stable_token",
            kind,
            errcode: Some(*code),
            advice,
            wait_s: *wait_s,
        })
    });
    rows.collect()
}

/// Answers without an errcode, on both endpoints, with the kind on `stable_token` and the kind on `token`.
fn answers_that_are_none() -> Vec<FaultRow> {
    let status = |status| FaultKind::Status { status };
    let table = [
        ("s500", status(500), "transient", "transient", BACK_OFF),
        ("s502", status(502), "transient", "transient", BACK_OFF),
        ("s503", status(503), "transient", "transient", BACK_OFF),
        ("s504", status(504), "transient", "unknown_outcome", BACK_OFF),
        ("html", FaultKind::Html, "transient", "unknown_outcome", BACK_OFF),
        ("half", FaultKind::Half, "transient", "unknown_outcome", BACK_OFF),
        ("hang", FaultKind::Hang, "transient", "unknown_outcome", BACK_OFF),
        ("reset", FaultKind::Reset, "transient", "unknown_outcome", BACK_OFF),
        ("empty", FaultKind::EmptyToken, "transient", "unknown_outcome", BACK_OFF),
        ("s412", status(412), "parked", "parked", PARKED),
    ];
    let rows = table.into_iter().flat_map(|(name, fault, stable, classic, wait_s)| {
        [("stable_token", stable), ("token", classic)].map(|(endpoint, kind)| FaultRow {
            account: format!("{name}-{endpoint}"),
            fault: Some(fault.clone()),
            endpoint,
            kind,
            errcode: None,
            advice: if kind == "parked" { "proxy" } else { "" },
            wait_s,
        })
    });
    rows.collect()
}

/// Mistakes in the configuration that WeChat itself reports.
fn mistakes() -> Vec<FaultRow> {
    let row = |account: &str, errcode, advice| FaultRow {
        account: account.to_owned(),
        fault: None,
        endpoint: "token",
        kind: "parked",
        errcode: Some(errcode),
        advice,
        wait_s: PARKED,
    };
    vec![
        row("wrong-secret", 40125, "AppSecret is wrong"),
        row("unknown-appid", 40013, "does not know this appid"),
    ]
}

fn seconds_between(from: &Value, to: &Value) -> i64 {
    let at = |instant: &Value| instant.as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond();
    (at(to) - at(from) + 500).div_euclid(1000)
}

/// Waits until the account is in the trouble of `row`, and checks all that shows it.
async fn assert_in_trouble(daemon: &Daemon, row: &FaultRow) {
    let FaultRow { account, kind, errcode, advice, wait_s, .. } = row;
    let view = find(&format!("{account} is {kind} {errcode:?}"), async || {
        let view = daemon.view(account).await;
        let fault = &view["last_fault"];
        let settled = ["parked", "unavailable"].contains(&view["state"].as_str().unwrap());
        (settled && fault["kind"] == *kind && fault["errcode"] == json!(errcode)).then_some(view)
    })
    .await;
    let fault = &view["last_fault"];
    let state = if *kind == "parked" { "parked" } else { "unavailable" };
    assert_eq!(view["state"], state, "{view}");
    assert!(fault["advice"].as_str().unwrap().contains(advice), "{view}");
    assert!(!fault["message"].as_str().unwrap().is_empty(), "{view}");
    let wait = seconds_between(&fault["at"], &view["next_refresh_at"]);
    assert!((wait_s.0..=wait_s.1).contains(&wait), "{account} waits {wait} s: {view}");
    let code = errcode.map_or_else(|| "none".to_owned(), |code| code.to_string());
    let gauge = format!("wxtokend_account_fault{{appid=\"{account}\",kind=\"{kind}\",errcode=\"{code}\"}}");
    assert_eq!(daemon.metric(&gauge).await, Some(1.0), "{gauge}");
}

#[tokio::test]
async fn every_fault_shows_its_state_and_says_what_to_do_and_when_and_ends_when_it_is_fixed() {
    let mut lab = Lab::new(7_200_000, 300_000).await;
    lab.config["upstream"]["timeout"] = json!("1s");
    let rows: Vec<FaultRow> =
        [errcodes(), answers_that_are_none(), mistakes()].into_iter().flatten().collect();
    for row in &rows {
        lab.add(&row.account, json!({ "endpoint": row.endpoint }));
        if let Some(kind) = &row.fault {
            lab.wechat.inject(Some(&appid(&row.account)), Fault::new(kind.clone()));
        }
    }
    lab.account("wrong-secret")["secret"] = json!("not-its-secret");
    lab.account("unknown-appid")["appid"] = json!("unknown-to-wechat");
    lab.config["accounts"].as_array_mut().unwrap().last_mut().unwrap()["name"] = json!("unknown-appid");
    let daemon = lab.start().await;
    for row in &rows {
        let account = if row.account == "unknown-appid" { "unknown-to-wechat" } else { &row.account };
        assert_in_trouble(&daemon, &FaultRow { account: account.to_owned(), fault: None, ..*row }).await;
    }

    for row in &rows {
        lab.wechat.clear_faults(Some(&appid(&row.account)));
    }
    lab.wechat.set_secret(&appid("wrong-secret"), wxtokend_core::secret::Secret::new("not-its-secret"));
    for row in rows.iter().filter(|row| row.account != "unknown-appid") {
        let account = &row.account;
        if row.wait_s.0 >= 60 {
            assert_ne!(daemon.state(account).await, "fresh", "nobody has told that {account} is mended");
            let refreshed = daemon.refresh(account, false).await;
            assert_eq!(
                (refreshed.status, refreshed.word("outcome").as_str()),
                (200, "refreshed"),
                "{refreshed:?}"
            );
        }
        daemon.until_state(account, "fresh").await;
        assert_eq!(daemon.view(account).await["last_fault"], Value::Null);
        assert!(lab.wechat.is_alive(&daemon.token_value(account).await), "{account}");
    }
    let metrics = daemon.get("/metrics").await.body;
    let faults = metrics.lines().filter(|line| line.starts_with("wxtokend_account_fault{"));
    assert_eq!(faults.count(), 1, "only the appid that WeChat does not know");
}

fn refused_for_lack_of_a_token(answer: &Answer) -> bool {
    let json = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(json["last_fault"]["advice"].is_string(), "{json}");
    (answer.status, json["code"].as_str()) == (503, Some("token_unavailable"))
}

#[tokio::test]
async fn an_account_in_trouble_serves_its_token_to_the_end_and_then_says_why_it_has_none() {
    let mut lab = Lab::new(6_000, 1_500).await.with_both().with("refused", json!({}));
    lab.config["upstream"]["timeout"] = json!("1s");
    let daemon = lab.start().await;
    let troubles = [
        ("stable", FaultKind::Errcode { errcode: -1, errmsg: None }, "degraded", "unavailable"),
        ("classic", FaultKind::Errcode { errcode: -1, errmsg: None }, "degraded", "unavailable"),
        ("refused", FaultKind::Errcode { errcode: 40164, errmsg: None }, "parked", "parked"),
    ];
    let live_through = async |(account, fault, first, last): (&str, FaultKind, &str, &str)| {
        daemon.until_state(account, "fresh").await;
        let token = daemon.token_value(account).await;
        lab.wechat.inject(Some(&appid(account)), Fault::new(fault));
        until(&format!("{account} is {first} and serves"), async || {
            let served = daemon.token(account).await;
            let state = daemon.state(account).await;
            assert!(served.status == 200 && served.access_token() == token, "{account}: {served:?}");
            state == first
        })
        .await;
        let at_the_end = find(&format!("{account} has no token"), async || {
            let answer = daemon.token(account).await;
            (answer.status != 200).then_some(answer)
        })
        .await;
        assert!(refused_for_lack_of_a_token(&at_the_end), "{at_the_end:?}");
        assert_eq!(at_the_end.word("state"), last);
        lab.wechat.clear_faults(Some(&appid(account)));
        daemon.refresh(account, false).await;
        daemon.until_state(account, "fresh").await;
    };
    let [first, second, third] = troubles;
    tokio::join!(live_through(first), live_through(second), live_through(third));
}

#[tokio::test]
async fn a_lifetime_far_above_the_usual_is_said_and_a_short_one_is_not() {
    let lab = Lab::new(60_000, 10_000).await.with_both();
    let strange = FaultKind::BadExpires { expires_in: 720_000 };
    lab.wechat.inject(Some(&appid("classic")), Fault::new(strange).times(1));
    let daemon = lab.start().await;
    let line = daemon.event("strange_lifetime", 1).await;
    assert_eq!((&line["level"], &line["appid"]), (&json!("WARN"), &json!("classic")), "{line}");
    assert_eq!(line["expires_in_s"], 720_000, "{line}");
    daemon.until_state("stable", "fresh").await;
    let view = daemon.view("classic").await;
    assert_eq!(seconds_between(&view["issued_at"], &view["expires_at"]), 86_400, "{view}");
    assert_eq!(daemon.log.events("strange_lifetime").len(), 1);
}
