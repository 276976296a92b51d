//! The command line: exit codes, stdout, and messages.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use wxtokend_sandbox::{Call, Fault};

use crate::harness::{Daemon, Ended, Http, Lab, appid, ended, find, until};

/// Runs `line`, in which `SERVER` stands for the daemon's address.
async fn run(lab: &Lab, daemon: Option<&Daemon>, line: &str) -> Ended {
    let server = daemon.map(|daemon| daemon.address().to_string()).unwrap_or_default();
    let line = line.replace("SERVER", &server);
    let ended = lab.run(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>()).await;
    assert!(!ended.stderr.contains("panicked"), "{line}: {ended:?}");
    ended
}

#[tokio::test]
async fn bad_usage_and_bad_configuration_exit_with_2_and_say_what_is_wrong_on_stderr() {
    let lab = Lab::new(60_000, 10_000).await.with_both();
    lab.write();
    std::fs::write(lab.path("broken.yaml"), "accounts: [{ appid: a b }]").unwrap();
    for (line, message) in [
        ("", "Usage"),
        ("frobnicate", "frobnicate"),
        ("run --frobnicate", "--frobnicate"),
        ("status --key hunter2", "--key"),
        ("token", "APPID"),
        ("token a/b", "APPID"),
        ("refresh stable --server ftp://x", "--server"),
        ("run --token-lifetime 5s", "--sandbox"),
        ("run --sandbox --token-lifetime 5", "--token-lifetime"),
        ("run --sandbox --token-lifetime 5s --overlap 5s", "--overlap"),
        ("run --log-format xml", "xml"),
        ("run --config missing.yaml", "missing.yaml"),
        ("run --config broken.yaml", "accounts[0].appid"),
        ("run --sandbox --config broken.yaml", "accounts[0].appid"),
        ("sandbox --config broken.yaml", "accounts[0].appid"),
        ("sandbox --listen nowhere", "--listen"),
        ("sandbox --tls-name wechat.test", "--tls-ca"),
        ("sandbox --tls-ca ca.pem --tls-name wéchat", "--tls-name"),
        ("check --config missing.yaml", "missing.yaml"),
        ("check --config broken.yaml", "accounts[0].secret"),
    ] {
        let ended = run(&lab, None, line).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{line}: {ended:?}");
        assert!(ended.stderr.contains(message), "{line}: {ended:?}");
    }
    for line in ["--help", "run --help", "--version", "check"] {
        let ended = run(&lab, None, line).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line}: {ended:?}");
        assert!(!ended.stdout.is_empty(), "{line}");
    }
}

#[tokio::test]
async fn what_fails_exits_with_1_and_says_why_on_stderr() {
    let mut lab = Lab::new(60_000, 10_000).await.with_both();
    lab.wechat.inject(Some(&appid("classic")), Fault::errcode(40164));
    let daemon = lab.start().await;
    daemon.until_state("stable", "fresh").await;
    daemon.until_state("classic", "parked").await;
    lab.config["api"]["listen"] = json!(daemon.address().to_string());
    lab.config["store"]["path"] = json!("another.redb");
    std::fs::write(lab.path("taken.yaml"), lab.config.to_string()).unwrap();
    for (line, message) in [
        ("status --server 127.0.0.1:1", "is the daemon running?"),
        ("token stable --server 127.0.0.1:1", "is the daemon running?"),
        ("token nobody --server SERVER", "no account of that appid"),
        ("token classic --server SERVER", "add IP 127.0.0.1 to the account's IP whitelist"),
        ("refresh classic --server SERVER", "add IP 127.0.0.1 to the account's IP whitelist"),
        ("refresh nobody --server SERVER", "no account of that appid"),
        ("run --config taken.yaml", "api.listen"),
        ("sandbox --listen SERVER", "failed to listen"),
        ("sandbox --tls-ca missing/ca.pem", "missing/ca.pem"),
    ] {
        let ended = run(&lab, Some(&daemon), line).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{line}: {ended:?}");
        assert!(ended.stderr.contains(message), "{line}: {ended:?}");
    }
}

