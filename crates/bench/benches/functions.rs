//! Measures the functions that everything else is built on, above all a read of a token by the library.
//!
//! The read is compared with the two other ways in which a program could share a token: asking an actor that
//! keeps it, and borrowing it from a `tokio::sync::watch`.

#![expect(clippy::print_stdout, reason = "a report is what it is for")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use allocation_counter::measure;
use criterion::{BenchmarkId, Criterion};
use kameo::error::Infallible;
use kameo::prelude::*;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use wxtokend::internals::record;
use wxtokend::{Config, Defaults, Fleet};
use wxtokend_core::account::{Account, Appid};
use wxtokend_core::clock::{ClockSource as _, SystemClock};
use wxtokend_core::secret::Secret;
use wxtokend_core::token::Token;
use wxtokend_core::token::decide::next_step;
use wxtokend_core::token::state::AccountState;
use wxtokend_sandbox::{Sandbox, Settings};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ACCOUNTS: usize = 10_000;
const THREADS: [usize; 3] = [1, 2, 8];
const READS: u64 = 10_000;

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(30)
        .configure_from_args();
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let appids: Arc<Vec<String>> = Arc::new((0..ACCOUNTS).map(|number| format!("wx{number:016x}")).collect());
    let fleet = runtime.block_on(start(&appids, &folder.path().join("store")))?;
    let token = runtime.block_on(fleet.token(&appids[0]))?;
    library(&mut criterion, &runtime, &fleet, &token, &appids);
    decisions(&mut criterion)?;

    let one = current_thread();
    let counted = measure(|| {
        one.block_on(async {
            for _ in 0..READS {
                let _ = black_box(fleet.token(black_box(appids[0].as_str())).await);
            }
        });
    });
    // Includes what the runtime may allocate at the beginning.
    let allocations = counted.count_total as f64 / READS as f64;
    println!("allocations of a read: {allocations}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    fs::create_dir_all(&results)?;
    let result = json!({ "accounts": ACCOUNTS, "reads": READS, "allocations_per_read": allocations });
    fs::write(results.join("functions.json"), serde_json::to_string_pretty(&result)?)?;
    criterion.final_summary();
    runtime.shutdown_background();
    Ok(())
}

/// Starts a fleet in which each account has a token.
async fn start(appids: &[String], store: &Path) -> Outcome<Fleet> {
    let appids: Vec<Appid> = appids.iter().map(|appid| Appid::new(appid)).collect::<Result<_, _>>()?;
    let secret = || Secret::new("made-up-secret");
    let known = appids.iter().map(|appid| (appid.clone(), secret())).collect();
    let sandbox = Sandbox::new(Settings { accounts: known, ..Settings::default() });
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let mut config =
        Config::new(appids.into_iter().map(|appid| Defaults::default().account(appid, secret())));
    config.store.path = store.to_owned();
    config.upstream.base_urls = vec![format!("http://{}/", upstream.local_addr()?).parse()?];
    config.upstream.max_per_second = u32::MAX;
    drop(tokio::spawn(async move { sandbox.serve(upstream, std::future::pending()).await }));
    let fleet = Fleet::start(config).await?;
    while !fleet.is_ready() {
        sleep(Duration::from_millis(50)).await;
    }
    Ok(fleet)
}

/// An actor that keeps a token and returns it on request.
struct Keeper(Token);

impl Actor for Keeper {
    type Args = Self;
    type Error = Infallible;
    async fn on_start(keeper: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(keeper)
    }
}

struct Get;

impl Message<Get> for Keeper {
    type Reply = Result<Token, Infallible>;
    async fn handle(&mut self, _: Get, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Ok(self.0.clone())
    }
}

