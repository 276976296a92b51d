//! Measures a token read over HTTP, next to bare axum and Redis, and what disturbs it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::bare::Fixed;
use crate::client::{self, CONNECTIONS, Cost, Load, Protocol, at_rate, call, token_reads};
use crate::lab::{
    self, ANY, CLIENTS, Cores, KEY, Lab, Plan, Program, SERVER, appid, on, pin_to, redis, until_ready,
};
use crate::{Options, Outcome, median};

const ROUNDS: usize = 5;
const LONG_POLLS: usize = 500;
/// Few enough for the data read of them to stay in the processor's caches, as a fixed body does.
const FEW: usize = 100;

/// Three servers that get the same requests.
struct Servers {
    lab: Lab,
    daemon: Program,
    axum: Program,
    redis: Program,
    accounts: usize,
    /// The account whose answer has the median length: axum serves that answer, and wrk reads that account.
    typical: String,
    body_bytes: usize,
    /// Cores of the clients.
    clients: Cores,
}

pub(crate) fn measure(options: &Options) -> Outcome<Value> {
    client::runtime()?.block_on(async {
        let accounts = options.accounts.unwrap_or(10_000);
        let servers = Servers::start(accounts, SERVER).await?;
        let capacity = servers.capacity(options).await?;
        let rate = capacity["wxtokend"]["median"].as_f64().unwrap_or(0.0) / 5.0;
        let paced = servers.paced(rate, options).await?;
        let body_bytes = servers.body_bytes;
        drop(servers);
        // As they run without cores assigned to them.
        pin_to(ANY)?;
        let on_all_cores = Servers::start(accounts, ANY).await?.capacity(options).await?;
        Ok(json!({
            "accounts": accounts,
            "few": FEW,
            "connections": CONNECTIONS,
            "body_bytes": body_bytes,
            "capacity": capacity,
            "on_all_cores": on_all_cores,
            "rate": rate,
            "paced": paced,
        }))
    })
}

impl Servers {
    async fn start(accounts: usize, cores: Cores) -> Outcome<Self> {
        let lab = Lab::new(&Plan { max_per_second: 1000, ..Plan::of(accounts) }).await?;
        let daemon = lab.daemon(cores).await?;
        until_ready(daemon.address).await?;
        let mut answers = Vec::new();
        for number in 0..FEW.min(accounts) {
            answers.push((whole_answer(daemon.address, &appid(number)).await?, number));
        }
        // Tokens have 136 to 512 characters.
        answers.sort_by_key(|(answer, _)| answer.len());
        let (answer, typical) = answers.swap_remove(answers.len() / 2);
        let fixed = Fixed::of(&answer)?;
        let body_bytes = fixed.body.len();
        let file = lab.folder.path().join("fixed.json");
        std::fs::write(&file, serde_json::to_vec(&fixed)?)?;
        let this = std::env::current_exe()?;
        let mut command = on(cores, this.to_str().ok_or("no path")?);
        command.arg("bare").arg(&file);
        let axum = lab::started(command, lab.folder.path(), "bare.log", "bare").await?;
        let redis = redis(cores).await?;
        let mut stream = TcpStream::connect(redis.address).await?;
        for number in 0..accounts {
            let read = whole_answer_body(daemon.address, &appid(number)).await?;
            let token = read["access_token"].as_str().ok_or("no token")?;
            let key = format!("wx:access_token:{}", appid(number));
            stream.write_all(&redis_command(&["SET", &key, token, "EX", "7000"])).await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
        }
        let clients = if cores == SERVER { CLIENTS } else { cores };
        Ok(Self { lab, daemon, axum, redis, accounts, typical: appid(typical), body_bytes, clients })
    }

