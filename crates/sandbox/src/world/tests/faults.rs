//! Injected faults, outages, and the wording of errors.

use super::*;
use crate::{Call, Fault, FaultKind, LostAs, Outage};

/// What happens to a classic call under a fault of `kind`, and whether it minted.
fn under(kind: FaultKind) -> (Duration, Wire, bool) {
    let mut world = world(Switches::default());
    world.inject(None, Fault::new(kind));
    let reaction = world.handle(&classic_request(), s(0));
    (reaction.delay, reaction.wire, truth(&world, s(0)).counters.token_mints == 1)
}

#[test]
fn each_kind_of_fault_shows_as_it_should_and_mints_only_where_it_says_so() {
    let page = |seen_as| match under(seen_as) {
        (_, Wire::Answer(answer), minted) => {
            (answer.status, answer.body.starts_with(b"<html>"), answer.body.is_empty(), minted)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(page(FaultKind::Status { status: 502 }), (502, true, false, false));
    assert_eq!(page(FaultKind::Status { status: 412 }), (412, false, true, false));
    assert_eq!(page(FaultKind::Html), (200, true, false, false));
    assert_eq!(page(FaultKind::Lost { seen_as: LostAs::Html }), (200, true, false, true));
    assert_eq!(page(FaultKind::Lost { seen_as: LostAs::BadGateway }), (502, true, false, true));
    assert_eq!(page(FaultKind::Lost { seen_as: LostAs::GatewayTimeout }), (504, true, false, true));
    assert_eq!(under(FaultKind::Hang), (s(0), Wire::Hang, false));
    assert_eq!(under(FaultKind::Reset), (s(0), Wire::Reset, false));
    assert_eq!(under(FaultKind::Lost { seen_as: LostAs::Hang }), (s(0), Wire::Hang, true));
    assert_eq!(under(FaultKind::Lost { seen_as: LostAs::Reset }), (s(0), Wire::Reset, true));
    let (delay, wire, minted) = under(FaultKind::Delay { delay_ms: 1500 });
    assert_eq!((delay.as_millis(), answer(wire).status, minted), (1500, 200, true));
    let (_, wire, minted) = under(FaultKind::Half);
    assert!(
        matches!(wire, Wire::HalfAnswer { answer, sent } if sent > 0 && sent < answer.body.len()) && minted
    );
}

#[test]
fn a_late_request_is_carried_out_at_its_own_instant_whatever_happened_before() {
    let mut world = world(Switches::default());
    let late = |after_ms, seen_as| Fault::new(FaultKind::Late { after_ms, seen_as }).times(1);
    world.inject(None, late(20_000, LostAs::Hang));
    assert_eq!(world.handle(&classic_request(), s(0)).wire, Wire::Hang);
    world.inject(None, late(5_000, LostAs::Reset));
    assert_eq!(world.handle(&classic_request(), s(1)).wire, Wire::Reset);
    assert_eq!((world.next_late(), truth(&world, s(1)).counters.token_mints), (Some(s(6)), 0));
    let retried = classic(&mut world, s(2));
    assert_eq!(world.token_truth(&retried).unwrap().dies_at, s(7202));
    world.set_outage(Some(Outage::Refuse));
    world.advance(s(1000));
    assert_eq!(world.token_truth(&retried).unwrap().dies_at, s(306), "the one sent last came first, at 6 s");
    let counters = truth(&world, s(1000)).counters;
    assert_eq!((counters.token_calls, counters.token_mints, world.next_late()), (3, 3, None));
    let minted: Vec<_> = truth(&world, s(7202)).living_tokens.iter().map(|token| token.minted_at).collect();
    assert_eq!(minted, [s(20)]);
}

#[test]
fn bad_token_answers_have_no_token_or_an_odd_lifetime() {
    let seen = |kind| match under(kind) {
        (_, Wire::Answer(answer), minted) => (serde_json::from_slice::<Value>(&answer.body).unwrap(), minted),
        other => panic!("{other:?}"),
    };
    let (empty, minted) = seen(FaultKind::EmptyToken);
    assert_eq!((empty["access_token"].as_str(), minted), (Some(""), false));
    let (odd, minted) = seen(FaultKind::BadExpires { expires_in: -1 });
    assert_eq!((odd["expires_in"].as_i64(), minted), (Some(-1), true));
}

#[test]
fn a_fault_hits_its_account_its_call_and_its_number_of_times() {
    let mut world = world(Switches::default());
    let other = Appid::new("other").unwrap();
    world.inject(Some(&other), Fault::errcode(-1));
    world.inject(Some(&appid()), Fault::errcode(40243).on(Call::Token).times(2));
    world.inject(None, Fault::errcode(48001).on(Call::StableToken).times(1));
    let codes: Vec<i64> = (0..3).map(|at| errcode(&mut world, &classic_request(), s(at))).collect();
    assert_eq!(codes, [40243, 40243, 0]);
    let codes: Vec<i64> = (0..2).map(|at| errcode(&mut world, &stable_request(STABLE), s(at))).collect();
    assert_eq!(codes, [48001, 0]);
    assert_eq!((world.faults(Some(&other)).len(), world.faults(Some(&appid())).len()), (1, 0));
    let theirs =
        get("/cgi-bin/token", &[("grant_type", "client_credential"), ("appid", "other"), ("secret", "s4")]);
    assert_eq!(errcode(&mut world, &theirs, s(3)), -1);
    world.clear_faults(Some(&other));
    assert_eq!(errcode(&mut world, &theirs, s(3)), 0);
}

#[test]
fn a_fault_hits_only_its_path_or_what_begins_so_and_also_what_wechat_does_not_have() {
    let mut world = world(Switches::default());
    world.inject(None, Fault::errcode(48001).at("/cgi-bin/user/get"));
    world.inject(None, Fault::errcode(48004).at("/wxa/*"));
    let mut seen = |path: &str| errcode(&mut world, &get(path, &[]), s(0));
    assert_eq!(
        [seen("/cgi-bin/user/get"), seen("//cgi-bin//user/get"), seen("/cgi-bin/user/getx")],
        [48001, 48001, 41001]
    );
    assert_eq!([seen("/wxa/a/b"), seen("/wxa/x"), seen("/sns/x")], [48004, 48004, 41002]);
    world.inject(None, Fault::errcode(410));
    assert_eq!(errcode(&mut world, &get("/nowhere", &[]), s(0)), 410);
}

#[test]
fn a_fault_by_chance_hits_its_share_and_repeats_by_the_seed() {
    let mut world = world(Switches::default());
    world.inject(None, Fault::errcode(40164).by_chance(0.25).times(400));
    let mut run = || {
        world.reseed(7);
        (0..1000).map(|_| errcode(&mut world, &get("/cgi-bin/user/get", &[]), s(0))).collect::<Vec<_>>()
    };
    let (first, again) = (run(), run());
    let hits = |codes: &[i64]| codes.iter().filter(|code| **code == 40164).count();
    assert!((190..310).contains(&hits(&first)), "{}", hits(&first));
    assert_eq!(hits(&first) + hits(&again), 400, "`times` counts hits");
    let last_hit = again.iter().rposition(|code| *code == 40164).unwrap();
    assert_eq!(first[..=last_hit], again[..=last_hit]);
}

#[test]
fn a_refusal_of_one_token_passes_after_its_time() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    let second = classic(&mut world, s(10));
    let passing = Fault::errcode(40001).with_token(Secret::new(second.clone())).lasting(30_000);
    world.inject(Some(&appid()), passing);
    assert_eq!([check(&mut world, &second, s(10)), check(&mut world, &first, s(20))], [40001, 0]);
    assert_eq!(check(&mut world, &second, s(39)), 40001);
    assert_eq!((check(&mut world, &second, s(40)), world.faults(Some(&appid())).len()), (0, 0));
}

#[test]
fn a_raw_answer_is_what_it_says_and_mints_only_for_the_token_in_it() {
    let raw = |text: &str| serde_json::from_str::<Fault>(text).unwrap().kind;
    let seen = |kind| match under(kind) {
        (_, Wire::Answer(answer), minted) => (answer, minted),
        other => panic!("{other:?}"),
    };
    let (busy, minted) = seen(raw(
        r#"{"kind":"raw","status":429,"headers":{"Retry-After":"120","X-Odd":"ä"},"body":"slow down"}"#,
    ));
    assert_eq!(
        (busy.status, busy.header("retry-after"), busy.header("x-odd")),
        (429, Some("120"), Some("ä"))
    );
    assert_eq!((busy.body.as_slice(), busy.header("content-type"), minted), (&b"slow down"[..], None, false));
    let (bytes, _) = seen(raw(r#"{"kind":"raw","body_base64":"//79AA=="}"#));
    assert_eq!((bytes.status, bytes.body), (200, vec![0xff, 0xfe, 0xfd, 0]));
    let body = r#"\ufeff{\"access_token\":\"{access_token}\",\"expires_in\":\"7200\"}"#;
    let (odd, minted) = seen(raw(&format!(r#"{{"kind":"raw","body":"{body}"}}"#)));
    let text = String::from_utf8(odd.body).unwrap();
    let value: Value = serde_json::from_str(text.strip_prefix('\u{feff}').unwrap()).unwrap();
    assert!(value["access_token"].as_str().unwrap().len() > 100 && value["expires_in"] == "7200" && minted);
    let mut world = world(Switches::default());
    world.inject(None, Fault::new(raw(r#"{"kind":"raw","body":"{access_token}"}"#)));
    assert_eq!(errcode(&mut world, &stable_request(&STABLE.replace("s3", "no")), s(0)), 40125);
}

#[test]
fn the_text_of_45009_names_the_stable_token_to_classic_calls_alone() {
    let mut world = world(Switches { daily_limit: 0, stable_daily_limit: 0, ..Switches::default() });
    let mut text = |request: &Request| json(&mut world, request, s(0))["errmsg"].as_str().unwrap().to_owned();
    let classic = text(&classic_request());
    let wanted = "reach max api daily quota limit, could get access_token by getStableAccessToken";
    assert!(classic.starts_with(wanted), "{classic}");
    assert!(!text(&stable_request(STABLE)).contains("getStableAccessToken"));
}

#[test]
fn a_business_fault_leaves_the_check_alone() {
    let mut world = world(Switches::default());
    let minted = classic(&mut world, s(0));
    world.inject(Some(&appid()), Fault::errcode(40001).on(Call::Business));
    assert_eq!(errcode(&mut world, &get("/cgi-bin/user/get", &[("access_token", &minted)]), s(0)), 40001);
    assert_eq!(check(&mut world, &minted, s(0)), 0);
    assert_eq!(truth(&world, s(0)).counters.business_refused, 0, "the token was not to blame");
}

#[test]
fn an_outage_hits_everybody_and_changes_nothing() {
    let mut world = world(Switches::default());
    for (outage, expected) in [(Outage::Refuse, Wire::Refuse), (Outage::Hang, Wire::Hang)] {
        world.set_outage(Some(outage));
        assert_eq!(world.handle(&classic_request(), s(0)).wire, expected);
    }
    world.set_outage(Some(Outage::Status(503)));
    assert_eq!(answer(world.handle(&classic_request(), s(0)).wire).status, 503);
    world.set_outage(None);
    assert_eq!(errcode(&mut world, &classic_request(), s(0)), 0);
    assert_eq!(truth(&world, s(0)).counters.token_calls, 1);
}

#[test]
fn error_40164_names_the_ip_that_wechat_saw() {
    let mut world = world(Switches::default());
    world.inject(None, Fault::errcode(40164));
    let seen = json(&mut world, &classic_request(), s(0));
    let text = seen["errmsg"].as_str().unwrap();
    assert!(text.starts_with("invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist"), "{text}");
}

#[test]
fn every_error_has_a_rid_that_begins_with_the_time_and_words_it_in_varying_ways() {
    let mut world = world(Switches::default());
    let mut shapes = std::collections::BTreeSet::new();
    for at in 0..60 {
        let request = get("/cgi-bin/get_api_domain_ip", &[("access_token", "x")]);
        let answer = answer(world.handle(&request, s(at)).wire);
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        let (text, rid) = value["errmsg"].as_str().unwrap().split_once("rid: ").unwrap();
        assert_eq!(u64::from_str_radix(&rid[..8], 16).unwrap(), 1_790_000_000 + at);
        let groups: Vec<usize> = rid.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 8, 8]);
        let (text, hint) =
            text.split_once(" hint: [").map_or((text, None), |(text, hint)| (text, Some(hint)));
        assert!(hint.is_none_or(|hint| hint.len() == 16 && hint.ends_with("] ")), "{hint:?}");
        let content_type = answer.header("content-type").unwrap().to_owned();
        shapes.insert((content_type, text.to_owned(), hint.is_some()));
        assert_eq!(answer.header("logicret"), Some("40001"));
    }
    assert_eq!(shapes.len(), 6, "two content types by three wordings");
}
