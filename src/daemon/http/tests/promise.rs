//! How long a client may keep what it is given.

use wxtokend_core::ticket::TicketKind;

use super::*;

const MAY: Allow = Allow { read: true, refresh: true, admin: true, ..Allow::NONE };

fn capped(key: &str, seconds: u64) -> Client {
    Client { promise_at_most: Some(Duration::from_secs(seconds)), ..client(key, &["*"], MAY) }
}

#[tokio::test]
async fn a_client_is_promised_no_more_than_its_cap_in_whatever_answer() {
    let with_ticket =
        account("wx1").with(|settings| settings.tickets = [TicketKind::Jsapi].into_iter().collect());
    let clients = vec![client("free", &["*"], MAY), capped("capped", 100), capped("below", 1)];
    let rig = Rig::start(TestApi { accounts: vec![with_ticket], clients, ..TestApi::default() }).await;
    for (key, most) in [("capped", 100), ("below", 60)] {
        let token = rig.fleet.token("wx1").await.unwrap();
        let age = format!("private, max-age={most}");
        for path in ["/v1/accounts/wx1/token", "/v1/accounts/wx1/token?after=0"] {
            let answer = rig.get_as(key, path).await;
            let json = answer.json();
            assert_eq!((json["expires_in"].as_u64(), answer.header("cache-control")), (Some(most), &*age));
            assert_eq!(json["expires_at"], token.expires_at().to_string(), "the token's own: {answer:?}");
            let authorization = format!("Bearer {key}");
            let known = [("authorization", &*authorization), ("if-none-match", answer.header("etag"))];
            let known = rig.call("GET", path, &known, "").await;
            assert_eq!((known.status, known.header("cache-control")), (304, &*age));
        }
        let poll = format!("/v1/accounts/wx1/token?after={}&wait=1ms", token.version());
        let unchanged = rig.get_as(key, &poll).await;
        assert_eq!((unchanged.status, unchanged.header("cache-control")), (304, &*age));
        let ticket = rig.get_as(key, "/v1/accounts/wx1/tickets/jsapi").await;
        assert_eq!(
            (ticket.json()["expires_in"].as_u64(), ticket.header("cache-control")),
            (Some(most), &*age)
        );
        let report = format!("{{\"access_token\":\"{}\"}}", token.access_token());
        let headers = [("authorization", &*format!("Bearer {key}")), ("content-type", "application/json")];
        for (path, body) in [("reject", &*report), ("refresh", "")] {
            let path = format!("/v1/accounts/wx1/token/{path}");
            let answer = rig.call("POST", &path, &headers, body).await.json();
            assert_eq!(
                (answer["access_token"].as_str(), answer["expires_in"].as_u64()),
                (Some(token.access_token()), Some(most))
            );
        }
        let classic = format!("/cgi-bin/token?grant_type=client_credential&appid=wx1&secret={key}");
        assert_eq!(rig.get(&classic).await.json()["expires_in"].as_u64(), Some(most));
        for force in [false, true] {
            let body = serde_json::json!({
                "grant_type": "client_credential", "appid": "wx1", "secret": key, "force_refresh": force,
            });
            let stable = rig.call("POST", "/cgi-bin/stable_token", &[], &body.to_string()).await;
            assert_eq!(
                stable.json()["expires_in"].as_u64(),
                Some(300),
                "as little as WeChat's own: {stable:?}"
            );
        }
    }
    let free = rig.get_as("free", "/v1/accounts/wx1/token").await;
    assert!(free.json()["expires_in"].as_u64().unwrap() > 7000, "{free:?}");
}