    fn loads(&self) -> [(&'static str, &Program, Load); 4] {
        let http = |program: &Program, accounts| Load::tokens(program.address, accounts);
        let gets = (0..self.accounts)
            .map(appid)
            .map(|appid| redis_command(&["GET", &format!("wx:access_token:{appid}")]));
        let redis = Load {
            address: self.redis.address,
            protocol: Protocol::Redis,
            connections: CONNECTIONS,
            requests: Arc::new(gets.collect()),
        };
        [
            ("wxtokend", &self.daemon, http(&self.daemon, self.accounts)),
            ("axum", &self.axum, http(&self.axum, self.accounts)),
            ("redis", &self.redis, redis),
            ("few", &self.daemon, http(&self.daemon, FEW.min(self.accounts))),
        ]
    }

    /// Measures each server in turn, five times.
    async fn capacity(&self, options: &Options) -> Outcome<Value> {
        let time = options.seconds(5);
        let loads = self.loads();
        let mut rounds: [Vec<Cost>; 4] = Default::default();
        let mut by_wrk: [Vec<f64>; 2] = Default::default();
        for _ in 0..ROUNDS {
            for (costs, (_, program, load)) in rounds.iter_mut().zip(&loads) {
                costs.push(client::cost(program, load, time).await?);
            }
            for (rates, (_, program, _)) in by_wrk.iter_mut().zip(&loads) {
                rates.push(wrk(program.address, &self.typical, time, self.clients)?);
            }
        }
        let mut all = serde_json::Map::new();
        for (index, (name, ..)) in loads.iter().enumerate() {
            let (wrk, costs) = (by_wrk.get(index), &rounds[index]);
            let each = |what: fn(&Cost) -> f64| costs.iter().map(what).collect::<Vec<_>>();
            all.insert(
                (*name).to_owned(),
                json!({
                    "per_second": each(|cost| cost.per_second),
                    "median": median(&each(|cost| cost.per_second)),
                    "cpu_us": median(&each(|cost| cost.cpu_us)),
                    "system_us": median(&each(|cost| cost.system_us)),
                    "busy": median(&each(|cost| cost.busy)),
                    "wrk": wrk,
                    "wrk_median": wrk.map(|rates| median(rates)),
                }),
            );
        }
        Ok(all.into())
    }

    /// Measures latency at a fifth of the capacity: undisturbed, and under each disturbance.
    async fn paced(&self, rate: f64, options: &Options) -> Outcome<Value> {
        let time = options.seconds(15);
        let [(_, _, load), ..] = self.loads();
        let mut rows = Vec::new();
        for what in ["", "refreshes", "", "hang", "", "scrapes", "", "polls", ""] {
            let disturbance = Disturbance {
                api: self.daemon.address,
                wechat: self.lab.wechat.address,
                accounts: self.accounts,
                versions: if what == "polls" { self.versions().await? } else { Vec::new() },
                over: Arc::default(),
            };
            let over = Arc::clone(&disturbance.over);
            let disturbing = std::thread::spawn(move || {
                // The disturbance shares a core with the measuring client, and yields to it.
                rustix::process::setpriority_process(None, 15)?;
                client::runtime()?.block_on(disturbance.go(what))
            });
            if what == "polls" {
                sleep(Duration::from_secs(2)).await;
            }
            let run = at_rate(&load, rate, time).await?;
            over.store(true, Ordering::Relaxed);
            let done = disturbing.join().map_err(|_| "the disturber panicked")??;
            let us = |share| run.latencies.value_at_quantile(share) as f64 / 1e3;
            rows.push(json!({
                "what": what, "done": done, "per_second": run.per_second(),
                "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999),
                "max_us": run.latencies.max() as f64 / 1e3,
            }));
        }
        Ok(rows.into())
    }

    async fn versions(&self) -> Outcome<Vec<u64>> {
        let mut versions = Vec::new();
        for number in 0..LONG_POLLS.min(self.accounts) {
            let read = whole_answer_body(self.daemon.address, &appid(number)).await?;
            versions.push(read["version"].as_u64().ok_or("no version")?);
        }
        Ok(versions)
    }
}

/// What goes on in addition to the reads.
struct Disturbance {
    api: SocketAddr,
    wechat: SocketAddr,
    accounts: usize,
    versions: Vec<u64>,
    over: Arc<AtomicBool>,
}

impl Disturbance {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Disturbs until the run is over; returns how often.
    async fn go(self, what: &str) -> Outcome<usize> {
        let outage = |kind: &'static str| {
            let wechat = self.wechat;
            async move {
                let body = json!({ "kind": kind }).to_string();
                call(wechat, "PUT", "/_sandbox/outage", "", &body).await
            }
        };
        match what {
            "refreshes" => self.refresh(true).await,
            "hang" => {
                outage("hang").await?;
                let done = self.refresh(false).await?;
                outage("none").await?;
                Ok(done)
            }
            "scrapes" => {
                let mut done = 0;
                while !self.is_over() {
                    scrape(self.api).await?;
                    done += 1;
                    sleep(Duration::from_secs(1)).await;
                }
                Ok(done)
            }
            "polls" => {
                let mut polls = Vec::new();
                for (number, version) in self.versions.iter().enumerate() {
                    let mut stream = TcpStream::connect(self.api).await?;
                    let request = format!(
                        "GET /v1/accounts/{}/token?after={version}&wait=60s HTTP/1.1\r\nHost: x\r\n\
                         Authorization: Bearer {KEY}\r\n\r\n",
                        appid(number)
                    );
                    stream.write_all(request.as_bytes()).await?;
                    polls.push(stream);
                }
                while !self.is_over() {
                    sleep(Duration::from_millis(100)).await;
                }
                // Polls that were answered early do not count.
                Ok(polls.iter().filter(|poll| poll.try_read(&mut [0]).is_err()).count())
            }
            _ => Ok(0),
        }
    }

