//! The calls that use a token, and those about quotas.

use super::*;

fn ticket(world: &mut World, access_token: &str, kind: &str, now: Duration) -> Value {
    json(world, &get("/cgi-bin/ticket/getticket", &[("access_token", access_token), ("type", kind)]), now)
}

#[test]
fn a_check_lists_addresses_for_a_living_token_and_says_what_is_wrong_with_another() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    let seen = json(&mut world, &get("/cgi-bin/get_api_domain_ip", &[("access_token", &first)]), s(0));
    assert!(seen["ip_list"].as_array().is_some_and(|list| !list.is_empty()), "{seen}");
    assert_eq!(check(&mut world, "", s(0)), 41001);
    assert_eq!(check(&mut world, "garbage", s(0)), 40001);
    assert_eq!(check(&mut world, "a plus that was not encoded", s(0)), 40014);
    world.kill_tokens(&appid(), s(1));
    assert_eq!(check(&mut world, &first, s(1)), 40001);
    let counters = truth(&world, s(1)).counters;
    assert_eq!((counters.checks, counters.checks_refused, world.strangers_refused()), (2, 1, 2));
}

#[test]
fn business_calls_are_counted_and_so_are_the_refused() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    let query = [("access_token", first.as_str())];
    assert_eq!(
        json(&mut world, &get("/cgi-bin/comment/list", &query), s(0)),
        serde_json::json!({"errcode": 0, "errmsg": "ok"})
    );
    assert_eq!(errcode(&mut world, &post("//cgi-bin/message/send", &query, "{}"), s(0)), 0);
    assert_eq!(errcode(&mut world, &get("/cgi-bin/user/get", &query), s(7200)), 42001);
    let counters = truth(&world, s(0)).counters;
    assert_eq!((counters.business_calls, counters.business_refused), (3, 1));
}

#[test]
fn wechat_says_which_paths_it_does_not_have_and_has_some_outside_cgi_bin() {
    let mut world = world(Switches::default());
    let minted = classic(&mut world, s(0));
    for path in ["/", "/cgi-bin", "/token", "/wx/x"] {
        assert_eq!(answer(world.handle(&get(path, &[]), s(0)).wire).status, 404, "{path}");
    }
    let query = [("access_token", minted.as_str())];
    for path in ["/cgi-bin/", "/cgi-bin/nonsense", "//cgi-bin/no/such/call", "/cgi-bin/token/x"] {
        let seen = json(&mut world, &get(path, &query), s(0));
        assert_eq!(seen["errcode"], 40066, "{path}");
        assert!(seen["errmsg"].as_str().unwrap().starts_with("invalid url"), "{seen}");
    }
    for path in ["/wxa/msg_sec_check", "/datacube/getusersummary", "/card/get", "/cgi-bin/menu/get"] {
        assert_eq!(errcode(&mut world, &post(path, &query, "{}"), s(0)), 0, "{path}");
        assert_eq!(errcode(&mut world, &post(path, &[], "{}"), s(0)), 41001, "{path}");
    }
    let addresses = json(&mut world, &get("/cgi-bin/getcallbackip", &query), s(0));
    assert!(addresses["ip_list"].as_array().is_some_and(|list| !list.is_empty()), "{addresses}");
}

#[test]
fn tickets_outlive_their_promise_unchanged_where_the_switch_says_so() {
    let mut world = world(Switches { tickets_outlive: s(3600), ..Switches::default() });
    let first = classic(&mut world, s(0));
    let seen = ticket(&mut world, &first, "jsapi", s(0));
    let second = classic(&mut world, s(7000));
    assert_eq!(ticket(&mut world, &second, "jsapi", s(10_799)), seen);
    assert_eq!(truth(&world, s(10_799)).living_tickets.len(), 1);
    assert_ne!(ticket(&mut world, &second, "jsapi", s(10_800))["ticket"], seen["ticket"]);
}

