//! The cost of a large fleet in the browser: `cargo test --test it page::figures -- --ignored --nocapture`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::*;

const ACCOUNTS: usize = 5_000;
const MEASURED: Duration = Duration::from_secs(60);

async fn spent(browser: &Browser) -> Vec<(String, f64)> {
    let metrics = browser.cdp("Performance.getMetrics", json!({})).await;
    let all = metrics["metrics"].as_array().unwrap();
    all.iter()
        .map(|metric| (metric["name"].as_str().unwrap().to_owned(), metric["value"].as_f64().unwrap()))
        .collect()
}

#[expect(clippy::print_stdout, reason = "the report")]
#[tokio::test]
#[ignore = "a measurement of minutes, which judges nothing"]
async fn five_thousand_accounts_with_tokens_of_a_minute() {
    let mut lab = lab((60_000, 10_000)).await;
    for n in 0..ACCOUNTS - 6 {
        lab.add(&format!("gh{n:04}"), json!({ "name": format!("Account {n:04}"), "daily_budget": 100_000 }));
    }
    lab.config["upstream"]["max_per_second"] = json!(1000);
    let page = Page::open(lab, Screen::default()).await;
    page.sign_in(OPS).await;
    page.until_text(".share", "of 5,000 fresh").await;
    page.browser.cdp("Performance.enable", json!({})).await;
    until("all have a token", async || page.ops().get("/readyz").await.status == 200).await;
    // A second event source counts what the page receives, and frames are counted to see that none is late.
    page.browser
        .run(
            "window.heard = 0; window.frames = []; \
             const source = new EventSource('/v1/events'); \
             for (const name of ['token', 'state']) source.addEventListener(name, () => window.heard++); \
             let last = performance.now(); \
             const frame = (at) => { window.frames.push(at - last); last = at; requestAnimationFrame(frame); }; \
             requestAnimationFrame(frame);",
        )
        .await;
    // Tokens that live a minute are replaced in their last ten seconds; events start then.
    page.browser.until("window.heard > 0").await;
    for (what, scrolls) in [("at rest", false), ("while scrolling", true)] {
        let before = spent(&page.browser).await;
        page.browser.run("window.heard = 0; window.frames = []").await;
        let started = Instant::now();
        while started.elapsed() < MEASURED {
            if scrolls {
                page.browser.run("scrollBy(0, 700)").await;
            }
            sleep(Duration::from_millis(250)).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{what}, a second of {seconds:.1}:");
        let heard: f64 = page.browser.text("window.heard").await.parse().unwrap();
        println!("  events {:.0}", heard / seconds);
        let late = page.browser.text("window.frames.sort((a, b) => a - b) && `frame ms: median ${window.frames[window.frames.length >> 1].toFixed(1)}, 99 % ${window.frames[Math.floor(window.frames.length * 0.99)].toFixed(1)}, longest ${window.frames.at(-1).toFixed(1)}`").await;
        println!("  {late}");
        for ((name, after), (_, before)) in spent(&page.browser).await.iter().zip(&before) {
            if ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration"]
                .contains(&name.as_str())
            {
                println!("  {name} {:.1} ms", (after - before) / seconds * 1000.0);
            } else if ["JSHeapUsedSize", "Nodes"].contains(&name.as_str()) {
                println!("  {name} {after:.0}");
            }
        }
    }
}
