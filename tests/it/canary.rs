//! A search for secrets in everything that the program outputs at its most verbose.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use rustix::process::Signal;
use serde_json::json;
use wxtokend_core::secret::{Secret, hex};
use wxtokend_sandbox::{Call, Fault, FaultKind, LostAs};

use crate::harness::{Answer, Daemon, Ended, Http, Lab, Redis, appid, ended, find, secret_of, until};

const KEYS: [&str; 3] =
    ["canary-key-of-the-admin-5ecre7", "canary-key-of-a-reader-5ecre7", "canary-key-next-5ecre7"];
/// Part of the AppSecrets, the client keys, and everything else that must never be shown.
const MARK: &str = "5ecre7";
/// Length of a part of a token: too long to occur by chance, short enough to find a truncated token.
const PART: usize = 20;

/// All output, and all tokens and tickets that ever existed.
#[derive(Default)]
struct SecretSearch {
    said: Vec<(String, String)>,
    tokens: BTreeSet<String>,
    tickets: BTreeSet<String>,
}

impl SecretSearch {
    /// Adds an answer, which must not contain a token or a ticket.
    fn collected(&mut self, from: &str, answer: &Answer) {
        self.said.push((from.to_owned(), format!("{answer:?}")));
    }

    fn ran(&mut self, what: &str, ended: &Ended) {
        self.said.push((what.to_owned(), format!("{}\n{}", ended.stdout, ended.stderr)));
    }

    /// Adds the tokens and tickets that are alive now and that clients may have received.
    fn note_living(&mut self, lab: &Lab) {
        lab.wechat.with(|world, now| {
            let appids: Vec<_> = world.accounts().cloned().collect();
            for truth in appids.iter().filter_map(|appid| world.truth(appid, now)) {
                self.tokens
                    .extend(truth.living_tokens.iter().map(|token| token.access_token.expose().to_owned()));
                self.tickets.extend(truth.living_tickets.iter().map(|ticket| ticket.expose().to_owned()));
            }
        });
    }

    fn judge(&self) {
        for (what, living) in [("tokens", &self.tokens), ("tickets", &self.tickets)] {
            assert!(living.len() >= 10, "{} {what} are too few to tell", living.len());
        }
        for (from, text) in &self.said {
            let near = |at: usize| text[at.saturating_sub(120)..].chars().take(240).collect::<String>();
            for mark in [MARK, &hex(MARK.as_bytes())] {
                if let Some(at) = text.find(mark) {
                    panic!("{from} shows a secret: {}", near(at));
                }
            }
            for token in self.tokens.iter().chain(&self.tickets) {
                let encoded = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
                for form in [&token[..PART], &token[token.len() - PART..], &encoded[..PART]] {
                    if let Some(at) = text.find(form) {
                        panic!("{from} shows a token or a ticket: {}", near(at));
                    }
                }
            }
        }
    }
}

fn faults() -> Vec<(String, Fault)> {
    let codes =
        [-1, 40001, 40013, 40125, 40164, 40243, 45009, 45011, 48001, 50004, 61024, 89501, 89506, 99_999];
    let coded = codes.map(|code: i64| (format!("code{}", code.unsigned_abs()), Fault::errcode(code)));
    let kinds = [
        ("html", FaultKind::Html),
        ("half", FaultKind::Half),
        ("hang", FaultKind::Hang),
        ("reset", FaultKind::Reset),
        ("empty", FaultKind::EmptyToken),
        ("s412", FaultKind::Status { status: 412 }),
        ("s502", FaultKind::Status { status: 502 }),
        ("s504", FaultKind::Status { status: 504 }),
        ("odd", FaultKind::BadExpires { expires_in: -5 }),
        ("lost-reset", FaultKind::Lost { seen_as: LostAs::Reset }),
        ("lost-hang", FaultKind::Lost { seen_as: LostAs::Hang }),
    ];
    let kinds = kinds.map(|(name, kind)| (name.to_owned(), Fault::new(kind)));
    coded.into_iter().chain(kinds).collect()
}

