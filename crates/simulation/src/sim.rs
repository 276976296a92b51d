//! Everything that outlives a process of the program: WeChat, the disk, the network, the time, and the
//! invariant checkers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Notify, oneshot};
use wxtokend::internals::{now, state_of, tickets_of, token_at_once};
use wxtokend::{Config, Defaults, Fleet};
use wxtokend_core::account::{Account, Appid, Endpoint, RefreshAhead};
use wxtokend_core::secret::Secret;
use wxtokend_core::ticket::{Credential, TicketKind};
use wxtokend_sandbox::{Reaction, Request as Asked, Settings, Switches, World};

use super::checker::{AccountChecker, Context};
use super::fault_rates::{DAY, FaultRates, MINUTE, SECOND, Size};
use super::tally::{Tally, Trace};
use super::ticket_checker::TicketContext;
use super::time::TrueTime;

/// A simulation under way.
pub(super) struct Sim {
    pub(super) seed: u64,
    pub(super) size: Size,
    pub(super) rates: FaultRates,
    pub(super) time: Arc<TrueTime>,
    rng: Mutex<StdRng>,
    pub(super) oracle: Mutex<Oracle>,
    pub(super) disk: Mutex<Disk>,
    fleet: Mutex<Option<Fleet>>,
    pub(super) death: Mutex<Option<Death>>,
    pub(super) dying: Notify,
    pub(super) trace: Mutex<Trace>,
    pub(super) tally: Mutex<Tally>,
}

/// Why a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// `kill -9`.
    Killed,
    /// It was asked to stop.
    Stopped,
    /// The machine went down with it.
    PowerCut,
    /// It could not start.
    NotStarted,
    /// The run is over, or an invariant was violated.
    Over,
}

/// What only the simulation knows.
pub(super) struct Oracle {
    pub(super) world: World,
    pub(super) checkers: Vec<AccountChecker>,
    pub(super) config: Config,
    /// What is wrong with each host, by its name.
    pub(super) hosts: BTreeMap<String, HostTrouble>,
    /// The share of packets that are lost, each way.
    pub(super) loss: f64,
    pub(super) troubles: Troubles,
    /// Requests in transit to WeChat.
    pub(super) in_transit: BTreeMap<u64, InTransit>,
    next_id: u64,
    /// Until when any account may have no token.
    pub(super) may_lack_until: i64,
    /// When the wall clock was last set, or a machine with a wrong one was booted.
    pub(super) wall_set_at: i64,
    /// When the machine was last booted.
    pub(super) rebooted_at: i64,
    /// It came up with its clock behind, after that had been right.
    pub(super) came_up_behind: bool,
    /// It has yet to learn the time from WeChat.
    pub(super) asks_the_time: bool,
    /// The quiet period has begun: no more faults.
    pub(super) is_quiet: bool,
}

/// Current faults that affect the whole fleet.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// The share of token calls that get no answer and reach WeChat later.
    pub(super) late: f64,
    /// A gateway answers the check, and so the probe.
    pub(super) check_fails: bool,
    /// The share of token calls whose source address is not whitelisted.
    pub(super) refused: f64,
}

/// What is wrong with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostTrouble {
    Refuses,
    Hangs,
    Says(u16),
    /// WeChat has retired this address.
    IsRetired,
}

/// A request between the program and WeChat; it arrives even if its sender is gone.
pub(super) struct InTransit {
    pub(super) asked: Asked,
    pub(super) account: Option<usize>,
    pub(super) at_ms: i64,
    pub(super) answer: Option<oneshot::Sender<Reaction>>,
}

