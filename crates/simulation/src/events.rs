//! What happens to the program: faults, outages, clients, operators, crashes. The agenda of events outlives
//! processes; carrying out an event draws the next of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use wxtokend::internals::crash;
use wxtokend_core::account::Endpoint;
use wxtokend_sandbox::{Fault, FaultKind, LostAs, Request as Asked};

use super::fault_rates::NAMES;
use super::fault_rates::{DAY, HOUR, MINUTE, SECOND};
use super::sim::{HostTrouble, Oracle, Sim, Troubles, lock};
use super::troubles::Trouble;
use super::{clients, reloads};

/// Something that is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Readers read all accounts.
    Look,
    FaultsBegin(usize),
    FaultsEnd(usize),
    Outsider(usize),
    RejecterComes(usize),
    Reject(usize),
    Refresh(usize),
    Panic(usize),
    OutageBegins,
    OutageEnds(usize),
    LossBegins,
    LossEnds,
    Kill,
    Stop,
    PowerCut,
    Suspend,
    Jump,
    /// NTP has set the clock.
    ClockIsSet,
    DiskFails,
    DiskIsWell,
    Reload,
    Switches,
    Begins(Trouble),
    Ends(Trouble),
    /// A request whose sender has died arrives.
    Arrival(u64),
    /// The faults end: the quiet period begins.
    Peace,
    /// The run is over.
    End,
}

/// What is going to happen, and when.
pub(super) struct Agenda {
    events: BTreeMap<(i64, u64), Event>,
    next: u64,
}

/// Length of the quiet period at the end: the longest wait is the day that 89506 asks for.
const QUIET_PERIOD: i64 = 26 * HOUR;

impl Agenda {
    pub(super) fn new(sim: &Sim) -> Self {
        let mut agenda = Self { events: BTreeMap::new(), next: 0 };
        agenda.add(0, Event::Look);
        agenda.add(sim.size.days * DAY, Event::Peace);
        agenda.add(sim.size.days * DAY + QUIET_PERIOD, Event::End);
        let rates = sim.rates;
        for account in (0..sim.size.accounts).filter(|n| !sim.oracle().checkers[*n].undisturbed) {
            for (rate, event) in [
                (rates.faults, Event::FaultsBegin(account)),
                (rates.outsiders, Event::Outsider(account)),
                (rates.rejections, Event::RejecterComes(account)),
                (rates.refreshes, Event::Refresh(account)),
                (rates.panics, Event::Panic(account)),
            ] {
                agenda.add_after(sim, rate, event);
            }
        }
        for (rate, event) in [
            (rates.outages, Event::OutageBegins),
            (rates.losses, Event::LossBegins),
            (rates.crashes, Event::Kill),
            (rates.restarts, Event::Stop),
            (rates.reboots, Event::PowerCut),
            (rates.suspends, Event::Suspend),
            (rates.jumps, Event::Jump),
            (rates.disk, Event::DiskFails),
            (rates.reloads, Event::Reload),
            (rates.switches, Event::Switches),
        ] {
            agenda.add_after(sim, rate, event);
        }
        for trouble in Trouble::ALL {
            agenda.add_after(sim, trouble.rate(&rates), Event::Begins(trouble));
        }
        agenda
    }

    pub(super) fn add(&mut self, at_ms: i64, event: Event) {
        self.events.insert((at_ms, self.next), event);
        self.next += 1;
    }

    /// Adds the next event of a kind that happens `rate` times a day.
    fn add_after(&mut self, sim: &Sim, rate: f64, event: Event) {
        if rate > 0.0 {
            let share: f64 = sim.draw(|rng| rng.random());
            let wait = -(1.0 - share).ln() * DAY as f64 / rate;
            self.add(sim.now() + wait as i64, event);
        }
    }