async fn lab() -> Lab {
    let mut lab = Lab::new(6_000, 1_500).await.with_both();
    lab.config["upstream"]["timeout"] = json!("1s");
    lab.config["defaults"]["rejection_cooldown"] = json!("1ms");
    lab.config["defaults"]["tickets"] = json!(["jsapi", "wx_card"]);
    let client = |name: &str, key: &str, allow: &[&str]| json!({ "name": name, "key": key, "accounts": ["*"], "allow": allow });
    lab.config["api"]["clients"] = json!([
        client("ops", KEYS[0], &["read", "refresh", "admin", "call"]),
        client("reader", KEYS[1], &["read"]),
    ]);
    for (n, (name, fault)) in faults().into_iter().enumerate() {
        let endpoint = ["token", "stable_token"][n % 2];
        lab.add(&name, json!({ "endpoint": endpoint }));
        lab.wechat.inject(Some(&appid(&name)), fault.times(3));
    }
    lab.add("mistaken", json!({ "secret": "a-wrong-secret-5ecre7" }));
    // WeChat, or a proxy on the way, echoes the request.
    let echo = format!("invalid request: appid=echo&secret={}", secret_of("echo"));
    lab.add("echo", json!({ "endpoint": "token" }));
    let fault = FaultKind::Errcode { errcode: 40097, errmsg: Some(echo) };
    lab.wechat.inject(Some(&appid("echo")), Fault::new(fault));
    lab
}

/// Correct and incorrect calls of the API.
async fn use_the_api(search: &mut SecretSearch, lab: &Lab, http: &Http) {
    for (name, _) in faults() {
        let answer = http.token(&name).await;
        if answer.status != 200 {
            search.collected("a read", &answer);
        }
    }
    search.note_living(lab);
    for account in ["stable", "classic"] {
        let token = http.token_value(account).await;
        let ticket = find("a ticket", async || {
            let answer = http.get(&format!("/v1/accounts/{account}/tickets/jsapi")).await;
            answer.json()["ticket"].as_str().map(str::to_owned)
        })
        .await;
        search.collected(
            "a signature",
            &http.get(&format!("/v1/accounts/{account}/jssdk?url=https://a.example/")).await,
        );
        misuse_a_ticket(search, http, account, &ticket).await;
        // WeChat's refusal of a token quotes that token.
        let errmsg = Some("too often: access_token={access_token}".to_owned());
        let echo = FaultKind::Errcode { errcode: 45011, errmsg };
        lab.wechat.inject(Some(&appid(account)), Fault::new(echo).on(Call::Check).times(1));
        http.reject(account, &token).await;
        lab.wechat.kill_tokens(&appid(account));
        http.reject(account, &token).await;
        http.reject(account, &token).await;
        http.refresh(account, true).await;
        search.note_living(lab);
        misuse_the_api(search, http, account, &token).await;
    }
    for path in ["/metrics", "/v1/accounts", "/v1/accounts/echo", "/healthz", "/readyz"] {
        search.collected(path, &http.get(path).await);
    }
    let names = faults().into_iter().map(|(name, _)| name);
    for name in names.chain(["stable", "classic", "mistaken", "echo"].map(str::to_owned)) {
        search.collected("a history", &http.get(&format!("/v1/accounts/{name}/history?limit=1000")).await);
    }
    use_the_page(search, http).await;
}

