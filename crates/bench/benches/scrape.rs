//! Measures what a scrape of a large fleet costs, and what it costs clients that read tokens meanwhile.
//!
//! `cargo bench --bench scrape -- 10000` starts that many accounts in this process, one in a hundred of them
//! failing, with the simulated WeChat. It requests, over sockets, `/metrics`, plain and compressed, and a
//! token every millisecond. It reports and does not judge.

#![expect(clippy::print_stdout, reason = "a report is what it is for")]

use std::error::Error;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use wxtokend::http::Metrics;
use wxtokend::internals::ApiServer;
use wxtokend::{Config, Defaults, Fleet};
use wxtokend_core::account::Appid;
use wxtokend_core::phase::Phase;
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Fault, Sandbox, Settings};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ACCOUNTS: usize = 10_000;
const SCRAPES: usize = 7;
const ONE_IN_TROUBLE_OF: usize = 100;
const BETWEEN_READS: Duration = Duration::from_millis(1);

fn main() -> Outcome<()> {
    let accounts = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(ACCOUNTS);
    // Each client has its own thread, as other processes would.
    let server = Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let (address, _fleet) = server.block_on(start(accounts, &folder.path().join("store")))?;
    let quiet = reads_during(address, || {
        client_runtime()?.block_on(async {
            sleep(Duration::from_secs(3)).await;
            Ok(())
        })
    })?;
    println!("{accounts} accounts, {} MB resident; reads, no scrape: {}", memory("VmRSS:"), quiet.1);
    for encoding in ["identity", "gzip"] {
        // Resets the kernel's record of peak memory.
        fs::write("/proc/self/clear_refs", "5")?;
        let cpu_before = cpu_ms()?;
        let (scrapes, reads) = reads_during(address, || {
            let runtime = client_runtime()?;
            (0..SCRAPES).map(|_| runtime.block_on(scrape(address, encoding))).collect::<Outcome<Vec<_>>>()
        })?;
        let cpu = (cpu_ms()? - cpu_before) / SCRAPES as u64;
        let mut times: Vec<_> = scrapes.iter().map(|(time, _)| *time).collect();
        times.sort_unstable();
        println!(
            "{encoding}: best {:?}, median {:?}, {:.1} MB, {cpu} ms of CPU each, at most {} MB resident; reads meanwhile: {reads}",
            times[0],
            times[SCRAPES / 2],
            scrapes[0].1 as f64 / 1e6,
            memory("VmHWM:"),
        );
    }
    server.shutdown_background();
    Ok(())
}

/// Starts a fleet, waits until it has settled, and returns the address of its API.
async fn start(accounts: usize, store: &std::path::Path) -> Outcome<(SocketAddr, Fleet)> {
    let appids = (0..accounts).map(appid).collect::<Outcome<Vec<_>>>()?;
    let secret = || Secret::new("made-up-secret");
    let known = appids.iter().map(|appid| (appid.clone(), secret())).collect();
    let sandbox = Sandbox::new(Settings { accounts: known, ..Settings::default() });
    for appid in appids.iter().step_by(ONE_IN_TROUBLE_OF) {
        sandbox.inject(Some(appid), Fault::errcode(40164));
    }
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let mut config =
        Config::new(appids.into_iter().map(|appid| Defaults::default().account(appid, secret())));
    config.api.listen = "127.0.0.1:0".parse()?;
    config.store.path = store.to_owned();
    config.upstream.base_urls = vec![format!("http://{}/", upstream.local_addr()?).parse()?];
    config.upstream.max_per_second = u32::MAX;
    drop(tokio::spawn(async move { sandbox.serve(upstream, std::future::pending()).await }));
    let metrics = Metrics::install()?;
    let fleet = Fleet::start(config.clone()).await?;
    let api = ApiServer::bind(&config, fleet.clone(), metrics).await?;
    let address = api.address();
    drop(tokio::spawn(api.serve(std::future::pending())));
    let settled = |phase| matches!(phase, Phase::Fresh | Phase::Parked);
    while !fleet.accounts().iter().all(|account| settled(account.state)) {
        sleep(Duration::from_millis(500)).await;
    }
    Ok((address, fleet))
}

fn appid(number: usize) -> Outcome<Appid> {
    Ok(Appid::new(&format!("wx{number:016x}"))?)
}

fn client_runtime() -> Outcome<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Returns how long a scrape takes, and its size in bytes.
async fn scrape(address: SocketAddr, encoding: &str) -> Outcome<(Duration, usize)> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut bytes) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok((start.elapsed(), bytes)),
            more => bytes += more,
        }
    }
}

/// Runs `work` while a client reads tokens.
fn reads_during<T>(address: SocketAddr, work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Latencies)> {
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let reader = std::thread::spawn(move || client_runtime()?.block_on(read(address, &stop)));
    let result = work();
    done.store(true, Ordering::Relaxed);
    let latencies = reader.join().map_err(|_| "the reader panicked")??;
    Ok((result?, latencies))
}

/// Reads tokens, one each millisecond, until `done`.
async fn read(address: SocketAddr, done: &AtomicBool) -> Outcome<Latencies> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut turns = interval(BETWEEN_READS);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut times, mut buffer) = (Vec::new(), vec![0; 4096]);
    let appid = appid(1)?;
    let request = format!("GET /v1/accounts/{appid}/token HTTP/1.1\r\nHost: {address}\r\n\r\n");
    while !done.load(Ordering::Relaxed) {
        turns.tick().await;
        let start = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let bytes = stream.read(&mut buffer).await?;
        if !buffer[..bytes].starts_with(b"HTTP/1.1 200") {
            return Err("a read got no token".into());
        }
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(Latencies(times))
}

/// Sorted.
struct Latencies(Vec<Duration>);

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share: f64| self.0[((self.0.len() - 1) as f64 * share) as usize];
        write!(f, "{} × p50 {:?} p99 {:?} max {:?}", self.0.len(), at(0.5), at(0.99), at(1.0))
    }
}

/// Returns a line of `/proc/self/status`, in MB.
fn memory(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1000
}

/// CPU time of this process, in user and kernel mode, including its clients.
fn cpu_ms() -> Outcome<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap_or_default().1.split_ascii_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
