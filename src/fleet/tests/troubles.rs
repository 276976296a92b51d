//! Failures from outside, and how long an account may be without a living token because of them.

use wxtokend_core::ticket::TicketKind::Jsapi;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// How often a reader found no token, and how often a dead one.
#[derive(Debug, PartialEq, Eq)]
struct Misses {
    none: u32,
    dead: u32,
}

/// Reads every `every` for `time`.
async fn read_for(lab: &Lab, time: Duration, every: Duration) -> Misses {
    let (end, mut misses) = (Instant::now() + time, Misses { none: 0, dead: 0 });
    while Instant::now() < end {
        sleep(every).await;
        match lab.fleet.token_at_once(APPID) {
            None => misses.none += 1,
            Some(token) => misses.dead += u32::from(!lab.wechat.is_alive(token.access_token())),
        }
    }
    misses
}

/// How many seconds pass from the death of a token, which a client reports each second, to a living one.
async fn until_replaced(lab: &Lab) -> u64 {
    let token = lab.token().await;
    lab.wechat.kill_tokens(&appid());
    let killed = Instant::now();
    while lab.fleet.token_at_once(APPID).is_none_or(|token| !lab.wechat.is_alive(token.access_token())) {
        let (fleet, dead) = (lab.fleet.clone(), token.access_token().to_owned());
        tokio::spawn(async move { fleet.reject(APPID, dead).await.map(drop) });
        sleep(SECOND).await;
    }
    killed.elapsed().as_secs()
}