/// What is on disk, and how the disk behaves.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) records: BTreeMap<Credential, Vec<u8>>,
    pub(super) hosts: Vec<String>,
    pub(super) fails: bool,
    pub(super) slow_ms: i64,
    pub(super) unwell_until: i64,
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// Creates the fleet of `seed`.
    pub(super) fn new(seed: u64, size: Size, rates: FaultRates, words: Option<usize>) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        // A quarter of the accounts is undisturbed.
        let account = |n: usize| (some_account(n, &mut rng), n.is_multiple_of(4));
        let accounts: Vec<_> = (0..size.accounts).map(account).collect();
        Self::with(seed, size, rates, accounts, rng, words)
    }

    /// Creates a fleet of these accounts, each with whether it is undisturbed: nothing ever happens to it
    /// alone.
    pub(super) fn with(
        seed: u64,
        size: Size,
        rates: FaultRates,
        accounts: Vec<(Account, bool)>,
        mut rng: StdRng,
        words: Option<usize>,
    ) -> Arc<Self> {
        let (accounts, undisturbed): (Vec<_>, Vec<_>) = accounts.into_iter().unzip();
        let known = accounts.iter().map(|account| (account.appid.clone(), account.secret.clone())).collect();
        let switches = some_switches(&mut rng);
        let settings = Settings {
            accounts: known,
            seed,
            switches,
            epoch_wall_s: u64::try_from(super::time::EPOCH_MS / 1000).unwrap(),
            ..Settings::default()
        };
        let mut config = Config::new(accounts.clone());
        config.upstream.base_urls =
            super::fault_rates::HOSTS[..1].iter().map(|url| url.parse().unwrap()).collect();
        config.upstream.max_per_second = [5, 100][rng.random_range(0..2)];
        let oracle = Oracle {
            world: World::new(settings),
            checkers: accounts
                .into_iter()
                .map(Arc::new)
                .zip(undisturbed)
                .map(|(account, undisturbed)| AccountChecker::new(account, undisturbed))
                .collect(),
            config,
            hosts: BTreeMap::new(),
            loss: 0.0,
            troubles: Troubles::default(),
            in_transit: BTreeMap::new(),
            next_id: 0,
            may_lack_until: 0,
            wall_set_at: i64::MIN / 2,
            rebooted_at: i64::MIN / 2,
            came_up_behind: false,
            asks_the_time: false,
            is_quiet: false,
        };
        Arc::new(Self {
            seed,
            size,
            rates,
            time: Arc::new(TrueTime::new()),
            rng: Mutex::new(rng),
            oracle: Mutex::new(oracle),
            disk: Mutex::default(),
            fleet: Mutex::new(None),
            death: Mutex::new(None),
            dying: Notify::new(),
            trace: Mutex::new(Trace::new(words)),
            tally: Mutex::new(Tally { accounts: size.accounts as u64, ..Tally::default() }),
        })
    }

    pub(super) fn now(&self) -> i64 {
        self.time.now_ms()
    }

    pub(super) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        lock(&self.oracle)
    }

    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }

    pub(super) fn chance(&self, p: f64) -> bool {
        p > 0.0 && self.draw(|rng| rng.random_bool(p.min(1.0)))
    }

    pub(super) fn between(&self, from: i64, to: i64) -> i64 {
        self.draw(|rng| rng.random_range(from..=to))
    }

    pub(super) fn set_fleet(&self, fleet: Option<Fleet>) {
        let before = std::mem::replace(&mut *lock(&self.fleet), fleet);
        drop(before);
    }

    pub(super) fn fleet(&self) -> Option<Fleet> {
        lock(&self.fleet).clone()
    }

    /// Makes the process end as soon as its main task is polled.
    pub(super) fn die(&self, of: Death) {
        lock(&self.death).get_or_insert(of);
        self.dying.notify_one();
    }

    pub(super) fn count(&self, event: &'static str) {
        lock(&self.tally).count(event);
    }

    pub(super) fn note(&self, what: &str, account: Option<usize>, words: impl FnOnce() -> String) {
        let appid = account.map(|n| format!("wx{n:02}"));
        lock(&self.trace).note(self.now(), what, appid.as_deref(), words);
    }

    /// Records a violation: the run ends.
    pub(super) fn violated(&self, account: Option<usize>, what: &str) {
        let appid = account.map(|n| format!("wx{n:02}"));
        let trace = lock(&self.trace).tail(appid.as_deref());
        let clock = Duration::from_millis(u64::try_from(self.now()).unwrap());
        let violation = format!(
            "seed {}, {} after {clock:?}: {what}\n{trace}",
            self.seed,
            appid.as_deref().unwrap_or("the fleet")
        );
        lock(&self.tally).violations.push(violation);
        self.die(Death::Over);
    }

    pub(super) fn hold(&self, account: usize, held: Result<(), String>) {
        if let Err(what) = held {
            self.violated(Some(account), &what);
        }
    }

    /// Reads an account and checks its invariants.
    pub(super) fn look(&self, account: usize) {
        let fleet = lock(&self.fleet);
        let Some(fleet) = fleet.as_ref() else { return };
        let mut oracle = self.oracle();
        let oracle = &mut *oracle;
        let checker = &mut oracle.checkers[account];
        let token = token_at_once(fleet, checker.appid.as_str());
        let now = self.now();
        let context = Context {
            now,
            may_lack_until: oracle.may_lack_until,
            disk_is_well: now > lock(&self.disk).unwell_until,
        };
        let held = checker.look(token.as_ref(), &oracle.world, context);
        {
            let mut tally = lock(&self.tally);
            tally.reads += 1;
            tally.without_token += u64::from(token.is_none());
        }
        let held =
            held.and_then(|()| look_at_tickets(fleet, checker, &oracle.world, self.time.now(), context));
        if let Err(what) = held {
            let view = state_of(fleet, checker.appid.as_str());
            self.violated(Some(account), &format!("{what}\n  {view:?}"));
        }
    }

    pub(super) fn look_at_all(&self) {
        for account in 0..self.size.accounts {
            self.look(account);
        }
    }

    /// Sends a request; the receiver gets WeChat's reaction.
    pub(super) fn send_request(
        &self,
        asked: Asked,
        account: Option<usize>,
        at_ms: i64,
    ) -> (u64, oneshot::Receiver<Reaction>) {
        let (answer, answered) = oneshot::channel();
        let mut oracle = self.oracle();
        let id = oracle.next_id;
        oracle.next_id += 1;
        oracle.in_transit.insert(id, InTransit { asked, account, at_ms, answer: Some(answer) });
        (id, answered)
    }

    /// Delivers a request to WeChat, unless it was delivered before.
    pub(super) fn arrive(&self, id: u64) {
        let Some(InTransit { asked, account, answer, .. }) = self.oracle().in_transit.remove(&id) else {
            return;
        };
        account.inspect(|account| self.look(*account));
        let reaction = self.asked(&asked, account);
        self.note("arrived", account, || format!("{} -> {reaction:?}", asked.path));
        if let Some(answer) = answer {
            let _ = answer.send(reaction);
        }
        account.inspect(|account| self.look(*account));
    }

    /// Lets WeChat handle a request of `account`, under its current faults.
    fn asked(&self, asked: &Asked, account: Option<usize>) -> Reaction {
        let now = self.time.now();
        let fault = account.and_then(|account| {
            self.draw_refused_address(account, asked).or_else(|| self.draw_fault(account, asked))
        });
        let mut oracle = self.oracle();
        let oracle = &mut *oracle;
        if let (Some(fault), Some(account)) = (fault, account) {
            lock(&self.tally).count_fault(super::tally::name_of(&fault.kind));
            oracle.world.inject(Some(&oracle.checkers[account].appid), fault);
        }
        let reaction = oracle.world.handle(asked, now);
        if let Some(account) = account {
            // A fault that did not match the call must not wait for the next.
            let checker = &mut oracle.checkers[account];
            oracle.world.clear_faults(Some(&checker.appid));
            let held = checker.world_changed(&oracle.world, self.now());
            if let Err(what) = held {
                self.violated(Some(account), &what);
            }
        }
        reaction
    }

    /// Returns the index of an account by its appid.
    pub(super) fn index(&self, appid: &str) -> Option<usize> {
        appid.strip_prefix("wx")?.parse().ok().filter(|n| *n < self.size.accounts)
    }
}

