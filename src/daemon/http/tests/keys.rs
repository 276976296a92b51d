use super::*;

/// Method and path of calls, and the permission that each needs.
const CALLS: [(&str, &str, &str); 5] = [
    ("GET", "/v1/accounts/wx1", "read"),
    ("GET", "/v1/accounts/wx1/token", "read"),
    ("GET", "/v1/accounts", "read"),
    ("POST", "/v1/accounts/wx1/token/reject", "refresh"),
    ("POST", "/v1/accounts/wx1/token/refresh", "admin"),
];

async fn call_as(rig: &Rig, authorization: &str, method: &str, path: &str) -> Answer {
    let headers = [("authorization", authorization), ("content-type", "application/json")];
    let body = if method == "POST" { "{\"access_token\":\"old\"}" } else { "" };
    rig.call(method, path, &headers, body).await
}

#[tokio::test]
async fn no_scope_implies_another() {
    let clients = vec![
        client("read", &["*"], READ),
        client("refresh", &["*"], REFRESH),
        client("admin", &["*"], ADMIN),
    ];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    for (method, path, needed) in CALLS {
        for key in ["read", "refresh", "admin"] {
            let answer = call_as(&rig, &format!("Bearer {key}"), method, path).await;
            if key == needed {
                assert_eq!(answer.status, 200, "{key} {method} {path}: {answer:?}");
                assert_eq!(answer.body.contains("access_token"), path.ends_with("/token"), "{answer:?}");
            } else {
                rig.is_problem(&answer, "forbidden");
            }
        }
    }
}

#[test]
fn a_key_is_right_by_all_of_its_digest() {
    for bit in 0..256 {
        let mut almost = client("right", &["*"], Allow::ALL);
        almost.key_sha256[bit / 8] ^= 1 << (bit % 8);
        let clients = Clients::new(vec![almost, client("other", &["*"], Allow::ALL)], true);
        assert!(clients.with_key(b"right").is_none(), "bit {bit}");
        assert_eq!(clients.with_key(b"other").unwrap().name, "other");
    }
}

#[tokio::test]
async fn without_a_right_key_nobody_is_let_in() {
    let clients = vec![client("right", &["*"], Allow::ALL), client("other", &["*"], Allow::ALL)];
    let rig = Rig::start(TestApi { clients, ..TestApi::default() }).await;
    // An address that has shown no right key would soon be slowed down.
    assert_eq!(rig.get_as("right", "/v1/accounts").await.status, 200);
    let digest = wxtokend_core::secret::hex(&Secret::new("right").sha256());
    for authorization in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer righ",
        "Bearer right2",
        "Bearer RIGHT",
        "Basic right",
        "right",
        &format!("Bearer {digest}"),
    ] {
        for (method, path, _) in CALLS {
            rig.is_problem(&call_as(&rig, authorization, method, path).await, "unauthorized");
        }
    }
    rig.is_problem(&rig.get("/v1/accounts").await, "unauthorized");
    for authorization in ["Bearer right", "bearer right", "BEARER  right", "Bearer other"] {
        assert_eq!(call_as(&rig, authorization, "GET", "/v1/accounts").await.status, 200, "{authorization}");
    }
    let two = "GET /v1/accounts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer right\r\nAuthorization: Bearer wrong\r\n\r\n";
    raw_answer(rig.address, two).await.is_problem("unauthorized");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(rig.get(path).await.status, 200, "{path} needs no key");
    }
}

