//! The tickets of an account on its page.

use wxtokend_sandbox::Call;

use super::*;

const JSAPI: &str = ".ticket[data-ticket=jsapi]";
/// Records all intervals that the page sets.
const CLOCKS: &str = "const clocks = [], again = setInterval; \
    window.setInterval = (...what) => { const id = again(...what); clocks.push(id); return id; };";

/// Calls for tickets of `wx04` and `wx05` fail, and are retried soon.
async fn in_trouble() -> Page {
    let mut lab = lab(LONG).await;
    lab.config["defaults"]["retry"] = json!({ "initial": "200ms", "max": "1s" });
    lab.account("wx05")["tickets"] = json!(["jsapi"]);
    for account in ["wx04", "wx05"] {
        lab.wechat.inject(Some(&appid(account)), Fault::errcode(-1).on(Call::Ticket));
    }
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    page.browser.until("document.querySelector('#live').dataset.link === 'live'").await;
    page
}

#[tokio::test]
async fn tickets_stand_on_the_page_of_their_account_with_their_age_and_end() {
    let page = Page::of_the_operator(LONG).await;
    page.go("/#/accounts/wx01").await;
    for (kind, about) in [("jsapi", "signs pages for the JS-SDK"), ("wx_card", "signs card coupons")] {
        let panel = format!(".ticket[data-ticket={kind}]");
        page.until_text(&format!("{panel} .title"), "fresh").await;
        page.until_text(&format!("{panel} .title"), about).await;
        for field in ["issued", "expires", "next-refresh"] {
            page.until_text(&format!("{panel} [data-field={field}] dd"), " (").await;
        }
        page.until_text(&format!("{panel} [data-field=version]"), "17").await;
        page.until_text(&format!("{panel} [data-field=budget]"), "999 calls may be made right now").await;
        page.until_text(&format!("{panel} .ends"), "expires in").await;
        page.browser.until(&format!("document.querySelector('{panel} .trouble').hidden")).await;
        let expression = format!(
            "[...document.querySelectorAll('.history [data-event=ticket]')].some(row => row.textContent.includes('new ticket{kind}'))"
        );
        page.browser.until(&expression).await;
    }
    page.go("/#/accounts/wx02").await;
    page.until_text("h1", "花店小程序").await;
    page.browser.until("document.querySelector('.tickets').hidden").await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn a_ticket_in_trouble_says_what_to_do_in_both_languages_and_nothing_of_it_needs_a_reload() {
    let page = in_trouble().await;
    let browser = &page.browser;
    page.go("/#/accounts/wx04").await;
    page.until_text(JSAPI, "unavailable").await;
    page.until_text(JSAPI, "no valid ticket").await;
    page.until_text(&format!("{JSAPI} .trouble"), "transient -1").await;
    page.until_text(&format!("{JSAPI} .trouble .advice"), "WeChat is busy").await;
    // The account itself is well.
    page.until_text(".title", "fresh").await;
    browser.until("document.querySelector('.trouble').hidden").await;

    let account = appid("wx04");
    page.lab.wechat.clear_faults(Some(&account));
    page.lab.wechat.inject(Some(&account), Fault::errcode(48001).on(Call::Ticket));
    page.until_text(&format!("{JSAPI} .trouble"), "parked 48001").await;
    page.until_text(&format!("{JSAPI} .trouble .advice"), "this account may not use the API").await;
    page.until_text(".history [data-event=ticket_fault]", "ticket call failed").await;
    page.until_text(".history [data-event=ticket_fault]", "jsapi").await;
    page.until_text(".history [data-event=ticket_fault] .advice", "this account may not use the API").await;
    browser.click("#language").await;
    page.until_text(&format!("{JSAPI} .title"), "待人工处理").await;
    page.until_text(&format!("{JSAPI} .trouble .advice"), "该账号没有此接口的权限").await;
    page.until_text(".history [data-event=ticket_fault]", "ticket 调用失败").await;
    browser.click("#language").await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn a_new_ticket_is_shown_by_its_event() {
    let page = in_trouble().await;
    page.go("/#/accounts/wx05").await;
    page.browser.cdp("Page.addScriptToEvaluateOnNewDocument", json!({ "source": CLOCKS })).await;
    page.browser.reload().await;
    page.until_text(&format!("{JSAPI} .trouble"), "transient -1").await;
    page.browser.until("document.querySelector('#live').dataset.link === 'live'").await;
    // Stops the page's intervals, but not its pending timeouts.
    page.browser.run("clocks.forEach(clearInterval)").await;
    page.lab.wechat.clear_faults(Some(&appid("wx05")));
    page.until_text(&format!("{JSAPI} .title"), "fresh").await;
    page.browser.until(&format!("document.querySelector('{JSAPI} .trouble').hidden")).await;
    page.until_text(".history [data-event=ticket]", "new ticket").await;
    // The list shows the account as before.
    page.go("/#/").await;
    page.until_text("[data-appid=wx05] .state", "fresh").await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}