#[tokio::test]
async fn answers_go_to_stdout_and_nothing_else_does() {
    let lab = Lab::new(7_200_000, 300_000).await.with_both();
    let daemon = lab.start().await;
    for account in ["stable", "classic"] {
        daemon.until_state(account, "fresh").await;
    }
    let ask = async |line: &str| {
        let ended = run(&lab, Some(&daemon), line).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line}: {ended:?}");
        ended.stdout
    };
    for account in ["stable", "classic"] {
        let token = daemon.token_value(account).await;
        assert_eq!(ask(&format!("token {account} --server SERVER")).await, format!("{token}\n"));
        assert_eq!(ask(&format!("token {account} --server http://SERVER/")).await, format!("{token}\n"));
    }
    let table = ask("status --server SERVER").await;
    let head = table.lines().next().unwrap();
    assert!(head.contains("STATE") && head.contains("APPID"), "{table}");
    for account in ["stable", "classic"] {
        assert!(table.lines().any(|line| line.contains(account) && line.contains("fresh")), "{table}");
    }
    let all: Value = serde_json::from_str(&ask("status --json --server SERVER").await).unwrap();
    let appids: Vec<_> = all.as_array().unwrap().iter().map(|account| &account["appid"]).collect();
    assert_eq!(appids, ["classic", "stable"]);

    let before = daemon.token("stable").await.json();
    let same = format!("still_valid: version {}", before["version"]);
    assert!(ask("refresh stable --server SERVER").await.starts_with(&same));
    let next = before["version"].as_u64().unwrap() + 1;
    let forced = ask("refresh stable --force --server SERVER").await;
    assert!(forced.starts_with(&format!("refreshed: version {next}")), "{forced}");
    assert_ne!(daemon.token_value("stable").await, before["access_token"]);
    // Shortly after another forced refresh, and shortly after a mint: there is an answer, and a failure.
    for line in ["refresh stable --force --server SERVER", "refresh classic --server SERVER"] {
        let ended = run(&lab, Some(&daemon), line).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended.stdout.starts_with("limited: version") && ended.stderr.contains("not now"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn status_shows_a_ticket_in_trouble_and_what_to_do() {
    let mut lab = Lab::new(7_200_000, 300_000).await;
    lab.add("wx1", json!({ "tickets": ["jsapi", "wx_card"] }));
    lab.wechat.inject(Some(&appid("wx1")), Fault::errcode(48001).on(Call::Ticket));
    let daemon = lab.start().await;
    until("both tickets are parked", async || {
        let view = daemon.view("wx1").await;
        view["tickets"].as_array().unwrap().iter().all(|ticket| ticket["state"] == "parked")
    })
    .await;
    let ended = run(&lab, Some(&daemon), "status --server SERVER").await;
    let message =
        ["fresh  wx1", "jsapi: parked 48001, wx_card: parked 48001", "→ this account may not use the API"];
    assert!(message.iter().all(|message| ended.stdout.contains(message)), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("1 account: 1 fresh; 2 tickets in trouble\n"), "{}", ended.stdout);
}

#[tokio::test]
async fn check_prints_every_problem_with_its_place_and_no_secret() {
    let lab = Lab::new(60_000, 10_000).await.with_both();
    let broken = r#"
api:
  listen: 0.0.0.0:8787
  clients: [{ name: crm, key: hunter2-key, accounts: [nobody] }]
upstream: { base_urls: ["http://wechat.example"], timeout: soon }
accounts:
  - { appid: wx1, secret: hunter2-one, daily_budget: 3 }
  - { appid: wx1, secret: hunter2-two, endpoint: both }
  - { appid: wx2, secret: "" }
  - { appid: wx3, secret: "${WXTOKEND_TEST_UNSET}" }
  - { appid: wx4, secret_file: missing.txt }
  - { appid: wx5, secret: hunter2-four, colour: blue }
"#;
    std::fs::write(lab.path("broken.yaml"), broken).unwrap();
    let ended = run(&lab, None, "check --config broken.yaml").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    for place in [
        "upstream.base_urls[0]",
        "upstream.timeout",
        "accounts[0].daily_budget",
        "accounts[1].appid",
        "accounts[1].endpoint",
        "accounts[2].secret",
        "accounts[3].secret",
        "accounts[4].secret_file",
        "accounts[5].colour",
    ] {
        let problems = ended.stderr.lines().filter(|line| !line.starts_with("warning: "));
        let named = problems.filter(|line| line.contains("broken.yaml") && line.contains(place));
        assert_eq!(named.count(), 1, "{place}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);

    std::fs::write(lab.path("unreadable.yaml"), "accounts: [{ secret: hunter2-one").unwrap();
    let ended = run(&lab, None, "check --config unreadable.yaml").await;
    assert!(ended.code == Some(2) && ended.stderr.contains("line "), "{ended:?}");
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);

    lab.write();
    let ended = run(&lab, None, "check").await;
    assert!(ended.stdout.contains("stable") && ended.stdout.contains("timeout"), "{ended:?}");
    assert!(!ended.stdout.contains("5ecre7"), "{}", ended.stdout);
}

#[tokio::test]
async fn check_warns_of_what_is_probably_not_meant_and_strict_takes_it_for_errors() {
    let lab = Lab::new(60_000, 10_000).await;
    let config = r#"
api:
  clients:
    - { name: crm, key: hunter2-key, accounts: ["tag:retail"], allow: [read, refresh] }
accounts:
  - { appid: wx0123456789abcdef, secret: hunter2hunter2hunter2hunter2hunt, tags: [retail] }
  - { appid: wxfedcba9876543210, secret: hunter2hunter2hunter2hunter2hunt }
  - { appid: gh_flower, secret: $FLOWER_SECRET }
store: { path: none/store.redb }
"#;
    std::fs::write(lab.path("accounts.yaml"), config).unwrap();
    std::fs::set_permissions(lab.path("accounts.yaml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let expected = [
        "api.clients[0].key: has 11 characters",
        "store.path: the folder of this path does not exist",
        "accounts[0].secret: is not 32 hex digits",
        "accounts[1].secret: is not 32 hex digits",
        "accounts[2].appid: is not wx and 16 hex digits",
        "accounts[2].secret: the value is used as it is, but looks like a placeholder",
        "accounts[2].secret: is not 32 hex digits",
        "accounts[1].secret: is the same as that of accounts[0].secret",
        "api.clients: none is allowed admin",
        "accounts[1]: no client may read it",
        "accounts[2]: no client may read it",
        "this file holds secrets, and every user of this machine can read it",
    ];
    let ended = run(&lab, None, "check").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let warnings: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (line, expected) in warnings.iter().zip(expected) {
        assert!(line.starts_with(&format!("warning: accounts.yaml: {expected}")), "{expected}: {line}");
    }
    assert_eq!(
        ended.stdout.lines().last(),
        Some("accounts.yaml is valid: 3 accounts, 1 client, 12 warnings"),
        "{ended:?}"
    );
    let strict = run(&lab, None, "check --strict").await;
    assert_eq!((strict.code, strict.stdout.as_str()), (Some(2), ""), "{strict:?}");
    for expected in expected {
        assert!(strict.stderr.contains(&format!("accounts.yaml: {expected}")), "{expected}: {strict:?}");
    }
    assert!(!format!("{ended:?}{strict:?}").contains("hunter2"));

    // An additional error hides no warning about another place.
    std::fs::write(lab.path("accounts.yaml"), config.to_owned() + "metrics: { listen: x }\n").unwrap();
    let refused = run(&lab, None, "check").await;
    assert!(refused.stderr.contains("accounts.yaml: metrics.listen: "), "{refused:?}");
    let warning = "warning: accounts.yaml: store.path: the folder of this path does not exist";
    assert!(refused.code == Some(2) && refused.stderr.contains(warning), "{refused:?}");

    let good = "accounts: [{ appid: wx0123456789abcdef, secret: 0123456789abcdef0123456789abcdef }]";
    std::fs::write(lab.path("accounts.yaml"), good).unwrap();
    std::fs::set_permissions(lab.path("accounts.yaml"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let strict = run(&lab, None, "check --strict").await;
    let last = strict.stdout.lines().last();
    assert_eq!(
        (strict.code, last),
        (Some(0), Some("accounts.yaml is valid: 1 account, 0 clients, 0 warnings"))
    );
}

#[tokio::test]
async fn what_is_no_regular_file_is_reported_at_once_instead_of_waited_for() {
    let mut lab = Lab::new(60_000, 10_000).await;
    let made = std::process::Command::new("mkfifo").arg(lab.path("pipe")).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(lab.path("folder")).unwrap();
    std::fs::File::create(lab.path("long")).unwrap().set_len(10 << 30).unwrap();
    lab.add("wx01", json!({}));
    let account = lab.account("wx01").as_object_mut().unwrap();
    account.remove("secret");
    for (file, what) in [
        ("pipe", "it is a pipe"),
        ("folder", "it is a folder"),
        ("/dev/zero", "it is a device"),
        ("long", "it is longer"),
    ] {
        lab.account("wx01")["secret_file"] = json!(file);
        lab.write();
        let place = "accounts.yaml: accounts[0].secret_file: the file cannot be read: ";
        for command in ["check", "run", "sandbox --config accounts.yaml"] {
            let ended = run(&lab, None, command).await;
            assert!(ended.code == Some(2) && ended.stderr.contains(&format!("{place}{what}")), "{ended:?}");
        }
        for command in ["check", "run", "run --sandbox", "sandbox"] {
            let ended = run(&lab, None, &format!("{command} --config {file}")).await;
            let output = format!("failed to read {file}: {what}");
            assert!(ended.code == Some(2) && ended.stderr.contains(&output), "{command} {file}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn a_key_comes_from_the_environment_or_a_file() {
    let mut lab = Lab::new(7_200_000, 300_000).await.with_both();
    lab.config["api"]["clients"] =
        json!([{ "name": "ops", "key": "the-operators-key", "accounts": ["*"], "allow": ["read", "admin"] }]);
    let daemon = lab.start().await;
    daemon.http.with_key("the-operators-key").until_state("stable", "fresh").await;
    let server = daemon.address().to_string();
    let ask = async |key: &str, args: &[&str]| {
        let mut command = lab.program(args);
        command.env("WXTOKEND_SERVER", &server).env("WXTOKEND_KEY", key);
        ended(command).await
    };
    for args in [&["status"][..], &["token", "stable"], &["refresh", "stable"]] {
        assert_eq!(ask("the-operators-key", args).await.code, Some(0), "{args:?}");
        for (key, output) in
            [("", "put it into the environment variable WXTOKEND_KEY"), ("wrong", "does not know")]
        {
            let refused = ask(key, args).await;
            assert!(refused.code == Some(1) && refused.stderr.contains(output), "{args:?}: {refused:?}");
            assert!(refused.stdout.is_empty() && !refused.stderr.contains("the-operators-key"));
        }
    }
    std::fs::write(lab.path("key.txt"), "the-operators-key\n").unwrap();
    assert_eq!(ask("wrong", &["token", "stable", "--key-file", "key.txt"]).await.code, Some(0));
}

#[tokio::test]
async fn a_sandbox_run_needs_no_file_and_leaves_none() {
    let lab = Lab::new(60_000, 10_000).await;
    // It listens on the address in the built-in example, which another program may use for a while.
    let daemon = find("127.0.0.1:8787 is free", async || {
        let program = lab.program(&["run", "--sandbox", "--token-lifetime", "6s", "--log-format", "json"]);
        match Daemon::try_start(program).await {
            Ok(daemon) => Some(daemon),
            Err(output) => {
                assert!(output.contains("127.0.0.1:8787"), "{output}");
                None
            }
        }
    })
    .await;
    let all = run(&lab, Some(&daemon), "status --json").await;
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 6, "the accounts of the example");
    let appid = all[0]["appid"].as_str().unwrap();
    daemon.until_state(appid, "fresh").await;
    let token = run(&lab, Some(&daemon), &format!("token {appid}")).await;
    assert_eq!((token.code, token.stdout.lines().count()), (Some(0), 1), "{token:?}");
    let version = daemon.view(appid).await["version"].clone();
    until("it is refreshed before one's eyes", async || daemon.view(appid).await["version"] != version).await;
    let started = daemon.event("started", 1).await;
    let store = std::path::PathBuf::from(started["store"].as_str().unwrap());
    assert!(store.exists());
    assert!(daemon.stop().await.success());
    assert!(!store.exists(), "{}", store.display());
    assert_eq!(std::fs::read_dir(lab.folder.path()).unwrap().count(), 0, "nothing was left behind");
}

#[tokio::test]
async fn the_simulated_wechat_answers_alone() {
    let lab = Lab::new(60_000, 10_000).await.with_both();
    lab.write();
    let args = ["sandbox", "--config", "accounts.yaml", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let sandbox = Daemon::start(lab.program(&args)).await;
    let secret = crate::harness::secret_of("classic");
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid=classic&secret={secret}");
    let token = sandbox.get(&path).await.json();
    assert_eq!(token["expires_in"], 60, "{token}");
    assert_eq!(
        Http::to(sandbox.address()).get("/_sandbox/accounts/classic").await.json()["counters"]["token_mints"],
        1
    );
    assert!(sandbox.stop().await.success());
}

/// Tokens here contain many characters that are not allowed in URLs.
#[tokio::test]
async fn the_examples_of_the_help_work_with_whatever_is_in_a_token() {
    let lab = Lab::new(7_200_000, 300_000).await;
    assert!(lab.wechat.switches().hostile_tokens);
    let names: Vec<_> = (0..12).map(|n| format!("wx{n}")).collect();
    let lab = names.iter().fold(lab, |lab, name| lab.with(name, json!({})));
    let daemon = lab.start().await;
    let help = run(&lab, None, "token --help").await.stdout;
    let examples = help.split_once("Examples:\n").unwrap().1.replace("\\\n", "");
    let curl = examples.lines().map(str::trim).find(|line| line.starts_with("curl ")).unwrap();
    assert!(curl.contains("https://api.weixin.qq.com/"), "{curl}");
    let curl = curl.replace("https://api.weixin.qq.com", &format!("http://{}", lab.wechat.address));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_wxtokend"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    for name in &names {
        daemon.until_state(name, "fresh").await;
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-c").arg(curl.replace("APPID", name));
        shell.env("PATH", &path).env("NO_PROXY", "*");
        let mut shell = lab.prepared(shell);
        shell.env("WXTOKEND_SERVER", daemon.address().to_string());
        let message = ended(shell).await;
        assert!(message.stdout.contains("ip_list"), "{curl}: {message:?}");
    }
}
