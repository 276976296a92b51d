use std::io::Read;

use flate2::read::GzDecoder;

use super::*;

/// Scrapes, and returns the encoding of the answer and its text.
async fn scrape(rig: &Rig, accept_encoding: Option<&str>) -> (String, String) {
    let mut call = rig.http.get(format!("http://{}/metrics", rig.address));
    if let Some(accept) = accept_encoding {
        call = call.header("accept-encoding", accept);
    }
    let answer = timeout(LONG, call.send()).await.expect("an answer").unwrap();
    let header =
        |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    assert_eq!((answer.status().as_u16(), header("vary").as_str()), (200, "Accept-Encoding"));
    assert_eq!(header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let encoding = header("content-encoding");
    let bytes = answer.bytes().await.unwrap();
    let mut text = String::new();
    match encoding.as_str() {
        "gzip" => drop(GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap()),
        _ => text.push_str(std::str::from_utf8(&bytes).unwrap()),
    }
    (encoding, text)
}

#[tokio::test]
async fn a_scrape_is_compressed_when_that_is_asked_for() {
    // Enough accounts for several parts.
    let rig = Rig::start(TestApi {
        accounts: (0..100).map(|n| account(&format!("wx{n:03}"))).collect(),
        ..TestApi::default()
    })
    .await;
    let series = |text: &str| {
        let series = text.lines().filter(|line| line.contains("{appid="));
        series.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<Vec<_>>()
    };
    let (encoding, plain) = scrape(&rig, None).await;
    assert_eq!(encoding, "");
    assert!(plain.len() > 2 * 64 * 1024 && plain.ends_with('\n'), "{}", plain.len());
    for (accept, expected) in
        [("gzip", "gzip"), ("identity", ""), ("gzip;q=0, *", ""), ("br, *;q=0.1", "gzip")]
    {
        let (encoding, text) = scrape(&rig, Some(accept)).await;
        assert_eq!(encoding, expected, "{accept}");
        assert!(series(&text) == series(&plain), "{accept}");
    }
}

#[tokio::test]
async fn a_head_of_a_scrape_leaves_its_turn_to_others() {
    let rig = Rig::start(TestApi::default()).await;
    for _ in 0..10 {
        assert_eq!(rig.call("HEAD", "/metrics", &[], "").await.status, 200);
    }
    assert_eq!(rig.get("/metrics").await.status, 200);
}
