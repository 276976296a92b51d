//! The page's appearance: languages, light and dark, a phone; and pictures of it.
//!
//! `WXTOKEND_SCREENSHOTS=FOLDER cargo test --test it pictures -- --ignored` takes the pictures; the README's
//! are in docs/images.

use std::path::Path;

use super::*;

const PHONE: Screen = Screen { width: 360, height: 740, language: "en-US", dark: false };

#[tokio::test]
async fn a_chinese_browser_is_spoken_to_in_chinese_and_the_choice_is_kept() {
    let page = Page::open(lab(LONG).await, Screen { language: "zh-CN", ..Screen::default() }).await;
    let browser = &page.browser;
    page.until_text("form h1", "登录").await;
    page.sign_in(OPS).await;
    browser.until(&format!("{APPIDS}.split(' ').length === 6")).await;
    page.break_account("wx04", 40164).await;
    let advice = "在微信后台把 IP 127.0.0.1 加入该账号的 IP 白名单";
    page.until_text("[data-appid=wx04] .state", "待人工处理").await;
    page.until_text("[data-appid=wx04] .fault", advice).await;
    browser.click("[data-appid=wx04] .name").await;
    page.until_text(".trouble .advice", advice).await;
    page.until_text(".trouble .message", "invalid ip 127.0.0.1").await;
    page.until_text(".history [data-event=state]", "→ 待人工处理").await;
    assert_eq!(browser.text("document.documentElement.lang").await, "zh-CN");
    browser.click("#language").await;
    page.until_text(".trouble .advice", "add IP 127.0.0.1 to").await;
    browser.reload().await;
    page.until_text(".trouble .advice", "add IP 127.0.0.1 to").await;
    assert_eq!(browser.text("document.documentElement.lang").await, "en");
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn both_languages_have_all_words() {
    let page = Page::open(lab(LONG).await, Screen::default()).await;
    let script =
        "return import('/ui/words.js').then(({ WORDS }) => Object.values(WORDS).map(Object.entries))";
    let both = page.browser.run(script).await;
    let entries = |language: &Value| -> Vec<(String, Vec<String>)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        // The placeholders must be the same, in any order.
        let filled = |words: &str| {
            let mut names: Vec<_> =
                words.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        language.as_array().unwrap().iter().map(|pair| (text(&pair[0]), filled(&text(&pair[1])))).collect()
    };
    let (english, chinese) = (entries(&both[0]), entries(&both[1]));
    assert!(english.len() > 90, "{}", english.len());
    assert_eq!(english, chinese);
}

#[tokio::test]
async fn a_dark_desktop_gets_a_dark_page() {
    for (dark, is_dark) in [(true, true), (false, false)] {
        let page = Page::open(lab(LONG).await, Screen { dark, ..Screen::default() }).await;
        page.sign_in(OPS).await;
        page.browser.until(&format!("{APPIDS}.split(' ').length === 6")).await;
        let luminance = "(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b)(getComputedStyle(document.body).backgroundColor.match(/\\d+/g))";
        assert_eq!(page.browser.run(&format!("return {luminance} < 60")).await, is_dark);
    }
}

#[tokio::test]
async fn on_a_phone_nothing_is_cut_off_sideways() {
    let page = Page::open(lab(LONG).await, PHONE).await;
    let fits = "document.documentElement.scrollWidth <= 360 && innerWidth === 360";
    page.browser.until("document.querySelector('#key')").await;
    page.browser.until(fits).await;
    page.sign_in(OPS).await;
    page.browser.until(&format!("{APPIDS}.split(' ').length === 6")).await;
    page.break_account("wx04", 40164).await;
    page.until_text("[data-appid=wx04] .fault", "whitelist").await;
    page.browser.until(fits).await;
    // No row's content exceeds the row.
    let inside = "[...document.querySelectorAll('.row:not([hidden])')].every(row => row.scrollHeight <= row.clientHeight && row.scrollWidth <= row.clientWidth)";
    page.browser.until(inside).await;
    page.browser.click("[data-appid=wx04] .below").await;
    page.until_text(".history", "40164").await;
    page.browser.until(fits).await;
    page.browser.click(".refresh button:nth-of-type(2)").await;
    page.browser.until(fits).await;
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

#[tokio::test]
async fn at_every_width_nothing_of_a_row_is_cut_off() {
    let mut lab = lab(LONG).await;
    lab.wechat.inject(Some(&appid("wx03")), Fault::errcode(40243));
    lab.config["defaults"]["retry"] = json!({ "initial": "200ms", "max": "1s" });
    lab.wechat.inject(Some(&appid("wx01")), Fault::errcode(-1).on(wxtokend_sandbox::Call::Ticket));
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    page.browser.until(&format!("{APPIDS}.split(' ').length === 6")).await;
    page.break_account("wx04", 40164).await;
    page.until_text("[data-appid=wx04] .fault", "whitelist").await;
    page.until_text("[data-appid=wx01] .fault", "jsapi").await;
    for width in [360, 390, 520, 760, 761, 780, 820, 843, 844, 960, 961, 1000, 1140, 1141, 1279, 1280, 1600] {
        page.browser.use_screen(Screen { width, ..Screen::default() }).await;
        page.browser.until(&format!("innerWidth === {width}")).await;
        for inside in [
            // The page fits into the window, cells into their row, and texts into their cells.
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth",
            "[...document.querySelectorAll('.row:not([hidden]), .columns')].every(row => row.scrollHeight <= row.clientHeight && row.scrollWidth <= row.clientWidth)",
            "[...document.querySelectorAll('.row:not([hidden]) .fault p')].every(p => p.scrollHeight <= p.clientHeight)",
            "[...document.querySelectorAll('.row:not([hidden]) .mark-state')].every(mark => mark.scrollWidth <= mark.parentElement.clientWidth)",
            "[...document.querySelectorAll('.row:not([hidden]) .ends span, .row:not([hidden]) .version')].every(text => text.scrollWidth <= text.clientWidth)",
            "new Set([...document.querySelectorAll('.row:not([hidden]) .mark-state')].map(mark => mark.getBoundingClientRect().left)).size === 1",
        ] {
            page.browser.until(&format!("{width} && {inside}")).await;
        }
    }
    page.console_is_clean_but_for(&["401 /v1/session"]).await;
}

/// The fleet of an agency, with every kind of trouble.
async fn agency() -> Lab {
    let mut lab = Lab::new(180_000, 30_000).await;
    // One after another, so that the tokens have different ages.
    lab.config["upstream"]["max_per_second"] = json!(1);
    let trades = [
        "Flower Shop",
        "花店小程序",
        "Tea House 茶馆",
        "城市图书馆",
        "Bakery",
        "城南医院挂号",
        "Cinema 影院",
        "Museum",
        "咖啡馆",
        "Bookshop",
        "自行车行",
        "Pharmacy",
    ];
    let cities =
        [("Shanghai", "shanghai"), ("杭州", "hangzhou"), ("Beijing", "beijing"), ("成都", "chengdu")];
    for n in 0..120_usize {
        let (city, tag) = cities[n / trades.len() % cities.len()];
        let name = if n < trades.len() {
            trades[n].to_owned()
        } else {
            format!("{} {city} {}", trades[n % trades.len()], n / 48 + 1)
        };
        let endpoint = if n % 3 == 0 { "token" } else { "stable_token" };
        let account = format!("wx{:016x}", 0x5e1f_0000_0000_000a_u64 + (n as u64) * 0x0001_9f3b_07c5);
        lab.add(&account, json!({ "name": name, "tags": ["retail", tag], "endpoint": endpoint }));
    }
    lab.config["api"]["clients"] = clients();
    lab
}

#[tokio::test]
#[ignore = "makes pictures, for minutes, and judges nothing"]
async fn pictures_are_made_of_it() {
    let folder = std::env::var_os("WXTOKEND_SCREENSHOTS").expect("WXTOKEND_SCREENSHOTS names a folder");
    std::fs::create_dir_all(&folder).unwrap();
    let lab = agency().await;
    let appids: Vec<String> = lab.config["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["appid"].as_str().unwrap().to_owned())
        .collect();
    let (daemon, lab) = (lab.start().await, lab);
    let ops = daemon.http.with_key(OPS);
    for share in [30, 60, 90, 120] {
        let fresh = async || ops.metric("wxtokend_accounts{state=\"fresh\"}").await;
        until("so many are fresh", async || fresh().await >= Some(f64::from(share))).await;
    }
    for (n, errcode) in [(2, 40164), (14, 40125), (5, 45009), (7, -1)] {
        lab.wechat.inject(Some(&appid(&appids[n])), Fault::errcode(errcode));
        ops.refresh(&appids[n], false).await;
    }
    let desktop = Screen { width: 1200, height: 640, ..Screen::default() };
    let mut page = Page { lab, daemon, browser: Browser::open(desktop).await };
    for (name, screen, address, wait) in [
        ("fleet.png", desktop, "/".to_owned(), ".row"),
        ("fleet-dark.png", Screen { dark: true, ..desktop }, "/".to_owned(), ".row"),
        ("account.png", desktop, format!("/#/accounts/{}", appids[2]), ".history"),
        ("fleet-zh.png", Screen { language: "zh-CN", ..desktop }, "/".to_owned(), ".row"),
        (
            "account-zh-dark.png",
            Screen { language: "zh-CN", dark: true, ..desktop },
            format!("/#/accounts/{}", appids[2]),
            ".history",
        ),
        ("scrolled.png", desktop, "/".to_owned(), ".row"),
        ("phone.png", PHONE, "/".to_owned(), ".row"),
        ("phone-account.png", PHONE, format!("/#/accounts/{}", appids[2]), ".history"),
        ("sign-in.png", desktop, "/".to_owned(), "#key"),
    ] {
        page.browser = Browser::open(screen).await;
        page.go("/").await;
        if wait != "#key" {
            page.sign_in(OPS).await;
            page.browser.until("document.querySelector('.row')").await;
            page.browser.until("document.querySelector('#live').dataset.link === 'live'").await;
            page.go(&address).await;
        }
        page.browser.until(&format!("document.querySelector('{wait}')")).await;
        if name == "scrolled.png" {
            page.browser.run("scrollTo(0, 900)").await;
            page.browser.run("return new Promise(done => setTimeout(done, 300))").await;
        }
        std::fs::write(Path::new(&folder).join(name), page.browser.screenshot().await).unwrap();
    }
}