    /// A tenth of the fleet refreshes, 64 at a time, as the upstream's limits allow.
    async fn refresh(&self, force: bool) -> Outcome<usize> {
        let mut asked = JoinSet::new();
        let mut done = 0;
        for number in (0..self.accounts).step_by(10) {
            if self.is_over() {
                break;
            }
            if asked.len() >= CONNECTIONS {
                asked.join_next().await;
            }
            let path = format!("/v1/accounts/{}/token/refresh?force={force}", appid(number));
            let (api, key) = (self.api, format!("Authorization: Bearer {KEY}\r\n"));
            asked.spawn(async move { call(api, "POST", &path, &key, "").await.map(drop) });
            done += 1;
        }
        while asked.join_next().await.is_some() {}
        Ok(done)
    }
}

/// Reads a scrape, which may be megabytes, and discards it.
pub(crate) async fn scrape(address: SocketAddr) -> Outcome<usize> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
    let (mut buffer, mut bytes) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(bytes),
            more => bytes += more,
        }
    }
}

async fn whole_answer(address: SocketAddr, appid: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = &token_reads(address, KEY, std::iter::once(appid.to_owned()))[0];
    stream.write_all(request).await?;
    let mut answer = vec![0; 4096];
    let bytes = stream.read(&mut answer).await?;
    answer.truncate(bytes);
    Ok(String::from_utf8(answer)?)
}

async fn whole_answer_body(address: SocketAddr, appid: &str) -> Outcome<Value> {
    let answer = whole_answer(address, appid).await?;
    Ok(serde_json::from_str(answer.split_once("\r\n\r\n").ok_or("half an answer")?.1)?)
}

fn redis_command(words: &[&str]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    command.into_bytes()
}

/// A second opinion: the rate that wrk measures, which reads one account.
fn wrk(address: SocketAddr, appid: &str, time: Duration, cores: Cores) -> Outcome<f64> {
    let mut command = on(cores, "wrk");
    command.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", time.as_secs().max(1))]);
    command.args(["-H", &format!("Authorization: Bearer {KEY}")]);
    command.arg(format!("http://{address}/v1/accounts/{appid}/token"));
    let output = String::from_utf8(command.output()?.stdout)?;
    if output.contains("Non-2xx") {
        return Err(format!("wrk got no tokens: {output}").into());
    }
    let rate =
        output.lines().find_map(|line| line.strip_prefix("Requests/sec:")).ok_or("wrk said nothing")?;
    Ok(rate.trim().parse()?)
}
