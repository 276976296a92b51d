//! Tickets, the signing of pages, and WeChat's own call for tickets.

use wxtokend_core::ticket::TicketKind;

use super::*;

const SIGN: Allow = Allow { sign: true, ..Allow::NONE };
const URL: &str = "/v1/accounts/wx1/jssdk?url=";

fn with_tickets(appid: &str) -> Account {
    account(appid).with(|settings| settings.tickets = [TicketKind::Jsapi].into_iter().collect())
}

async fn rig(clients: Vec<Client>) -> Rig {
    Rig::start(TestApi { accounts: vec![with_tickets("wx1"), account("wx2")], clients, ..TestApi::default() })
        .await
}

fn jsapi(rig: &Rig, appid: &str) -> String {
    rig.sandbox.truth(&id(appid)).unwrap().living_tickets[0].expose().to_owned()
}

#[tokio::test]
async fn a_ticket_is_returned_to_readers_with_the_lifetime_that_they_may_count_on() {
    let rig = rig(vec![client("crm", &["wx1"], READ), client("web", &["*"], SIGN)]).await;
    let path = "/v1/accounts/wx1/tickets/jsapi";
    let answer = rig.get_as("crm", path).await;
    let json = answer.json();
    assert_eq!(
        (&json["appid"], &json["type"], json["ticket"].as_str()),
        (&"wx1".into(), &"jsapi".into(), Some(&*jsapi(&rig, "wx1")))
    );
    // The ticket's age is not known yet.
    assert!((290..=300).contains(&json["expires_in"].as_u64().unwrap()), "{answer:?}");
    assert!(json["expires_at"].as_str().unwrap().ends_with('Z') && json["version"].is_u64());
    let etag = answer.header("etag").to_owned();
    assert!(etag.starts_with(&format!("\"{}-", json["version"])), "{etag}");
    assert_eq!(answer.header("cache-control"), format!("private, max-age={}", json["expires_in"]));
    let key = [("authorization", "Bearer crm"), ("if-none-match", etag.as_str())];
    let known = rig.call("GET", path, &key, "").await;
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", etag.as_str()));
    for (key, path, code) in [
        ("crm", "/v1/accounts/wx1/tickets/wx_card", "not_found"),
        ("crm", "/v1/accounts/wx1/tickets/wedding", "not_found"),
        ("crm", "/v1/accounts/wx1/tickets/jsapi?x=1", "bad_request"),
        ("crm", "/v1/accounts/wx2/tickets/jsapi", "forbidden"),
        ("web", "/v1/accounts/wx1/tickets/jsapi", "forbidden"),
        ("web", "/v1/accounts/wx1/token", "forbidden"),
        ("nobody", "/v1/accounts/wx1/tickets/jsapi", "unauthorized"),
    ] {
        rig.is_problem(&rig.get_as(key, path).await, code);
    }
    let answer = rig.get_as("crm", "/v1/accounts/wx1/tickets/wx_card").await;
    assert!(answer.body.contains("add tickets: [wx_card]"), "{answer:?}");
}

#[tokio::test]
async fn an_account_shows_its_tickets_without_their_values() {
    let rig = rig(Vec::new()).await;
    rig.fleet.ticket("wx1", TicketKind::Jsapi).await.unwrap();
    let answer = rig.get("/v1/accounts/wx1").await;
    let ticket = &answer.json()["tickets"][0];
    assert_eq!((&ticket["type"], &ticket["state"]), (&"jsapi".into(), &"fresh".into()), "{answer:?}");
    assert!(ticket["last_fault"].is_null() && ticket["expires_at"].is_string() && !rig.leaks(&answer.body));
    assert_eq!(rig.get("/v1/accounts").await.json()["accounts"][1]["tickets"], serde_json::json!([]));
}

#[tokio::test]
async fn a_ticket_that_cannot_be_had_is_a_503_that_says_why() {
    let faults = vec![("wx1", Fault::errcode(48001).on(wxtokend_sandbox::Call::Ticket))];
    let accounts = vec![with_tickets("wx1")];
    let rig = Rig::start(TestApi { accounts, faults, ..TestApi::default() }).await;
    let answer = rig.get("/v1/accounts/wx1/tickets/jsapi").await;
    rig.is_problem(&answer, "token_unavailable");
    let json = answer.json();
    assert_eq!((&json["state"], &json["last_fault"]["errcode"]), (&"parked".into(), &48001.into()));
    assert!(!answer.header("retry-after").is_empty());
    rig.is_problem(&rig.get(&format!("{URL}http://a.example/")).await, "token_unavailable");
}

