//! The two calls that mint.

use super::*;

#[test]
fn each_classic_call_mints_and_the_previous_token_lives_the_overlap() {
    let mut world = world(Switches::default());
    let (first, expires_in) = token(&mut world, &classic_request(), s(0));
    assert_eq!(expires_in, 7200);
    let second = classic(&mut world, s(1000));
    assert_ne!(first, second);
    assert_eq!([check(&mut world, &first, s(1299)), check(&mut world, &second, s(1299))], [0, 0]);
    assert_eq!([check(&mut world, &first, s(1300)), check(&mut world, &second, s(8199))], [40001, 0]);
    assert_eq!(check(&mut world, &second, s(8200)), 42001, "expired, not invalidated");
}

#[test]
fn a_second_mint_kills_the_token_before_the_previous_only_where_the_switch_says_so() {
    for (second_mint_kills_first, expected) in [(false, 0), (true, 40001)] {
        let mut world = world(Switches { second_mint_kills_first, ..Switches::default() });
        let first = classic(&mut world, s(0));
        let second = classic(&mut world, s(10));
        classic(&mut world, s(20));
        assert_eq!(check(&mut world, &first, s(20)), expected);
        assert_eq!(check(&mut world, &second, s(319)), 0);
        assert_eq!(check(&mut world, &first, s(310)), 40001, "its own overlap is over");
    }
}

#[test]
fn a_previous_token_does_not_outlive_what_it_was_promised() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    classic(&mut world, s(7100));
    assert_eq!(check(&mut world, &first, s(7200)), 42001);
}

#[test]
fn stable_token_repeats_the_token_with_its_remaining_seconds_until_the_last_overlap() {
    let mut world = world(Switches::default());
    let request = stable_request(STABLE);
    let (first, _) = token(&mut world, &request, s(0));
    assert_eq!(token(&mut world, &request, s(6855)), (first.clone(), 345));
    assert_eq!(token(&mut world, &request, s(6900)), (first.clone(), 300));
    let (second, expires_in) = token(&mut world, &request, s(6901));
    assert!(second != first && expires_in == 7200);
    assert_eq!([check(&mut world, &first, s(7199)), check(&mut world, &second, s(7199))], [0, 0]);
    assert_eq!(check(&mut world, &first, s(7200)), 42001);
    assert_eq!(truth(&world, s(7200)).counters.stable_token_mints, 2);
}

#[test]
fn no_stable_answer_has_less_than_the_overlap() {
    let mut world = world(Switches::default());
    for at in (0..20_000).step_by(37) {
        let (value, expires_in) = token(&mut world, &stable_request(STABLE), s(at));
        assert!(expires_in >= 300 && world.is_alive(&value, s(at)), "{expires_in} at {at}");
    }
}

#[test]
fn the_endpoints_do_not_touch_each_others_tokens() {
    let mut world = world(Switches { forced_kills_at_once: true, ..Switches::default() });
    let minted = classic(&mut world, s(0));
    let (stable, _) = token(&mut world, &stable_request(STABLE), s(0));
    classic(&mut world, s(1));
    assert_eq!(token(&mut world, &stable_request(STABLE), s(400)).0, stable);
    let kept = classic(&mut world, s(401));
    token(&mut world, &stable_request(FORCED), s(402));
    assert_eq!([check(&mut world, &minted, s(402)), check(&mut world, &kept, s(7600))], [40001, 0]);
}

#[test]
fn a_forced_refresh_leaves_the_previous_token_at_most_the_overlap() {
    for (forced_kills_at_once, expected) in [(false, 0), (true, 40001)] {
        let mut world = world(Switches { forced_kills_at_once, ..Switches::default() });
        let (first, _) = token(&mut world, &stable_request(STABLE), s(0));
        let (second, _) = token(&mut world, &stable_request(FORCED), s(100));
        assert_ne!(first, second);
        assert_eq!(check(&mut world, &first, s(399)), expected);
        assert_eq!([check(&mut world, &first, s(400)), check(&mut world, &second, s(400))], [40001, 0]);
    }
}

