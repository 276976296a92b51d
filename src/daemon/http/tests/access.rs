//! Requests that wait while the clients are replaced. On paused time and without sockets, so that a request
//! that should wait really does.

use tokio::io::{DuplexStream, duplex};
use wxtokend_core::account::Endpoint;
use wxtokend_core::ticket::TicketKind;
use wxtokend_sandbox::{Call, FaultKind};

use super::*;
use crate::daemon::http::app_state::{AppState, AppStateInner};
use crate::daemon::http::{listener, routes};
use crate::fleet::tests::lab::{APPID, Lab};

const SIGN: Allow = Allow { sign: true, ..Allow::NONE };
/// Longer than anything takes that does not wait.
const BRIEFLY: Duration = Duration::from_millis(100);

/// An API in front of a simulated fleet.
pub(super) struct LabApi {
    pub(super) lab: Lab,
    pub(super) app: AppState,
}

/// A request that has not been answered yet.
pub(super) struct PendingRequest {
    pub(super) client: DuplexStream,
}

impl LabApi {
    /// Opens an API with two accounts: `wx01`, with a token and a jsapi ticket, and `cold`, whose calls hang
    /// for 3 s.
    pub(super) async fn open(clients: Vec<Client>) -> Self {
        let mut accounts =
            [APPID, "cold"].map(|appid| crate::fleet::tests::lab::account(appid, Endpoint::StableToken));
        accounts[0].settings.tickets = [TicketKind::Jsapi].into_iter().collect();
        accounts[1].settings.tickets = [TicketKind::Jsapi].into_iter().collect();
        let lab = Lab::with(accounts.into()).await;
        lab.wechat.inject(Some(&id("cold")), Fault::new(FaultKind::Delay { delay_ms: 3_000 }));
        lab.fleet.token(APPID).await.unwrap();
        let clients = Clients::new(clients, true);
        let app = AppStateInner::new(lab.fleet.clone(), clients, Metrics::detached(), &Config::new([]));
        Self { lab, app }
    }

    fn set(&self, clients: Vec<Client>) {
        self.app.clients.set(clients);
    }

    /// Sends a request with `head` (a request line and headers) and the first `sent` bytes of `body`.
    pub(super) async fn begin(&self, key: &str, head: &str, body: &str, sent: usize) -> PendingRequest {
        let (mut client, server) = duplex(64 * 1024);
        let app = AppState::clone(&self.app);
        drop(tokio::spawn(async move {
            let service = routes::api(&app, true);
            drop(
                listener::converse(server, |_| false, service, listener::IDLE, Arc::default(), &app.stopping)
                    .await,
            );
        }));
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n{}",
            body.len(),
            &body[..sent]
        );
        client.write_all(request.as_bytes()).await.unwrap();
        sleep(BRIEFLY).await;
        PendingRequest { client }
    }

    /// Sends a request with its whole body.
    pub(super) async fn ask(&self, key: &str, head: &str, body: &str) -> PendingRequest {
        self.begin(key, head, body, body.len()).await
    }
}

impl PendingRequest {
    async fn is_waiting(&mut self) -> bool {
        timeout(BRIEFLY, self.client.read_u8()).await.is_err()
    }

    async fn send(&mut self, rest: &str) {
        // A request that was refused meanwhile takes no more bytes.
        let _ = self.client.write_all(rest.as_bytes()).await;
    }

    /// Waits for the answer and returns its status and body.
    async fn answer(mut self) -> (u16, String) {
        let mut text = String::new();
        timeout(Duration::from_secs(90), self.client.read_to_string(&mut text))
            .await
            .expect("an end")
            .unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        (head[9..12].parse().unwrap(), body.to_owned())
    }
}

