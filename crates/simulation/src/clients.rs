//! Application servers that report tokens, honestly, falsely, late or absurdly, and operators who refresh.

use std::sync::Arc;

use rand::RngExt as _;
use wxtokend::{RefreshResponse, RejectionOutcome};

use super::checker::Rejecter;
use super::fault_rates::{HOUR, MINUTE, SECOND};
use super::sim::Sim;

/// Reports only dead tokens.
const HONEST: usize = 0;
/// Reports every token, even one that is alive.
const HOSTILE: usize = 1;
/// Reports tokens that it read long ago.
const LATE: usize = 2;
/// Reports values that never were tokens.
const MAD: usize = 3;

/// Values that are not current tokens.
const LONG_AGO: &str = "read long ago";
const NEVER: &str = "never was a token";

/// Starts a client that reports tokens.
pub(super) fn start_rejecter(sim: &Arc<Sim>, account: usize) {
    let style = sim.draw(|rng| rng.random_range(0..4));
    let left = sim.draw(|rng| rng.random_range(1..60));
    sim.oracle().checkers[account].rejecter = Some(Rejecter { style, left });
}

/// Reports once, and returns when it does so again.
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
            if !checker.account.settings.verify_rejections && value.as_ref() == Some(&presented) {
                // It is believed: a call may be justified.
                checker.may_call_until = checker.may_call_until.max(now + 10 * MINUTE);
            }
        }
        let (sim, appid) = (Arc::clone(sim), sim.oracle().checkers[account].appid.clone());
        // Several clients report at once.
        for _ in 0..sim.draw(|rng| [1, 1, 5][rng.random_range(0..3)]) {
            let (sim, appid, fleet) = (Arc::clone(&sim), appid.clone(), fleet.clone());
            let presented = presented.clone();
            tokio::spawn(async move {
                let answer = fleet.reject(&appid, &presented).await;
                sim.note("rejected", Some(account), || {
                    format!("{:?}", answer.as_ref().map(|rejected| rejected.outcome))
                });
                if let Ok(rejected) = answer {
                    if rejected.outcome == RejectionOutcome::Limited {
                        // It is not investigated.
                        sim.oracle().checkers[account].reported_at = i64::MIN / 2;
                    }
                    judge(&sim, account, &rejected, Some(&presented));
                }
            });
        }
    }
    Some(match style {
        HOSTILE => sim.between(10, 20 * SECOND),
        _ => sim.between(SECOND, 10 * MINUTE),
    })
}

/// Refreshes as an operator, occasionally by force.
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
        sim.note("refreshed", Some(account), || {
            format!("{:?}", answer.as_ref().map(|rejected| rejected.outcome))
        });
        if let Ok(rejected) = answer {
            judge(&sim, account, &rejected, None);
        }
    });
}

/// Checks an answer: what is handed out with it is a read like any other, and the outcome must be true.
fn judge(sim: &Arc<Sim>, account: usize, rejected: &RefreshResponse, presented: Option<&str>) {
    sim.look(account);
    let same = rejected.token.as_ref().is_some_and(|token| Some(token.access_token()) == presented);
    let invented = presented.is_some_and(|presented| [LONG_AGO, NEVER].contains(&presented));
    let wrong = match rejected.outcome {
        RejectionOutcome::Refreshed => same || invented,
        RejectionOutcome::Superseded => same,
        // It was checked, and is the one that is handed out.
        RejectionOutcome::StillValid => presented.is_some() && rejected.token.is_some() && !same,
        RejectionOutcome::Limited => false,
    };
    if wrong {
        let which = if same { "the token that was reported" } else { "another token than was reported" };
        sim.violated(Some(account), &format!("I4: {:?}, with {which}", rejected.outcome));
    }
}
