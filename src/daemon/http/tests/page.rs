use wxtokend_core::fault::Fault as Failure;

use super::*;

const FILES: [(&str, &str); 5] = [
    ("/", "text/html; charset=utf-8"),
    ("/ui/main.js", "text/javascript; charset=utf-8"),
    ("/ui/words.js", "text/javascript; charset=utf-8"),
    ("/ui/style.css", "text/css; charset=utf-8"),
    ("/ui/icon.svg", "image/svg+xml"),
];

#[tokio::test]
async fn the_page_is_served_to_everybody_under_a_strict_policy() {
    let rig = Rig::start(TestApi { clients: vec![client("k", &["*"], READ)], ..TestApi::default() }).await;
    for (path, kind) in FILES {
        let answer = rig.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        let policy = answer.header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|response| response == rule), "{path}: {rule} is not in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("data:") && !policy.contains('*'), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
    }
}

#[tokio::test]
async fn a_file_that_is_known_is_not_sent_again() {
    let rig = Rig::start(TestApi::default()).await;
    let mut etags = Vec::new();
    for (path, _) in FILES {
        let answer = rig.get(path).await;
        let etag = answer.header("etag").to_owned();
        assert_eq!(answer.header("cache-control"), "no-cache");
        for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}")] {
            let again = rig.call("GET", path, &[("if-none-match", &known)], "").await;
            assert_eq!(
                (again.status, again.body.as_str(), again.header("etag")),
                (304, "", &*etag),
                "{known}"
            );
            assert!(!again.header("content-security-policy").is_empty());
        }
        assert_eq!(rig.call("GET", path, &[("if-none-match", "\"other\"")], "").await.status, 200);
        etags.push(etag);
    }
    etags.dedup();
    assert_eq!(etags.len(), FILES.len(), "each file has its own");
}

#[tokio::test]
async fn the_page_loads_all_of_its_files_and_none_from_elsewhere() {
    let rig = Rig::start(TestApi::default()).await;
    let html = rig.get("/").await.body;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon/http/ui");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = if name == "index.html" {
            html.clone()
        } else {
            assert!(html.contains(&format!("\"ui/{name}\"")), "index.html does not load {name}");
            let answer = rig.get(&format!("/ui/{name}")).await;
            assert_eq!(answer.status, 200, "{name} is not served");
            answer.body
        };
        let elsewhere = ["https://", "http://", "//cdn", "url(", "@import"];
        let is_namespace = |line: &str| line.contains("xmlns=\"http://www.w3.org/2000/svg\"");
        for line in text.lines().filter(|line| !is_namespace(line)) {
            assert!(!elsewhere.iter().any(|sign| line.contains(sign)), "{name}: {line}");
            // The policy forbids inline scripts and styles, and text is never made markup.
            assert!(
                !line.contains("innerHTML") && !line.contains(" style=") && !line.contains(" onclick=\"")
            );
        }
        assert!(name == "words.js" || text.lines().count() <= 300, "{name} is longer than 300 lines");
    }
    for nothing in ["/ui/index.html", "/ui/nothing.js", "/ui/..%2f..%2fmod.rs", "/ui/%ff"] {
        rig.is_problem(&rig.get(nothing).await, "not_found");
    }
}

#[test]
fn every_advice_has_a_chinese_translation() {
    let table = include_str!("../ui/advice.js");
    let coded =
        (-100..=100_000).map(|errcode| Failure::from_errcode(errcode, "invalid ip 203.0.113.7 ipv6 ::1"));
    let others = [
        Failure::from_errcode(40164, "invalid ip"),
        Failure::host("x"),
        Failure::unknown_outcome(wxtokend_core::fault::FaultScope::Account, "x"),
        Failure::unreadable("x"),
        Failure::precondition_failed(),
        Failure::budget_exhausted(4, Duration::from_secs(1)),
        Failure::dead_token_issued(),
        Failure::bad_token_for_ticket(40001),
        Failure::ticket_not_allowed(40001),
        Failure::internal("x"),
    ];
    let all: std::collections::BTreeSet<_> = coded.chain(others).map(|fault| fault.advice).collect();
    assert!(all.len() > 25, "{all:?}");
    let mut keys: Vec<String> = Vec::new();
    for advice in &all {
        // The key by which the page looks up the advice.
        let key = serde_json::to_string(&advice.replace("203.0.113.7", "{ip}")).unwrap();
        let words = table.split_once(&format!("  {key}:")).map(|(_, rest)| rest.trim_start());
        let words = words.unwrap_or_else(|| panic!("advice.js has no {key}"));
        let chinese = words.trim_start_matches('"').chars().take_while(|c| *c != '"');
        assert!(chinese.filter(|c| !c.is_ascii()).count() > 5, "{key} has no Chinese");
        assert_eq!(words.lines().next().unwrap().contains("{ip}"), key.contains("{ip}"), "{key}");
        keys.push(key);
    }
    let rows = table.lines().filter(|line| line.starts_with("  \"")).count();
    assert_eq!(rows, keys.len(), "advice.js has a row that no fault gives");
}