/// Calls of the status page, with its cookie and with a wrong key.
async fn use_the_page(search: &mut SecretSearch, http: &Http) {
    let page = Http::to(http.address());
    let key = KEYS[1];
    let sign_in = async |body: String| {
        let request = page.request(Method::POST, "/v1/session").header("sec-fetch-site", "same-origin");
        Http::try_send(request.header(CONTENT_TYPE, "application/json").body(body)).await.unwrap()
    };
    // The only place where a key is sent back, to the client that sent it.
    let cookie = sign_in(json!({ "key": key }).to_string()).await.header("set-cookie").unwrap().to_owned();
    let cookie = cookie.split(';').next().unwrap();
    for body in
        [json!({ "key": format!("{key}x") }), json!({ "key": [key] }), json!(key), json!({ "kye": key })]
    {
        let answer = sign_in(body.to_string()).await;
        assert!(answer.status >= 400, "{answer:?}");
        search.collected("a sign-in that is refused", &answer);
    }
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/v1/session"),
        (Method::GET, "/v1/accounts"),
        (Method::GET, "/v1/accounts/stable"),
        (Method::GET, "/v1/accounts/stable/history"),
        (Method::GET, "/v1/accounts/stable/token"),
        (Method::POST, "/v1/accounts/stable/token/refresh"),
        (Method::POST, "/v1/accounts/stable/token/reject"),
        (Method::DELETE, "/v1/session"),
    ] {
        let request =
            page.request(method, path).header("sec-fetch-site", "same-origin").header("cookie", cookie);
        search.collected(&format!("{path} by cookie"), &Http::try_send(request).await.unwrap());
        let broken =
            page.request(Method::GET, path).header("cookie", format!("{cookie}0; wxtokend_key={key}"));
        search.collected(&format!("{path} by a wrong cookie"), &Http::try_send(broken).await.unwrap());
    }
}

/// A ticket in a wrong place must not be repeated in an answer.
async fn misuse_a_ticket(search: &mut SecretSearch, http: &Http, account: &str, ticket: &str) {
    for path in [
        format!("/v1/accounts/{account}/tickets/{ticket}"),
        format!("/v1/accounts/{account}/tickets/jsapi?ticket={ticket}"),
        format!("/v1/accounts/{account}/jssdk?url={ticket}"),
        format!("/v1/accounts/{account}/jssdk?url=https://a.example/&ticket={ticket}"),
        format!("/cgi-bin/ticket/getticket?type=jsapi&access_token={ticket}"),
    ] {
        search.collected("a ticket in a path or query", &http.get(&path).await);
    }
}

/// A token or a key in a wrong place must not be repeated in an answer.
async fn misuse_the_api(search: &mut SecretSearch, http: &Http, account: &str, token: &str) {
    let in_url = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let key = KEYS[0];
    for path in [
        format!("/v1/accounts/{in_url}/token"),
        format!("/v1/accounts/{account}/token?access_token={in_url}"),
        format!("/v1/accounts/{account}/token?after={in_url}"),
        format!("/cgi-bin/ticket/getticket?type=jsapi&access_token={in_url}x"),
        format!("/cgi-bin/ticket/getticket?type={in_url}&access_token={in_url}"),
        format!("/v1/accounts?state={in_url}&tag={key}"),
        format!("/v1/accounts?limit={key}"),
        format!("/{in_url}/{key}"),
        format!("/v1/resolve?access_token={in_url}x"),
        format!("/v1/resolve?access_token={in_url}&access_token={in_url}"),
        format!("/v1/resolve?{in_url}={key}"),
        format!("/proxy/{account}/{in_url}?key={key}"),
        format!("/proxy/{account}//{in_url}"),
        format!("/proxy/{in_url}/cgi-bin/user/get"),
        format!("/proxy/{account}/cgi-bin/token?access_token={in_url}"),
        format!("/proxy/{account}/cgi-bin/user/get?access_token={in_url}x&openid={key}"),
        format!("/proxy/{account}/sns/jscode2session?secret={key}x&js_code={in_url}"),
        format!("/sns/jscode2session?appid={account}&secret={key}x&js_code={in_url}"),
        format!("/sns/oauth2/access_token?appid={account}&secret={key}&code={in_url}"),
    ] {
        search.collected("a wrong path or query", &http.get(&path).await);
    }
    for uri in
        [format!("/cgi-bin/token?access_token={token}"), format!("/{key}?access_token={token}#{token}")]
    {
        let request = http.request(Method::GET, "/v1/resolve").header("x-original-uri", uri);
        search.collected("a wrong request to be passed on", &Http::try_send(request).await.unwrap());
    }
    let reject = format!("/v1/accounts/{account}/token/reject");
    for (kind, body) in [
        ("application/json", format!("{{\"access_token\":[\"{token}\"]}}")),
        ("application/json", format!("{{\"token\":\"{token}\"}}")),
        ("application/json", format!("\"{token}\"")),
        ("application/json", format!("{{\"access_token\":\"{token}")),
        ("text/plain", token.to_owned()),
        ("application/json", token.repeat(600)),
    ] {
        let request = http.request(Method::POST, &reject).header(CONTENT_TYPE, kind).body(body);
        if let Some(answer) = Http::try_send(request).await {
            assert!(answer.status >= 400, "{answer:?}");
            search.collected("a wrong body", &answer);
        }
    }
    let nobody = Http::to(http.address());
    for wrong in [format!("Bearer {token}"), format!("Basic {key}"), format!("Bearer {key}x"), key.to_owned()]
    {
        let request = nobody.request(Method::GET, "/v1/accounts").header(AUTHORIZATION, wrong);
        let answer = Http::try_send(request).await.unwrap();
        assert_eq!(answer.status, 401);
        search.collected("a wrong key", &answer);
    }
    search.collected("a key that may not", &nobody.with_key(KEYS[1]).refresh(account, false).await);
}