impl Oracle {
    /// Whether a configured host or the network is failing.
    pub(super) fn is_upstream_unwell(&self) -> bool {
        let names = self.config.upstream.base_urls.iter().filter_map(|url| url.host_str());
        self.loss > 0.0 || names.into_iter().any(|name| self.hosts.contains_key(name))
    }

    /// How many calls beyond an account's budget are tolerated. Across a reboot, only the wall clock shows
    /// how long ago earlier calls were, and it is wrong by 2 h at most.
    pub(super) fn budget_slack(&self, account: usize, now: i64) -> usize {
        let knows_the_time = now - self.rebooted_at > DAY || self.rebooted_at - self.wall_set_at > 2 * DAY;
        if knows_the_time {
            0
        } else {
            self.checkers[account].account.settings.daily_budget as usize / 24 + 2
        }
    }

    /// How long it takes until every account has checked its token again. An account that was refused for one
    /// of several addresses, and now has no token, is retried every five minutes.
    pub(super) fn looks_again_ms(&self) -> i64 {
        let refused = if self.troubles.refused > 0.0 { 7 * MINUTE } else { 30 * SECOND };
        // If only the probe fails, an account without a token needs a trial, which is made from time to time.
        refused + if self.troubles.check_fails { 2 * MINUTE } else { 0 }
    }

