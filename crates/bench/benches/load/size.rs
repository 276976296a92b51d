//! Measures what a fleet of a given size costs: memory, idle work, its starts, its store, its scrapes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{self, call};
use crate::http::scrape;
use crate::lab::{ANY, KEY, Lab, Plan, Program, appid, until_ready};
use crate::machine::Vitals;
use crate::{Options, Outcome, median};

/// How long WeChat takes to answer.
const LATENCY: Duration = Duration::from_millis(20);
/// The delay to configure for that: with its connection, and the timer's whole milliseconds, a call takes
/// longer.
const CONFIGURED_DELAY: Duration = Duration::from_millis(19);
const CALLS_ALONE: usize = 101;
const SCRAPES: usize = 5;
const STARTS: usize = 3;

pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    let accounts = options.accounts.unwrap_or(1000);
    client::runtime()?.block_on(async {
        let plan = Plan::of(accounts);
        let lab = Lab::new(&plan).await?;
        let delay = json!({ "kind": "delay", "delay_ms": CONFIGURED_DELAY.as_millis() });
        lab.control("POST", "/faults", &delay.to_string()).await?;

        let alone = unloaded_call_time(&lab).await?;
        let began = Instant::now();
        let daemon = lab.daemon(ANY).await?;
        let serving = began.elapsed();
        let reader = tokio::spawn(wait_for_last_account(daemon.address, accounts, began));
        until_all_have_tokens(daemon.address, accounts).await?;
        let cold = began.elapsed();
        // One wave of calls after another; the last may not be full.
        let waves = u32::try_from(accounts)?.div_ceil(plan.max_in_flight);
        let awaited = reader.await??;
        lab.control("DELETE", "/faults", "").await?;
        until_ready(daemon.address).await?;

        let commits = sample(daemon.address, "wxtokend_store_commit_duration_seconds_count").await?;
        let commit_s = sample(daemon.address, "wxtokend_store_commit_duration_seconds_sum").await?;
        // By then, memory used only for the start has been returned.
        sleep(options.seconds(10)).await;
        let Vitals { resident_kib, resident_file_kib, .. } = daemon.vitals()?;
        let idle = idle_share(&daemon, options.seconds(30)).await?;
        let mut scrapes = Vec::new();
        let mut bytes = 0;
        for _ in 0..SCRAPES {
            let start = Instant::now();
            bytes = scrape(daemon.address).await?;
            scrapes.push(start.elapsed().as_secs_f64());
        }
        let stopping = Instant::now();
        daemon.stop()?;
        let stop = stopping.elapsed();
        let store_bytes = std::fs::metadata(lab.store())?.len();

        let mut starts = Vec::new();
        let mut after_kill = Vec::new();
        let mut calls = 0.0;
        let mut resident_again_kib = 0;
        for _ in 0..STARTS {
            let daemon = started_with_tokens(&lab, &mut starts).await?;
            until_ready(daemon.address).await?;
            for endpoint in ["stable_token", "token", "check"] {
                let count =
                    format!("wxtokend_upstream_request_duration_seconds_count{{endpoint=\"{endpoint}\"}}");
                calls += sample(daemon.address, &count).await?;
            }
            // Dropping it kills it.
            drop(daemon);
            let daemon = started_with_tokens(&lab, &mut after_kill).await?;
            sleep(options.seconds(5)).await;
            resident_again_kib = daemon.vitals()?.resident_kib;
            daemon.stop()?;
        }
        Ok(json!({
            "accounts": accounts,
            "cold_s": cold.as_secs_f64(),
            "cold_ideal_s": (LATENCY * waves).as_secs_f64(),
            "call_alone_s": alone.as_secs_f64(),
            "cold_ideal_of_calls_s": (alone * waves).as_secs_f64(),
            "cold_serving_s": serving.as_secs_f64(),
            "reader_waits_s": awaited,
            "commits": commits,
            "commit_s": commit_s,
            "resident_kib": resident_kib,
            "resident_file_kib": resident_file_kib,
            "resident_again_kib": resident_again_kib,
            "idle_share": idle,
            "scrape_s": median(&scrapes),
            "scrape_bytes": bytes,
            "stop_s": stop.as_secs_f64(),
            "store_bytes": store_bytes,
            "start_s": median(&starts),
            "start_after_kill_s": median(&after_kill),
            "calls_at_start": calls,
        }))
    })
}

/// How long a call takes at an otherwise idle WeChat, on a connection of its own like all calls.
async fn unloaded_call_time(lab: &Lab) -> Outcome<Duration> {
    let mut took = Vec::new();
    for _ in 0..CALLS_ALONE {
        let start = Instant::now();
        call(lab.wechat.address, "GET", "/cgi-bin/get_api_domain_ip?access_token=none", "", "").await?;
        took.push(start.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(&took)))
}

/// How long after `began` a reader that asks from the start gets the token of the last account.
async fn wait_for_last_account(api: SocketAddr, accounts: usize, began: Instant) -> Outcome<f64> {
    until_read(api, &appid(accounts - 1)).await?;
    Ok(began.elapsed().as_secs_f64())
}

async fn until_read(api: SocketAddr, appid: &str) -> Outcome<()> {
    let (path, key) = (format!("/v1/accounts/{appid}/token"), format!("Authorization: Bearer {KEY}\r\n"));
    while call(api, "GET", &path, &key, "").await?.0 != 200 {
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Returns once each account has first had a token, without polling each of them often.
async fn until_all_have_tokens(api: SocketAddr, accounts: usize) -> Outcome<()> {
    let mut every = Duration::from_millis(u64::try_from(accounts / 1000)?.clamp(5, 100));
    while call(api, "GET", "/readyz", "", "").await?.0 != 200 {
        sleep(every).await;
        every = every.max(Duration::from_millis(5));
    }
    Ok(())
}

/// Starts the daemon, and records how long it took from exec until a token was read.
async fn started_with_tokens(lab: &Lab, times: &mut Vec<f64>) -> Outcome<Program> {
    let began = Instant::now();
    let daemon = lab.daemon(ANY).await?;
    until_read(daemon.address, &appid(0)).await?;
    times.push(began.elapsed().as_secs_f64());
    Ok(daemon)
}

/// The share of a core that it uses while there are no requests and nothing is due.
async fn idle_share(daemon: &Program, time: Duration) -> Outcome<f64> {
    let (before, began) = (daemon.vitals()?.cpu, Instant::now());
    sleep(time).await;
    Ok((daemon.vitals()?.cpu - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Returns the value of a series.
async fn sample(api: SocketAddr, series: &str) -> Outcome<f64> {
    let (_, text) = call(api, "GET", "/metrics", "", "").await?;
    let text = String::from_utf8(text)?;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| format!("no {series}"))?.parse()?)
}
