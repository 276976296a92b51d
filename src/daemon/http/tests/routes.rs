//! The router against the table of routes: each route is there, for its methods, and for clients that have
//! its scope.

use std::collections::BTreeSet;

use serde_json::json;
use wxtokend_core::reference::routes::{ALL, Method, RESOLVE, Route, Scope};
use wxtokend_core::ticket::TicketKind;

use super::*;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const KEYS: [(&str, Allow); 5] = [
    ("reads", READ),
    ("reports", REFRESH),
    ("orders", ADMIN),
    ("signs", Allow { sign: true, ..Allow::NONE }),
    ("calls", CALL),
];
/// As the status page sends it.
const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A server on which every route finds what it is about.
async fn rig(clients: Vec<Client>, metrics_listen: Option<SocketAddr>) -> Rig {
    let account = account("wx1").with(|settings| settings.tickets = TicketKind::ALL.into_iter().collect());
    let rig =
        Rig::start(TestApi { accounts: vec![account], clients, metrics_listen, ..TestApi::default() }).await;
    rig.fleet.ticket("wx1", TicketKind::Jsapi).await.unwrap();
    rig
}

/// A path of the route.
fn path(route: &Route) -> String {
    let path = route.path.replace("{appid}", "wx1").replace("{type}", "jsapi").replace("{file}", "main.js");
    let path = path.replace("{*path}", "cgi-bin/user/get");
    assert!(!path.contains('{'), "{path}: say in this test what stands there");
    path
}

/// The methods that the path of `route` takes.
fn methods(route: &Route) -> BTreeSet<&'static str> {
    let routes = ALL.iter().filter(|other| other.path == route.path);
    let mut methods: BTreeSet<_> = routes.flat_map(|route| route.methods).map(|it| it.as_str()).collect();
    if methods.remove(Method::Any.as_str()) {
        methods.extend(METHODS);
    }
    if methods.contains("GET") {
        methods.insert("HEAD");
    }
    methods
}

/// The status of an answer. Its body, which may be a stream without end, is not read.
async fn status(rig: &Rig, method: &str, url: &str, key: Option<&str>) -> u16 {
    let mut call = rig.http.request(method.parse().unwrap(), url).header(OURS.0, OURS.1);
    if let Some(key) = key {
        call = call.bearer_auth(key);
    }
    timeout(LONG, call.send()).await.expect("an answer").unwrap().status().as_u16()
}

