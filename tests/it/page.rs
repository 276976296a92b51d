//! The status page in a real browser: what users see, click and type.

mod appearance;
mod figures;
mod headline;
mod secrets;
mod tickets;

use serde_json::{Value, json};
use wxtokend_sandbox::Fault;

use crate::harness::{Browser, DOWN, Daemon, ENTER, ESCAPE, Http, Lab, Screen, appid, until};

const OPS: &str = "key-of-the-operators";
const SHOP: &str = "key of the shops; with odd=characters, and 中文";
const LONG: (u64, u64) = (7_200_000, 300_000);

/// The texts of the visible rows, from top to bottom.
const APPIDS: &str =
    "[...document.querySelectorAll('.row:not([hidden])')].map(row => row.dataset.appid).join(' ')";

/// A daemon, and a browser that shows its page.
struct Page {
    lab: Lab,
    daemon: Daemon,
    browser: Browser,
}

fn clients() -> Value {
    json!([
        { "name": "ops", "key": OPS, "accounts": ["*"], "allow": ["read", "refresh", "admin"] },
        { "name": "shops", "key": SHOP, "accounts": ["tag:retail"], "allow": ["read"] },
    ])
}

/// Six accounts, three of them shops, of which two have tickets.
async fn lab((lifetime_ms, overlap_ms): (u64, u64)) -> Lab {
    let mut lab = Lab::new(lifetime_ms, overlap_ms).await;
    for (account, name, tags) in [
        ("wx01", "Flower Shop", json!(["retail", "shanghai"])),
        ("wx02", "花店小程序", json!(["retail", "mini"])),
        ("wx03", "城市图书馆", json!(["public"])),
        ("wx04", "Tea House 茶馆", json!(["retail"])),
        ("wx05", "城南医院挂号", json!(["public"])),
        ("wx06", "Archive", json!([])),
    ] {
        let endpoint = if account == "wx03" { "token" } else { "stable_token" };
        let tickets = match account {
            "wx01" => json!(["jsapi", "wx_card"]),
            "wx04" => json!(["jsapi"]),
            _ => json!([]),
        };
        lab.add(account, json!({ "name": name, "tags": tags, "endpoint": endpoint, "tickets": tickets }));
    }
    lab.config["api"]["clients"] = clients();
    lab
}

impl Page {
    async fn open(lab: Lab, screen: Screen) -> Self {
        let daemon = lab.start().await;
        let browser = Browser::open(screen).await;
        let page = Self { lab, daemon, browser };
        page.go("/").await;
        page
    }

    /// A page with an operator signed in and all six accounts in the list.
    async fn of_the_operator(times: (u64, u64)) -> Self {
        let page = Self::open(lab(times).await, Screen::default()).await;
        page.sign_in(OPS).await;
        page.browser.until(&format!("{APPIDS}.split(' ').length === 6")).await;
        page.browser.until("document.querySelector('#live').dataset.link === 'live'").await;
        page
    }

    async fn go(&self, path: &str) {
        self.browser.go(&format!("http://{}{path}", self.daemon.address())).await;
    }

    async fn sign_in(&self, key: &str) {
        self.browser.until("document.querySelector('#key')").await;
        self.browser.keys(key).await;
        self.browser.keys(ENTER).await;
    }

    /// Waits until the list shows these accounts in this order.
    async fn until_listed(&self, appids: &str) {
        self.browser.until(&format!("{APPIDS} === '{appids}'")).await;
    }

    async fn until_text(&self, css: &str, text: &str) {
        let text = json!(text);
        self.browser.until(&format!("document.querySelector('{css}')?.textContent.includes({text})")).await;
    }

    fn ops(&self) -> Http {
        self.daemon.http.with_key(OPS)
    }

    /// Makes all calls for an account fail, by the sandbox's control API, and triggers one.
    async fn break_account(&self, account: &str, errcode: i64) {
        let faults = format!("/_sandbox/accounts/{account}/faults");
        let sandbox = Http::to(self.lab.wechat.address);
        let fault = json!({ "kind": "errcode", "errcode": errcode }).to_string();
        let request = sandbox.request(reqwest::Method::POST, &faults).body(fault);
        assert_eq!(Http::try_send(request).await.unwrap().status, 200);
        self.ops().refresh(account, false).await;
    }