#[test]
fn two_forced_refreshes_end_a_leaked_token_at_once() {
    let mut world = world(Switches::default());
    let (leaked, _) = token(&mut world, &stable_request(STABLE), s(0));
    let (second, _) = token(&mut world, &stable_request(FORCED), s(100));
    token(&mut world, &stable_request(FORCED), s(130));
    assert_eq!([check(&mut world, &leaked, s(130)), check(&mut world, &second, s(130))], [40001, 0]);
}

#[test]
fn forced_refreshes_are_30_s_apart_and_20_a_day_else_the_same_token_comes_back() {
    let mut world = world(Switches::default());
    let force = |world: &mut World, at| token(world, &stable_request(FORCED), s(at)).0;
    let first = force(&mut world, 0);
    assert_eq!(force(&mut world, 29), first);
    let mut newest = force(&mut world, 30);
    assert_ne!(newest, first);
    for n in 2..20 {
        let next = force(&mut world, n * 30);
        assert_ne!(next, newest, "{n}");
        newest = next;
    }
    assert_eq!(force(&mut world, 600), newest, "the 21st of the day");
    assert_eq!(truth(&world, s(600)).counters.forced_mints, 20);
    // The start is 14:13:20 UTC, the next day begins at 16:00 UTC.
    assert_ne!(force(&mut world, 6400), newest);
}

#[test]
fn the_daily_limit_holds_until_the_day_ends() {
    // The start is 14:13:20 UTC.
    for (day_begins_at_s, next_day) in [(16 * 3600, 6400), (15 * 3600, 2800), (0, 35_200)] {
        let mut world = world(Switches { daily_limit: 3, day_begins_at_s, ..Switches::default() });
        let mut codes =
            |at| (0..4).map(|_| errcode(&mut world, &classic_request(), s(at))).collect::<Vec<_>>();
        assert_eq!(codes(0), [0, 0, 0, 45009]);
        assert_eq!(codes(next_day - 1), [45009; 4]);
        assert_eq!(codes(next_day), [0, 0, 0, 45009]);
        assert_eq!(truth(&world, s(0)).counters.token_mints, 6);
    }
}

#[test]
fn failed_calls_count_only_where_the_switch_says_so() {
    let wrong =
        get("/cgi-bin/token", &[("grant_type", "client_credential"), ("appid", APPID), ("secret", "no")]);
    for (failed_calls_count, expected) in [(false, 0), (true, 45009)] {
        let mut world = world(Switches { failed_calls_count, daily_limit: 2, ..Switches::default() });
        assert_eq!([errcode(&mut world, &wrong, s(0)), errcode(&mut world, &wrong, s(0))], [40125, 40125]);
        assert_eq!(errcode(&mut world, &classic_request(), s(0)), expected);
    }
}

#[test]
fn stable_token_has_a_minute_limit_and_a_daily_limit() {
    let switches = Switches { minute_limit: 2, stable_daily_limit: 3, ..Switches::default() };
    let mut world = world(switches);
    let codes: Vec<i64> =
        [0, 1, 2, 50, 51].map(|at| errcode(&mut world, &stable_request(STABLE), s(at))).into();
    // The start is 20 s into a minute.
    assert_eq!(codes, [0, 0, 45011, 0, 45009]);
}