#[test]
fn a_ticket_comes_back_the_same_with_a_whole_lifetime_and_survives_its_token() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    let seen = ticket(&mut world, &first, "jsapi", s(0));
    assert_eq!((&seen["errcode"], &seen["expires_in"]), (&Value::from(0), &Value::from(7200)));
    assert_ne!(ticket(&mut world, &first, "wx_card", s(0))["ticket"], seen["ticket"]);
    let second = classic(&mut world, s(7100));
    assert_eq!(ticket(&mut world, &second, "jsapi", s(7199)), seen);
    assert_eq!(ticket(&mut world, &first, "jsapi", s(7200))["errcode"], 42001, "it needs a living token");
    assert_ne!(ticket(&mut world, &second, "jsapi", s(7200))["ticket"], seen["ticket"]);
    assert_eq!(ticket(&mut world, &second, "wedding", s(7200))["errcode"], 40097);
    let form = format!("access_token={second}&type=jsapi");
    assert_eq!(errcode(&mut world, &post("/cgi-bin/ticket/getticket", &[], &form), s(7200)), 0);
    assert_eq!(truth(&world, s(7200)).counters.ticket_mints, 3);
}

#[test]
fn clearing_the_quota_frees_the_day_ten_times_a_month() {
    let mut world = world(Switches { daily_limit: 1, ..Switches::default() });
    let clear = post("/cgi-bin/clear_quota/v2", &[("appid", APPID), ("appsecret", "s3")], "");
    for _ in 0..10 {
        assert_eq!(errcode(&mut world, &classic_request(), s(0)), 0);
        assert_eq!(errcode(&mut world, &classic_request(), s(0)), 45009);
        assert_eq!(errcode(&mut world, &clear, s(0)), 0);
    }
    assert_eq!(errcode(&mut world, &clear, s(0)), 48006);
    // The start is in September 2026 in China; October begins 9 days, 1 h, 46 min and 40 s later.
    let october = 9 * 86_400 + 6400;
    assert_eq!(errcode(&mut world, &clear, s(october - 1)), 48006);
    assert_eq!(errcode(&mut world, &clear, s(october)), 0);
    let wrong = post("/cgi-bin/clear_quota/v2", &[("appid", APPID), ("appsecret", "no")], "");
    assert_eq!(errcode(&mut world, &wrong, s(0)), 40125);
    assert_eq!(errcode(&mut world, &Request { method: "GET".to_owned(), ..wrong }, s(0)), 43002);
    assert_eq!(truth(&world, s(0)).counters.quota_calls, 15);
    let in_body = |body: String| post("/cgi-bin/clear_quota/v2", &[], &body);
    let november = october + 31 * 86_400;
    let json_body = in_body(format!(r#"{{"appid":"{APPID}","appsecret":"s3"}}"#));
    assert_eq!(errcode(&mut world, &json_body, s(november)), 0);
    assert_eq!(errcode(&mut world, &in_body(format!("appid={APPID}&appsecret=s3")), s(november)), 0);
    assert_eq!(errcode(&mut world, &in_body(String::new()), s(november)), 41002);
    assert_eq!(errcode(&mut world, &in_body(r#"{"appid":"wx9"}"#.to_owned()), s(november)), 40013);
}

#[test]
fn a_quota_is_cleared_by_its_own_accounts_token_alone() {
    let mut world = world(Switches { daily_limit: 1, ..Switches::default() });
    let minted = classic(&mut world, s(0));
    let clear = |world: &mut World, body: &str| {
        errcode(world, &post("/cgi-bin/clear_quota", &[("access_token", &minted)], body), s(0))
    };
    assert_eq!(clear(&mut world, r#"{"appid":"other"}"#), 40013);
    assert_eq!([clear(&mut world, ""), clear(&mut world, "{}")], [44002, 41002]);
    assert_eq!(errcode(&mut world, &classic_request(), s(0)), 45009);
    assert_eq!(clear(&mut world, &format!(r#"{{"appid":"{APPID}"}}"#)), 0);
    assert_eq!(errcode(&mut world, &classic_request(), s(0)), 0);
}

#[test]
fn the_quota_of_both_token_calls_can_be_read() {
    let mut world = world(Switches::default());
    let first = classic(&mut world, s(0));
    token(&mut world, &stable_request(STABLE), s(0));
    let mut read = |body: &str| {
        let request = post("/cgi-bin/openapi/quota/get", &[("access_token", &first)], body);
        json(&mut world, &request, s(1))
    };
    let seen = read(r#"{"cgi_path":"/cgi-bin/token"}"#);
    assert_eq!(seen["quota"], serde_json::json!({"daily_limit": 2000, "used": 1, "remain": 1999}));
    assert_eq!(seen.get("rate_limit"), None);
    let seen = read(r#"{"cgi_path":"/cgi-bin/stable_token"}"#);
    assert_eq!(seen["quota"]["used"], 1);
    assert_eq!(seen["rate_limit"], serde_json::json!({"call_count": 10_000, "refresh_second": 60}));
    assert_eq!([&read("")["errcode"], &read("x")["errcode"], &read("{}")["errcode"]], [44002, 47001, 76021]);
    assert_eq!(read(r#"{"cgi_path":"cgi-bin/token"}"#)["errcode"], 76003);
    assert_eq!(read(r#"{"cgi_path":"/cgi-bin/nonsense"}"#)["errcode"], 76021);
    assert_eq!(read(r#"{"cgi_path":"/cgi-bin/menu/get"}"#)["errcode"], 0);
}

#[test]
fn calls_beyond_a_limit_are_refused_until_the_day_ends_or_the_quota_is_cleared() {
    let mut world = world(Switches { day_begins_at_s: 0, ..Switches::default() });
    let limit = |path: &str, per_day| CallLimit { path: path.to_owned(), per_day };
    world.limit_calls(None, limit("/cgi-bin/*", 3));
    world.limit_calls(Some(&appid()), limit("/cgi-bin/user/get", 1));
    let minted = classic(&mut world, s(0));
    let call = |world: &mut World, path: &str, at| {
        let token = if at < s(7200) { minted.clone() } else { classic(world, at) };
        errcode(world, &get(path, &[("access_token", &token)]), at)
    };
    // A call that is refused counts for no limit, and nobody else's does.
    let seen = ["user/get", "user/get", "user/info", "get_api_domain_ip", "menu/get"]
        .map(|path| call(&mut world, &format!("//cgi-bin/{path}"), s(1)));
    assert_eq!(seen, [0, 45009, 0, 0, 45009]);
    assert_eq!(call(&mut world, "/wxa/x", s(1)), 0);
    let query = [("access_token", minted.as_str())];
    let asked = post("/cgi-bin/openapi/quota/get", &query, r#"{"cgi_path":"/cgi-bin/menu/get"}"#);
    let quota = json(&mut world, &asked, s(1))["quota"].clone();
    assert_eq!(quota, serde_json::json!({"daily_limit": 3, "used": 3, "remain": 0}));
    let cleared = post("/cgi-bin/clear_quota", &query, &format!(r#"{{"appid":"{APPID}"}}"#));
    assert_eq!(errcode(&mut world, &cleared, s(2)), 0);
    assert_eq!(
        ["user/get", "user/get"].map(|path| call(&mut world, &format!("/cgi-bin/{path}"), s(2))),
        [0, 45009]
    );
    // The sandbox starts at 14:13:20.
    let midnight = 24 * 3600 - (14 * 3600 + 13 * 60 + 20);
    let until = |world: &mut World, at| call(world, "/cgi-bin/user/get", at);
    assert_eq!((until(&mut world, s(midnight - 1)), until(&mut world, s(midnight))), (45009, 0));
    world.clear_used(None);
    assert_eq!((until(&mut world, s(midnight)), until(&mut world, s(midnight))), (0, 45009));
    world.clear_limits(Some(&appid()));
    assert_eq!(until(&mut world, s(midnight)), 0);
}
