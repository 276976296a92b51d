//! Runs one process after another. Each has its own runtime, which is dropped in the middle of everything
//! when the process is killed.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use wxtokend::Fleet;
use wxtokend::internals::{Environment, start_on};
use wxtokend_core::account::{Appid, Endpoint};
use wxtokend_core::ticket::Credential;

use super::disk::SimDisk;
use super::events::{Agenda, Event, carry_out, set_wall};
use super::fault_rates::{HOUR, MINUTE, SECOND};
use super::network::Network;
use super::sim::{Death, Oracle, Sim, lock};
use super::time::MachineClock;

/// Runs `sim` to its end.
pub(super) fn run(sim: &Arc<Sim>) {
    let mut agenda = Agenda::new(sim);
    loop {
        let runtime = runtime(sim);
        let death = runtime.block_on(life(sim, &mut agenda));
        lock(&sim.tally).simulated_ms = sim.now();
        let calling: Vec<bool> = sim.oracle().checkers.iter().map(|checker| checker.in_flight > 0).collect();
        sim.set_fleet(None);
        drop(runtime);
        if death == Death::Over {
            return;
        }
        died(sim, &mut agenda, death, &calling);
    }
}

pub(super) fn runtime(sim: &Sim) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // `select!` and `watch` use random numbers; exact replay needs them to come from the seed.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&sim.draw(|rng| rng.random::<[u8; 16]>())));
    #[cfg(not(tokio_unstable))]
    sim.draw(|rng| rng.random::<[u8; 16]>());
    builder.build().unwrap()
}

async fn life(sim: &Arc<Sim>, agenda: &mut Agenda) -> Death {
    sim.time.enter_runtime();
    let death = match start(sim).await {
        Ok(fleet) => {
            sim.set_fleet(Some(fleet));
            sim.look_at_all();
            live(sim, agenda).await
        }
        Err(_) => Death::NotStarted,
    };
    if let (Death::Stopped, Some(fleet)) = (death, sim.fleet()) {
        fleet.shutdown().await;
    }
    sim.time.leave_runtime();
    death
}

pub(super) async fn start(sim: &Arc<Sim>) -> Result<Fleet, wxtokend::StartError> {
    let config = sim.oracle().config.clone();
    let (network, judge) = (Arc::clone(sim), Arc::clone(sim));
    let on = Environment {
        clock: Arc::new(MachineClock::of_this_boot(&sim.time)),
        jitter: Arc::new(move || jitter(&judge)),
        backend: Arc::new(SimDisk(Arc::clone(sim))),
        make_transport: Arc::new(move |upstream| {
            let network = Network { sim: Arc::clone(&network), timeout: upstream.timeout };
            Box::pin(async move { Ok(Arc::new(network) as _) })
        }),
    };
    let fleet = start_on(config, on).await?;
    sim.note("started", None, String::new);
    let mut oracle = sim.oracle();
    if sim.now() < MINUTE {
        oracle.may_lack_until = sim.now() + MINUTE;
    }
    drop(oracle);
    Ok(fleet)
}

/// Draws jitter, which happens in an actor's handler, and may panic there.
fn jitter(sim: &Arc<Sim>) -> f64 {
    if sim.chance(sim.rates.panics / 1000.0) && !sim.oracle().is_quiet {
        sim.count("panics over answers");
        let now = sim.now();
        // Which answer it was is not known here; it is lost, as it would be on the network.
        sim.oracle()
            .checkers
            .iter_mut()
            .filter(|checker| now - checker.last_call_ended_at < MINUTE)
            .for_each(|checker| checker.is_in_doubt(now));
        panic!("{}", super::panics::PANIC);
    }
    sim.draw(|rng| rng.random())
}

async fn live(sim: &Arc<Sim>, agenda: &mut Agenda) -> Death {
    loop {
        if let Some(death) = lock(&sim.death).take() {
            return death;
        }
        let wait = agenda.next_at() - sim.now();
        if wait > 0 {
            let wait = Duration::from_millis(u64::try_from(wait).unwrap());
            tokio::select! {
                biased;
                () = sim.dying.notified() => {}
                () = sleep(wait) => {}
            }
            if sim.oracle().is_upstream_unwell() {
                let mut oracle = sim.oracle();
                oracle.may_lack_until = oracle.may_lack_until.max(sim.now() + oracle.recovery_ms());
            }
        } else if let Some(event) = agenda.pop() {
            carry_out(sim, agenda, event, true);
        }
    }
}

