use super::*;
use crate::account::{Account, Endpoint};
use crate::budget::Bucket;
use crate::fault::Fault;
use crate::fault::{FaultKind, FaultScope};
use crate::phase::Phase;
use crate::token::transition::{Answer, Fetched};

const LIFETIME: Duration = Duration::from_secs(7200);
const POLL_INTERVAL: Duration = Duration::from_secs(300);

fn at(seconds: f64) -> Moment {
    let zero = Moment { wall_ms: 1_790_000_000_000, boot_ms: 500_000 };
    let time = Duration::from_secs_f64(seconds.abs());
    if seconds < 0.0 { zero - time } else { zero + time }
}

fn account() -> Account {
    Account::example(Endpoint::StableToken)
}

fn answer(value: &str) -> Answer {
    Answer { value: Secret::new(value), expires_in: LIFETIME }
}

/// A call sent at `sent` and answered a second later.
fn asked(state: &mut TicketState, value: &str, sent: f64) -> Fetched {
    let end = TicketCallEnd { sent_at: Some(at(sent)), result: Ok(answer(value)) };
    state.end_ask(end, &account(), at(sent + 1.0), 0.5)
}

fn failed(state: &mut TicketState, fault: Fault, sent: Option<f64>, now: f64) {
    let end = TicketCallEnd { sent_at: sent.map(at), result: Err(fault) };
    assert_eq!(state.end_ask(end, &account(), at(now), 0.0), Fetched::Failed);
}

fn step(state: &TicketState, now: f64) -> TicketStep {
    state.next_step(&account(), true, true, at(now))
}

