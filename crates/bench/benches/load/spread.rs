//! Measures how the calls of a large fleet are spread over three days, from one mass start.
//!
//! The decisions are the program's own (`next_step`, `begin_fetch`, `end_fetch`). Only WeChat and the call
//! queue in front of it are simulated here, on a clock that jumps from call to call.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use wxtokend::Defaults;
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::clock::Moment;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::decide::{Step, next_step};
use wxtokend_core::token::schedule::{Draw, PlannedRefreshes, Rules};
use wxtokend_core::token::state::AccountState;
use wxtokend_core::token::transition::{Answer, FetchEnd};

use crate::{Options, Outcome};

const DAYS: i64 = 3;
const DAY_S: i64 = 24 * 3600;
/// The call queue admits a call every 10 ms: `upstream.max_per_second: 100`.
const PERIOD_MS: i64 = 10;
const LATENCY_MS: i64 = 50;
const LIFETIME_MS: i64 = 7_200_000;
const OVERLAP_MS: i64 = 300_000;
const START: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 1_000_000 };

pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    let accounts = options.accounts.unwrap_or(100_000);
    let mut endpoints = Vec::new();
    for endpoint in [Endpoint::Token, Endpoint::StableToken] {
        endpoints.push(spread(accounts, endpoint)?);
    }
    Ok(json!({ "accounts": accounts, "days": DAYS, "endpoints": endpoints }))
}

struct One {
    state: AccountState,
    /// The live token's number and end, as WeChat sees it.
    token: (u32, i64),
}

/// Calls in the busiest second, starting with any tenth.
fn busiest_second(tenths: &[u32]) -> u32 {
    tenths.windows(10).map(|second| second.iter().sum()).max().unwrap_or(0)
}

fn spread(accounts: usize, endpoint: Endpoint) -> Outcome<Value> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut account: Account = Defaults::default().account(Appid::new("wx1")?, Secret::new("s"));
    account.settings.endpoint = endpoint;
    let rules = Rules {
        overlap: Duration::from_millis(OVERLAP_MS.unsigned_abs()),
        timeout: Duration::from_secs(5),
        stale: Duration::ZERO,
    };
    let at = |ms: i64| Moment { wall_ms: START.wall_ms + ms, boot_ms: START.boot_ms + ms };
    let mut all: Vec<One> =
        (0..accounts).map(|_| One { state: AccountState::default(), token: (0, 0) }).collect();
    let mut due: BinaryHeap<Reverse<(i64, usize)>> = (0..accounts).map(|index| Reverse((0, index))).collect();
    let mut tenths = vec![0_u32; usize::try_from(DAYS * DAY_S * 10)?];
    let mut waiting = VecDeque::new();
    let planned_refreshes = PlannedRefreshes::default();
    let mut free_at = 0;
    let mut nothing_waits_ms = None;
    loop {
        while let Some(Reverse(next)) = due.peek()
            && (waiting.is_empty() || next.0 <= free_at)
        {
            waiting.push_back(*next);
            due.pop();
        }
        let Some((ms, index)) = waiting.pop_front().filter(|(ms, _)| *ms < DAYS * DAY_S * 1000) else {
            break;
        };
        let One { state, token } = &mut all[index];
        if let Step::Wait(until) = next_step(state, &account, true, at(ms)) {
            due.push(Reverse(((until.boot_ms - START.boot_ms).max(ms + 1), index)));
            continue;
        }
        let sent = ms.max(free_at);
        if sent > free_at && free_at > 0 {
            nothing_waits_ms.get_or_insert(free_at);
        }
        free_at = sent + PERIOD_MS;
        state.others_waiting = waiting.len();
        if state.begin_fetch(&account, false, at(sent)).is_err() {
            return Err("the budget is spent, in peace".into());
        }
        let tenth = usize::try_from(sent / 100)?;
        if let Some(count) = tenths.get_mut(tenth) {
            *count += 1;
        }
        let same = endpoint == Endpoint::StableToken && token.1 - sent > OVERLAP_MS;
        if !same {
            *token = (token.0 + 1, sent + LIFETIME_MS);
        }
        let expires_in = Duration::from_secs(((token.1 - sent) / 1000).unsigned_abs());
        let answer = Answer { value: Secret::new(format!("token-{}", token.0)), expires_in };
        let end =
            FetchEnd { force: false, sent_at: Some(at(sent)), may_have_minted: false, result: Ok(answer) };
        let done = sent + LATENCY_MS;
        state.end_fetch(end, &account, rules, at(done), Draw::new(rng.random(), &planned_refreshes));
        due.push(Reverse((done, index)));
    }
    let calls = tenths.iter().sum::<u32>();
    let mean = f64::from(calls) / (tenths.len() / 10) as f64;
    let minutes: Vec<f64> =
        tenths.chunks(600).map(|minute| f64::from(minute.iter().sum::<u32>()) / 60.0).collect();
    // The start itself is as fast as the call queue allows, until nothing waits in it any more.
    let start = usize::try_from(nothing_waits_ms.ok_or("it never ends")? / 1000 + 1)?;
    let later = &tenths[(start * 10).min(tenths.len())..];
    let mut at_random = vec![0; later.len()];
    for _ in 0..later.iter().sum() {
        at_random[rng.random_range(0..later.len())] += 1;
    }
    let later_minutes = &minutes[start.div_ceil(60).min(minutes.len())..];
    Ok(json!({
        "endpoint": endpoint.as_str(),
        "calls": calls,
        "calls_per_account_and_day": f64::from(calls) / accounts as f64 / DAYS as f64,
        "mean": mean,
        "peak_of_a_minute": later_minutes.iter().copied().fold(0.0, f64::max),
        "peak_of_a_second": busiest_second(later),
        "peak_at_random": busiest_second(&at_random),
        "last_day_peak_of_a_minute": minutes[minutes.len() * 2 / 3..].iter().copied().fold(0.0, f64::max),
        "start_s": start,
        "per_minute": minutes,
    }))
}