    pub(super) fn next_at(&self) -> i64 {
        self.events.first_key_value().map_or(i64::MAX, |((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.events.pop_first().map(|(_, event)| event)
    }
}

/// Carries out an event; `runs` is whether a process is running that it could happen to.
pub(super) fn carry_out(sim: &Arc<Sim>, agenda: &mut Agenda, event: Event, runs: bool) {
    use super::sim::Death;
    let (now, rates) = (sim.now(), sim.rates);
    if sim.oracle().is_quiet && !matches!(event, Event::Look | Event::End | Event::Arrival(_)) {
        return;
    }
    match event {
        Event::Look => {
            sim.look_at_all();
            let wait = sim.between(1, 2 * sim.size.read_every_ms);
            return agenda.add(now + wait, Event::Look);
        }
        Event::Arrival(id) => return sim.arrive(id),
        Event::FaultsBegin(account)
        | Event::FaultsEnd(account)
        | Event::Outsider(account)
        | Event::RejecterComes(account)
        | Event::Reject(account)
        | Event::Refresh(account)
        | Event::Panic(account) => sim.note("event", Some(account), || format!("{event:?}")),
        _ => sim.note("event", None, || format!("{event:?}")),
    }
    match event {
        Event::FaultsBegin(account) => {
            sim.count("times of faults");
            let rate = sim.draw(|rng| [0.01, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)]);
            let only = sim.chance(0.5).then(|| sim.draw(|rng| rng.random_range(0..FAULT_KINDS)));
            let checker = &mut sim.oracle().checkers[account];
            (checker.fault_rate, checker.only_fault) = (rate, only);
            let length = sim.between(MINUTE, 8 * HOUR);
            agenda.add(now + length, Event::FaultsEnd(account));
            agenda.add_after(sim, rates.faults, event);
        }
        Event::FaultsEnd(account) => sim.oracle().checkers[account].fault_rate = 0.0,
        Event::Outsider(account) => {
            outsider(sim, account);
            agenda.add_after(sim, rates.outsiders, event);
        }
        Event::RejecterComes(account) => {
            sim.count("clients that reject");
            clients::start_rejecter(sim, account);
            agenda.add(now, Event::Reject(account));
            agenda.add_after(sim, rates.rejections, event);
        }
        Event::Reject(account) => {
            if let Some(wait) = clients::reject(sim, account) {
                agenda.add(now + wait, event);
            }
        }
        Event::Refresh(account) => {
            clients::refresh(sim, account);
            agenda.add_after(sim, rates.refreshes, event);
        }
        Event::Panic(account) => {
            panic_actor(sim, account);
            agenda.add_after(sim, rates.panics, event);
        }
        Event::OutageBegins => {
            sim.count("outages");
            let (host, trouble) = sim.draw(|rng| {
                let troubles = [
                    HostTrouble::Refuses,
                    HostTrouble::Hangs,
                    HostTrouble::Says(502),
                    HostTrouble::Says(504),
                    HostTrouble::IsRetired,
                ];
                (rng.random_range(0..NAMES.len()), troubles[rng.random_range(0..troubles.len())])
            });
            sim.oracle().hosts.insert(NAMES[host].to_owned(), trouble);
            let longest = [10 * MINUTE, HOUR, 6 * HOUR, DAY][sim.draw(|rng| rng.random_range(0..4))];
            let length = sim.between(MINUTE, longest);
            agenda.add(now + length, Event::OutageEnds(host));
            agenda.add_after(sim, rates.outages, event);
        }
        Event::OutageEnds(host) => {
            let mut oracle = sim.oracle();
            oracle.hosts.remove(NAMES[host]);
            excuse_recovery(&mut oracle, now);
        }
        Event::LossBegins => {
            sim.count("times of lost packets");
            let share = sim.draw(|rng| [0.02, 0.2, 0.5][rng.random_range(0..3)]);
            sim.oracle().loss = share;
            let length = sim.between(MINUTE, 3 * HOUR);
            agenda.add(now + length, Event::LossEnds);
            agenda.add_after(sim, rates.losses, event);
        }
        Event::LossEnds => {
            let mut oracle = sim.oracle();
            oracle.loss = 0.0;
            excuse_recovery(&mut oracle, now);
        }
        Event::Kill => {
            if runs {
                sim.die(Death::Killed);
            }
            agenda.add_after(sim, rates.crashes, event);
        }
        Event::Stop => {
            if runs {
                sim.die(Death::Stopped);
            }
            agenda.add_after(sim, rates.restarts, event);
        }
        Event::PowerCut => {
            if runs {
                sim.die(Death::PowerCut);
            }
            agenda.add_after(sim, rates.reboots, event);
        }
        Event::Suspend => {
            if runs {
                suspend(sim);
            }
            agenda.add_after(sim, rates.suspends, event);
        }
        Event::Jump => {
            sim.count("jumps of the wall clock");
            let error = if sim.chance(0.3) { 0 } else { sim.between(-HOUR, HOUR) };
            set_wall(sim, error);
            agenda.add_after(sim, rates.jumps, event);
        }
        Event::ClockIsSet => set_wall(sim, 0),
        Event::DiskFails => {
            sim.count("times of a failing disk");
            let fails = sim.chance(0.6);
            let slow_ms = if fails { 0 } else { sim.between(100, 20_000) };
            let length = sim.between(SECOND, HOUR);
            {
                let mut disk = lock(&sim.disk);
                (disk.fails, disk.slow_ms, disk.unwell_until) = (fails, slow_ms, i64::MAX);
            }
            agenda.add(now + length, Event::DiskIsWell);
            agenda.add_after(sim, rates.disk, event);
        }
        Event::DiskIsWell => {
            let mut disk = lock(&sim.disk);
            // The write under way may take as long as the disk was slow, and is followed by what waited for
            // it. A disk that has failed for long is tried again within a minute.
            (disk.fails, disk.unwell_until) = (false, now + 2 * disk.slow_ms + 70 * SECOND);
            disk.slow_ms = 0;
        }
        Event::Reload => {
            if runs {
                reloads::reload(sim);
            }
            agenda.add_after(sim, rates.reloads, event);
        }
        Event::Switches => {
            let switches = sim.draw(super::sim::some_switches);
            let mut oracle = sim.oracle();
            oracle.world.set_switches(switches);
            // What was promised under other rules may end.
            oracle.checkers.iter_mut().for_each(super::checker::AccountChecker::excuse_promises);
            drop(oracle);
            agenda.add_after(sim, rates.switches, event);
        }
        Event::Begins(trouble) => {
            let lasts = trouble.begin(sim);
            agenda.add(now + lasts, Event::Ends(trouble));
            agenda.add_after(sim, trouble.rate(&rates), event);
        }
        Event::Ends(trouble) => trouble.end(sim),
        Event::Peace => begin_quiet_period(sim),
        Event::End => {
            at_the_end(sim);
            sim.die(Death::Over);
        }
        Event::Look | Event::Arrival(_) => {}
    }
}

fn excuse_recovery(oracle: &mut Oracle, now: i64) {
    oracle.may_lack_until = oracle.may_lack_until.max(now + oracle.recovery_ms());
}

/// Acts as an outsider who also has the AppSecret, or as the account's owner in the console.
fn outsider(sim: &Arc<Sim>, account: usize) {
    sim.count("outsiders");
    sim.look(account);
    let time = sim.time.now();
    let (how, ip) = (sim.draw(|rng| rng.random_range(0..4_usize)), [203, 0, 113, 9].into());
    let mut oracle = sim.oracle();
    let oracle = &mut *oracle;
    let checker = &mut oracle.checkers[account];
    // Including tokens that the program has got and no reader has seen yet.
    let living =
        oracle.world.truth(&checker.appid, time).map(|truth| truth.living_tokens).unwrap_or_default();
    let before: Vec<String> =
        living.into_iter().map(|token| token.access_token.expose().to_owned()).collect();
    let (appid, secret) = (checker.appid.to_string(), checker.account.secret.expose().to_owned());
    match how {
        0 => oracle.world.kill_tokens(&checker.appid, time),
        1 => {
            let query = [("grant_type", "client_credential"), ("appid", &appid), ("secret", &secret)];
            let asked = Asked {
                method: "GET".to_owned(),
                path: "/cgi-bin/token".to_owned(),
                query: query.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                content_length: None,
                body: Vec::new(),
                source_ip: ip,
            };
            oracle.world.handle(&asked, time);
        }
        force => {
            let body = serde_json::json!({
                "grant_type": "client_credential", "appid": appid, "secret": secret, "force_refresh": force == 2,
            });
            let body = serde_json::to_vec(&body).unwrap();
            let asked = Asked {
                method: "POST".to_owned(),
                path: "/cgi-bin/stable_token".to_owned(),
                query: Vec::new(),
                content_length: Some(body.len() as u64),
                body,
                source_ip: ip,
            };
            oracle.world.handle(&asked, time);
        }
    }
    let line = [None, Some(Endpoint::Token), Some(Endpoint::StableToken)].get(how).copied();
    checker.outsider_ended(&oracle.world, &before, line);
    checker.may_call_until = checker.may_call_until.max(sim.now() + 3 * HOUR);
    let held = checker.world_changed(&oracle.world, sim.now());
    if let Err(what) = held {
        sim.violated(Some(account), &what);
    }
}

fn panic_actor(sim: &Arc<Sim>, account: usize) {
    let Some(fleet) = sim.fleet() else { return };
    let appid = sim.oracle().checkers[account].appid.clone();
    if crash(&fleet, &appid) {
        sim.count("panics of actors");
        let until = sim.now() + 40 * SECOND;
        sim.oracle().checkers[account].excuse_until(until);
    }
}

fn suspend(sim: &Arc<Sim>) {
    sim.count("suspends");
    // What is in transit arrives, although no process is awake to see it.
    let ids: Vec<u64> = sim.oracle().in_transit.keys().copied().collect();
    ids.into_iter().for_each(|id| sim.arrive(id));
    let length = Duration::from_millis(u64::try_from(sim.between(SECOND, 3 * HOUR)).unwrap());
    sim.time.suspend(length);
    let now = sim.now();
    let mut oracle = sim.oracle();
    let looks_again = oracle.looks_again_ms();
    oracle.may_lack_until = oracle.may_lack_until.max(now + looks_again);
    drop(oracle);
    sim.look_at_all();
}

/// Makes the wall clock wrong by `error_ms` from now on.
pub(super) fn set_wall(sim: &Arc<Sim>, error_ms: i64) {
    sim.time.set_wall(error_ms);
    let now = sim.now();
    let mut oracle = sim.oracle();
    oracle.wall_set_at = now;
    // All accounts are checked again within seconds; a token may seem to have ended.
    let looks_again = oracle.looks_again_ms();
    oracle.may_lack_until = oracle.may_lack_until.max(now + looks_again);
    for checker in &mut oracle.checkers {
        checker.may_call_until = checker.may_call_until.max(now + 3 * HOUR);
        // A token taken away by a jump may be the last but one when the next is fetched.
        checker.excuse_promises();
    }
}

/// Starts the quiet period: nothing happens any more, and every account must recover.
fn begin_quiet_period(sim: &Arc<Sim>) {
    let now = sim.now();
    set_wall(sim, 0);
    {
        let mut disk = lock(&sim.disk);
        (disk.fails, disk.slow_ms) = (false, 0);
        disk.unwell_until = disk.unwell_until.min(now + 2 * MINUTE);
    }
    {
        let mut oracle = sim.oracle();
        oracle.hosts.clear();
        (oracle.loss, oracle.troubles) = (0.0, Troubles::default());
        excuse_recovery(&mut oracle, now);
        oracle.is_quiet = true;
        for checker in &mut oracle.checkers {
            checker.fault_rate = 0.0;
            checker.rejecter = None;
        }
    }
    reloads::settle(sim);
}

/// Half of it comes back in a day, and up to 17 calls a day are needed.
const LEAST_BUDGET: u32 = 40;
/// A ticket of unknown age is polled every five minutes.
const LEAST_FOR_TICKETS: u32 = 400;

/// Checks that every account has recovered.
fn at_the_end(sim: &Arc<Sim>) {
    let Some(fleet) = sim.fleet() else { return sim.violated(None, "the fleet does not run at the end") };
    for account in 0..sim.size.accounts {
        sim.look(account);
        let (appid, dead, served, budget) = {
            let oracle = sim.oracle();
            let checker = &oracle.checkers[account];
            (
                checker.appid.clone(),
                checker.is_dead_in_secret(sim.now()),
                checker.served,
                checker.account.settings.daily_budget,
            )
        };
        let unserved = {
            let checker = &sim.oracle().checkers[account];
            let kinds = checker.account.settings.tickets.iter().filter(|_| budget >= LEAST_FOR_TICKETS);
            kinds.into_iter().find(|kind| !checker.tickets.is_served(*kind))
        };
        let view = fleet.account(&appid);
        if budget < LEAST_BUDGET {
            continue;
        }
        if !served {
            sim.violated(Some(account), &format!("liveness: no token after a day of peace: {view:?}"));
        } else if dead {
            sim.violated(Some(account), &format!("liveness: a dead token after a day of peace: {view:?}"));
        } else if let Some(kind) = unserved {
            sim.violated(
                Some(account),
                &format!("liveness: no {kind:?} ticket after a day of peace: {view:?}"),
            );
        }
    }
}

/// Number of entries in the menu of faults.
const FAULT_KINDS: usize = 54;

fn fault_kind(index: usize, sim: &Sim) -> FaultKind {
    const CODES: [i64; 31] = [
        -1, 45009, 45011, 40001, 40125, 40013, 40002, 41002, 41004, 43002, 44002, 47001, 40164, 40243, 48001,
        48004, 50002, 50004, 50007, 61024, 89501, 89502, 89503, 89504, 89505, 89506, 89507, 12345, -2, -1,
        -1,
    ];
    let code = |errcode| FaultKind::Errcode { errcode, errmsg: None };
    let lost = |seen_as| FaultKind::Lost { seen_as };
    let status = |status| FaultKind::Status { status };
    match index {
        n if n < CODES.len() => code(CODES[n]),
        31 => status(500),
        32 => status(502),
        33 => status(503),
        34 => status(504),
        35 => status(404),
        36 => status(302),
        37 => status(412),
        38 => FaultKind::Html,
        39 | 40 => FaultKind::Hang,
        41 => FaultKind::Reset,
        42 | 43 => FaultKind::Half,
        44 => lost(LostAs::Hang),
        45 => lost(LostAs::Reset),
        46 => lost(LostAs::Html),
        47 => lost(LostAs::BadGateway),
        48 => lost(LostAs::GatewayTimeout),
        49 => FaultKind::EmptyToken,
        50 => FaultKind::BadExpires { expires_in: [0, -5][sim.draw(|rng| rng.random_range(0..2))] },
        51 => FaultKind::BadExpires { expires_in: [3, 60, 290][sim.draw(|rng| rng.random_range(0..3))] },
        _ => FaultKind::Delay { delay_ms: sim.draw(|rng| rng.random_range(100..6000)) },
    }
}

impl Sim {
    /// Draws the refusal of the address that a token call came from, if that is to be refused.
    pub(super) fn draw_refused_address(&self, account: usize, asked: &Asked) -> Option<Fault> {
        let share = self.oracle().troubles.refused;
        if !asked.path.ends_with("token") || !self.chance(share) {
            return None;
        }
        let (now, checker) = (self.now(), &mut self.oracle().checkers[account]);
        if !checker.served {
            // An account without a token is retried every five minutes.
            checker.may_lack_until = checker.may_lack_until.max(now + 6 * MINUTE);
        }
        Some(Fault::errcode(40164).times(1))
    }

    /// Draws the fault that hits a call of `account`, if any.
    pub(super) fn draw_fault(&self, account: usize, asked: &Asked) -> Option<Fault> {
        let (rate, only) = {
            let checker = &self.oracle().checkers[account];
            (checker.fault_rate, checker.only_fault)
        };
        if !self.chance(rate) {
            return None;
        }
        let index = only.unwrap_or_else(|| self.draw(|rng| rng.random_range(0..FAULT_KINDS)));
        let kind = fault_kind(index, self);
        let check = asked.path.contains("get_api_domain_ip");
        let mut oracle = self.oracle();
        let now = self.now();
        let checker = &mut oracle.checkers[account];
        match kind {
            // A token reported with too short a life is refreshed early.
            FaultKind::BadExpires { .. } => {
                checker.may_call_until = checker.may_call_until.max(now + 3 * HOUR);
                // The next mint comes so soon that it may end the token before the last.
                checker.excuse_promises();
            }
            // Inconclusive or false: a call may follow.
            _ if check => checker.may_call_until = checker.may_call_until.max(now + 3 * HOUR),
            _ => {}
        }
        drop(oracle);
        Some(Fault::new(kind).times(1))
    }
}
