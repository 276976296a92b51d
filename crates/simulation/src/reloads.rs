//! An operator edits the file and reloads it.

use std::sync::Arc;

use rand::RngExt as _;
use wxtokend_core::account::{Account, Endpoint};

use super::fault_rates::HOSTS;
use super::fault_rates::MINUTE;
use super::sim::{Sim, new_secret};

/// Changes a few things in the file and reloads it.
pub(super) fn reload(sim: &Arc<Sim>) {
    sim.count("reloads");
    for _ in 0..sim.between(1, 3) {
        let account = usize::try_from(sim.between(0, sim.size.accounts as i64 - 1)).unwrap();
        if !sim.oracle().checkers[account].undisturbed {
            edit(sim, account);
        }
    }
    if sim.chance(0.3) {
        let (from, to) = [(0, 1), (0, 2)][sim.draw(|rng| rng.random_range(0..2))];
        let mut oracle = sim.oracle();
        oracle.config.upstream.base_urls = HOSTS[from..to].iter().map(|url| url.parse().unwrap()).collect();
        // A host that is down may be the only one left.
        if oracle.is_upstream_unwell() {
            let until = sim.now() + oracle.recovery_ms();
            oracle.may_lack_until = oracle.may_lack_until.max(until);
        }
    }
    apply(sim);
}

/// Puts every account back, with the secret that WeChat knows.
pub(super) fn settle(sim: &Arc<Sim>) {
    sim.oracle().checkers.iter_mut().for_each(|checker| checker.configured = true);
    apply(sim);
}

fn edit(sim: &Arc<Sim>, account: usize) {
    let now = sim.now();
    let mut edited = Account::clone(&sim.oracle().checkers[account].account);
    let secret = new_secret(sim, account);
    let what = sim.draw(|rng| rng.random_range(0..6));
    let mut oracle = sim.oracle();
    let oracle = &mut *oracle;
    let checker = &mut oracle.checkers[account];
    match what {
        0 => {
            checker.configured = !checker.configured;
            checker.excuse_promises();
            checker.forget_checks();
            checker.may_call_until = checker.may_call_until.max(now + 10 * MINUTE);
            return;
        }
        1 => edited.settings.daily_budget = [2000, 400, 100, 40, 24][now as usize % 5],
        2 => {
            edited.settings.endpoint = match edited.settings.endpoint {
                Endpoint::Token => Endpoint::StableToken,
                Endpoint::StableToken => Endpoint::Token,
            };
        }
        3 => {
            oracle.world.put_account(&checker.appid, secret.clone());
            edited.secret = secret;
        }
        4 => edited.settings.verify_rejections = !edited.settings.verify_rejections,
        _ => edited.name = format!("renamed at {now}"),
    }
    checker.set_account(Arc::new(edited), now);
}

/// Reloads the program with the file as it is now.
fn apply(sim: &Arc<Sim>) {
    let config = {
        let mut oracle = sim.oracle();
        let accounts = oracle.checkers.iter().filter(|checker| checker.configured);
        let accounts = accounts.map(|checker| Arc::clone(&checker.account)).collect();
        oracle.config.accounts = accounts;
        oracle.config.clone()
    };
    let Some(fleet) = sim.fleet() else { return };
    let sim = Arc::clone(sim);
    tokio::spawn(async move {
        let applied = fleet.reload(config).await;
        sim.note("reloaded", None, || format!("{applied:?}"));
    });
}
