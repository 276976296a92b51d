//! Application servers that report tokens, rightly, wrongly, late or madly, and operators who refresh.

use std::sync::Arc;

use rand::RngExt as _;
use wxtokend::{Rejected, RejectionOutcome};

use super::checker::Rejecter;
use super::fault_rates::{HOUR, MINUTE, SECOND};
use super::sim::Sim;

/// Honest: only what is dead.
const HONEST: usize = 0;
/// Whatever token there is, however well it is.
const HOSTILE: usize = 1;
/// What it read long ago.
const LATE: usize = 2;
/// What never was a token.
const MAD: usize = 3;

/// No token of now.
const LONG_AGO: &str = "read long ago";
const NEVER: &str = "never was a token";

/// A client begins to report tokens.
pub(super) fn rejecter_comes(sim: &Arc<Sim>, account: usize) {
    let style = sim.draw(|rng| rng.random_range(0..4));
    let left = sim.draw(|rng| rng.random_range(1..60));
    sim.oracle().checkers[account].rejecter = Some(Rejecter { style, left });
}

/// Reports once; tells when it does so again.
pub(super) fn reject(sim: &Arc<Sim>, account: usize) -> Option<i64> {
    let (style, value, dead) = {
        let mut oracle = sim.oracle();
        let checker = &mut oracle.checkers[account];
        let rejecter = checker.rejecter.as_mut()?;
        rejecter.left = rejecter.left.checked_sub(1)?;
        let style = rejecter.style;
        (style, checker.current_value(), checker.is_dead_in_secret(sim.now()))
    };
    let presented = match style {
        HONEST => value.clone().filter(|_| dead),
        HOSTILE => value.clone(),
        LATE => value.clone().filter(|_| sim.chance(0.3)).or_else(|| Some(LONG_AGO.to_owned())),
        MAD => Some(NEVER.to_owned()),
        _ => None,
    };
    if let (Some(presented), Some(fleet)) = (presented, sim.fleet()) {
        sim.count("rejections");
        {
            let (now, checker) = (sim.now(), &mut sim.oracle().checkers[account]);
            if value.as_ref() == Some(&presented) {
                (checker.reported_at, checker.is_reported) = (now, true);
            }
            if !checker.account.verify_rejections && value.as_ref() == Some(&presented) {
                // Believed: it may be worth a call.
                checker.may_call_until = checker.may_call_until.max(now + 10 * MINUTE);
            }
        }
        let (sim, appid) = (Arc::clone(sim), sim.oracle().checkers[account].appid.clone());
        // A crowd reports together.
        for _ in 0..sim.draw(|rng| [1, 1, 5][rng.random_range(0..3)]) {
            let (sim, appid, fleet) = (Arc::clone(&sim), appid.clone(), fleet.clone());
            let presented = presented.clone();
            tokio::spawn(async move {
                let answer = fleet.reject(&appid, &presented).await;
                sim.note("rejected", Some(account), || {
                    format!("{:?}", answer.as_ref().map(|told| told.outcome))
                });
                if let Ok(told) = answer {
                    if told.outcome == RejectionOutcome::Limited {
                        // Nobody looks into it.
                        sim.oracle().checkers[account].reported_at = i64::MIN / 2;
                    }
                    judge(&sim, account, &told, Some(&presented));
                }
            });
        }
    }
    Some(match style {
        HOSTILE => sim.between(10, 20 * SECOND),
        _ => sim.between(SECOND, 10 * MINUTE),
    })
}

/// An operator refreshes, now and then by force.
pub(super) fn refresh(sim: &Arc<Sim>, account: usize) {
    let Some(fleet) = sim.fleet() else { return };
    sim.count("refreshes by operators");
    let force = sim.chance(0.4);
    let now = sim.now();
    let appid = {
        let checker = &mut sim.oracle().checkers[account];
        checker.may_call_until = checker.may_call_until.max(now + HOUR);
        if force {
            checker.may_force_until = now + HOUR;
            checker.excuse_promises();
        }
        checker.appid.clone()
    };
    let sim = Arc::clone(sim);
    tokio::spawn(async move {
        let answer = fleet.refresh(&appid, force).await;
        sim.note("refreshed", Some(account), || format!("{:?}", answer.as_ref().map(|told| told.outcome)));
        if let Ok(told) = answer {
            judge(&sim, account, &told, None);
        }
    });
}

/// What is handed out with an answer is a read like any other, and the outcome must be true.
fn judge(sim: &Arc<Sim>, account: usize, told: &Rejected, presented: Option<&str>) {
    sim.look(account);
    let same = told.token.as_ref().is_some_and(|token| Some(token.access_token()) == presented);
    let invented = presented.is_some_and(|presented| [LONG_AGO, NEVER].contains(&presented));
    let wrong = match told.outcome {
        RejectionOutcome::Refreshed => same || invented,
        RejectionOutcome::Superseded => same,
        // It was checked, and is the one that is handed out.
        RejectionOutcome::StillValid => presented.is_some() && told.token.is_some() && !same,
        RejectionOutcome::Limited => false,
    };
    if wrong {
        let which = if same { "the token that was reported" } else { "another token than was reported" };
        sim.violated(Some(account), &format!("I4: {:?}, with {which}", told.outcome));
    }
}