/// Delays the next token call's delivery to WeChat, after its client has given up.
fn delay_delivery(lab: &Lab, seconds: u64) {
    let late = FaultKind::Late { after_ms: seconds * 1000, seen_as: LostAs::default() };
    lab.wechat.inject(Some(&appid()), Fault::new(late).on(Call::Token).times(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_delivered_late_makes_nobody_read_a_dead_token() {
    for seconds in [4, 6, 9, 20, 34] {
        // An operator's refresh of a young token: it is trusted for the overlap, then checked.
        let lab = Lab::start(Endpoint::Token).await;
        lab.token().await;
        sleep(6 * MINUTE).await;
        delay_delivery(&lab, seconds);
        let _ = lab.fleet.refresh(APPID, false).await;
        let misses = read_for(&lab, 3 * HOUR, SECOND).await;
        assert!(misses.dead == 0 && misses.none <= 45, "a refresh, {seconds} s: {misses:?}");

        // The first call of all; the second one is answered before it.
        let lab = Lab::with(vec![account(APPID, Endpoint::Token)]).await;
        delay_delivery(&lab, seconds);
        let misses = read_for(&lab, 3 * HOUR, SECOND).await;
        assert!(misses.dead == 0 && misses.none <= 10, "a cold start, {seconds} s: {misses:?}");
        assert!(lab.counters().checks >= 1, "what is served is checked once it must have shown");

        // A scheduled refresh: the next one is due anyway, so that nothing waits for the result of a check.
        let lab = Lab::start(Endpoint::Token).await;
        lab.token().await;
        delay_delivery(&lab, seconds);
        let misses = read_for(&lab, 6 * HOUR, SECOND).await;
        // No longer than the next call takes.
        assert!(misses.dead == 0 && misses.none <= 1, "a scheduled refresh, {seconds} s: {misses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_served_when_a_lost_call_must_have_shown_is_checked_once_also_by_the_next_process() {
    for restarts in [false, true] {
        let mut lab = Lab::start(Endpoint::Token).await;
        lab.token().await;
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Token).times(1));
        lab.until("lost", |view| view.last_fault.is_some()).await;
        if restarts {
            lab = lab.crash_and_restart().await;
        }
        let misses = read_for(&lab, 10 * MINUTE, SECOND).await;
        assert_eq!((misses.none, lab.counters().checks, lab.mints()), (0, 1, 2), "{restarts}: {misses:?}");
        // It is checked only once.
        read_for(&lab, 24 * HOUR, MINUTE).await;
        assert_eq!(lab.counters().checks, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_inconclusive_audit_is_made_again_and_one_that_refuses_replaces_the_token() {
    let lab = Lab::start(Endpoint::Token).await;
    lab.token().await;
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Token).times(1));
    lab.wechat.inject(Some(&appid()), Fault::errcode(-1).on(Call::Check).times(1));
    lab.until("lost", |view| view.last_fault.is_some()).await;
    // The audit is of the token that arrived meanwhile, and its first attempt is inconclusive.
    sleep(6 * MINUTE).await;
    assert_eq!(lab.mints(), 2);
    // Another program ends it, and no client reports it.
    lab.wechat.kill_tokens(&appid());
    sleep(6 * MINUTE).await;
    assert!(lab.wechat.is_alive(lab.token().await.access_token()), "{:?}", lab.counters());
}

#[tokio::test(start_paused = true)]
async fn when_only_the_check_call_fails_no_account_loses_its_token() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        lab.token().await;
        lab.wechat.inject(None, Fault::new(FaultKind::Status { status: 502 }).on(Call::Check));
        sleep(HOUR).await;
        // One call is lost at some time.
        let call = if endpoint == Endpoint::Token { Call::Token } else { Call::StableToken };
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(call).times(1));
        let misses = read_for(&lab, 24 * HOUR, 10 * SECOND).await;
        assert!(misses.none <= 7 && misses.dead == 0, "{endpoint:?}: {misses:?}");
        assert!(lab.fleet.refresh(APPID, false).await.is_ok(), "{endpoint:?}: an operator's refresh");
        assert!(lab.calls() <= 40, "{endpoint:?}: {} calls", lab.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn when_only_the_check_call_fails_no_ticket_waits_for_a_token_that_is_due() {
    for endpoint in BOTH {
        let lab = Lab::with(vec![
            account(APPID, endpoint).with(|settings| settings.tickets = [Jsapi].into_iter().collect()),
        ])
        .await;
        lab.fleet.ticket(APPID, Jsapi).await.unwrap();
        lab.wechat.inject(None, Fault::new(FaultKind::Status { status: 502 }).on(Call::Check));
        // The first ticket is asked for again after some minutes, long before the token is.
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Ticket).times(1));
        let calls = lab.calls();
        lab.until("one call was lost", |view| view.tickets[0].last_fault.is_some()).await;
        let lost_at = Instant::now();
        lab.until("asked for again", |view| view.tickets[0].last_fault.is_none()).await;
        assert!(lost_at.elapsed() <= MINUTE, "{endpoint:?}: after {:?}", lost_at.elapsed());
        assert_eq!(lab.calls(), calls, "{endpoint:?}: no call for a token");
        assert!(lab.fleet.hosts().iter().all(|host| host.up), "{endpoint:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_real_outage_a_ticket_keeps_a_quarter_of_its_budget_for_when_it_is_over() {
    let kept = [Jsapi].into_iter().collect();
    let lab = Lab::with(vec![account(APPID, Endpoint::StableToken).with(|settings| {
        settings.tickets = kept;
        settings.daily_budget = 40;
    })])
    .await;
    lab.fleet.ticket(APPID, Jsapi).await.unwrap();
    lab.wechat.inject(None, Fault::new(FaultKind::Hang).on(Call::Ticket));
    lab.wechat.inject(None, Fault::new(FaultKind::Hang).on(Call::Check));
    lab.wechat.inject(None, Fault::new(FaultKind::Hang).on(Call::StableToken));
    for _ in 0..120 {
        sleep(MINUTE).await;
        let ticket = lab.view().tickets[0].clone();
        assert!(ticket.budget.remaining >= 5, "{:?}", ticket.budget);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operators_refresh_is_tried_while_the_hosts_count_as_down() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        lab.token().await;
        // Some time after its mint; on `stable_token` it is asked for again.
        sleep(10 * MINUTE).await;
        lab.wechat.inject(None, Fault::new(FaultKind::Status { status: 502 }).on(Call::Check));
        let calls = lab.calls();
        let outcome = lab.fleet.refresh(APPID, false).await;
        assert!(outcome.is_ok() && lab.calls() == calls + 1, "{endpoint:?}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_real_outage_one_call_a_minute_is_tried_for_the_whole_fleet() {
    let accounts = (0..50).map(|n| account(&format!("wx{n:02}"), Endpoint::StableToken)).collect();
    let lab = Lab::with(accounts).await;
    sleep(MINUTE).await;
    lab.wechat.set_outage(Some(Outage::Refuse));
    sleep(12 * HOUR).await;
    let spent: u32 = lab.fleet.accounts().iter().map(|view| view.budget.limit - view.budget.remaining).sum();
    // What was refused is given back.
    assert_eq!(spent, 50 * 1000, "{spent}");
    lab.wechat.set_outage(Some(Outage::Hang));
    sleep(HOUR).await;
    let after: u32 = lab.fleet.accounts().iter().map(|view| view.budget.limit - view.budget.remaining).sum();
    assert!(after - spent <= 65, "{}", after - spent);
    lab.wechat.set_outage(None);
    sleep(MINUTE).await;
    assert!(lab.fleet.accounts().iter().all(|view| view.state == Phase::Fresh));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_refused_now_and_then_costs_hardly_any_time_without_a_token() {
    for (percent, without) in [(10, 0.0), (25, 0.0), (50, 0.0005)] {
        for endpoint in BOTH {
            let lots = &[0.13, 0.5, 0.71, 0.29, 0.92, 0.37, 0.05, 0.64, 0.81];
            let lab = Lab::drawing(lots, vec![account(APPID, endpoint)], |_| {}).await;
            lab.token().await;
            let call = if endpoint == Endpoint::Token { Call::Token } else { Call::StableToken };
            let refused = Fault::errcode(40164).on(call).by_chance(f64::from(percent) / 100.0);
            lab.wechat.inject(Some(&appid()), refused);
            let misses = read_for(&lab, 10 * 24 * HOUR, 15 * SECOND).await;
            let share = f64::from(misses.none) / (10.0 * 86_400.0 / 15.0);
            assert!(share <= without, "{endpoint:?}, {percent} %: {share}, {} calls", lab.calls());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_found_dead_is_replaced_at_once_whatever_failed_before_but_for_a_quota() {
    for (errcode, within) in [(40164, 3), (40001, 3), (-1, 3), (99_999, 3), (45009, 3600), (45011, 60)] {
        let lab = Lab::start(Endpoint::Token).await;
        lab.token().await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(errcode).on(Call::Token).times(1));
        lab.until("in trouble", |view| view.last_fault.is_some()).await;
        let took = until_replaced(&lab).await;
        assert!(took <= within, "after {errcode}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parked_account_with_a_living_token_is_asked_every_five_minutes() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        lab.token().await;
        sleep(10 * MINUTE).await;
        let call = if endpoint == Endpoint::Token { Call::Token } else { Call::StableToken };
        lab.wechat.inject(Some(&appid()), Fault::errcode(40164).on(call));
        let _ = lab.fleet.refresh(APPID, false).await;
        let calls = lab.calls();
        assert_eq!(lab.view().state, Phase::Parked);
        sleep(31 * MINUTE).await;
        assert_eq!(lab.calls() - calls, 6, "{endpoint:?}");
        lab.wechat.clear_faults(Some(&appid()));
        sleep(5 * MINUTE).await;
        assert_eq!(lab.view().state, Phase::Fresh, "{endpoint:?}");
        assert!(lab.wechat.is_alive(lab.token().await.access_token()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_refused_for_ever_spends_nothing_that_clients_need() {
    for budget in [2000, 200] {
        let tickets = [Jsapi].into_iter().collect();
        let ours = account(APPID, Endpoint::StableToken).with(|settings| {
            settings.tickets = tickets;
            settings.daily_budget = budget;
        });
        let lab = Lab::with(vec![ours]).await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(40001).on(Call::Ticket));
        lab.token().await;
        sleep(12 * HOUR).await;
        let checks = lab.counters().checks;
        assert!(checks <= 8, "{budget}: {checks} checks, one for each token");
        for n in 0..4 {
            sleep(Duration::from_secs(1200 + 137 * n)).await;
            let took = until_replaced(&lab).await;
            assert!(took <= 3, "{budget}: {took} s");
        }
        let ticket = &lab.view().tickets[0];
        assert_eq!(ticket.state, Phase::Parked);
        assert!(ticket.last_fault.as_ref().unwrap().advice.contains("may not use this ticket"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_refused_for_ever_mints_nothing_even_where_clients_are_believed() {
    for endpoint in BOTH {
        let tickets = [Jsapi].into_iter().collect();
        let ours = account(APPID, endpoint).with(|settings| {
            settings.tickets = tickets;
            settings.verify_rejections = false;
        });
        let lab = Lab::with(vec![ours]).await;
        lab.wechat.inject(Some(&appid()), Fault::errcode(40001).on(Call::Ticket));
        sleep(24 * HOUR).await;
        assert!(lab.mints() <= 17, "{endpoint:?}: {} tokens in a day", lab.mints());
        assert_eq!(lab.view().tickets[0].state, Phase::Parked);
    }
}

#[tokio::test(start_paused = true)]
async fn one_refusal_of_a_ticket_that_passes_costs_seconds() {
    let tickets = [Jsapi].into_iter().collect();
    let lab =
        Lab::with(vec![account(APPID, Endpoint::StableToken).with(|settings| settings.tickets = tickets)])
            .await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(40001).on(Call::Ticket).times(1));
    sleep(10 * SECOND).await;
    assert_eq!(lab.view().tickets[0].state, Phase::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_passes_ends_no_token_that_nobody_has_complained_of() {
    let lab = Lab::start(Endpoint::Token).await;
    let token = lab.token().await;
    // Its scheduled refresh is lost.
    lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Hang).on(Call::Token).times(1));
    lab.until("replaced", |view| view.version > token.version()).await;
    let served = lab.token().await;
    lab.wechat.inject(Some(&appid()), Fault::errcode(40001).on(Call::Check).times(1));
    sleep(24 * MINUTE).await;
    assert_eq!(lab.token().await.version(), served.version(), "{:?}", lab.counters());
    assert_eq!(lab.counters().checks, 2, "it was looked at once more");
}

#[tokio::test(start_paused = true)]
async fn an_account_that_fails_for_a_reason_of_its_own_keeps_no_other_from_trying() {
    let accounts = (0..4).map(|n| account(&format!("wx{n:02}"), Endpoint::StableToken)).collect();
    let lab = Lab::with(accounts).await;
    sleep(MINUTE).await;
    // The first account has no token, and a gateway answers all of its calls, as it does the probe.
    let failing = lab.fleet.accounts()[0].appid.clone();
    lab.wechat.inject(Some(&failing), Fault::new(FaultKind::Status { status: 502 }).on(Call::StableToken));
    lab.wechat.kill_tokens(&failing);
    let token = lab.fleet.token(&failing).await.unwrap();
    let _ = lab.fleet.reject(&failing, &token).await;
    lab.wechat.inject(None, Fault::new(FaultKind::Status { status: 502 }).on(Call::Check));
    let (mut none, end) = (0, Instant::now() + 6 * HOUR);
    while Instant::now() < end {
        sleep(SECOND).await;
        let others = ["wx01", "wx02", "wx03"];
        none += others.into_iter().filter(|appid| lab.fleet.token_at_once(appid).is_none()).count();
    }
    assert_eq!(none, 0, "seconds without a token, of all others");
}
