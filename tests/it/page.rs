//! The status page in a real browser.

use serde_json::json;
use wxtokend::sandbox::Fault;

use crate::harness::{Browser, Lab, Screen, appid};

async fn shot(browser: &Browser, name: &str) {
    let Some(folder) = std::env::var_os("WXTOKEND_SCREENSHOTS") else { return };
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(std::path::Path::new(&folder).join(name), browser.screenshot().await).unwrap();
}

#[tokio::test]
async fn first_look() {
    let mut lab = Lab::new(60_000, 10_000).await.with_both();
    for n in 0..40 {
        lab.add(&format!("wx{n:016x}"), json!({ "name": format!("Shop {n}"), "tags": ["retail"] }));
    }
    lab.wechat.inject(Some(&appid("wx0000000000000003")), Fault::errcode(40164));
    lab.wechat.inject(Some(&appid("wx0000000000000005")), Fault::errcode(-1));
    let daemon = lab.start().await;
    let browser = Browser::open(Screen::default()).await;
    browser.go(&format!("http://{}/", daemon.address())).await;
    browser.until("document.querySelectorAll('.row').length > 5").await;
    shot(&browser, "a.png").await;
    browser.click(".row .name").await;
    browser.until("document.querySelector('.panel')").await;
    shot(&browser, "b.png").await;
    println!("{:#?}", browser.log("browser").await);
}
