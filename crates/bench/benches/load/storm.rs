//! Measures thousands of clients that report the same dead token at once.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{self, call};
use crate::lab::{ANY, KEY, Lab, Plan, appid, until_ready};
use crate::{Options, Outcome};

const CLIENTS: usize = 5000;
const ACCOUNTS: usize = 100;

pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    let clients = if options.quick { CLIENTS / 10 } else { CLIENTS };
    client::runtime()?.block_on(async {
        let mut storms = Vec::new();
        for endpoint in ["stable_token", "token"] {
            storms.push(storm(endpoint, clients).await?);
        }
        Ok(json!({ "clients": clients, "storms": storms }))
    })
}

async fn storm(endpoint: &'static str, clients: usize) -> Outcome<Value> {
    let lab = Lab::new(&Plan { endpoint, ..Plan::of(ACCOUNTS) }).await?;
    let daemon = lab.daemon(ANY).await?;
    until_ready(daemon.address).await?;
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let of = appid(0);
    let (_, read) = call(daemon.address, "GET", &format!("/v1/accounts/{of}/token"), &key, "").await?;
    let dead: Value = serde_json::from_slice(&read)?;
    let dead = dead["access_token"].as_str().ok_or("no token")?.to_owned();
    lab.control("DELETE", &format!("/accounts/{of}/tokens"), "").await?;
    let before = counters(&lab, &of).await?;

    let body = json!({ "access_token": dead }).to_string();
    let request = format!(
        "POST /v1/accounts/{of}/token/reject HTTP/1.1\r\nHost: {}\r\n{key}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        daemon.address,
        body.len()
    );
    let mut streams = Vec::new();
    for _ in 0..clients {
        streams.push(TcpStream::connect(daemon.address).await?);
    }
    let all_at = Instant::now() + Duration::from_millis(200);
    let mut reports = JoinSet::new();
    for mut stream in streams {
        let request = request.clone();
        reports.spawn(async move {
            sleep_until(all_at).await;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            // Its body may arrive separately.
            while stream.read_buf(&mut answer).await? > 0 && !answer.ends_with(b"}") {}
            Outcome::Ok((all_at.elapsed(), String::from_utf8_lossy(&answer).into_owned()))
        });
    }
    let mut times = Vec::new();
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    while let Some(ended) = reports.join_next().await {
        let (time, answer) = ended??;
        times.push(time.as_secs_f64());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let outcome = answer["outcome"].as_str().or(answer["code"].as_str()).unwrap_or("unreadable");
        if answer["access_token"] == dead {
            return Err("the dead token was in an answer".into());
        }
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
    times.sort_by(f64::total_cmp);
    let after = counters(&lab, &of).await?;
    let more = |name: &str| after[name].as_u64().unwrap_or(0) - before[name].as_u64().unwrap_or(0);
    Ok(json!({
        "endpoint": endpoint,
        "first_s": times.first(),
        "last_s": times.last(),
        "outcomes": outcomes,
        "checks": more("checks"),
        "calls": more("token_calls") + more("stable_token_calls"),
        "mints": more("token_mints") + more("stable_token_mints"),
    }))
}

async fn counters(lab: &Lab, appid: &str) -> Outcome<Value> {
    let truth: Value = serde_json::from_slice(&lab.control("GET", &format!("/accounts/{appid}"), "").await?)?;
    Ok(truth["counters"].clone())
}