    /// Asserts that the console is empty except for the browser's messages about these answers, each as `401
    /// /v1/session`.
    async fn console_is_clean_but_for(&self, refused: &[&str]) {
        for line in self.browser.log("browser").await {
            let message = line["message"].as_str().unwrap();
            let is_expected = |refusal: &&str| {
                let (status, path) = refusal.split_once(' ').unwrap();
                message.contains(&format!("status of {status} ")) && message.contains(path)
            };
            let is_bad = line["level"] == "SEVERE" || line["level"] == "WARNING";
            assert!(!is_bad || refused.iter().any(is_expected), "the console says: {line}");
        }
    }
}

#[tokio::test]
async fn nobody_sees_anything_without_a_right_key() {
    let page = Page::open(lab(LONG).await, Screen::default()).await;
    let browser = &page.browser;
    browser.until("document.querySelector('form.sign-in')").await;
    browser.keys("a wrong key").await;
    browser.keys(ENTER).await;
    page.until_text(".said", "No client has that key.").await;
    assert!(!browser.text("document.body.innerText").await.contains("wx0"));
    assert_eq!(page.daemon.event("sign_in_refused", 1).await["level"], "WARN");
    assert!(!page.daemon.log.text().contains("a wrong key"));

    // The mistyped key is selected, so that typing replaces it.
    browser.keys(SHOP).await;
    browser.keys(ENTER).await;
    page.until_listed("wx01 wx04 wx02").await;
    page.until_text("#who", "shops").await;
    assert_eq!(browser.text("document.cookie").await, "", "no script can read the key");
    browser.reload().await;
    page.until_listed("wx01 wx04 wx02").await;

    // Signed out in another tab, which the next action shows.
    browser.run("return fetch('/v1/session', { method: 'DELETE' }).then(() => true)").await;
    page.go("/#/accounts/wx01").await;
    page.until_text(".said", "The session has ended").await;
    page.sign_in(SHOP).await;
    page.until_text("h1", "Flower Shop").await;

    browser.click("#leave").await;
    browser.until("document.querySelector('form.sign-in')").await;
    assert!(!browser.text("document.body.innerText").await.contains("wx0"));
    browser.reload().await;
    browser.until("document.querySelector('form.sign-in')").await;
    page.console_is_clean_but_for(&["401 /v1/"]).await;
}

#[tokio::test]
async fn a_key_sees_exactly_its_accounts_and_without_admin_orders_nothing() {
    let page = Page::open(lab(LONG).await, Screen::default()).await;
    page.sign_in(SHOP).await;
    page.until_listed("wx01 wx04 wx02").await;
    page.until_text(".share", "3 of 3 fresh").await;
    page.browser.click(".row .name").await;
    page.until_text("h1", "Flower Shop").await;
    page.until_text(".history", "new token").await;
    assert_eq!(page.browser.text("document.querySelectorAll('.refresh').length").await, "0");
    for stranger in ["wx03", "nobody"] {
        page.go(&format!("/#/accounts/{stranger}")).await;
        page.until_text(".empty", &format!("There is no account {stranger}, or this key does not cover it."))
            .await;
    }
    // Changes of other accounts are not shown either.
    page.break_account("wx03", 40164).await;
    page.break_account("wx04", 40164).await;
    page.go("/#/").await;
    page.until_listed("wx04 wx01 wx02").await;
    page.until_text(".person", "1 account needs a person").await;
    page.console_is_clean_but_for(&["401 /v1/session", "403 /v1/accounts/", "404 /v1/accounts/"]).await;
}