#[test]
fn every_wrong_request_gets_its_code() {
    let classic = |query: &[(&str, &str)]| get("/cgi-bin/token", query);
    let grant = ("grant_type", "client_credential");
    let table = [
        (40002, classic(&[("appid", APPID), ("secret", "s3")])),
        (40002, classic(&[("grant_type", "password"), ("appid", APPID), ("secret", "s3")])),
        (41002, classic(&[grant, ("secret", "s3")])),
        (41002, classic(&[grant, ("appid", ""), ("secret", "s3")])),
        (40013, classic(&[grant, ("appid", "wx1"), ("secret", "s3")])),
        (41004, classic(&[grant, ("appid", APPID)])),
        (40125, classic(&[grant, ("appid", APPID), ("secret", "S3")])),
        (40013, classic(&[("appid", "wx1"), ("secret", "s3")])),
        (41002, classic(&[])),
        (
            43001,
            Request { method: "PUT".to_owned(), ..classic(&[grant, ("appid", APPID), ("secret", "s3")]) },
        ),
        (
            40125,
            post("/cgi-bin/token", &[], &format!("grant_type=client_credential&appid={APPID}&secret=no")),
        ),
        (43002, get("/cgi-bin/stable_token", &[])),
        (41002, stable_request("")),
        (41002, post("/cgi-bin/stable_token", &[grant, ("appid", APPID), ("secret", "s3")], "")),
        (41002, stable_request(&format!("grant_type=client_credential&appid={APPID}&secret=s3"))),
        (47001, stable_request("{")),
        (41002, stable_request("{}")),
        (41002, stable_request(r#"{"secret":"s3"}"#)),
        (47001, stable_request("[]")),
        (47001, stable_request(r#"{"grant_type":"client_credential","appid":7,"secret":"s3"}"#)),
        (47001, stable_request(&FORCED.replace("true", "\"yes\""))),
        (40002, stable_request(r#"{"appid":"wx0123456789abcdef","secret":"s3"}"#)),
        (41002, stable_request(r#"{"grant_type":"client_credential","secret":"s3"}"#)),
        (40013, stable_request(&STABLE.replace("wx01", "wx02"))),
        (41004, stable_request(r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef"}"#)),
        (40125, stable_request(&STABLE.replace("s3", "s4"))),
    ];
    let mut world = world(Switches::default());
    for (code, request) in table {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert_eq!(errcode(&mut world, &request, s(0)), code, "{request:?} {:?} {body}", request.query);
    }
    let counters = truth(&world, s(0)).counters;
    assert_eq!((counters.token_mints, counters.stable_token_mints), (0, 0));
}

#[test]
fn a_post_without_content_length_gets_412_and_nothing_else() {
    let mut world = world(Switches::default());
    let chunked = Request { content_length: None, ..stable_request(STABLE) };
    let answer = answer(world.handle(&chunked, s(0)).wire);
    assert_eq!((answer.status, answer.body.len()), (412, 0));
    assert_eq!(truth(&world, s(0)).counters.stable_token_mints, 0);
}

#[test]
fn tokens_are_long_and_opaque_and_need_url_encoding_only_where_the_switch_says_so() {
    for (long_tokens, hostile_tokens, lengths) in [(false, false, 136..=512), (true, true, 513..=1024)] {
        let mut world = world(Switches { long_tokens, hostile_tokens, ..Switches::default() });
        let mut values: Vec<String> = (0..50).map(|at| classic(&mut world, s(at))).collect();
        assert!(values.iter().all(|token| lengths.contains(&token.len())));
        let query = [("access_token", values[49].as_str()), ("type", "jsapi")];
        let ticket = json(&mut world, &get("/cgi-bin/ticket/getticket", &query), s(50));
        values.push(ticket["ticket"].as_str().unwrap().to_owned());
        let all = values.concat();
        for hostile in ['+', '/', '='] {
            assert_eq!(all.contains(hostile), hostile_tokens, "{hostile}");
        }
        let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        assert!(hostile_tokens || all.chars().all(is_safe));
    }
}

#[test]
fn a_dead_stable_token_comes_back_in_normal_mode_until_its_last_overlap_unless_the_switch_replaces_it() {
    for dead_stable_replaced in [false, true] {
        let mut world = world(Switches { dead_stable_replaced, ..Switches::default() });
        let request = stable_request(STABLE);
        let (first, _) = token(&mut world, &request, s(0));
        world.kill_tokens(&appid(), s(100));
        let (again, expires_in) = token(&mut world, &request, s(101));
        assert_eq!((again != first, expires_in == 7200), (dead_stable_replaced, dead_stable_replaced));
        if !dead_stable_replaced {
            assert_eq!(expires_in, 7099);
            assert_eq!(check(&mut world, &again, s(102)), 40001);
            let (forced, _) = token(&mut world, &stable_request(FORCED), s(103));
            assert_eq!(check(&mut world, &forced, s(103)), 0);
            assert_eq!(token(&mut world, &request, s(104)).0, forced);
            world.kill_tokens(&appid(), s(200));
            assert_eq!(token(&mut world, &request, s(103 + 6900)).0, forced);
            assert_ne!(token(&mut world, &request, s(103 + 6901)).0, forced);
        }
    }
}

#[test]
fn a_form_mints_on_the_classic_call() {
    let mut world = world(Switches::default());
    let form = format!("grant_type=client_credential&appid={APPID}&secret=s3");
    let (minted, _) = token(&mut world, &post("/cgi-bin/token", &[], &form), s(0));
    assert_eq!(check(&mut world, &minted, s(0)), 0);
}

#[test]
fn a_frozen_secret_gets_no_token_from_ten_minutes_later_on_and_its_tokens_live_on() {
    let mut world = world(Switches::default());
    let minted = classic(&mut world, s(0));
    world.set_frozen(&appid(), true, s(10));
    assert_eq!(errcode(&mut world, &stable_request(STABLE), s(609)), 0);
    assert_eq!(errcode(&mut world, &stable_request(STABLE), s(610)), 40243);
    assert_eq!(errcode(&mut world, &classic_request(), s(610)), 40243);
    assert_eq!((truth(&world, s(610)).frozen, check(&mut world, &minted, s(610))), (true, 0));
    world.set_frozen(&appid(), false, s(700));
    assert_eq!(errcode(&mut world, &classic_request(), s(1299)), 40243);
    assert_eq!(errcode(&mut world, &classic_request(), s(1300)), 0);
    world.set_switches(Switches { freezing_takes: s(0), ..Switches::default() });
    world.set_frozen(&appid(), true, s(1400));
    assert_eq!(errcode(&mut world, &classic_request(), s(1400)), 40243);
}

#[test]
fn a_whitelist_refuses_other_addresses_with_the_appsecret_and_unless_a_mini_programs_with_a_token() {
    let list = |text: &str| Some(serde_json::from_str(text).unwrap());
    let mut world = world(Switches::default());
    let minted = classic(&mut world, s(0));
    let stable = Request { source_ip: [10, 1, 2, 3].into(), ..stable_request(STABLE) };
    world.set_whitelist(&appid(), list(r#"{"ips":["10.0.0.0/8"]}"#));
    assert_eq!(
        (errcode(&mut world, &classic_request(), s(0)), errcode(&mut world, &stable, s(0))),
        (40164, 0)
    );
    let user = get("/cgi-bin/user/get", &[("access_token", &minted)]);
    let refused = json(&mut world, &user, s(0));
    assert_eq!(refused["errcode"], 61004);
    let text = refused["errmsg"].as_str().unwrap();
    assert!(text.starts_with("access clientip is not registered requestIP: 1.2.3.4"), "{text}");
    assert_eq!(check(&mut world, &minted, s(0)), 61004);
    assert_eq!(errcode(&mut world, &Request { source_ip: [10, 9, 9, 9].into(), ..user.clone() }, s(0)), 0);
    world.set_whitelist(&appid(), list(r#"{"ips":[],"calls":"appsecret"}"#));
    assert_eq!((errcode(&mut world, &user, s(0)), errcode(&mut world, &stable, s(0))), (0, 40164));
    world.set_whitelist(&appid(), None);
    assert_eq!(errcode(&mut world, &stable, s(0)), 0);
}

#[test]
fn a_changed_secret_is_wanted_from_then_on_and_an_added_account_works() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    world.put_account(&appid(), Secret::new("s5"));
    assert_eq!(errcode(&mut world, &classic_request(), s(1)), 40125);
    assert_eq!(check(&mut world, &first, s(1)), 0);
    world.put_account(&Appid::new("wx02").unwrap(), Secret::new("s6"));
    let query = [("grant_type", "client_credential"), ("appid", "wx02"), ("secret", "s6")];
    assert_eq!(errcode(&mut world, &get("/cgi-bin/token", &query), s(1)), 0);
}

#[test]
fn the_dead_are_forgotten_a_lifetime_later() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    classic(&mut world, s(7000));
    assert_eq!(check(&mut world, &first, s(14_000)), 42001);
    classic(&mut world, s(14_401));
    assert!(world.token_truth(&first).is_none());
    assert_eq!(check(&mut world, &first, s(14_401)), 40001);
}
