//! Checks that no token and no ticket ever reaches the page.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

/// Length of a part of a token: too long to occur by chance, short enough to find a truncated token.
const PART: usize = 20;

/// All living tokens, and as many tickets as are kept.
fn living(page: &Page) -> BTreeSet<String> {
    page.lab.wechat.with(|world, now| {
        let appids: Vec<_> = world.accounts().cloned().collect();
        let truths: Vec<_> = appids.iter().filter_map(|appid| world.truth(appid, now)).collect();
        let tickets = truths.iter().flat_map(|truth| &truth.living_tickets);
        assert_eq!(tickets.clone().count(), 3, "there are tickets to be told");
        let tokens = truths.iter().flat_map(|truth| &truth.living_tokens);
        tokens.map(|token| &token.access_token).chain(tickets).map(|one| one.expose().to_owned()).collect()
    })
}

/// Everything that the browser has received, by address: bodies, and the events of the stream.
async fn received(browser: &Browser) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for line in browser.log("performance").await {
        let line: Value = serde_json::from_str(line["message"].as_str().unwrap()).unwrap();
        let (method, params) = (&line["message"]["method"], &line["message"]["params"]);
        if method == "Network.eventSourceMessageReceived" {
            all.push(("an event".to_owned(), params["data"].as_str().unwrap().to_owned()));
        }
        if method == "Network.responseReceived" {
            let url = params["response"]["url"].as_str().unwrap().to_owned();
            let id = json!({ "requestId": params["requestId"] });
            // Some answers have no body, such as 204.
            if let Some(body) = browser.try_cdp("Network.getResponseBody", id).await {
                all.push((url.clone(), body["body"].as_str().unwrap().to_owned()));
            }
            all.push((url, params["response"]["headers"].to_string()));
        }
    }
    all
}

/// Asserts that neither the page nor any answer to it contains a token or a ticket. It must have had answers
/// from each of `paths`.
pub(super) async fn no_token_went_to(page: &Page, paths: &[&str]) {
    let tokens = living(page);
    assert!(tokens.len() >= 9, "{} are too few to tell", tokens.len());
    let mut said = received(&page.browser).await;
    for path in paths {
        let body = said.iter().find(|(url, text)| url.contains(path) && text.starts_with('{'));
        assert!(body.is_some(), "the browser tells nothing of {path}");
    }
    for (what, script) in [
        ("the page", "document.documentElement.outerHTML"),
        ("its text", "document.documentElement.innerText"),
        ("its storage", "JSON.stringify({ ...localStorage, ...sessionStorage })"),
        ("its cookies", "document.cookie"),
        ("its address", "location.href"),
    ] {
        said.push((what.to_owned(), page.browser.text(script).await));
    }
    for (from, text) in &said {
        assert!(!from.ends_with("/token"), "the page has read a token: {from}");
        assert!(!from.contains("/tickets/"), "the page has read a ticket: {from}");
        assert!(!text.contains("\"access_token\""), "{from} has a place for a token: {text}");
        for token in &tokens {
            let ends = [&token[..PART], &token[token.len() - PART..]];
            assert!(!ends.iter().any(|part| text.contains(part)), "{from} holds a token: {text}");
        }
    }
}

#[tokio::test]
async fn no_token_reaches_the_page_whatever_is_done_there() {
    let page = Page::of_the_operator(LONG).await;
    page.break_account("wx05", 40164).await;
    page.until_text("[data-appid=wx05] .state", "parked").await;
    for (account, said) in [("wx03", "Not now"), ("wx01", "still valid, version")] {
        page.go(&format!("/#/accounts/{account}")).await;
        page.until_text(".history", "new token").await;
        if account == "wx01" {
            page.until_text(".ticket[data-ticket=wx_card]", "fresh").await;
            page.until_text(".history", "new ticket").await;
        }
        page.browser.click(".refresh .main").await;
        page.until_text(".refresh .said", said).await;
    }
    page.browser.click(".refresh button:nth-of-type(2)").await;
    page.browser.click("dialog .danger").await;
    page.until_text(".refresh .said", "There is a new token, version").await;
    page.until_text(".history [data-event=refresh]", "forced").await;
    no_token_went_to(&page, &["/v1/session", "/v1/accounts?", "/token/refresh", "/history", "an event"])
        .await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}
