//! A fleet that dies right before or right after each write and each call, and how the next process
//! continues.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use wxtokend_core::account::Endpoint;
use wxtokend_core::budget::{burst, interval};
use wxtokend_core::clock::ClockSource as _;
use wxtokend_core::phase::Phase;
use wxtokend_core::token::Validity;
use wxtokend_core::token::schedule::Rules;
use wxtokend_core::token::state::{AccountState, Activity};
use wxtokend_sandbox::{Call, Fault, FaultKind, LostAs, Switches};

use super::lab::{APPID, Lab, account, appid};
use super::{HOUR, SECOND};
use crate::fleet::cells::tally::RejectionOutcome;

const DAILY_BUDGET: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What clients of all processes were given, and what they know.
#[derive(Default)]
struct ReadingClients {
    newest: Cell<u64>,
    by_version: RefCell<HashMap<u64, String>>,
    /// A token that another program has ended.
    ended: RefCell<Option<String>>,
}

impl ReadingClients {
    /// Checks what is served: it is alive, or it is the token whose end only a client can notice.
    async fn check(&self, lab: &Lab) {
        let Some(token) = lab.fleet.token_at_once(APPID) else { return };
        let value = token.access_token().to_owned();
        assert!(token.version() >= self.newest.replace(token.version()), "a version went back: {token:?}");
        let known =
            self.by_version.borrow_mut().entry(token.version()).or_insert_with(|| value.clone()).clone();
        assert_eq!(known, value, "one version, two values: {token:?}");
        if self.ended.borrow().as_ref() != Some(&value) {
            lab.assert_alive(&token);
            return;
        }
        assert!(!lab.disk.record(APPID).contains("refused"), "served though found dead: {:#?}", lab.view());
        if let Ok(rejected) = lab.fleet.reject(APPID, &value).await {
            assert!(
                rejected.outcome != RejectionOutcome::StillValid,
                "WeChat does not honour it: {rejected:?}"
            );
        }
    }

    async fn check_for(&self, lab: &Lab, time: Duration, every: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check(lab).await;
            sleep(every).await;
        }
    }

    /// Lives through everything that happens to an account: a cold start, refreshes, a token ended by another
    /// program, a refresh on request, a failure, a lost answer.
    async fn live(&self, lab: &Lab) {
        lab.token().await;
        self.check_for(lab, 170 * MINUTE, MINUTE).await;
        let token = lab.token().await;
        self.ended.replace(Some(token.access_token().to_owned()));
        lab.wechat.kill_tokens(&appid());
        self.check_for(lab, 10 * MINUTE, 5 * SECOND).await;
        lab.fleet.refresh(APPID, true).await.unwrap();
        self.check_for(lab, 10 * MINUTE, 5 * SECOND).await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(-1).times(1));
        let lost = Fault::new(FaultKind::Lost { seen_as: LostAs::Hang });
        for call in [Call::Token, Call::StableToken] {
            lab.wechat.inject(Some(&appid()), lost.clone().on(call).times(1));
        }
        self.check_for(lab, 4 * HOUR, MINUTE).await;
    }

    /// Checks a process that has just started on what another one left.
    async fn judge(&self, lab: &Lab, case: &str) {
        let Ok(mut stored) = serde_json::from_str::<AccountState>(&lab.disk.record(APPID)) else {
            assert_eq!((self.newest.get(), lab.calls()), (0, 0), "{case}: nothing is stored");
            return;
        };
        assert!(stored.version >= self.newest.get(), "{case}: version {} is stored", stored.version);
        let at_risk = stored.intent.is_some() || stored.doubt.is_some();
        let now = lab.clock.now();
        stored.recover(&lab.config.accounts[0], Rules::EXAMPLE, now);
        let served = lab.fleet.token_at_once(APPID).map(|token| token.version());
        assert_eq!(
            served,
            stored.is_usable(now).then_some(stored.version),
            "{case}: what lives is served at once"
        );
        let Some(token) = stored.token else { return };
        let due = (token.refresh_at.until(now) < 5 * SECOND) || token.validity != Validity::Good;
        if served.is_some() && !at_risk && !due {
            let calls = lab.calls();
            sleep(3 * SECOND).await;
            assert_eq!((lab.calls(), lab.view().state), (calls, Phase::Fresh), "{case}: a needless call");
        }
    }
}

