//! The headline: what clients notice, what is about to affect them, and whether a person is needed.

use wxtokend_sandbox::{Call, Outage};

use super::*;

/// An expression that is true if the element is visible.
fn is_seen(css: &str) -> String {
    format!("document.querySelector('{css}').checkVisibility()")
}

#[tokio::test]
async fn nobody_is_needed_only_while_all_is_well() {
    let lab = lab(LONG).await;
    lab.wechat.set_outage(Some(Outage::Refuse));
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    let browser = &page.browser;
    page.until_text(".without", "6 have no token").await;
    page.until_text(".unreachable", "WeChat unreachable since ").await;
    page.until_text("#hosts", "WeChat has been unreachable since ").await;
    page.until_text("#hosts", &page.lab.wechat.address.to_string()).await;
    browser.until(&format!("!{}", is_seen(".person"))).await;
    page.go("/#/accounts/wx01").await;
    page.until_text("h1", "Flower Shop").await;
    browser.until(&is_seen("#hosts")).await;
    browser.click("#language").await;
    page.until_text("#hosts", "起无法连接微信").await;
    browser.click("#language").await;
    page.go("/#/").await;

    page.lab.wechat.set_outage(None);
    page.until_text(".share", "6 of 6 fresh").await;
    page.until_text(".person", "nobody is needed").await;
    for gone in ["#hosts", ".without", ".unreachable", ".ending", ".failing"] {
        browser.until(&format!("!{}", is_seen(gone))).await;
    }
    // Throttled: WeChat's quota does not need a person at once, but something is wrong.
    page.break_account("wx05", 45009).await;
    page.until_text("[data-appid=wx05] .state", "degraded").await;
    browser.until(&format!("!{}", is_seen(".person"))).await;
    page.console_is_clean_but_for(&["401 /v1/session", "404 /favicon"]).await;
}

#[tokio::test]
async fn nothing_is_said_of_the_soonest_expiry_before_the_list_is_there() {
    let page = Page::open(lab(LONG).await, Screen::default()).await;
    for account in ["wx01", "wx02", "wx03", "wx04", "wx05", "wx06"] {
        page.ops().until_state(account, "fresh").await;
    }
    let browser = &page.browser;
    browser.until("document.querySelector('#key')").await;
    let watch = "window.seen = [];
        const look = () => {
            const line = document.querySelector('.soonest');
            if (line?.checkVisibility()) window.seen.push(line.textContent);
        };
        const all = { subtree: true, childList: true, characterData: true, attributes: true };
        new MutationObserver(look).observe(document.body, all);";
    browser.run(watch).await;
    page.sign_in(OPS).await;
    browser.until("window.seen.some(text => /^soonest expiry .*[0-9]/.test(text))").await;
    let seen = browser.text("window.seen.join('; ')").await;
    assert!(!seen.contains("no valid token"), "{seen}");
}

#[tokio::test]
async fn an_outage_shows_how_many_tokens_end_within_five_minutes() {
    let page = Page::of_the_operator((240_000, 2_000)).await;
    page.until_text(".share", "6 of 6 fresh").await;
    // The tokens live shorter, which is no problem while they can be refreshed.
    page.until_text(".person", "nobody is needed").await;
    page.break_account("wx02", 40164).await;
    page.until_text(".ending", "1 ends within 5 min").await;
    page.lab.wechat.set_outage(Some(Outage::Refuse));
    page.ops().refresh("wx04", false).await;
    page.until_text(".unreachable", "WeChat unreachable since ").await;
    page.until_text(".ending", "6 end within 5 min").await;
    page.until_text("[data-appid=wx04] .state", "degraded").await;
    // What needs a person is still shown, with a note that WeChat cannot be asked now.
    page.ops().refresh("wx02", false).await;
    page.until_text("[data-appid=wx02] .state", "parked").await;
    page.until_text("[data-appid=wx02] .fault", "whitelist").await;
    page.go("/#/accounts/wx02").await;
    page.until_text(".trouble .obstacle", "Held up by: ").await;
    page.until_text(".trouble .advice", "whitelist").await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn accounts_without_a_token_come_first_and_a_failing_ticket_is_marked_and_counted() {
    let mut lab = lab(LONG).await;
    lab.config["defaults"]["retry"] = json!({ "initial": "200ms", "max": "1s" });
    lab.wechat.inject(Some(&appid("wx03")), Fault::errcode(40125));
    lab.wechat.inject(Some(&appid("wx04")), Fault::errcode(-1).on(Call::Ticket));
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    let browser = &page.browser;
    page.until_listed("wx03 wx04 wx06 wx01 wx05 wx02").await;
    page.until_text(".without", "1 has no token").await;
    page.until_text(".failing", "1 ticket fails").await;
    page.until_text("[data-appid=wx04] .state", "fresh").await;
    browser.until(&is_seen("[data-appid=wx04] .mark-ticket")).await;
    browser.until(&format!("!{}", is_seen("[data-appid=wx06] .mark-ticket"))).await;
    page.until_text("[data-appid=wx04] .fault", "jsapi: transient -1").await;
    page.until_text("[data-appid=wx04] .fault .advice", "WeChat is busy").await;
    page.break_account("wx02", 40164).await;
    page.until_listed("wx03 wx02 wx04 wx06 wx01 wx05").await;
    page.until_text(".person", "2 accounts need a person").await;

    // All of it by events, without fetching the list again.
    page.lab.wechat.clear_faults(Some(&appid("wx04")));
    page.lab.wechat.inject(Some(&appid("wx04")), Fault::errcode(48001).on(Call::Ticket));
    page.until_text("[data-appid=wx04] .fault", "jsapi: parked 48001").await;
    browser.keys("/").await;
    browser.keys("48001").await;
    page.until_listed("wx04").await;
    browser.keys(ESCAPE).await;
    page.until_listed("wx03 wx02 wx04 wx06 wx01 wx05").await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn a_ticket_that_works_again_is_marked_no_more() {
    let mut lab = lab(LONG).await;
    lab.config["defaults"]["retry"] = json!({ "initial": "200ms", "max": "1s" });
    lab.wechat.inject(Some(&appid("wx04")), Fault::errcode(-1).on(Call::Ticket));
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    page.until_text(".failing", "1 ticket fails").await;
    page.lab.wechat.clear_faults(Some(&appid("wx04")));
    page.browser.until(&format!("!{}", is_seen(".failing"))).await;
    page.until_text(".person", "nobody is needed").await;
    page.until_listed("wx06 wx01 wx04 wx05 wx03 wx02").await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn one_account_is_counted_in_the_singular() {
    let mut lab = lab(LONG).await;
    let one =
        json!({ "name": "one", "key": "key-of-one-account-alone", "accounts": ["wx06"], "allow": ["read"] });
    lab.config["api"]["clients"].as_array_mut().unwrap().push(one);
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in("key-of-one-account-alone").await;
    page.until_listed("wx06").await;
    page.browser.until("document.querySelector('.shown').textContent === '1 account'").await;
    page.browser.keys("/").await;
    page.browser.keys("nothing").await;
    page.browser.until("document.querySelector('.shown').textContent === '0 of 1 account'").await;
}
