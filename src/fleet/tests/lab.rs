//! A whole fleet in one runtime on paused time, against the simulated WeChat without sockets.
//!
//! Supervisor, actors, decisions and budget are the real ones; the disk is in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep, timeout};
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::secret::Secret;
use wxtokend_core::token::Token;
use wxtokend_sandbox::{Counters, Request as Asked, Sandbox, Settings, Wire};
use wxtokend_testkit::TokioClock;

use crate::config::{Config, Defaults, UpstreamConfig};
use crate::fleet::actor::environment::{Environment, Jitter};
use crate::fleet::journal::event::EventKind;
use crate::fleet::{AccountView, Fleet};
use crate::store::memory::MemoryBackend;
use crate::wechat::transport::{Lost, Method, Request, Response, ResponseFuture, Transport};

pub(crate) struct Lab {
    pub(crate) wechat: Sandbox,
    pub(super) clock: Arc<TokioClock>,
    pub(super) disk: Arc<MemoryBackend>,
    pub(crate) fleet: Fleet,
    pub(super) config: Config,
    pub(super) jitter: Jitter,
    /// How many calls with an invalid token have been sent.
    pub(super) probes: Arc<AtomicUsize>,
}

pub(crate) const APPID: &str = "wx01";

pub(super) fn appid() -> Appid {
    Appid::new(APPID).unwrap()
}

/// An account with WeChat's numbers, and without audits: their checks would be among those that tests count.
pub(crate) fn account(appid: &str, endpoint: Endpoint) -> Account {
    let defaults = Defaults { endpoint, audit: Duration::ZERO, ..Defaults::default() };
    defaults.account(Appid::new(appid).unwrap(), Secret::new(format!("secret of {appid}")))
}

impl Lab {
    pub(crate) async fn start(endpoint: Endpoint) -> Self {
        Self::with(vec![account(APPID, endpoint)]).await
    }

    /// Starts a fleet of accounts whose secrets WeChat knows.
    pub(crate) async fn with(accounts: Vec<Account>) -> Self {
        Self::tuned(accounts, |_| {}).await
    }

    pub(crate) async fn tuned(accounts: Vec<Account>, tune: impl FnOnce(&mut UpstreamConfig)) -> Self {
        Self::drawing(&[0.5], accounts, tune).await
    }

    /// Draws these numbers instead of random ones, over and over.
    pub(super) async fn drawing(
        lots: &'static [f64],
        accounts: Vec<Account>,
        tune: impl FnOnce(&mut UpstreamConfig),
    ) -> Self {
        let known = accounts.iter().map(|account| (account.appid.clone(), account.secret.clone())).collect();
        let wechat = Sandbox::new(Settings { accounts: known, ..Settings::default() });
        let (clock, disk) = (TokioClock::new(), MemoryBackend::new());
        let mut config = Config::new(accounts);
        config.upstream.base_urls = vec![Url::parse("https://wechat.test/").unwrap()];
        tune(&mut config.upstream);
        Self::on(wechat, clock, disk, config, drawn_from(lots)).await
    }

    pub(super) async fn on(
        wechat: Sandbox,
        clock: Arc<TokioClock>,
        disk: Arc<MemoryBackend>,
        config: Config,
        jitter: Jitter,
    ) -> Self {
        let probes = Arc::default();
        let fleet = boot(&config, &wechat, &clock, &disk, &jitter, &probes).await;
        Self { wechat, clock, disk, fleet, config, jitter, probes }
    }

    /// Kills the process and starts it again: what is not on disk is lost.
    pub(super) async fn crash_and_restart(self) -> Self {
        self.reboot(Duration::ZERO, None).await
    }

    /// The same after `down`; if the machine has rebooted, its wall clock is off by `wall_ms`.
    pub(super) async fn reboot(mut self, down: Duration, wall_ms: impl Into<Option<i64>>) -> Self {
        let fleet = self.fleet;
        // An actor that is waiting for the disk would continue after that.
        fleet.cells().iter().filter_map(|cell| cell.mailbox()).for_each(|actor| actor.kill());
        drop(fleet);
        // Aborted tasks end when they are polled next.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.disk.cut_after(0);
        sleep(down).await;
        if let Some(wall_ms) = wall_ms.into() {
            self.clock = self.clock.rebooted(wall_ms);
        }
        let (config, wechat, clock, disk) = (&self.config, &self.wechat, &self.clock, &self.disk);
        self.fleet = boot(config, wechat, clock, disk, &self.jitter, &self.probes).await;
        self
    }

    pub(crate) async fn token(&self) -> Token {
        self.fleet.token(APPID).await.unwrap()
    }

    pub(super) fn view(&self) -> AccountView {
        self.fleet.account(APPID).unwrap()
    }

    pub(super) fn counters(&self) -> Counters {
        self.wechat.counters(&appid())
    }