/// Secrets in every wrong place of the file.
async fn reload_badly(search: &mut SecretSearch, lab: &Lab, daemon: &Daemon) {
    let secret = secret_of("stable");
    let mut failed = 0;
    for (place, value) in [
        ("/accounts/0/secret", json!([secret])),
        ("/accounts/0/secret", json!({ "value": secret })),
        ("/accounts/0/secret", json!(format!("${{{secret}"))),
        ("/accounts/0/secret_file", json!("missing")),
        ("/api/clients/0/key", json!([KEYS[0]])),
        ("/publish/0/redis", json!("redis://:password-5ecre7@h/x")),
        ("/publish/0/preset", json!("password-of-redis-5ecre7-and-more")),
        ("/api/clients/0/key_sha256", json!(KEYS[0])),
    ] {
        let mut config = lab.config.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        reload_and_check(search, lab, daemon, &config.to_string(), &mut failed).await;
    }
    let whole = lab.config.to_string();
    let cut = &whole[..whole.find(&secret).unwrap() + secret.len()];
    reload_and_check(search, lab, daemon, cut, &mut failed).await;
    reload_and_check(search, lab, daemon, &format!("accounts: *{secret}\n"), &mut failed).await;
    reload_and_check(search, lab, daemon, &format!("accounts:\n  - {secret}\n"), &mut failed).await;
}

async fn reload_and_check(
    search: &mut SecretSearch,
    lab: &Lab,
    daemon: &Daemon,
    text: &str,
    failed: &mut usize,
) {
    std::fs::write(lab.path("accounts.yaml"), text).unwrap();
    search.ran("check of a broken file", &lab.run(&["check"]).await);
    daemon.signal(Signal::HUP);
    *failed += 1;
    until(&format!("reload {failed} was refused: {text}"), async || {
        daemon.log.text().matches("the configuration cannot be used").count() == *failed
    })
    .await;
}

async fn run_the_commands(search: &mut SecretSearch, lab: &Lab, http: &Http) {
    let server = http.address().to_string();
    for args in [
        &["check"][..],
        &["--help"],
        &["status"],
        &["status", "--json"],
        &["refresh", "stable"],
        &["refresh", "echo"],
        &["token", "echo"],
        &["token", "nobody"],
        &["frobnicate"],
    ] {
        for key in [KEYS[0], "wrong"] {
            let mut command = lab.program(args);
            command.env("RUST_LOG", "trace").env("WXTOKEND_SERVER", &server).env("WXTOKEND_KEY", key);
            search.ran(&args.join(" "), &ended(command).await);
        }
    }
}