#[tokio::test]
async fn a_key_cannot_find_out_which_other_accounts_there_are() {
    let mut retail = account("cc1");
    retail.tags.push("retail".to_owned());
    let plan = TestApi {
        accounts: vec![account("aa1"), account("bb1"), retail],
        clients: vec![client("k", &["a*", "dd1", "tag:retail"], Allow::ALL)],
        ..TestApi::default()
    };
    let rig = Rig::start(plan).await;
    for (appid, code) in [
        ("aa1", None),
        ("cc1", None),
        ("bb1", Some("forbidden")),
        ("bb2", Some("forbidden")),
        ("aa2", Some("unknown_account")),
        ("dd1", Some("unknown_account")),
        ("b%20b", Some("unknown_account")),
        ("%ff", Some("unknown_account")),
    ] {
        let mut bodies = Vec::new();
        for (method, path, _) in CALLS.into_iter().filter(|(_, path, _)| path.contains("wx1")) {
            let answer = call_as(&rig, "Bearer k", method, &path.replace("wx1", appid)).await;
            match code {
                None => assert_eq!(answer.status, 200, "{appid}: {answer:?}"),
                Some(code) => rig.is_problem(&answer, code),
            }
            bodies.push(answer.body);
        }
        assert!(code.is_none() || bodies.iter().all(|body| *body == bodies[0]));
    }
}

#[tokio::test]
async fn a_reload_exchanges_the_keys() {
    let rig = Rig::start(TestApi { clients: vec![client("old", &["*"], READ)], ..TestApi::default() }).await;
    assert_eq!(rig.get_as("old", "/v1/accounts").await.status, 200);
    rig.clients.set(vec![client("new", &["*"], READ)]);
    assert_eq!(rig.get_as("old", "/v1/accounts").await.status, 401);
    assert_eq!(rig.get_as("new", "/v1/accounts").await.status, 200);
    rig.clients.set(Vec::new());
    assert_eq!(rig.get("/v1/accounts").await.status, 200, "on loopback everybody is let in then");
}

#[tokio::test]
async fn without_clients_nobody_is_let_in_from_elsewhere() {
    let clients = Clients::new(Vec::new(), false);
    assert!(!clients.need_no_key());
    let problem = clients.rights(&HeaderMap::new()).unwrap_err();
    assert_eq!(problem.code.as_str(), "unauthorized");
}