fn library(
    criterion: &mut Criterion,
    runtime: &Runtime,
    fleet: &Fleet,
    token: &Token,
    appids: &Arc<Vec<String>>,
) {
    let keeper = runtime.block_on(async { Keeper::spawn(Keeper(token.clone())) });
    let (_sender, receiver) = watch::channel(token.clone());
    let mut group = criterion.benchmark_group("read");
    for threads in THREADS {
        group.bench_function(BenchmarkId::new("Fleet::token", threads), |bencher| {
            bencher.iter_custom(|reads| {
                on_threads(threads, |_| {
                    let (fleet, appid) = (fleet.clone(), appids[0].clone());
                    async move {
                        for _ in 0..reads {
                            let _ = black_box(fleet.token(black_box(appid.as_str())).await);
                        }
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("Fleet::token, 10 000 in turn", threads), |bencher| {
            bencher.iter_custom(|reads| {
                on_threads(threads, |thread| {
                    let (fleet, appids) = (fleet.clone(), Arc::clone(appids));
                    async move {
                        let all = appids.iter().cycle().skip(thread * 997);
                        for (appid, _) in all.zip(0..reads) {
                            let _ = black_box(fleet.token(black_box(appid.as_str())).await);
                        }
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("watch", threads), |bencher| {
            bencher.iter_custom(|reads| {
                on_threads(threads, |_| {
                    let receiver = receiver.clone();
                    async move {
                        for _ in 0..reads {
                            let token = black_box(&receiver).borrow().clone();
                            black_box(token);
                        }
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("actor ask", threads), |bencher| {
            bencher.iter_custom(|reads| {
                on_threads(threads, |_| {
                    let keeper = keeper.clone();
                    async move {
                        for _ in 0..reads {
                            let _ = black_box(keeper.ask(Get).await);
                        }
                    }
                })
            });
        });
    }
    group.finish();
}

/// Returns how long it takes for all threads to have done `work`, each its own.
fn on_threads<W: Future<Output = ()> + Send + 'static>(
    threads: usize,
    work: impl Fn(usize) -> W,
) -> Duration {
    let ready = Arc::new(Barrier::new(threads + 1));
    let all: Vec<_> = (0..threads)
        .map(|thread| {
            let (work, ready) = (work(thread), Arc::clone(&ready));
            std::thread::spawn(move || {
                let runtime = current_thread();
                ready.wait();
                runtime.block_on(work);
            })
        })
        .collect();
    ready.wait();
    let start = Instant::now();
    for thread in all {
        let _ = thread.join();
    }
    start.elapsed()
}

#[expect(clippy::unwrap_used, reason = "without a runtime there is nothing to measure")]
fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Measures what an actor does other than waiting.
fn decisions(criterion: &mut Criterion) -> Outcome<()> {
    let now = SystemClock::new().now();
    let account: Account = Defaults::default().account(Appid::new("wx0123456789abcdef")?, Secret::new("s"));
    let text = format!(
        r#"{{"boot":"b","version":7,"token":{{"value":"{}","version":7,"endpoint":"stable_token",
        "issued_at":{{"wall_ms":{wall},"boot_ms":{boot}}},"expires_at":{{"wall_ms":{end},"boot_ms":{boot_end}}},
        "overlap":{{"secs":300,"nanos":0}},"refresh_at":{{"wall_ms":{end},"boot_ms":{boot_end}}},"standing":"good"}},
        "doubt":null,"intent":null,"ledger":{ledger},"forced":[]}}"#,
        "x".repeat(300),
        wall = now.wall_ms,
        boot = now.boot_ms,
        end = now.wall_ms + 7_200_000,
        boot_end = now.boot_ms + 7_200_000,
        ledger = serde_json::to_string(&AccountState::default().ledger)?,
    );
    let (state, _) = record::decode::<AccountState>(text.as_bytes(), "b")?;
    let bytes = record::encode(&state, "b");
    criterion.bench_function("next_step", |bencher| {
        bencher.iter(|| next_step(black_box(&state), &account, true, black_box(now)));
    });
    criterion
        .bench_function("record::encode", |bencher| bencher.iter(|| record::encode(black_box(&state), "b")));
    criterion.bench_function("record::decode", |bencher| {
        bencher.iter(|| record::decode::<AccountState>(black_box(&bytes), "b"));
    });
    Ok(())
}