#[tokio::test]
async fn a_page_is_signed_for_clients_that_may_sign_or_read() {
    let rig =
        rig(vec![client("web", &["wx1"], SIGN), client("crm", &["*"], READ), client("ops", &["*"], ADMIN)])
            .await;
    for key in ["web", "crm"] {
        let answer =
            rig.get_as(key, &format!("{URL}https%3A%2F%2Fa.example%2F%3Fa%3D1%26b%3D%252F%23top")).await;
        let json = answer.json();
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{answer:?}");
        assert_eq!((json.as_object().unwrap().len(), &json["appId"]), (4, &"wx1".into()));
        let text = format!(
            "jsapi_ticket={}&noncestr={}&timestamp={}&url=https://a.example/?a=1&b=%2F",
            jsapi(&rig, "wx1"),
            json["nonceStr"].as_str().unwrap(),
            json["timestamp"].as_i64().unwrap()
        );
        assert_eq!(
            json["signature"],
            wxtokend_core::secret::hex(&<sha1::Sha1 as sha1::Digest>::digest(text))
        );
    }
    for (key, url, code) in [
        ("web", "", "bad_request"),
        ("web", "shop", "bad_request"),
        ("web", "javascript:alert(1)", "bad_request"),
        ("web", "https://a/&type=x", "bad_request"),
        ("ops", "https://a/", "forbidden"),
        ("x", "https://a/", "unauthorized"),
    ] {
        rig.is_problem(&rig.get_as(key, &format!("{URL}{url}")).await, code);
    }
    rig.is_problem(&rig.get_as("web", "/v1/accounts/wx2/jssdk?url=https://a/").await, "forbidden");
    rig.is_problem(&rig.get_as("crm", "/v1/accounts/wx2/jssdk?url=https://a/").await, "not_found");
}

#[tokio::test]
async fn nobody_signs_foreign_pages() {
    let urls = vec!["https://shop.example.com/".to_owned(), "http://localhost:8080/app".to_owned()];
    let rig = rig(vec![Client { urls, ..client("web", &["wx1"], SIGN) }]).await;
    for (url, may) in [
        ("https://shop.example.com/", true),
        ("https://shop.example.com/a?b=c%23d", true),
        ("http://localhost:8080/app/x", true),
        ("http://shop.example.com/", false),
        ("https://shop.example.com", false),
        ("https://shop.example.com.evil.example/", false),
        ("https://shop.example.com@evil.example/", false),
        ("https://evil.example/?https://shop.example.com/", false),
        ("https://evil.example/%23https://shop.example.com/", false),
        ("https://SHOP.example.com/", false),
        ("http://localhost:8080/other", false),
    ] {
        let answer = rig.get_as("web", &format!("{URL}{url}")).await;
        if may {
            assert_eq!(answer.status, 200, "{url}: {answer:?}");
        } else {
            rig.is_problem(&answer, "forbidden");
        }
    }
}

#[tokio::test]
async fn an_sdk_gets_a_ticket_with_the_token_that_it_has() {
    let rig = rig(vec![client("crm", &["*"], READ)]).await;
    let token = rig.fleet.token("wx1").await.unwrap();
    let other = rig.fleet.token("wx2").await.unwrap();
    let path = |token: &str, kind: &str| {
        let query = [("access_token", token), ("type", kind)];
        let url = reqwest::Url::parse_with_params("http://hub/", query).unwrap();
        format!("//cgi-bin/ticket/getticket?{}", url.query().unwrap())
    };
    let answer = rig.get(&path(token.access_token(), "jsapi")).await;
    let json = answer.json();
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{answer:?}");
    assert_eq!((&json["errcode"], &json["errmsg"]), (&0.into(), &"ok".into()));
    assert_eq!((json["ticket"].as_str(), json["expires_in"].is_u64()), (Some(&*jsapi(&rig, "wx1")), true));
    for (path, errcode) in [
        (path("", "jsapi"), 41001),
        (path("somebodys", "jsapi"), 40001),
        (path("crm", "jsapi"), 40001),
        (path(token.access_token(), "wedding"), 40097),
        (path(token.access_token(), "wx_card"), 48001),
        (path(other.access_token(), "jsapi"), 48001),
    ] {
        let answer = rig.get(&path).await;
        assert_eq!((answer.status, &answer.json()["errcode"]), (200, &errcode.into()), "{answer:?}");
        assert!(answer.json().get("ticket").is_none() && !rig.leaks(&answer.body), "{answer:?}");
    }
    let answer = rig.post(&path(token.access_token(), "jsapi")).await;
    assert_eq!(answer.json()["ticket"], jsapi(&rig, "wx1"), "some SDKs post");
}
