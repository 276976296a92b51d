//! One load generator for both protocols, so that the client's own cost is the same for every server.
//!
//! It has one thread, and one request at a time on each connection, without pipelining, like the connection
//! pool of an application.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use hdrhistogram::Histogram;

use crate::Outcome;
use crate::lab::{KEY, Program, appid};

/// Connections that are kept open for closed-loop load, which asks as fast as answers come.
pub(crate) const CONNECTIONS: usize = 64;
/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which requests are sent, how and where.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Sent in turn.
    pub(crate) requests: Arc<Vec<Vec<u8>>>,
}

impl Load {
    /// Reads the tokens of `accounts` accounts over HTTP.
    pub(crate) fn tokens(address: SocketAddr, accounts: usize) -> Self {
        let requests = Arc::new(token_reads(address, KEY, (0..accounts).map(appid)));
        Self { address, protocol: Protocol::Http, connections: CONNECTIONS, requests }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Protocol {
    Http,
    Redis,
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) took: Duration,
    /// In nanoseconds.
    pub(crate) latencies: Histogram<u64>,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

pub(crate) fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// The requests that read the tokens of `appids`.
pub(crate) fn token_reads(
    address: SocketAddr,
    key: &str,
    appids: impl Iterator<Item = String>,
) -> Vec<Vec<u8>> {
    let head = format!("Host: {address}\r\nAuthorization: Bearer {key}\r\n\r\n");
    appids.map(|appid| format!("GET /v1/accounts/{appid}/token HTTP/1.1\r\n{head}").into_bytes()).collect()
}

/// Sends requests as fast as answers come, for `time`.
pub(crate) async fn flat_out(load: &Load, time: Duration) -> Outcome<Run> {
    run(load, time, None).await
}

/// The rate of closed-loop reads, and what each costs the server.
pub(crate) struct Cost {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
    /// The kernel's share of `cpu_us`.
    pub(crate) system_us: f64,
    /// How many cores it kept busy.
    pub(crate) busy: f64,
}

/// Loads `program` as fast as it answers, and measures what that costs it.
pub(crate) async fn cost(program: &Program, load: &Load, time: Duration) -> Outcome<Cost> {
    let before = program.vitals()?;
    let run = flat_out(load, time).await?;
    let after = program.vitals()?;
    let used = (after.cpu - before.cpu).as_secs_f64();
    let a_read = 1e6 / run.latencies.len() as f64;
    Ok(Cost {
        per_second: run.per_second(),
        cpu_us: used * a_read,
        system_us: (after.system - before.system).as_secs_f64() * a_read,
        busy: used / run.took.as_secs_f64(),
    })
}

/// Sends `per_second` requests a second for `time`, whether answers come or not. The latency of a request
/// that was sent late, because the previous one was unanswered, counts from when it was due.
pub(crate) async fn at_rate(load: &Load, per_second: f64, time: Duration) -> Outcome<Run> {
    run(load, time, Some(Duration::from_secs_f64(1.0 / per_second))).await
}

async fn run(load: &Load, time: Duration, every: Option<Duration>) -> Outcome<Run> {
    let mut streams = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let start = Instant::now();
    let end = start + time;
    let mut tasks = JoinSet::new();
    for (index, stream) in streams.into_iter().enumerate() {
        let load = load.clone();
        let pace = every.map(|every| Pace {
            first: start + every * u32::try_from(index).unwrap_or(0),
            every: every * u32::try_from(load.connections).unwrap_or(1),
        });
        tasks.spawn(async move { converse(&load, stream, index, pace, end).await });
    }
    let mut latencies = no_latencies();
    while let Some(ended) = tasks.join_next().await {
        latencies += ended?.map_err(|error| format!("a connection broke: {error}"))?;
    }
    Ok(Run { took: start.elapsed(), latencies })
}

struct Pace {
    first: Instant,
    every: Duration,
}

async fn converse(
    load: &Load,
    stream: TcpStream,
    index: usize,
    pace: Option<Pace>,
    end: Instant,
) -> io::Result<Histogram<u64>> {
    let mut latencies = no_latencies();
    let mut connection = Connection { stream, protocol: load.protocol, buffer: vec![0; 64 * 1024] };
    let mut due = pace.as_ref().map(|pace| pace.first);
    let mut next = index;
    loop {
        let mut from = Instant::now();
        if from >= end {
            return Ok(latencies);
        }
        if let (Some(at), Some(pace)) = (&mut due, &pace) {
            if *at < end && from < *at {
                sleep_until(*at).await;
                from = Instant::now();
            } else if from < *at {
                return Ok(latencies);
            } else {
                from = *at;
            }
            *at += pace.every;
        }
        connection.ask(&load.requests[next % load.requests.len()]).await?;
        latencies.saturating_record(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX));
        next += load.connections;
    }
}

/// Latencies of up to a minute, to a hundredth.
fn no_latencies() -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, 60_000_000_000, 2);
    bounds.expect("bounds and digits that the histogram takes")
}

/// One connection.
struct Connection {
    stream: TcpStream,
    protocol: Protocol,
    buffer: Vec<u8>,
}

impl Connection {
    async fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        timeout(TIMEOUT, self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < request.len() {
            match self.stream.try_write(&request[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        let mut filled = 0;
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let answer = &self.buffer[..filled];
            let length = match self.protocol {
                Protocol::Http => http_length(answer)?,
                Protocol::Redis => redis_length(answer)?,
            };
            if length.is_some_and(|length| length <= filled) {
                return Ok(());
            }
        }
    }
}

fn unexpected_answer(answer: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
    io::Error::new(io::ErrorKind::InvalidData, format!("not the answer that was wanted: {text}"))
}

/// Returns the length of an answer with its head, once the head is complete.
fn http_length(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(unexpected_answer(answer));
    }
    let key = b"content-length: ";
    let at = answer[..head]
        .windows(key.len())
        .position(|part| part.eq_ignore_ascii_case(key))
        .ok_or_else(|| unexpected_answer(answer))?;
    let digits = answer[at + key.len()..head].iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Ok(Some(head + 4 + body))
}

fn redis_length(answer: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = answer.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let Some(digits) = answer[..head].strip_prefix(b"$") else { return Err(unexpected_answer(answer)) };
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
    Ok(Some(head + 2 + length.ok_or_else(|| unexpected_answer(answer))? + 2))
}

/// Sends a single request; returns the status and body.
pub(crate) async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Outcome<(u16, Vec<u8>)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("half an answer")?;
    let status = std::str::from_utf8(&answer[9..12])?.parse()?;
    Ok((status, answer.split_off(head + 4)))
}