    /// The goal after an outage: every account is fresh within a minute plus the time that the rate limit
    /// takes.
    pub(super) fn recovery_ms(&self) -> i64 {
        let timeout = i64::try_from(self.config.upstream.timeout.as_millis()).unwrap();
        let per_second = i64::from(self.config.upstream.max_per_second);
        let accounts = i64::try_from(self.checkers.len()).unwrap();
        // If the probe fails as well, a trial once a minute finds out.
        let by_trial = if self.troubles.check_fails { 2 * MINUTE } else { 0 };
        60 * SECOND + accounts * SECOND / per_second + timeout + by_trial
    }
}

/// Reads the account's tickets and checks their invariants.
fn look_at_tickets(
    fleet: &Fleet,
    checker: &mut AccountChecker,
    world: &World,
    at: Duration,
    context: Context,
) -> Result<(), String> {
    let now = now(fleet);
    for (kind, state) in tickets_of(fleet, &checker.appid) {
        let read = state.read(now);
        let is_alive =
            read.as_ref().is_none_or(|read| world.is_ticket_alive(&checker.appid, read.value(), at));
        let excused = context.now <= checker.tickets_excused_until;
        let over_for = read.as_ref().map_or(0, |read| {
            i64::try_from(read.held().ends_by.elapsed(now).as_millis()).unwrap_or(i64::MAX)
        });
        let context = TicketContext { now: context.now, is_alive, over_for, excused };
        checker.tickets.look(kind, read.as_ref(), context)?;
    }
    Ok(())
}

fn some_account(n: usize, rng: &mut StdRng) -> Account {
    let mut defaults = Defaults {
        endpoint: if rng.random() { Endpoint::Token } else { Endpoint::StableToken },
        ..Defaults::default()
    };
    defaults.tickets = TicketKind::ALL.into_iter().filter(|_| rng.random_bool(0.2)).collect();
    if !n.is_multiple_of(4) {
        defaults.daily_budget = [2000, 2000, 400, 100, 40, 24][rng.random_range(0..6)];
        defaults.verify_rejections = rng.random_bool(0.8);
        if rng.random_bool(0.2) {
            defaults.refresh_ahead = RefreshAhead::Fixed(Duration::from_secs(rng.random_range(60..3600)));
        }
    }
    defaults.account(Appid::new(&format!("wx{n:02}")).unwrap(), Secret::new(format!("secret of {n}")))
}

/// Draws one of the ways in which WeChat may behave.
pub(super) fn some_switches(rng: &mut StdRng) -> Switches {
    Switches {
        second_mint_kills_first: rng.random_bool(0.6),
        forced_kills_at_once: rng.random(),
        failed_calls_count: rng.random(),
        hostile_tokens: rng.random(),
        dead_stable_replaced: rng.random(),
        long_tokens: rng.random_bool(0.2),
        day_begins_at_s: rng.random_range(0..24) * 3600,
        ..Switches::default()
    }
}

/// Draws a new AppSecret for an account, as its owner sets it in the console.
pub(super) fn new_secret(sim: &Sim, account: usize) -> Secret {
    Secret::new(format!("secret of {account}, {}", sim.draw(|rng| rng.random::<u32>())))
}