    /// How many tokens WeChat has minted for the account.
    pub(crate) fn mints(&self) -> u64 {
        let counters = self.counters();
        counters.token_mints + counters.stable_token_mints
    }

    /// How many token calls WeChat has received for the account.
    pub(crate) fn calls(&self) -> u64 {
        let counters = self.counters();
        counters.token_calls + counters.stable_token_calls
    }

    /// Reads every few seconds until `time` has passed; whatever is served must be alive.
    pub(super) async fn live_through(&self, time: Duration, every: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if let Ok(Ok(token)) = timeout(Duration::from_millis(1), self.fleet.token(APPID)).await {
                self.assert_alive(&token);
            }
            sleep(every).await;
        }
    }

    pub(super) fn assert_alive(&self, token: &Token) {
        assert!(
            self.wechat.is_alive(token.access_token()),
            "served a dead token: {token:?} {:#?}",
            self.view()
        );
    }

    /// Waits until the account's view satisfies `so`, for a virtual day at most.
    pub(super) async fn until(&self, what: &str, mut so: impl FnMut(&AccountView) -> bool) {
        let end = Instant::now() + Duration::from_secs(86_400);
        while !so(&self.view()) {
            assert!(Instant::now() < end, "never {what}: {:#?}", self.view());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Records `events` events of `appid` that are not streamed.
pub(crate) fn fill_journal(fleet: &Fleet, appid: &str, events: usize) {
    let (cell, shared) = (fleet.cell(appid).unwrap(), &fleet.inner.shared);
    (0..events).for_each(|_| shared.journal.note(&cell, shared.now(), EventKind::Configured));
}

/// These numbers, over and over.
pub(super) fn drawn_from(lots: &'static [f64]) -> Jitter {
    let drawn = AtomicUsize::new(0);
    Arc::new(move || lots[drawn.fetch_add(1, Ordering::SeqCst) % lots.len()])
}

async fn boot(
    config: &Config,
    wechat: &Sandbox,
    clock: &Arc<TokioClock>,
    disk: &Arc<MemoryBackend>,
    jitter: &Jitter,
    probes: &Arc<AtomicUsize>,
) -> Fleet {
    let wire = InProcess { wechat: wechat.clone(), disk: Arc::clone(disk), probes: Arc::clone(probes) };
    let clock = Arc::clone(clock);
    let on = Environment {
        clock,
        jitter: Arc::clone(jitter),
        backend: Arc::new(Arc::clone(disk)),
        make_transport: Arc::new(move |_| {
            let wire = wire.clone();
            Box::pin(async move { Ok(Arc::new(wire) as _) })
        }),
    };
    Fleet::start_on(config.clone(), on).await.unwrap()
}

/// A host of this name refuses every connection.
pub(super) const CLOSED: &str = "https://closed.test/";

/// Carries requests to the sandbox without sockets, at a latency of 20 ms.
#[derive(Clone)]
struct InProcess {
    wechat: Sandbox,
    disk: Arc<MemoryBackend>,
    probes: Arc<AtomicUsize>,
}

const ONE_WAY: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(5);

impl Transport for InProcess {
    fn send(&self, base: &Url, request: Request) -> ResponseFuture<Result<Response, Lost>> {
        let (wechat, disk) = (self.wechat.clone(), Arc::clone(&self.disk));
        let is_probe = request.query.iter().any(|(_, value)| value == "probe");
        self.probes.fetch_add(usize::from(is_probe), Ordering::SeqCst);
        let is_closed = base.as_str() == CLOSED;
        Box::pin(async move {
            let exchange = async {
                if is_closed {
                    return Err(Lost::NotSent("connection refused".to_owned()));
                }
                sleep(ONE_WAY).await;
                disk.boundary().await;
                let post = request.method == Method::Post;
                let asked = Asked {
                    method: if post { "POST" } else { "GET" }.to_owned(),
                    path: request.path.to_owned(),
                    query: request
                        .query
                        .iter()
                        .map(|(key, value)| ((*key).to_owned(), value.clone()))
                        .collect(),
                    content_length: post.then_some(request.body.len() as u64),
                    body: request.body,
                    source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                };
                let (reaction, date) = wechat.with(|world, now| (world.handle(&asked, now), world.date(now)));
                disk.boundary().await;
                sleep(reaction.delay + ONE_WAY).await;
                match reaction.wire {
                    Wire::Answer(answer) => Ok(Response {
                        status: answer.status,
                        date: Some(answer.header("Date").map_or(date, str::to_owned)),
                        body: answer.body,
                        retry_after: None,
                    }),
                    Wire::HalfAnswer { .. } | Wire::Reset => Err(Lost::Cut("connection reset".to_owned())),
                    Wire::Refuse => Err(Lost::NotSent("connection refused".to_owned())),
                    Wire::Hang | Wire::Canned(_) => std::future::pending().await,
                }
            };
            timeout(TIMEOUT, exchange).await.unwrap_or(Err(Lost::TimedOut))
        })
    }
}