/// Checks that a dying process had stored that its token is dead before it went on.
fn judge_dying(lab: &Lab, case: &str) {
    let state = lab.fleet.cells()[0].load().state.clone();
    let is_good =
        |state: &AccountState| state.token.as_ref().is_some_and(|token| token.validity == Validity::Good);
    if !is_good(&state)
        && matches!(state.activity, Activity::Queued | Activity::AwaitingSlot | Activity::Fetching)
    {
        let stored = serde_json::from_str::<AccountState>(&lab.disk.record(APPID)).unwrap_or_default();
        assert!(
            stored.version != state.version || !is_good(&stored),
            "{case}: that it is dead is not stored"
        );
    }
}

/// Compares what is left of the budget with what WeChat has counted.
fn judge_charges(lab: &Lab, crashes: u32, since: Instant, case: &str) {
    let (calls, burst) = (u32::try_from(lab.calls()).unwrap(), burst(DAILY_BUDGET));
    let came_back = since.elapsed().as_nanos() / interval(DAILY_BUDGET).as_nanos();
    let came_back = u32::try_from(came_back).unwrap();
    let left = lab.view().budget.remaining;
    let case = format!("{case}: {calls} calls, {left} of {burst} left, {came_back} came back");
    assert!(left + calls <= burst + came_back, "a charge is forgotten, {case}");
    assert!(left + calls + crashes >= burst, "charged without need, {case}");
}

/// A life that is cut off at the `cut`-th boundary, and the next one soon again. Returns whether there was
/// such a boundary.
async fn cut_at(endpoint: Endpoint, cut: usize) -> bool {
    let mut modest = account(APPID, endpoint);
    modest.settings.daily_budget = DAILY_BUDGET;
    let mut lab = Lab::with(vec![modest]).await;
    // The worst behaviour that is not ruled out.
    let harsh = Switches { second_mint_kills_first: true, forced_kills_at_once: true, ..Switches::default() };
    lab.wechat.set_switches(harsh);
    let (clients, born) = (ReadingClients::default(), Instant::now());
    let mut boundaries = cut;
    for crashes in 1..=3 {
        let case = format!("{endpoint:?}, boundary {cut}, crash {crashes}");
        lab.disk.cut_after(boundaries);
        let lived = async {
            if crashes == 1 {
                clients.live(&lab).await;
            } else {
                clients.check_for(&lab, 15 * MINUTE, 4 * SECOND).await;
                clients.check_for(&lab, 3 * HOUR, 40 * SECOND).await;
            }
        };
        let survived = tokio::select! {
            () = lived => true,
            () = lab.disk.until_cut() => false,
        };
        judge_charges(&lab, crashes, born, &case);
        if survived {
            assert_eq!(lab.view().state, Phase::Fresh, "{case}: {:#?}", lab.view());
            lab.fleet.shutdown().await;
            return crashes > 1;
        }
        judge_dying(&lab, &case);
        lab = lab.crash_and_restart().await;
        judge_charges(&lab, crashes, born, &case);
        clients.judge(&lab, &case).await;
        // The second cut comes at one of the first steps of the new life; there is no third.
        boundaries = if crashes == 1 { 1 + cut % 7 } else { 0 };
    }
    unreachable!("a third life is not cut off")
}

async fn cut_everywhere(endpoint: Endpoint) {
    let mut cut = 1;
    while cut_at(endpoint, cut).await {
        cut += 1;
    }
    assert!(cut > 50, "{cut} boundaries");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_on_stable_token_cut_off_at_any_write_or_call_breaks_no_promise_and_makes_no_needless_call() {
    cut_everywhere(Endpoint::StableToken).await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_on_token_cut_off_at_any_write_or_call_breaks_no_promise_and_makes_no_needless_call() {
    cut_everywhere(Endpoint::Token).await;
}