#[tokio::test]
async fn every_route_takes_the_methods_of_the_table_and_no_others() {
    let rig = rig(Vec::new(), None).await;
    for route in ALL {
        let (path, methods) = (path(route), methods(route));
        for method in METHODS {
            if methods.contains(method) {
                let status = status(&rig, method, &format!("http://{}{path}", rig.address), None).await;
                assert!(![404, 405].contains(&status), "{method} {path}: {status}");
                continue;
            }
            let answer = rig.call(method, &path, &[], "").await;
            if route.answers_as_wechat() {
                assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
                let refused = ["43001", "43002"].iter().any(|errcode| answer.body.contains(errcode));
                assert!(refused || method == "HEAD", "{method} {path}: {answer:?}");
            } else {
                assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
                let allow: BTreeSet<_> = answer.header("allow").split(',').collect();
                assert_eq!(allow, methods, "{method} {path}");
                if method != "HEAD" {
                    rig.is_problem(&answer, "method_not_allowed");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_route_asks_for_the_scope_of_the_table() {
    let clients = KEYS.map(|(key, allow)| client(key, &["*"], allow)).into();
    let rig = rig(clients, None).await;
    for route in ALL {
        for method in route.methods.iter().map(|method| method.as_str().replace("any", "PUT")) {
            let method = &*method;
            let may: fn(Allow) -> bool = match route.scope {
                Scope::Probe | Scope::Open => {
                    let url = format!("http://{}{}", rig.address, path(route));
                    let status = status(&rig, method, &url, None).await;
                    assert!((200..300).contains(&status), "{method} {}: {status}", route.path);
                    continue;
                }
                Scope::KeyInBody | Scope::Secret | Scope::CallSecret => {
                    asks_for_a_key_among_its_parameters(&rig, route, method).await;
                    continue;
                }
                Scope::AccessToken => {
                    asks_for_a_token(&rig, route, method).await;
                    continue;
                }
                Scope::AnyKey => |_| true,
                Scope::Read => |allow| allow.read,
                Scope::Refresh => |allow| allow.refresh,
                Scope::Admin => |allow| allow.admin,
                Scope::Sign => |allow| allow.sign || allow.read,
                Scope::Call => |allow| allow.call,
            };
            let mut url = format!("http://{}{}", rig.address, path(route));
            if *route == RESOLVE {
                url += &format!("?access_token={}", rig.token_of("wx1").await);
            }
            assert_eq!(status(&rig, method, &url, None).await, 401, "{method} {url} without a key");
            for (key, allow) in KEYS {
                let status = status(&rig, method, &url, Some(key)).await;
                assert_ne!(status, 401, "{method} {url} with the key of {key}");
                assert_eq!(status != 403, may(allow), "{method} {url} with the key of {key}: {status}");
            }
        }
    }
}

/// Calls `route` with these parameters, in the query and in a JSON body.
async fn with_parameters(rig: &Rig, route: &Route, method: &str, parameters: &[(&str, &str)]) -> Answer {
    let query: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let path = format!("{}?{}", path(route), query.join("&"));
    let body: serde_json::Map<_, _> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let body = if method == "POST" { Value::from(body).to_string() } else { String::new() };
    rig.call(method, &path, &[OURS, ("content-type", "application/json")], &body).await
}

async fn asks_for_a_key_among_its_parameters(rig: &Rig, route: &Route, method: &str) {
    let answer_to = async |key: &str| {
        let parameters =
            [("grant_type", "client_credential"), ("appid", "wx1"), ("secret", key), ("key", key)];
        with_parameters(rig, route, method, &parameters).await
    };
    for (key, allow) in KEYS {
        let answer = answer_to(key).await;
        match route.scope {
            Scope::KeyInBody => assert_eq!(answer.status, 204, "{method} {}: {answer:?}", route.path),
            Scope::CallSecret if allow.call => {
                // Of WeChat itself, which wants another grant_type.
                assert_eq!(answer.json()["errcode"], 40002, "{method} {}: {answer:?}", route.path);
            }
            Scope::Secret if allow.read => assert!(answer.json()["access_token"].is_string(), "{answer:?}"),
            _ => assert_eq!(answer.json()["errcode"], 48001, "{method} {}: {answer:?}", route.path),
        }
    }
    let answer = answer_to("wrong").await;
    match route.scope {
        Scope::KeyInBody => assert_eq!(answer.status, 401, "{method} {}: {answer:?}", route.path),
        _ => assert_eq!(answer.json()["errcode"], 40125, "{method} {}: {answer:?}", route.path),
    }
}

async fn asks_for_a_token(rig: &Rig, route: &Route, method: &str) {
    for (token, errcode) in [(&*rig.token_of("wx1").await, 0), ("wrong", 40001), ("", 41001)] {
        let answer =
            with_parameters(rig, route, method, &[("access_token", token), ("type", "jsapi")]).await.json();
        assert_eq!(answer["errcode"], errcode, "{method} {}: {answer}", route.path);
    }
}

#[tokio::test]
async fn the_metrics_listener_answers_probes_alone() {
    let rig = rig(Vec::new(), Some("127.0.0.1:0".parse().unwrap())).await;
    let metrics = rig.metrics_address.unwrap();
    for route in ALL.iter().filter(|route| methods(route).contains("GET")) {
        let status = status(&rig, "GET", &format!("http://{metrics}{}", path(route)), None).await;
        assert_eq!(status, if route.scope == Scope::Probe { 200 } else { 404 }, "{}", route.path);
    }
}
