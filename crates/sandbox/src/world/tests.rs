//! Checks the simulated WeChat against what is known of the real one.

mod business;
mod faults;
mod logins;
mod minting;

use std::time::Duration;

use serde_json::Value;
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;

use super::World;
use crate::{AccountTruth, Answer, CallLimit, Request, Settings, Switches, Wire};

const APPID: &str = "wx0123456789abcdef";
const STABLE: &str = r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"s3"}"#;
const FORCED: &str =
    r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"s3","force_refresh":true}"#;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn appid() -> Appid {
    Appid::new(APPID).unwrap()
}

fn world(switches: Switches) -> World {
    let accounts = vec![(appid(), Secret::new("s3")), (Appid::new("other").unwrap(), Secret::new("s4"))];
    World::new(Settings { switches, accounts, ..Settings::default() })
}

fn get(path: &str, query: &[(&str, &str)]) -> Request {
    Request {
        method: "GET".to_owned(),
        path: path.to_owned(),
        query: query.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
        content_length: None,
        body: Vec::new(),
        source_ip: [1, 2, 3, 4].into(),
    }
}

fn post(path: &str, query: &[(&str, &str)], body: &str) -> Request {
    let content_length = Some(body.len() as u64);
    Request { method: "POST".to_owned(), content_length, body: body.into(), ..get(path, query) }
}

fn classic_request() -> Request {
    get("/cgi-bin/token", &[("grant_type", "client_credential"), ("appid", APPID), ("secret", "s3")])
}

fn stable_request(body: &str) -> Request {
    post("/cgi-bin/stable_token", &[], body)
}

fn answer(wire: Wire) -> Answer {
    match wire {
        Wire::Answer(answer) => answer,
        other => panic!("no answer but {other:?}"),
    }
}

fn json(world: &mut World, request: &Request, now: Duration) -> Value {
    let answer = answer(world.handle(request, now).wire);
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

fn errcode(world: &mut World, request: &Request, now: Duration) -> i64 {
    json(world, request, now)["errcode"].as_i64().unwrap_or(0)
}

/// The token and its `expires_in`.
fn token(world: &mut World, request: &Request, now: Duration) -> (String, u64) {
    let value = json(world, request, now);
    let text = |key: &str| value[key].clone();
    assert_eq!(value.get("errcode"), None, "{value}");
    (text("access_token").as_str().unwrap().to_owned(), text("expires_in").as_u64().unwrap())
}

fn classic(world: &mut World, now: Duration) -> String {
    token(world, &classic_request(), now).0
}

fn check(world: &mut World, access_token: &str, now: Duration) -> i64 {
    errcode(world, &get("/cgi-bin/get_api_domain_ip", &[("access_token", access_token)]), now)
}

fn truth(world: &World, now: Duration) -> AccountTruth {
    world.truth(&appid(), now).unwrap()
}

#[test]
fn the_same_seed_and_requests_give_the_same_reactions() {
    let run = |seed| {
        let accounts = vec![(appid(), Secret::new("s3"))];
        let mut world = World::new(Settings { seed, accounts, ..Settings::default() });
        let requests =
            [classic_request(), stable_request(STABLE), stable_request(FORCED), get("/cgi-bin/x", &[])];
        requests.iter().map(|request| world.handle(request, s(5))).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn debug_output_shows_neither_secrets_nor_tokens() {
    let mut world = world(Switches::default());
    let request = classic_request();
    let reaction = world.handle(&request, s(0));
    let shown = format!("{request:?} {reaction:?} {world:?} {:?}", truth(&world, s(0)));
    let minted = truth(&world, s(0)).living_tokens[0].access_token.clone();
    assert!(!shown.contains("s3") && !shown.contains(minted.expose()), "{shown}");
}
