//! WeChat's calls, answered as WeChat answers them.

use super::*;

const BOTH: [&str; 2] = ["/cgi-bin/token", "/cgi-bin/stable_token"];

impl Rig {
    /// Asks for the token of `appid` at `path` as an SDK does.
    async fn sdk(&self, path: &str, appid: &str, secret: &str) -> Answer {
        if path.ends_with("stable_token") {
            return self.stable(path, appid, secret, false).await;
        }
        self.get(&format!("{path}?grant_type=client_credential&appid={appid}&secret={secret}")).await
    }

    async fn stable(&self, path: &str, appid: &str, secret: &str, force: bool) -> Answer {
        let body = serde_json::json!({
            "grant_type": "client_credential", "appid": appid, "secret": secret, "force_refresh": force,
        });
        // Some SDKs send no content type, or a form's.
        self.call("POST", path, &[("content-type", "application/x-www-form-urlencoded")], &body.to_string())
            .await
    }
}

#[track_caller]
fn is_refused(rig: &Rig, answer: &Answer, errcode: i64) {
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
    let json = answer.json();
    assert_eq!(json["errcode"], errcode, "{answer:?}");
    assert!(json["errmsg"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
    assert!(json.get("access_token").is_none() && !rig.leaks(&answer.body), "{answer:?}");
}

#[tokio::test]
async fn an_sdk_gets_the_token_that_there_is_and_what_it_may_count_on() {
    let rig =
        Rig::start(TestApi { clients: vec![client("crm-key", &["wx1"], READ)], ..TestApi::default() }).await;
    let token = rig.fleet.token("wx1").await.unwrap();
    let before = rig.sandbox.counters(&id("wx1"));
    for path in BOTH {
        let answer = rig.sdk(path, "wx1", "crm-key").await;
        let json = answer.json();
        assert_eq!(json["access_token"], token.access_token(), "{answer:?}");
        let promised = json["expires_in"].as_u64().unwrap();
        assert!((7000..7200).contains(&promised) && json["expires_in"].is_u64(), "{answer:?}");
        assert_eq!(json.as_object().unwrap().len(), 2, "nothing else: {answer:?}");
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    }
    assert_eq!(rig.sandbox.counters(&id("wx1")), before, "nobody has asked WeChat");
}

#[tokio::test]
async fn refusals_are_worded_and_numbered_as_wechats() {
    let clients = vec![client("crm", &["wx1", "wx9"], READ), client("ops", &["*"], ADMIN)];
    let faults = vec![("wx2", Fault::errcode(40164))];
    let rig = Rig::start(TestApi { clients, faults, ..TestApi::default() }).await;
    rig.clients.set(vec![
        client("crm", &["wx1", "wx9"], READ),
        client("ops", &["*"], ADMIN),
        client("all", &["*"], READ),
    ]);
    for path in BOTH {
        for (appid, key, errcode) in [
            ("wx1", "wrong", 40125),
            ("wx9", "wrong", 40125),
            ("wx9", "crm", 40013),
            ("no%2Fappid", "all", 40013),
            ("wx2", "crm", 48001),
            ("wx7", "crm", 48001),
            ("wx1", "ops", 48001),
            ("wx1", "", 41004),
            ("", "crm", 41002),
            ("wx2", "all", -1),
        ] {
            let answer = rig.sdk(path, appid, key).await;
            is_refused(&rig, &answer, errcode);
            if errcode == -1 {
                assert!(answer.body.contains("whitelist"), "it says what to do: {answer:?}");
            }
        }
    }
    for (answer, errcode) in [
        (rig.get("/cgi-bin/token?grant_type=refresh&appid=wx1&secret=crm").await, 40002),
        (rig.get("/cgi-bin/token").await, 41002),
        (rig.get("/cgi-bin/token?appid=wx1").await, 40002),
        (rig.post("/cgi-bin/token").await, 41002),
        (
            rig.call("PUT", "/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=crm", &[], "")
                .await,
            43001,
        ),
        (rig.call("DELETE", "/cgi-bin/ticket/getticket", &[], "").await, 43001),
        (rig.get("/cgi-bin/stable_token").await, 43002),
        (rig.call("POST", "/cgi-bin/stable_token", &[], "{}").await, 41002),
        (rig.call("POST", "/cgi-bin/stable_token", &[], "{\"appid\":\"wx1\"}").await, 40002),
    ] {
        is_refused(&rig, &answer, errcode);
    }
    rig.stop.cancel();
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_wechats_form_however_it_comes() {
    let rig = Rig::start(TestApi { wechat_path: "/wx".to_owned(), ..TestApi::default() }).await;
    let long = "x".repeat(64 * 1024 + 1);
    for path in BOTH.iter().flat_map(|path| [(*path).to_owned(), format!("/{path}"), format!("/wx{path}")]) {
        let method = if path.ends_with("stable_token") { "POST" } else { "GET" };
        is_refused(&rig, &rig.call(method, &path, &[], &long).await, 47001);
    }
    let head = "POST /cgi-bin/stable_token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{head}10001\r\n{long}\r\n0\r\n\r\n");
    is_refused(&rig, &raw_answer(rig.address, &chunked).await, 47001);
}

#[tokio::test]
async fn a_forced_refresh_is_a_report_that_is_looked_into() {
    let may = Allow { read: true, ..REFRESH };
    let clients = vec![client("both", &["*"], may), client("reader", &["*"], READ)];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    let token = rig.token_of("wx1").await;
    let path = "/cgi-bin/stable_token";
    let mints = || rig.sandbox.counters(&id("wx1")).stable_token_mints;
    let unset = r#"{"grant_type":"client_credential","appid":"wx1","secret":"both","force_refresh":null}"#;
    assert_eq!(rig.call("POST", path, &[], unset).await.json()["access_token"], token);
    for key in ["both", "both", "reader"] {
        let answer = rig.stable(path, "wx1", key, true).await;
        assert_eq!(answer.json()["access_token"], token, "WeChat honours it: {answer:?}");
    }
    assert_eq!(mints(), 1);
    rig.sandbox.kill_tokens(&id("wx2"));
    let dead = rig.token_of("wx2").await;
    assert_eq!(
        rig.stable(path, "wx2", "reader", true).await.json()["access_token"],
        dead,
        "it may not report"
    );
    let next = rig.stable(path, "wx2", "both", true).await.json()["access_token"].clone();
    assert_eq!((next != dead, next), (true, rig.token_of("wx2").await.into()));
    let history = rig.fleet.history("wx2", 20).unwrap();
    let report = history.iter().find(|event| event.event == "rejection").expect("the report");
    assert_eq!(serde_json::to_value(report).unwrap()["by"], "both");
}

#[tokio::test]
async fn without_clients_a_local_sdk_may_send_any_secret_and_a_page_elsewhere_gets_nothing() {
    let rig = Rig::start(TestApi::default()).await;
    let token = rig.token_of("wx1").await;
    for path in BOTH {
        for secret in ["", "whatever", SECRET] {
            assert_eq!(rig.sdk(path, "wx1", secret).await.json()["access_token"], token);
        }
    }
    let not_local = "GET /cgi-bin/token?grant_type=client_credential&appid=wx1&secret= HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    raw_answer(rig.address, not_local).await.is_problem("forbidden");
}

#[tokio::test]
async fn the_calls_are_found_below_the_base_path_and_behind_stray_slashes() {
    let rig = Rig::start(TestApi { wechat_path: "/wx/hub".to_owned(), ..TestApi::default() }).await;
    let token = rig.token_of("wx1").await;
    for base in ["", "/", "/wx/hub", "/wx/hub/", "//wx/hub"] {
        for path in BOTH {
            let answer = rig.sdk(&format!("{base}{path}"), "wx1", "any").await;
            assert_eq!(answer.json()["access_token"], token, "{base}{path}: {answer:?}");
        }
    }
    for elsewhere in ["/hub/cgi-bin/token", "/wx/cgi-bin/token", "/wx/hub/v1/accounts", "/cgi-bin/other"] {
        rig.is_problem(&rig.get(elsewhere).await, "not_found");
    }
    let counted = rig.get("/metrics").await.body;
    assert!(counted.contains("route=\"/cgi-bin/token\",status=\"200\""), "{counted}");
}

/// Community threads report 41002 for both: WeChat looks for the appid first.
#[tokio::test]
async fn stable_token_finds_no_appid_in_a_form_or_in_the_url() {
    let rig = Rig::start(TestApi { clients: vec![client("crm", &["*"], READ)], ..TestApi::default() }).await;
    let form = "grant_type=client_credential&appid=wx1&secret=crm";
    let path = "/cgi-bin/stable_token";
    let in_url = format!("{path}?{form}");
    for (path, body, errcode) in [
        (path, form, 41002),
        (path, "appid=wx1", 41002),
        (path, " \r\n", 41002),
        (path, "", 41002),
        (&in_url, "", 41002),
        (&in_url, form, 41002),
        (&in_url, "{}", 41002),
        (path, "{\"appid\":", 47001),
        (path, "{\"appid\":7}", 47001),
        (path, r#"["client_credential","wx1","crm",false]"#, 47001),
        (path, r#" ["client_credential","wx1","crm"]"#, 47001),
        (path, r#"[{"grant_type":"client_credential","appid":"wx1","secret":"crm"}]"#, 47001),
        (path, "[]", 47001),
        (path, "[", 47001),
        (path, "\"wx1\"", 47001),
        (path, "null", 47001),
        (path, "7", 47001),
    ] {
        for kind in ["application/json", "application/x-www-form-urlencoded", "text/plain"] {
            let answer = rig.call("POST", path, &[("content-type", kind)], body).await;
            is_refused(&rig, &answer, errcode);
        }
    }
}

/// weixin-popular and its forks send forms.
#[tokio::test]
async fn token_and_getticket_take_a_form_as_they_take_a_query() {
    let mut with_ticket = account("wx1");
    with_ticket.settings.tickets = [wxtokend_core::ticket::TicketKind::Jsapi].into_iter().collect();
    let clients = vec![client("c rm+&", &["*"], READ)];
    let rig = Rig::start(TestApi { accounts: vec![with_ticket], clients, ..TestApi::default() }).await;
    let token = rig.token_of("wx1").await;
    let encoded: String = reqwest::Url::parse_with_params("http://x/", [("access_token", &token)])
        .map(|url| url.query().unwrap().to_owned())
        .unwrap();
    let credentials = "grant_type=client_credential&appid=wx1&secret=c+rm%2B%26";
    let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
        rig.call("POST", path, headers, body).await.json()
    };
    for (path, body) in [
        ("/cgi-bin/token", credentials),
        ("/cgi-bin/token?grant_type=client_credential", "appid=wx1&secret=c%20rm%2b%26"),
        ("/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=c+rm%2B%26", ""),
        ("/cgi-bin/token?secret=other&appid=wx2", credentials),
        ("//cgi-bin/token", &format!("{credentials}\r\n")),
    ] {
        for headers in [&form[..], &[]] {
            let json = post(path, headers, body).await;
            assert_eq!(json["access_token"], token, "{path} {body}: {json}");
        }
    }
    until("a ticket", || rig.fleet.account("wx1").unwrap().tickets.iter().all(|ticket| ticket.version > 0))
        .await;
    let ticket =
        rig.get(&format!("/cgi-bin/ticket/getticket?type=jsapi&{encoded}")).await.json()["ticket"].clone();
    assert!(ticket.is_string());
    for (path, body) in [
        ("/cgi-bin/ticket/getticket".to_owned(), format!("type=jsapi&{encoded}")),
        ("/cgi-bin/ticket/getticket?type=jsapi".to_owned(), encoded.clone()),
        (format!("/cgi-bin/ticket/getticket?{encoded}&type=jsapi"), String::new()),
    ] {
        let json = post(&path, &form, &body).await;
        assert_eq!(json["ticket"], ticket, "{path} {body}: {json}");
    }
    for (path, body, errcode) in [
        ("/cgi-bin/token", "grant_type=client_credential&appid=wx1&secret=wrong", 40125),
        ("/cgi-bin/token", "grant_type=client_credential&secret=c+rm%2B%26", 41002),
        ("/cgi-bin/token", "grant_type=refresh&appid=wx1", 40002),
        ("/cgi-bin/token", "", 41002),
        ("/cgi-bin/ticket/getticket", "type=jsapi", 41001),
        ("/cgi-bin/ticket/getticket", "type=jsapi&access_token=other", 40001),
    ] {
        is_refused(&rig, &rig.call("POST", path, &form, body).await, errcode);
    }
}