fn due(state: &TicketState, now: f64) -> f64 {
    match step(state, now) {
        TicketStep::Wait(until) => now + until.until(at(now)).as_secs_f64(),
        TicketStep::Ask => now,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ticket_is_asked_for_with_the_accounts_token_and_not_without() {
    let state = TicketState::default();
    assert_eq!(step(&state, 0.0), TicketStep::Ask);
    assert_eq!(state.next_step(&account(), false, true, at(0.0)), TicketStep::AwaitToken);
    assert_eq!(state.phase(at(0.0)), Phase::Starting);
    assert!(state.read(at(0.0)).is_none());
}

#[test]
fn a_first_ticket_may_be_old_and_is_polled_until_there_is_another() {
    let mut state = TicketState::default();
    assert_eq!(asked(&mut state, "a", 0.0), Fetched::New);
    let ticket = state.read(at(1.0)).unwrap();
    assert_eq!((ticket.value(), ticket.expires_in()), ("a", POLL_INTERVAL), "nobody may keep it for longer");
    assert_eq!(due(&state, 1.0), 225.0);
    assert_eq!(asked(&mut state, "a", 225.0), Fetched::Same);
    assert_eq!(due(&state, 226.0), 450.0);
    assert_eq!(state.read(at(226.0)).unwrap().version(), ticket.version());
    // Its successor was issued after the last poll, or shortly before: its age is known precisely enough.
    assert_eq!(asked(&mut state, "b", 450.0), Fetched::New);
    let ticket = state.read(at(451.0)).unwrap();
    assert_eq!((ticket.value(), ticket.version()), ("b", state.version));
    let counted_from_the_last_poll = 225.0 + 7200.0 - 1.0;
    assert_eq!(ticket.expires_in().as_secs_f64(), counted_from_the_last_poll - 451.0);
}

/// A ticket issued between -226 s and 1 s.
fn known() -> TicketState {
    let mut state = TicketState::default();
    asked(&mut state, "a", -226.0);
    asked(&mut state, "b", 0.0);
    state
}

#[test]
fn a_ticket_is_served_to_its_earliest_end_and_from_there_while_it_is_seen_to_live() {
    let mut state = known();
    let end = 7200.0 - 226.0;
    assert_eq!(due(&state, 1.0), end - 225.0, "should its successor be there before");
    assert_eq!(asked(&mut state, "b", end - 225.0), Fetched::Same);
    assert_eq!(due(&state, end - 224.0), end);
    assert!(state.is_usable(at(end - 1.1)) && !state.is_usable(at(end - 1.0)), "less the margin");
    assert_eq!(asked(&mut state, "b", end), Fetched::Same);
    let pause = 227.0 / 8.0;
    assert!(state.is_usable(at(end + pause - 0.1)) && !state.is_usable(at(end + pause)));
    assert!((due(&state, end + 1.0) - end - pause).abs() < 0.01, "{}", due(&state, end + 1.0));
    // The successor's age is known to within the pause, and that of the one after it to within the shortest
    // pause.
    assert_eq!(asked(&mut state, "c", end + pause), Fetched::New);
    let second = HeldTicket::clone(state.ticket.as_ref().unwrap());
    assert_eq!((second.issued_at, second.is_age_known), (at(end), true));
    asked(&mut state, "c", end + 7200.0);
    assert!((due(&state, end + 7201.0) - end - 7200.0 - 29.375 / 8.0).abs() < 0.01);
}

#[test]
fn a_ticket_that_is_replaced_before_its_end_has_been_looked_for_shortly_before() {
    let mut state = known();
    let polled_at = 7200.0 - 226.0 - 225.0;
    assert_eq!(asked(&mut state, "c", polled_at), Fetched::New);
    assert!(!state.ticket.as_ref().unwrap().is_age_known, "it may have been there for two hours");
    let mut state = known();
    asked(&mut state, "b", polled_at);
    asked(&mut state, "c", polled_at + 225.0);
    assert_eq!(state.ticket.as_ref().unwrap().issued_at, at(polled_at));
}

#[test]
fn a_ticket_that_is_handed_out_beyond_its_latest_end_is_trusted_from_look_to_look() {
    let mut state = known();
    assert!(!state.is_usable(at(7201.0)));
    assert_eq!(asked(&mut state, "b", 7201.0), Fetched::Same);
    assert_eq!(state.read(at(3000.0)).unwrap().expires_in(), POLL_INTERVAL);
    assert_eq!(due(&state, 7202.0), 7201.0 + 225.0);
    asked(&mut state, "b", 7426.0);
    assert_eq!(state.read(at(7427.0)).unwrap().expires_in(), POLL_INTERVAL);
    assert!(!state.is_usable(at(8100.0)), "not while nobody can look");
}

#[test]
fn after_a_long_pause_the_age_of_what_comes_is_unknown() {
    let mut state = known();
    let back = 3.0 * 7200.0;
    assert_eq!(asked(&mut state, "z", back), Fetched::New);
    assert_eq!(state.read(at(back + 1.0)).unwrap().expires_in(), POLL_INTERVAL);
}

#[test]
fn what_wechat_says_is_believed_where_it_is_less() {
    let mut state = known();
    let end = TicketCallEnd {
        sent_at: Some(at(3000.0)),
        result: Ok(Answer { value: Secret::new("b"), expires_in: Duration::from_secs(60) }),
    };
    state.end_ask(end, &account(), at(3001.0), 0.5);
    assert_eq!(state.ticket.as_ref().unwrap().expires_at, at(3060.0));
}

#[test]
fn failures_back_off_and_a_living_ticket_is_served_through_them() {
    let mut state = known();
    failed(&mut state, Fault::unreadable("html"), Some(3000.0), 3001.0);
    assert_eq!(state.phase(at(3001.0)), Phase::Degraded);
    assert!(state.read(at(3001.0)).is_some());
    let mut state = TicketState::default();
    failed(&mut state, Fault::from_errcode(48001, "api unauthorized"), Some(0.0), 1.0);
    assert_eq!((state.phase(at(1.0)), state.attempts_ended), (Phase::Parked, 1));
    assert_eq!(due(&state, 1.0), 301.0);
    state.reconfigured(at(2.0));
    assert_eq!(step(&state, 2.0), TicketStep::Ask);
    assert_eq!(asked(&mut state, "a", 2.0), Fetched::New);
    assert_eq!(state.phase(at(3.0)), Phase::Fresh);
}

#[test]
fn while_the_host_is_down_nothing_is_asked_and_when_it_is_back_at_once() {
    let mut state = TicketState::default();
    failed(&mut state, Fault::host("refused"), None, 0.0);
    assert_eq!(state.last_failure.as_deref().unwrap().fault.scope, FaultScope::Host);
    assert_eq!(state.next_step(&account(), true, false, at(100.0)), TicketStep::AwaitHost);
    state.host_is_back(at(0.5));
    assert_eq!(step(&state, 0.5), TicketStep::Ask);
}

#[test]
fn every_call_is_charged_and_one_that_was_not_sent_given_back() {
    let account = account().with(|settings| settings.daily_budget = 8);
    let mut state = TicketState::default();
    for _ in 0..4 {
        state.begin_ask(&account, at(0.0)).unwrap();
    }
    let free_at = state.begin_ask(&account, at(0.0)).unwrap_err();
    assert_eq!(free_at.until(at(0.0)), Duration::from_secs(6 * 3600));
    let end = TicketCallEnd { sent_at: None, result: Err(Fault::host("refused")) };
    state.end_ask(end, &account, at(0.0), 0.0);
    state.begin_ask(&account, at(0.0)).unwrap();
}

#[test]
fn a_ticket_that_serves_is_not_polled_with_the_last_calls() {
    let account = account().with(|settings| settings.daily_budget = 8);
    let mut state = TicketState::default();
    asked(&mut state, "a", 0.0);
    let wait = |state: &TicketState| match state.next_step(&account, true, true, at(1.0)) {
        TicketStep::Wait(until) => until.until(at(1.0)).as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&state), 224);
    state.begin_ask(&account, at(0.0)).unwrap();
    state.begin_ask(&account, at(0.0)).unwrap();
    assert_eq!(wait(&state), 7199, "to its end");
}

#[test]
fn a_record_read_back_is_the_one_that_was_written_and_shows_nothing_in_debug() {
    let state = known();
    let text = serde_json::to_string(&state).unwrap();
    let back: TicketState = serde_json::from_str(&text).unwrap();
    assert_eq!((back.version, &back.ticket, back.ledger), (state.version, &state.ticket, state.ledger));
    let ticket = Secret::new("secret-ticket");
    let held = HeldTicket { value: ticket, ..HeldTicket::clone(state.ticket.as_ref().unwrap()) };
    let state = TicketState { ticket: Some(Arc::new(held)), ..state };
    let shown = format!("{state:?} {:?}", state.read(at(3000.0)));
    assert!(!shown.contains("secret-ticket"), "{shown}");
}

#[test]
fn another_boots_ticket_goes_by_the_wall_clock_alone() {
    let state = known();
    let rebooted = Moment { wall_ms: at(3000.0).wall_ms, boot_ms: 10 };
    let rebased = state.clone().rebased(rebooted);
    assert_eq!(rebased.usable_for(rebooted), state.usable_for(at(3000.0)));
    let earlier = Moment { wall_ms: at(-10.0).wall_ms, boot_ms: 10 };
    assert!(state.clone().rebased(earlier).ticket.is_none(), "seen in the future");
    assert_eq!(state.rebased(earlier).version, known().version, "never goes back");
}

#[test]
fn a_wall_clock_set_ahead_neither_drives_calls_nor_keeps_a_living_ticket_back() {
    let ahead = |seconds| Moment { wall_ms: at(seconds).wall_ms + 3 * 3_600_000, ..at(seconds) };
    let mut unknown = TicketState::default();
    asked(&mut unknown, "b", 0.0);
    for mut state in [known(), unknown] {
        assert!(!state.is_usable(ahead(1000.0)), "by one of the clocks it has ended");
        assert_eq!(state.next_step(&account(), true, true, ahead(1000.0)), TicketStep::Ask);
        let (mut calls, mut without) = (0, 0);
        for second in 1000..4600 {
            let now = f64::from(second);
            if state.next_step(&account(), true, true, ahead(now)) == TicketStep::Ask {
                calls += 1;
                let end = TicketCallEnd { sent_at: Some(ahead(now)), result: Ok(answer("b")) };
                state.end_ask(end, &account(), ahead(now + 0.1), 0.5);
            }
            without += u32::from(!state.is_usable(ahead(now + 0.1)));
        }
        assert!(calls <= 20, "{calls} calls in an hour");
        assert_eq!(without, 0, "seconds of that hour");
    }
}

#[test]
fn polling_a_ticket_sees_its_end() {
    for jitter in [0.0, 0.37, 0.5, 0.999_999] {
        for life in [7200, u32::MAX] {
            let mut state = TicketState::default();
            let (mut calls, mut without) = (0, 0);
            for second in 0..4 * 7200 {
                let now = f64::from(second);
                if step(&state, now) == TicketStep::Ask {
                    calls += 1;
                    let value = format!("ticket-{}", second / life);
                    let end = TicketCallEnd { sent_at: Some(at(now)), result: Ok(answer(&value)) };
                    state.end_ask(end, &account(), at(now + 0.1), jitter);
                }
                without += u32::from(!state.is_usable(at(now + 0.1)));
            }
            assert!(without <= 16, "{without} s without, jitter {jitter}, life {life}");
            assert!(calls <= 200, "{calls} calls, jitter {jitter}, life {life}");
        }
    }
}

#[test]
fn lives_of_any_length_are_asked_for_with_pauses() {
    for lifetime in [1, 2, 10, 60, u32::MAX] {
        for jitter in [0.0, 0.999_999] {
            let mut state = TicketState::default();
            let mut calls = 0;
            for tick in 0..600 {
                let now = f64::from(tick) / 10.0;
                if step(&state, now) == TicketStep::Ask {
                    calls += 1;
                    let expires_in = Duration::from_secs(lifetime.into());
                    let value = Secret::new(format!("ticket-{}", tick / 10 / lifetime));
                    let end =
                        TicketCallEnd { sent_at: Some(at(now)), result: Ok(Answer { value, expires_in }) };
                    state.end_ask(end, &account(), at(now), jitter);
                }
            }
            assert!(calls <= 61, "{calls} calls in a minute, {lifetime} s, jitter {jitter}");
        }
    }
}

#[test]
fn one_that_was_replaced_is_no_new_one_when_a_late_part_of_wechat_hands_it_out() {
    let mut state = known();
    let version = state.version;
    assert_eq!(asked(&mut state, "a", 10.0), Fetched::Same);
    assert_eq!((state.read(at(11.0)).unwrap().value(), state.version), ("b", version));
    assert_eq!(due(&state, 11.0), 235.0, "asked again soon");
    assert_eq!(asked(&mut state, "b", 235.0), Fetched::Same);
    assert_eq!(state.read(at(236.0)).unwrap().expires_in().as_secs_f64(), 7200.0 - 226.0 - 1.0 - 236.0);
    // If no other ticket serves, it is taken, and not assumed to be young.
    assert_eq!(asked(&mut state, "a", 7100.0), Fetched::New);
    assert_eq!(state.read(at(7101.0)).unwrap().expires_in(), POLL_INTERVAL);
}

#[test]
fn what_a_call_cost_that_ended_in_a_crash_is_not_given_back() {
    let account = account().with(|settings| settings.daily_budget = 8);
    let mut state = TicketState::default();
    state.begin_ask(&account, at(0.0)).unwrap();
    let mut state = TicketState { activity: Some(TicketActivity::Asking), ..state }.resumed();
    assert_eq!(state.activity, None);
    let left =
        |state: &TicketState| state.ledger.remaining(Bucket::Calls, account.settings.daily_budget, at(1.0));
    assert_eq!(left(&state), 3);
    failed(&mut state, Fault::host("down"), None, 1.0);
    assert_eq!(left(&state), 3, "no call was made that could be given back");
}

#[test]
fn what_is_left_of_a_ticket_is_its_version_and_budget() {
    let mut state = known();
    state.begin_ask(&account(), at(300.0)).unwrap();
    let left = state.tombstone();
    assert_eq!((left.version, left.ledger, left.ticket.is_none()), (state.version, state.ledger, true));
}

#[test]
fn kinds_are_named_as_wechat_names_them() {
    for kind in TicketKind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
    assert_eq!("wedding".parse::<TicketKind>(), Err(InvalidTicketKind));
    let kinds: TicketKinds = [TicketKind::WxCard].into_iter().collect();
    assert!(kinds.has(TicketKind::WxCard) && !kinds.has(TicketKind::Jsapi));
    assert_eq!(kinds.iter().collect::<Vec<_>>(), [TicketKind::WxCard]);
    assert_eq!(Fault::from_errcode(40013, "").kind, FaultKind::Parked);
}

/// Simulates WeChat for one ticket: everyone gets the same one while it lives.
struct Server {
    made: f64,
    count: u32,
}

impl Server {
    fn ask(&mut self, now: f64) -> String {
        if now - self.made >= 7200.0 {
            (self.made, self.count) = (now, self.count + 1);
        }
        format!("ticket-{}", self.count)
    }

    fn honours(&self, ticket: &str, now: f64) -> bool {
        ticket == format!("ticket-{}", self.count) && now - self.made < 7200.0
    }
}

#[test]
fn through_days_with_others_asking_too_and_answers_lost_no_ticket_is_promised_beyond_its_end() {
    for seed in 0..8_u32 {
        let mut random = {
            let mut state = u64::from(seed) + 1;
            move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                f64::from((state >> 40) as u32) / f64::from(1_u32 << 24)
            }
        };
        let mut server = Server { made: -7200.0 * random(), count: 0 };
        let (mut state, mut now) = (TicketState::default(), 0.0);
        let (mut dead, mut without, mut calls) = (0.0_f64, 0.0, 0);
        while now < 3.0 * 86_400.0 {
            now += 1.0;
            if random() < 0.001 {
                server.ask(now);
            }
            if step(&state, now) == TicketStep::Ask {
                state.begin_ask(&account(), at(now)).unwrap();
                calls += 1;
                let value = server.ask(now + 0.2);
                if random() < 0.1 {
                    failed(&mut state, Fault::host("timed out"), Some(now), now + 5.0);
                } else {
                    let end = TicketCallEnd { sent_at: Some(at(now)), result: Ok(answer(&value)) };
                    state.end_ask(end, &account(), at(now + 0.4), random());
                }
            }
            match state.read(at(now)) {
                Some(ticket) if server.honours(ticket.value(), now) => {}
                Some(ticket) => {
                    let held = state.ticket.as_ref().unwrap();
                    let is_allowed = !held.is_age_known || held.ends_from.has_come(at(now));
                    assert!(is_allowed, "seed {seed} at {now}: {ticket:?}");
                    dead += 1.0;
                }
                None => without += 1.0,
            }
        }
        assert!(dead <= 350.0, "seed {seed}: {dead} s of a ticket that had ended, of unknown age");
        assert!(without <= 300.0, "seed {seed}: {without} s without a ticket");
        assert!(calls <= 250, "seed {seed}: {calls} calls");
    }
}

#[test]
fn a_ticket_is_believed_to_live_for_two_hours_at_most() {
    let mut state = TicketState::default();
    let answer = Answer { value: Secret::new("t"), expires_in: Duration::from_secs(720_000) };
    let end = TicketCallEnd { sent_at: Some(at(0.0)), result: Ok(answer) };
    assert_eq!(state.end_ask(end, &account(), at(1.0), 0.5), Fetched::New);
    assert!(state.usable_for(at(1.0)) <= LIFETIME);
    assert!(!state.is_usable(at(7200.0)));
}