#[tokio::test]
async fn without_clients_only_local_names_are_answered() {
    let rig = Rig::start(TestApi::default()).await;
    let paths = ["/v1/accounts", "/v1/accounts/wx1/token", "/healthz", "/readyz", "/metrics", "/nowhere"];
    for path in paths {
        for host in ["localhost", "127.0.0.1:1", "[::1]:80", "127.9.9.9"] {
            let answer =
                raw_answer(rig.address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(answer.status, if path == "/nowhere" { 404 } else { 200 }, "{host}: {answer:?}");
        }
        for head in [
            "Host: evil.example",
            "Host: evil.example:8787",
            "Host: localhost.evil.example",
            "Host: 10.0.0.1",
            "Host:",
            "Host: localhost\r\nOrigin: http://evil.example",
            "Host: localhost\r\nOrigin: null",
        ] {
            let answer = raw_answer(rig.address, &format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n")).await;
            rig.is_problem(&answer, "forbidden");
        }
        let origin = "Host: localhost\r\nOrigin: http://localhost:3000";
        let answer = raw_answer(rig.address, &format!("GET {path} HTTP/1.1\r\n{origin}\r\n\r\n")).await;
        assert_ne!(answer.status, 403);
        let absolute = format!("GET http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        rig.is_problem(&raw_answer(rig.address, &absolute).await, "forbidden");
        for nameless in ["HTTP/1.1\r\n", "HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n"] {
            let answer = raw_answer(rig.address, &format!("GET {path} {nameless}\r\n")).await;
            rig.is_problem(&answer, "bad_request");
        }
    }
}

/// HTTP/1.0 monitors send no `Host`, such as HAProxy's `option httpchk GET /healthz`.
#[tokio::test]
async fn a_monitor_that_names_no_host_is_answered_and_nobody_else() {
    let rig = Rig::start(TestApi::default()).await;
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/healthz?x", 200),
        ("/v1/accounts", 400),
        ("/v1/accounts/wx1/token", 400),
        ("/", 400),
        ("/nowhere", 400),
        ("//cgi-bin/token", 400),
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!("{method} {path} HTTP/1.0\r\nUser-Agent: monitor\r\n\r\n");
            let text = raw(rig.address, &request).await;
            assert_eq!(text.get(9..12), Some(&*status.to_string()), "{method} {path}: {text}");
        }
        for head in ["Host: evil.example", "Origin: http://evil.example", "X-Forwarded-For: 10.0.0.1"] {
            let text = raw(rig.address, &format!("GET {path} HTTP/1.0\r\n{head}\r\n\r\n")).await;
            assert!(text.get(9..10) == Some("4"), "{path} {head}: {text}");
        }
        let nameless = format!("GET {path} HTTP/1.1\r\n\r\n");
        rig.is_problem(&raw_answer(rig.address, &nameless).await, "bad_request");
    }
}

#[tokio::test]
async fn a_foreign_name_is_refused_wherever_the_path_is_read_otherwise_than_it_was_sent() {
    let wechat_path = "/wx/api".to_owned();
    let rig = Rig::start(TestApi { wechat_path, ..TestApi::default() }).await;
    let query = format!("grant_type=client_credential&appid=wx1&secret={SECRET}");
    for path in [
        "/cgi-bin/token",
        "//cgi-bin/token",
        "/cgi-bin//token",
        "/wx/api/cgi-bin/token",
        "//wx//api/cgi-bin/token",
        "/wx/api//cgi-bin/stable_token",
        "//cgi-bin/ticket/getticket",
    ] {
        for authority in ["evil.example", "evil.example:80", "localhost.evil.example", "me@localhost"] {
            let request = format!("GET http://{authority}{path}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = raw_answer(rig.address, &request).await;
            rig.is_problem(&answer, "forbidden");
        }
        let request = format!("GET http://localhost{path}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(raw_answer(rig.address, &request).await.status, 200, "{path}");
    }
}

/// Behind a proxy every caller looks local.
#[tokio::test]
async fn without_clients_what_came_through_a_proxy_is_refused() {
    let rig = Rig::start(TestApi::default()).await;
    let marks = [
        ("X-Forwarded-For", "10.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("Forwarded", "for=10.0.0.1"),
        ("Via", "1.1 proxy"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Forwarded-Host", "tokens.example"),
        ("X-Forwarded-Proto", "https"),
        ("CF-Connecting-IP", "10.0.0.1"),
        ("True-Client-IP", "10.0.0.1"),
    ];
    for path in ["/v1/accounts/wx1/token", "/v1/accounts", "//cgi-bin/token?appid=wx1", "/"] {
        for (name, value) in marks {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\n\r\n");
            let answer = raw_answer(rig.address, &request).await;
            rig.is_problem(&answer, "forbidden");
            assert!(answer.json()["detail"].as_str().unwrap().contains("proxy"), "{answer:?}");
        }
    }
    rig.clients.set(vec![client("k", &["*"], READ)]);
    for (name, value) in marks {
        let head = format!("Host: localhost\r\n{name}: {value}\r\nAuthorization: Bearer k");
        let request = format!("GET /v1/accounts/wx1/token HTTP/1.1\r\n{head}\r\n\r\n");
        assert_eq!(
            raw_answer(rig.address, &request).await.status,
            200,
            "with keys {name} is nothing special"
        );
    }
}

#[tokio::test]
async fn with_clients_any_name_is_answered() {
    let rig = Rig::start(TestApi { clients: vec![client("k", &["*"], READ)], ..TestApi::default() }).await;
    let head = "Host: tokens.example\r\nOrigin: http://evil.example\r\nAuthorization: Bearer k";
    let answer = raw_answer(rig.address, &format!("GET /v1/accounts HTTP/1.1\r\n{head}\r\n\r\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let nameless = "GET /v1/accounts HTTP/1.1\r\nAuthorization: Bearer k\r\n\r\n";
    rig.is_problem(&raw_answer(rig.address, nameless).await, "bad_request");
}
