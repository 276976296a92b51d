//! Logins of users.

use super::*;

fn session(code: &str) -> Request {
    let query = [("appid", APPID), ("secret", "s3"), ("js_code", code), ("grant_type", "authorization_code")];
    get("/sns/jscode2session", &query)
}

fn oauth(world: &mut World, code: &str, now: Duration) -> Value {
    let query = [("appid", APPID), ("secret", "s3"), ("code", code), ("grant_type", "authorization_code")];
    json(world, &get("/sns/oauth2/access_token", &query), now)
}

/// A call with the user's own token.
fn as_user(path: &str, granted: &Value, openid: &str) -> Request {
    get(path, &[("access_token", granted["access_token"].as_str().unwrap()), ("openid", openid)])
}

#[test]
fn logins_go_by_the_appsecret_and_find_no_user() {
    let mut world = world(Switches::default());
    let login =
        |secret| get("/sns/jscode2session", &[("appid", APPID), ("secret", secret), ("js_code", "x")]);
    assert_eq!(
        (errcode(&mut world, &login("s3"), s(0)), errcode(&mut world, &login("no"), s(0))),
        (40029, 40125)
    );
    let minted = classic(&mut world, s(0));
    let seen = json(&mut world, &get("/sns/userinfo", &[("access_token", &minted)]), s(0));
    assert_eq!(seen["errcode"], 40001);
    assert!(!seen["errmsg"].as_str().unwrap().contains("getStableAccessToken"), "{seen}");
}

#[test]
fn a_code_is_good_once_and_names_its_user() {
    let mut world = world(Switches::default());
    let first = json(&mut world, &session("code-ann-1"), s(0));
    assert_eq!(first["session_key"].as_str().unwrap().len(), 24, "{first}");
    assert_eq!(errcode(&mut world, &session("code-ann-1"), s(0)), 40163);
    let again = json(&mut world, &session("code-ann-2"), s(0));
    assert!(first["openid"] == again["openid"] && first["session_key"] != again["session_key"]);
    let bob = json(&mut world, &session("code-bob"), s(0));
    assert!(bob["openid"] != first["openid"] && bob["unionid"] != first["unionid"]);
    // Elsewhere the same user has another openid, and the code has not been used.
    let query = [("appid", "other"), ("secret", "s4"), ("js_code", "code-ann-1")];
    let elsewhere = json(&mut world, &get("/sns/jscode2session", &query), s(0));
    assert!(
        elsewhere["openid"] != first["openid"] && elsewhere["unionid"] == first["unionid"],
        "{elsewhere}"
    );
    for (code, expected) in [("code-", 40029), ("ann", 40029), ("", 41008)] {
        assert_eq!(errcode(&mut world, &session(code), s(0)), expected, "{code}");
    }
}

#[test]
fn a_wrong_appid_secret_or_grant_uses_no_code_up() {
    let mut world = world(Switches::default());
    for (key, value, expected) in
        [("appid", "wx99", 40013), ("secret", "no", 40125), ("grant_type", "client_credential", 40002)]
    {
        let mut wrong = session("code-ann");
        wrong.query.iter_mut().filter(|(name, _)| name == key).for_each(|pair| pair.1 = value.to_owned());
        assert_eq!(errcode(&mut world, &wrong, s(0)), expected, "{key}");
    }
    assert_eq!(errcode(&mut world, &session("code-ann"), s(0)), 0);
}

#[test]
fn a_users_token_shows_the_user_until_it_ends_and_can_be_renewed_for_a_month() {
    let mut world = world(Switches::default());
    let granted = oauth(&mut world, "code-ann", s(0));
    assert_eq!((&granted["expires_in"], &granted["scope"]), (&7200.into(), &"snsapi_userinfo".into()));
    let openid = granted["openid"].as_str().unwrap().to_owned();
    let info = json(&mut world, &as_user("/sns/userinfo", &granted, &openid), s(7199));
    assert_eq!((&info["nickname"], &info["openid"]), (&"ann".into(), &granted["openid"]));
    assert_eq!(errcode(&mut world, &as_user("/sns/auth", &granted, &openid), s(7199)), 0);
    assert_eq!(errcode(&mut world, &as_user("/sns/auth", &granted, "o1"), s(7199)), 40003);
    assert_eq!(errcode(&mut world, &as_user("/sns/auth", &granted, &openid), s(7200)), 42001);
    let renew = |appid: &str| {
        let token = granted["refresh_token"].as_str().unwrap();
        let query = [("appid", appid), ("grant_type", "refresh_token"), ("refresh_token", token)];
        get("/sns/oauth2/refresh_token", &query)
    };
    assert_eq!(errcode(&mut world, &renew("other"), s(7200)), 40030);
    let renewed = json(&mut world, &renew(APPID), s(7200));
    assert_eq!(renewed["refresh_token"], granted["refresh_token"]);
    assert_eq!(errcode(&mut world, &as_user("/sns/userinfo", &renewed, &openid), s(7201)), 0);
    assert_eq!(errcode(&mut world, &renew(APPID), s(30 * 86_400)), 42002);
}

#[test]
fn a_users_token_is_no_token_of_the_account() {
    let mut world = world(Switches::default());
    let granted = oauth(&mut world, "code-ann", s(0));
    assert_eq!(check(&mut world, granted["access_token"].as_str().unwrap(), s(0)), 40001);
}