#[tokio::test]
async fn the_list_is_searched_filtered_sorted_and_shared() {
    let page = Page::of_the_operator(LONG).await;
    let browser = &page.browser;
    page.until_listed("wx06 wx01 wx04 wx05 wx03 wx02").await;
    page.break_account("wx02", 40164).await;
    // The token of this account ends later.
    page.ops().refresh("wx05", true).await;
    page.break_account("wx05", 45009).await;
    page.until_listed("wx02 wx05 wx06 wx01 wx04 wx03").await;

    browser.click(".chip:nth-of-type(3)").await;
    page.until_listed("wx02").await;
    browser.click(".chip:nth-of-type(4)").await;
    page.until_listed("wx02 wx05").await;
    page.until_text(".shown", "2 of 6 accounts").await;
    browser.click(".chip:nth-of-type(1)").await;
    for (search, found) in [
        ("FLOWER", "wx01"),
        ("retail 茶", "wx04"),
        ("public", "wx05 wx03"),
        ("40164", "wx02"),
        ("wx06", "wx06"),
        ("nothing at all", ""),
    ] {
        browser.keys("/").await;
        browser.keys(search).await;
        page.until_listed(found).await;
        browser.keys(ESCAPE).await;
        browser.keys(ESCAPE).await;
    }
    browser.click(".columns .account button").await;
    page.until_listed("wx06 wx01 wx04 wx05 wx03 wx02").await;
    browser.click(".columns .account button").await;
    page.until_listed("wx02 wx03 wx05 wx04 wx01 wx06").await;
    browser.keys("/").await;
    browser.keys("retail").await;
    page.until_listed("wx02 wx04 wx01").await;

    let address = browser.text("location.hash").await;
    assert_eq!(address, "#/?q=retail&sort=name&reverse");
    browser.go("about:blank").await;
    page.go(&format!("/{address}")).await;
    page.until_listed("wx02 wx04 wx01").await;
    assert_eq!(browser.text("document.querySelector('.search input').value").await, "retail");
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn a_version_changes_while_one_looks_at_it() {
    let page = Page::of_the_operator((6_000, 1_500)).await;
    let browser = &page.browser;
    browser.run("window.isTheSamePage = true").await;
    let shown = "document.querySelector('[data-appid=wx01] .version').textContent";
    let before = browser.text(shown).await;
    let bar = "document.querySelector('[data-appid=wx01] .fill').style.transform";
    let age = browser.text(bar).await;
    browser.until(&format!("{bar} !== '{age}'")).await;
    browser.until(&format!("Number({shown}) > {before}")).await;
    let version = |view: &Value| view["version"].as_u64().unwrap();
    assert!(version(&page.ops().view("wx01").await) > before.parse().unwrap());
    // The same on the account's page, and in its history.
    page.go("/#/accounts/wx03").await;
    page.until_text(".history", "new token").await;
    let rows = "document.querySelectorAll('.history [data-event=token]').length";
    let seen = browser.text(rows).await;
    browser.until(&format!("{rows} > {seen}")).await;
    assert_eq!(browser.run("return window.isTheSamePage").await, true, "nothing was loaded again");
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn a_parked_account_says_what_to_do_and_is_repaired_from_its_page() {
    let page = Page::of_the_operator(LONG).await;
    let browser = &page.browser;
    page.break_account("wx04", 40164).await;
    page.until_listed("wx04 wx06 wx01 wx05 wx03 wx02").await;
    let advice = "add IP 127.0.0.1 to the account's IP whitelist in the WeChat console";
    page.until_text("[data-appid=wx04] .state", "parked").await;
    page.until_text("[data-appid=wx04] .fault", "40164").await;
    page.until_text("[data-appid=wx04] .fault", advice).await;
    page.until_text(".person", "1 account needs a person").await;

    browser.click("[data-appid=wx04] .below").await;
    page.until_text("h1", "Tea House 茶馆").await;
    page.until_text(".trouble", advice).await;
    page.until_text(".trouble", "invalid ip 127.0.0.1").await;
    page.until_text(".history [data-event=fault]", advice).await;
    page.until_text(".history [data-event=refresh]", "by ops").await;

    browser.click(".refresh .main").await;
    page.until_text(".refresh .said", advice).await;
    page.lab.wechat.clear_faults(Some(&appid("wx04")));
    browser.click(".refresh .main").await;
    page.until_text(".refresh .said", "The token is still valid").await;
    page.until_text(".title", "fresh").await;
    browser.until("document.querySelector('.trouble').hidden").await;
    page.console_is_clean_but_for(&["401 /v1/session", "503 /token/refresh"]).await;
}

#[tokio::test]
async fn a_new_token_is_forced_only_after_a_second_yes() {
    let page = Page::of_the_operator(LONG).await;
    let browser = &page.browser;
    page.go("/#/accounts/wx01").await;
    page.until_text("[data-field=version]", "17").await;
    browser.click(".refresh button:nth-of-type(2)").await;
    page.until_text("dialog[open]", "Force a new token?").await;
    browser.keys(ESCAPE).await;
    browser.until("!document.querySelector('dialog[open]')").await;
    assert_eq!(page.lab.wechat.calls("wx01"), 1);
    browser.click(".refresh button:nth-of-type(2)").await;
    browser.click("dialog .danger").await;
    page.until_text(".refresh .said", "There is a new token, version").await;
    assert_eq!(page.lab.wechat.mints("wx01"), 2);
    page.until_text(".history [data-event=refresh]", "forced").await;
    // On the classic endpoint each call mints, so there is nothing to force.
    page.go("/#/accounts/wx03").await;
    page.until_text("[data-field=endpoint]", "token").await;
    assert_eq!(browser.text("document.querySelectorAll('.refresh button').length").await, "1");
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn what_a_reload_takes_away_disappears_and_so_does_a_session() {
    let mut page = Page::of_the_operator(LONG).await;
    page.lab.config["accounts"].as_array_mut().unwrap().retain(|account| account["appid"] != "wx06");
    page.lab.add("wx07", json!({ "name": "Zoo" }));
    page.lab.write();
    page.daemon.reload().await;
    page.until_listed("wx01 wx04 wx07 wx05 wx03 wx02").await;
    page.lab.config["api"]["clients"].as_array_mut().unwrap().remove(0);
    page.lab.write();
    page.daemon.reload().await;
    page.until_text(".said", "The session has ended").await;
    assert!(!page.browser.text("document.body.innerText").await.contains("wx0"));
    page.console_is_clean_but_for(&["401 /v1/"]).await;
}

#[tokio::test]
async fn a_page_that_has_lost_the_daemon_says_so_and_goes_on_when_it_is_back() {
    let mut page = Page::of_the_operator(LONG).await;
    page.lab.config["api"]["listen"] = json!(page.daemon.address().to_string());
    page.lab.write();
    let Page { mut lab, daemon, browser } = page;
    assert!(daemon.stop().await.success());
    browser.until("!document.querySelector('#banner').hidden").await;
    browser.until("document.querySelector('#banner').textContent.startsWith('Not live')").await;
    browser.until("document.querySelector('#live').textContent === 'not live'").await;
    browser.click("#leave").await;
    browser.until("document.querySelector('#leave').textContent.includes('cannot be reached')").await;
    browser.until("!document.querySelector('#key')").await;
    lab.account("wx06")["name"] = json!("Archive of the Zoo");
    let page = Page { daemon: lab.start().await, lab, browser };
    page.until_text("[data-appid=wx06]", "Archive of the Zoo").await;
    page.browser.until("document.querySelector('#banner').hidden").await;
    page.break_account("wx05", 40125).await;
    page.until_text("[data-appid=wx05] .state", "parked").await;
}

#[tokio::test]
async fn the_keyboard_is_enough() {
    let page = Page::of_the_operator(LONG).await;
    let browser = &page.browser;
    let focused = "document.activeElement.closest('.row')?.dataset.appid";
    browser.keys("/").await;
    browser.keys("retail").await;
    page.until_listed("wx01 wx04 wx02").await;
    browser.keys(DOWN).await;
    browser.until(&format!("{focused} === 'wx01'")).await;
    browser.keys(DOWN).await;
    browser.until(&format!("{focused} === 'wx04'")).await;
    browser.keys(ENTER).await;
    page.until_text("h1", "Tea House 茶馆").await;
    browser.keys(ESCAPE).await;
    page.until_listed("wx01 wx04 wx02").await;
    browser.until(&format!("{focused} === 'wx04'")).await;
    let outline = "getComputedStyle(document.querySelector('[data-appid=wx04]')).outlineStyle";
    assert_eq!(browser.text(outline).await, "solid", "it can be seen where one is");
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn without_clients_the_page_needs_no_key_and_gets_no_token() {
    let mut lab = lab(LONG).await;
    lab.config["api"].as_object_mut().unwrap().remove("clients");
    let page = Page::open(lab, Screen::default()).await;
    page.until_listed("wx06 wx01 wx04 wx05 wx03 wx02").await;
    page.until_text("#who", "local, no key needed").await;
    assert!(page.browser.run("return document.querySelector('#leave').hidden").await == true);
    page.go("/#/accounts/wx01").await;
    page.until_text(".refresh", "Refresh now").await;
    page.browser.click(".refresh .main").await;
    page.until_text(".refresh .said", "still valid, version").await;
    secrets::no_token_went_to(&page, &["/token/refresh"]).await;
    page.console_is_clean_but_for(&[]).await;
}

#[tokio::test]
async fn more_tabs_than_a_browser_has_connections_are_all_live() {
    let page = Page::of_the_operator(LONG).await;
    let url = format!("http://{}/", page.daemon.address());
    for _ in 0..8 {
        page.browser.new_tab(&url).await;
        page.until_listed("wx06 wx01 wx04 wx05 wx03 wx02").await;
        page.browser.until("document.querySelector('#live').dataset.link === 'live'").await;
    }
    page.break_account("wx04", 40164).await;
    page.until_listed("wx04 wx06 wx01 wx05 wx03 wx02").await;
}

#[tokio::test]
async fn a_name_that_looks_like_markup_is_a_name() {
    let evil = "<img src=x onerror=\"window.isCaught = true\"><script>window.isCaught = true</script>";
    let mut lab = lab(LONG).await;
    lab.account("wx01")["name"] = json!(evil);
    lab.account("wx01")["tags"] = json!(["retail", evil]);
    let echo = wxtokend_sandbox::FaultKind::Errcode { errcode: 99_999, errmsg: Some(evil.to_owned()) };
    lab.wechat.inject(Some(&appid("wx01")), Fault::new(echo));
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    page.until_text("[data-appid=wx01] .name", evil).await;
    page.browser.click("[data-appid=wx01] .below").await;
    page.until_text("h1", evil).await;
    page.until_text(".trouble .message", "<img src=x").await;
    page.until_text(".history [data-event=fault]", "<img src=x").await;
    assert_eq!(page.browser.text("document.querySelectorAll('main img, main script').length").await, "0");
    assert_eq!(page.browser.text("window.isCaught").await, "undefined");
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn thousands_of_accounts_are_a_few_rows_in_the_page() {
    let mut lab = lab(LONG).await;
    for n in 0..3_000 {
        lab.add(&format!("gh{n:04}"), json!({ "name": format!("Account {n:04}") }));
    }
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    let browser = &page.browser;
    page.until_text(".shown", "3,006 accounts").await;
    let rows = "document.querySelectorAll('.row').length";
    browser.run("scrollTo(0, document.body.scrollHeight)").await;
    browser.until("[...document.querySelectorAll('.row')].some(row => row.dataset.appid === 'wx02')").await;
    assert!(browser.text(rows).await.parse::<u32>().unwrap() < 60);
    browser.run("scrollTo(0, 0)").await;
    until("the daemon has a token for all", async || page.ops().get("/readyz").await.status == 200).await;
    page.until_text(".share", "3,006 of 3,006 fresh").await;
    assert!(browser.text(rows).await.parse::<u32>().unwrap() < 60);
    // The order of the rows in the document must be their visible order.
    let tops =
        "[...document.querySelectorAll('.row:not([hidden])')].map(row => row.getBoundingClientRect().top)";
    browser.until(&format!("(tops => tops.every((top, n) => n === 0 || top > tops[n - 1]))({tops})")).await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}
