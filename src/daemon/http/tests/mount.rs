//! The API as a router in a program of its own.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, Version};
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::{LONG, Metrics, READ, Rig, TestApi, client};
use crate::config::{Allow, PerAccount};
use crate::daemon::http::{Clients, metrics_router, router};

/// A program with a route of its own and the API below `/tokens/`.
fn program(rig: &Rig) -> Router {
    let clients = Clients::from(vec![client("ops", &["wx1"], Allow { admin: true, ..READ })]);
    Router::new()
        .route("/", get(async || "the program's own"))
        .nest_service("/tokens/", router(&rig.fleet, &clients, &rig.metrics))
        .nest_service("/monitoring/", metrics_router(&rig.fleet, &rig.metrics, PerAccount::All))
        .nest_service("/totals/", metrics_router(&rig.fleet, &rig.metrics, PerAccount::None))
}

async fn ask(program: &Router, method: Method, path: &str, key: Option<&str>) -> (StatusCode, String) {
    let mut request = Request::builder().method(method).uri(path).header("host", "shop.example");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    whole(program.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
}

async fn whole(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_api_and_its_page_can_be_mounted_below_a_path_and_ask_for_a_key_there() {
    let rig = Rig::start(TestApi::default()).await;
    let program = program(&rig);
    assert_eq!(ask(&program, Method::GET, "/", None).await.1, "the program's own");
    for path in ["/tokens/v1/accounts/wx1/token", "/tokens/v1/accounts", "/tokens/v1/events"] {
        let (status, body) = ask(&program, Method::GET, path, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}: {body}");
    }
    let token = rig.fleet.token("wx1").await.unwrap();
    let (status, body) = ask(&program, Method::GET, "/tokens/v1/accounts/wx1/token", Some("ops")).await;
    assert!(status == StatusCode::OK && body.contains(token.access_token()), "{body}");
    let (status, _) = ask(&program, Method::GET, "/tokens/v1/accounts/wx2/token", Some("ops")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let refresh = "/tokens/v1/accounts/wx1/token/refresh";
    assert_eq!(ask(&program, Method::POST, refresh, Some("ops")).await.0, StatusCode::OK);
    let (status, page) = ask(&program, Method::GET, "/tokens/", None).await;
    assert!(status == StatusCode::OK && page.contains("src=\"ui/main.js\""), "{page}");
    assert_eq!(ask(&program, Method::GET, "/tokens/ui/main.js", None).await.0, StatusCode::OK);
    assert_eq!(ask(&program, Method::GET, "/tokens/metrics", None).await.0, StatusCode::NOT_FOUND);
    let (status, metrics) = ask(&program, Method::GET, "/monitoring/metrics", None).await;
    assert!(status == StatusCode::OK && metrics.contains("wxtokend_token_age_seconds{appid=\"wx2\"}"));
    let (_, totals) = ask(&program, Method::GET, "/totals/metrics", None).await;
    assert!(totals.contains("wxtokend_accounts{") && !totals.contains("appid="), "{totals}");
    let counted = "wxtokend_http_request_duration_seconds_count{route=\"/v1/accounts\",status=\"401\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(
        ask(&program, Method::GET, "/monitoring/v1/accounts", Some("ops")).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn without_clients_a_mounted_api_lets_nobody_in() {
    let rig = Rig::start(TestApi::default()).await;
    let program = router(&rig.fleet, &Clients::from(Vec::new()), &Metrics::detached());
    let request = Request::get("/v1/accounts").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(program.oneshot(request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_mounted_api_answers_over_a_socket_and_ends_waits_with_the_fleet() {
    let rig = Rig::start(TestApi::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/tokens/v1/accounts/wx1/token", listener.local_addr().unwrap());
    let program = program(&rig);
    let serving = tokio::spawn(async move { axum::serve(listener, program).await });
    let client = reqwest::Client::new();
    let read =
        async |query: &str| client.get(format!("{base}{query}")).bearer_auth("ops").send().await.unwrap();
    let version = rig.fleet.account("wx1").unwrap().version;
    let after = format!("?after={version}&wait=60s");
    let waiting = async {
        let answer = read(&after).await;
        (answer.status(), answer.text().await.unwrap())
    };
    let stop = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        rig.fleet.shutdown().await;
    };
    let ((status, body), ()) =
        tokio::time::timeout(LONG, async { tokio::join!(waiting, stop) }).await.unwrap();
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("shutting_down"), "{body}");
    serving.abort();
}

#[tokio::test]
async fn below_a_path_with_parameters_the_account_is_that_of_our_own_path() {
    let rig = Rig::start(TestApi::default()).await;
    let clients = Clients::from(vec![client("ops", &["wx1", "wx2"], READ)]);
    let api = router(&rig.fleet, &clients, &Metrics::detached());
    let program = Router::new().nest_service("/{appid}/{type}/", api);
    let token = rig.fleet.token("wx2").await.unwrap();
    // With a query it is the router that answers.
    let path = format!("/wx1/x/v1/accounts/wx2/token?after={}&wait=1ms", token.version() + 1);
    let (status, body) = ask(&program, Method::GET, &path, Some("ops")).await;
    assert!(status == StatusCode::OK && body.contains("\"wx2\""), "{body}");
    let (status, body) =
        ask(&program, Method::GET, "/wx1/x/v1/accounts/wx2/tickets/jsapi", Some("ops")).await;
    assert!(status == StatusCode::NOT_FOUND && body.contains("tickets: [jsapi]"), "{body}");
}

#[tokio::test]
async fn an_empty_key_opens_nothing_even_if_a_client_has_it() {
    let rig = Rig::start(TestApi::default()).await;
    let api = router(&rig.fleet, &Clients::from(vec![client("", &["*"], Allow::ALL)]), &Metrics::detached());
    let program = Router::new().nest_service("/tokens/", api);
    let token = rig.fleet.token("wx1").await.unwrap();
    let as_wechat = "/tokens/cgi-bin/token?grant_type=client_credential&appid=wx1";
    for path in [as_wechat, &format!("{as_wechat}&secret="), "/tokens/v1/accounts/wx1/token"] {
        let (_, body) = ask(&program, Method::GET, path, Some("")).await;
        assert!(!body.contains(token.access_token()), "{path}: {body}");
    }
}

#[tokio::test]
async fn an_old_browser_signs_in_over_http_2_from_our_page_and_from_no_other() {
    let rig = Rig::start(TestApi::default()).await;
    let program = program(&rig);
    let sign_in = async |from: &str| {
        // It sends `Origin`, but no `Sec-Fetch-Site`; HTTP/2 has no `Host`.
        let request = Request::post("https://shop.example/tokens/v1/session")
            .version(Version::HTTP_2)
            .header("origin", from)
            .header("content-type", "application/json")
            .body(Body::from("{\"key\":\"ops\"}"));
        whole(program.clone().oneshot(request.unwrap()).await.unwrap()).await.0
    };
    assert_eq!(sign_in("https://shop.example").await, StatusCode::NO_CONTENT);
    assert_eq!(sign_in("https://evil.example").await, StatusCode::FORBIDDEN);
}