/// Collects everything in the event stream from now on.
async fn listen(http: &Http) -> Arc<Mutex<String>> {
    let collected = Arc::new(Mutex::new(String::new()));
    let reported = Arc::clone(&collected);
    let mut stream = http.request(Method::GET, "/v1/events").send().await.unwrap();
    tokio::spawn(async move {
        while let Ok(Some(chunk)) = stream.chunk().await {
            reported.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk));
        }
    });
    collected
}

/// A Redis whose keys contain the AppSecrets, and a sink with a wrong password for it.
async fn publish(lab: &mut Lab) -> Redis {
    let redis = Redis::start_with(lab, "password-of-redis-5ecre7", &[]).await;
    let sink = |preset: &str, url: String| json!({ "redis": url, "preset": preset, "accounts": ["*"] });
    let wrong = redis.url().replace("password-of-redis", "another-password");
    lab.config["publish"] = json!([sink("easywechat6", redis.url()), sink("wxjava", wrong)]);
    redis
}

async fn no_secret_is_shown(format: &str) {
    let mut lab = lab().await;
    let redis = publish(&mut lab).await;
    let mut search = SecretSearch::default();
    lab.write();
    let mut command = lab.program(&["run", "--log-format", format]);
    command.env("RUST_LOG", "trace");
    let daemon = Daemon::start(command).await;
    let http = daemon.http.with_key(KEYS[0]);
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    search.said.push(("the process list".to_owned(), arguments));
    for account in ["stable", "classic"] {
        http.until_state(account, "fresh").await;
    }
    let collected = listen(&http).await;
    use_the_api(&mut search, &lab, &http).await;
    reload_badly(&mut search, &lab, &daemon).await;
    lab.write();
    run_the_commands(&mut search, &lab, &http).await;
    // A new secret, a new key and a removed account, all in a valid file.
    lab.wechat.set_secret(&appid("stable"), Secret::new("another-secret-5ecre7"));
    lab.account("stable")["secret"] = json!("another-secret-5ecre7");
    lab.config["api"]["clients"][0]["key"] = json!(KEYS[2]);
    lab.config["accounts"].as_array_mut().unwrap().pop();
    lab.write();
    daemon.signal(Signal::HUP);
    let http = daemon.http.with_key(KEYS[2]);
    until("the new key is taken", async || http.get("/v1/accounts").await.status == 200).await;
    use_the_api(&mut search, &lab, &http).await;
    until("a drift is noticed", async || {
        redis.ask::<()>(&["FLUSHDB"]).await;
        daemon.log.text().contains("redis_drift")
    })
    .await;
    assert!(daemon.log.text().contains("redis_down"));
    let (log, stdout) = (daemon.log.clone(), daemon.stdout.clone());
    assert!(daemon.stop().await.success());
    assert!(log.text().lines().count() > 60, "too few lines to tell");
    search.said.push((format!("the {format} log"), log.text()));
    search.said.push(("stdout of run".to_owned(), stdout.text()));
    let collected = collected.lock().unwrap().clone();
    for event in ["token", "ticket", "state"] {
        assert!(collected.contains(&format!("event: {event}\n")), "{collected}");
    }
    search.said.push(("the event stream".to_owned(), collected));
    assert!(!search.said.iter().any(|(_, text)| text.contains("panicked")), "{}", log.text());
    search.judge();
}

#[tokio::test]
async fn no_secret_token_or_key_is_shown_anywhere_at_the_most_talkative_text_log() {
    no_secret_is_shown("text").await;
}

#[tokio::test]
async fn no_secret_token_or_key_is_shown_anywhere_at_the_most_talkative_json_log() {
    no_secret_is_shown("json").await;
}