/// The `code` or the `errcode` of a refusal.
fn refusal(answer: &(u16, String)) -> String {
    let json: Value = serde_json::from_str(&answer.1).unwrap_or_else(|_| panic!("{answer:?}"));
    json["code"].as_str().map_or_else(|| json["errcode"].to_string(), str::to_owned)
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test(start_paused = true)]
async fn a_waiting_clients_rights_are_checked_again_before_it_gets_or_does_anything() {
    let long_poll = "GET /v1/accounts/wx01/token?after=V&wait=60s";
    let report = format!("POST /v1/accounts/wx01/token/reject\n{JSON}");
    let stable_token_body = r#"{"grant_type":"client_credential","appid":"cold","secret":"key"}"#;
    for (head, body, allow) in [
        (long_poll, "", READ),
        ("GET /v1/accounts/cold/token", "", READ),
        ("GET /v1/accounts/cold/tickets/jsapi", "", READ),
        ("GET /v1/accounts/cold/jssdk?url=https://shop.example/", "", SIGN),
        ("POST /v1/accounts/cold/token/refresh", "", ADMIN),
        (&report, r#"{"access_token":"T"}"#, REFRESH),
        ("GET /cgi-bin/token?grant_type=client_credential&appid=cold&secret=key", "", READ),
        ("POST /cgi-bin/stable_token", stable_token_body, READ),
        ("POST /cgi-bin/token", "grant_type=client_credential&appid=cold&secret=key", READ),
    ] {
        let is_wechat_api = head.contains("/cgi-bin/");
        let key = |key: &str, accounts: &[&str], allow| vec![client(key, accounts, allow)];
        for (what, after, code, errcode) in [
            ("removed", key("other", &["*"], Allow::ALL), "unauthorized", "40125"),
            ("no clients at all", Vec::new(), "unauthorized", "40125"),
            ("may do nothing", key("key", &["*"], Allow::NONE), "forbidden", "48001"),
            ("has other accounts", key("key", &["wx02"], allow), "forbidden", "48001"),
            ("has its right still", key("key", &["wx01", "cold"], allow), "200", "200"),
        ] {
            let api = LabApi::open(vec![client("key", &["*"], allow)]).await;
            let token = api.lab.token().await;
            api.lab
                .wechat
                .inject(Some(&id(APPID)), Fault::new(FaultKind::Delay { delay_ms: 3_000 }).on(Call::Check));
            let head = head.replace("=V", &format!("={}", token.version()));
            let body = body.replace("\"T\"", &format!("{:?}", token.access_token()));
            let mut request = api.ask("key", &head, &body).await;
            assert!(request.is_waiting().await, "{head}");
            api.set(after);
            if head.contains("after=") {
                api.lab.fleet.refresh(APPID, true).await.unwrap();
            }
            let answer = request.answer().await;
            let outcome = if answer.0 == 200 && answer.1.find("errcode").is_none() {
                "200".to_owned()
            } else {
                refusal(&answer)
            };
            assert_eq!(outcome, if is_wechat_api { errcode } else { code }, "{head}, {what}: {answer:?}");
            assert!(code == "200" || !answer.1.contains("access_token\":"), "{head}, {what}: {answer:?}");
            api.lab.fleet.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_without_a_key_is_refused_as_soon_as_there_are_clients() {
    let api = LabApi::open(Vec::new()).await;
    let mut request = api.ask("key", "GET /v1/accounts/cold/token", "").await;
    assert!(request.is_waiting().await);
    // This also holds for a client that sent a key although none was needed: it was let in without one.
    api.set(vec![client("key", &["*"], READ)]);
    assert_eq!(refusal(&request.answer().await), "unauthorized");
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_key_goes_while_it_is_sent_reports_nothing() {
    let path = format!("POST /v1/accounts/wx01/token/reject\n{JSON}");
    for (after, code) in [
        (client("other", &["*"], Allow::ALL), "unauthorized"),
        (client("key", &["*"], READ), "forbidden"),
        (client("key", &["wx02"], REFRESH), "forbidden"),
    ] {
        let api = LabApi::open(vec![client("key", &["*"], REFRESH)]).await;
        let token = api.lab.token().await;
        let body = serde_json::json!({ "access_token": token.access_token() }).to_string();
        let mut request = api.begin("key", &path, &body, 5).await;
        api.set(vec![after]);
        request.send(&body[5..]).await;
        assert_eq!(refusal(&request.answer().await), code);
        sleep(Duration::from_secs(10)).await;
        let history = api.lab.fleet.history(APPID, 100).unwrap();
        assert!(history.iter().all(|event| event.event != "rejection"), "{code}");
        api.lab.fleet.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_lost_read_learns_only_the_outcome_of_its_report() {
    let api = LabApi::open(vec![client("key", &["*"], Allow::ALL)]).await;
    let token = api.lab.token().await;
    api.lab.wechat.kill_tokens(&id(APPID));
    let body = serde_json::json!({ "access_token": token.access_token() }).to_string();
    api.lab.wechat.inject(Some(&id(APPID)), Fault::new(FaultKind::Delay { delay_ms: 1_000 }));
    let mut request = api.ask("key", &format!("POST /v1/accounts/wx01/token/reject\n{JSON}"), &body).await;
    assert!(request.is_waiting().await);
    api.set(vec![client("key", &["*"], REFRESH)]);
    let (status, body) = request.answer().await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"outcome\":\"refreshed\"") && !body.contains("access_token\":"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_signed_by_the_urls_that_hold_when_it_is() {
    let with = |url: &str| Client { urls: vec![url.to_owned()], ..client("key", &["*"], SIGN) };
    let api = LabApi::open(vec![with("https://shop.example/")]).await;
    let mut request = api.ask("key", "GET /v1/accounts/cold/jssdk?url=https://shop.example/a", "").await;
    assert!(request.is_waiting().await);
    api.set(vec![with("https://shop.example/b/")]);
    assert_eq!(refusal(&request.answer().await), "forbidden");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_waits_for_its_turn_has_the_accounts_that_its_key_has_then() {
    let api = LabApi::open(vec![client("key", &["*"], READ)]).await;
    let all = u32::try_from(api.app.pages.available_permits()).unwrap();
    let permits = Arc::clone(&api.app.pages).acquire_many_owned(all).await.unwrap();
    let mut request = api.ask("key", "GET /v1/accounts", "").await;
    assert!(request.is_waiting().await);
    api.set(vec![client("key", &["cold"], READ)]);
    drop(permits);
    let (status, body) = request.answer().await;
    assert_eq!(status, 200);
    assert!(body.contains("\"cold\"") && !body.contains(APPID), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_filters_events_by_the_grants_that_hold_when_they_are_sent() {
    let api = LabApi::open(vec![client("key", &["*"], READ)]).await;
    // Reads nothing until more events have happened than the buffer holds.
    let (mut client_side, server) = duplex(256);
    let app = AppState::clone(&api.app);
    drop(tokio::spawn(async move {
        let service = routes::api(&app, true);
        drop(
            listener::converse(server, |_| false, service, listener::IDLE, Arc::default(), &app.stopping)
                .await,
        );
    }));
    let headers = "Host: localhost\r\nAuthorization: Bearer key\r\nConnection: close";
    let request = format!("GET /v1/events HTTP/1.1\r\n{headers}\r\n\r\n");
    client_side.write_all(request.as_bytes()).await.unwrap();
    sleep(BRIEFLY).await;
    for _ in 0..50 {
        api.lab.fleet.refresh(APPID, false).await.unwrap();
        api.lab.fleet.note_reload(true);
        sleep(BRIEFLY).await;
    }
    api.set(vec![client("key", &["cold"], READ)]);
    api.app.fleet.note_reload(false);
    let mut received = String::new();
    while !received.contains("\"successful\":false") {
        let mut some = [0; 256];
        let read = timeout(LONG, client_side.read(&mut some)).await.expect("news").unwrap();
        received.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }
    let count = received.matches("\"appid\":\"wx01\"").count();
    assert!(count < 50, "{count} events of an account that is its key's no more");
    api.set(vec![client("other", &["*"], READ)]);
    let mut rest = String::new();
    timeout(LONG, client_side.read_to_string(&mut rest)).await.expect("an end").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_of_stable_token_brings_the_due_refresh_forward_and_no_other_call_does() {
    let api = LabApi::open(vec![client("key", &["*"], READ)]).await;
    let query = "grant_type=client_credential&appid=wx01&secret=key";
    let body = r#"{"grant_type":"client_credential","appid":"wx01","secret":"key"}"#;
    // WeChat mints from 300 s before the end on, and the refresh is scheduled for a minute later.
    sleep(Duration::from_secs(7200 - 290)).await;
    for head in [
        "GET /v1/accounts/wx01/token".to_owned(),
        format!("GET /cgi-bin/token?{query}"),
        "GET /v1/accounts/wx01".to_owned(),
    ] {
        assert_eq!(api.ask("key", &head, "").await.answer().await.0, 200);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(api.lab.calls(), 1, "{head}");
    }
    let promised = async || {
        let (_, answer) = api.ask("key", "POST /cgi-bin/stable_token", body).await.answer().await;
        serde_json::from_str::<Value>(&answer).unwrap()["expires_in"].as_u64().unwrap()
    };
    assert!(promised().await < 300, "what there is, at once");
    assert!(promised().await > 7000, "and a moment later what WeChat would have answered");
    assert_eq!((api.lab.calls(), api.lab.mints()), (2, 2));
    api.lab.fleet.shutdown().await;
}