/// The process is gone: what it had not written is lost, what it had sent arrives, and the world goes on
/// until it is started again.
fn died(sim: &Arc<Sim>, agenda: &mut Agenda, death: Death, calling: &[bool]) {
    let now = sim.now();
    sim.count(match death {
        Death::Killed => "kills",
        Death::Stopped => "restarts",
        Death::PowerCut => "reboots",
        Death::NotStarted => "failed starts",
        Death::Over => "ends",
    });
    sim.note("died", None, || format!("{death:?}"));
    let forgets = now <= lock(&sim.disk).unwell_until;
    let in_transit: Vec<(u64, i64)> =
        sim.oracle().in_transit.iter().map(|(id, request)| (*id, request.at_ms)).collect();
    for (id, at_ms) in in_transit {
        if sim.chance(0.1) {
            sim.oracle().in_transit.remove(&id);
        } else {
            agenda.add(at_ms, Event::Arrival(id));
        }
    }
    let longest = match death {
        Death::NotStarted => 5 * SECOND,
        _ => [100, 5 * SECOND, 5 * MINUTE, 3 * HOUR][sim.draw(|rng| rng.random_range(0..4))],
    };
    let back_at = now + sim.between(50, longest);
    while agenda.next_at() <= back_at {
        sim.time.pass_until(agenda.next_at());
        let Some(event) = agenda.pop() else { break };
        carry_out(sim, agenda, event, false);
    }
    sim.time.pass_until(back_at);
    let erred_ms = sim.time.wall_error_ms();
    if death == Death::PowerCut {
        let was_right = erred_ms == 0 && back_at - sim.oracle().wall_set_at > 6 * HOUR;
        sim.time.reboot(sim.between(5 * SECOND, MINUTE));
        if sim.chance(0.3) && sim.rates.jumps > 0.0 {
            set_wall(sim, sim.between(-HOUR, HOUR));
        } else if sim.chance(0.3) {
            sim.count("reboots with the clock behind");
            set_wall(sim, sim.between(-HOUR, -10 * SECOND));
            agenda.add(back_at + sim.between(SECOND, HOUR), Event::ClockIsSet);
        }
        let comes_up_behind = was_right && sim.time.wall_error_ms() < 0;
        let mut oracle = sim.oracle();
        oracle.rebooted_at = back_at;
        (oracle.came_up_behind, oracle.asks_the_time) = (comes_up_behind, comes_up_behind);
    }
    let mut oracle = sim.oracle();
    let begins = oracle.looks_again_ms();
    oracle.may_lack_until = oracle.may_lack_until.max(back_at + begins);
    // Only the wall clock and WeChat's connect the clocks of two boots. If the wall clock is wrong, or was
    // behind before, which makes tokens seem older than they are, their age cannot be known.
    let time_is_lost = match death {
        Death::PowerCut => back_at - oracle.wall_set_at < 6 * HOUR || erred_ms < 0,
        // What WeChat has shown of the time may not have been written yet.
        _ => oracle.came_up_behind && now - oracle.rebooted_at < MINUTE,
    };
    let Oracle { checkers, in_transit, .. } = &mut *oracle;
    for (account, (checker, calling)) in checkers.iter_mut().zip(calling).enumerate() {
        (checker.in_flight, checker.checking) = (0, 0);
        checker.tickets.process_died(forgets);
        if forgets || time_is_lost {
            checker.tickets_excused_until = back_at + 4 * HOUR;
        }
        checker.process_died(now);
        if forgets {
            let its = in_transit.values().filter(|sent| sent.account == Some(account));
            checker.forget(its.map(|sent| sent.at_ms).max());
        }
        if time_is_lost {
            checker.lose_time(back_at);
        }
        // Including one whose answer had arrived and was not yet written.
        let was_calling = *calling || has_intent(sim, &checker.appid);
        if was_calling && checker.account.settings.endpoint == Endpoint::Token {
            checker.is_in_doubt(back_at);
        }
    }
}

/// Whether the disk records a started call that can end a token.
fn has_intent(sim: &Sim, appid: &Appid) -> bool {
    let disk = lock(&sim.disk);
    let record = disk.records.get(&Credential::token(appid.clone())).map(Vec::as_slice).unwrap_or(b"null");
    serde_json::from_slice::<serde_json::Value>(record).unwrap()["intent"].is_object()
}
