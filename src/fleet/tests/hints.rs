//! What ends tokens behind our back is found although nobody reports it.

use metrics_exporter_prometheus::PrometheusBuilder;
use wxtokend_core::token::Token;

use super::*;
use crate::fleet::api::hints::Asker;

const EVERY: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_secs(60);

/// An application with a client's key that calls WeChat now and then.
struct App {
    name: &'static str,
    held: Option<Token>,
}

impl App {
    fn new(name: &'static str) -> Self {
        Self { name, held: None }
    }

    /// Asks us in place of WeChat.
    async fn ask(&mut self, lab: &Lab) {
        let token = lab.token().await;
        let asker = Asker { client: Some(self.name), address: None, user_agent: b"sdk/1" };
        lab.fleet.note_ask(APPID, &asker, &token);
        self.held = Some(token);
    }

    /// Makes a business call with the token it holds, and returns whether WeChat honours that.
    async fn call(&mut self, lab: &Lab) -> bool {
        if self.held.is_none() {
            self.ask(lab).await;
        }
        self.held.as_ref().is_some_and(|token| lab.wechat.is_alive(token.access_token()))
    }
}

/// A fleet whose account is audited every 5 minutes, the default.
async fn audited(endpoint: Endpoint) -> Lab {
    Lab::with(vec![account(APPID, endpoint).with(|settings| settings.audit = 5 * MINUTE)]).await
}

impl Lab {
    /// How many checks WeChat has received for the account.
    fn checks(&self) -> u64 {
        self.counters().checks
    }

    /// Reads now and then, until the token that is read is alive.
    async fn live_until_replaced(&self) {
        let dead_since = Instant::now();
        while !self.wechat.is_alive(self.token().await.access_token()) {
            assert!(dead_since.elapsed() < HOUR, "never replaced: {:#?}", self.view());
            sleep(EVERY).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_again_because_its_calls_fail_is_whole_within_15_s_and_4_failed_calls() {
    for endpoint in [Endpoint::Token, Endpoint::StableToken] {
        let lab = audited(endpoint).await;
        let mut app = App::new("crm");
        app.ask(&lab).await;
        sleep(20 * MINUTE).await;
        lab.wechat.kill_tokens(&appid());
        let (dead_since, checks, mut failed) = (Instant::now(), lab.checks(), 0);
        while !app.call(&lab).await {
            failed += 1;
            app.ask(&lab).await;
            sleep(EVERY).await;
            assert!(dead_since.elapsed() < Duration::from_secs(15) && failed <= 4, "{endpoint:?}");
        }
        assert_eq!((lab.mints(), lab.checks() - checks), (2, 1), "one check, and one mint");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_each_call_costs_a_check_a_minute_at_most_and_ever_less() {
    let lab = audited(Endpoint::StableToken).await;
    let (mut app, mut seen) = (App::new("crm"), Vec::new());
    for second in 0..3600_u64 {
        app.ask(&lab).await;
        sleep(Duration::from_secs(1)).await;
        if seen.len() < usize::try_from(lab.checks()).unwrap() {
            seen.push(second);
        }
    }
    // After 1, 2, 4, 8, 16 and 32 minutes.
    let expected = [1, 61, 182, 423, 904, 1865];
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    assert!(seen.iter().zip(expected).all(|(is, about)| is.abs_diff(about) <= 6), "{seen:?}");
    assert_eq!(lab.mints(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_on_token_that_somebody_ends_is_replaced_within_the_audits_interval() {
    let lab = audited(Endpoint::Token).await;
    let kept = lab.token().await;
    for dies_after in [7, 13, 211, 298] {
        sleep(Duration::from_secs(dies_after)).await;
        lab.wechat.kill_tokens(&appid());
        let dead_since = Instant::now();
        // It is read now and then, as by programs that keep it for a minute.
        while !lab.wechat.is_alive(lab.token().await.access_token()) {
            sleep(EVERY).await;
            let took = dead_since.elapsed();
            assert!(took < 5 * MINUTE + EVERY, "dead for {took:?}: {:#?}", lab.view());
        }
    }
    assert_ne!(lab.token().await.version(), kept.version());
    assert_eq!(lab.view().state, Phase::Fresh);
}

#[tokio::test(start_paused = true)]
async fn audits_are_for_tokens_in_use_on_token_and_pause_for_an_hour_at_45009() {
    let lab = audited(Endpoint::StableToken).await;
    lab.live_through(30 * MINUTE, EVERY).await;
    assert_eq!(lab.checks(), 0, "nobody ends a token of stable_token");

    let lab = audited(Endpoint::Token).await;
    lab.token().await;
    sleep(30 * MINUTE).await;
    assert_eq!(lab.checks(), 3, "in use for a quarter of an hour");
    lab.live_through(30 * MINUTE, EVERY).await;
    assert!((8..=10).contains(&lab.checks()), "{}", lab.checks());
    let seen = lab.checks();
    lab.wechat.inject(Some(&appid()), Fault::errcode(45009).on(Call::Check));
    lab.live_through(10 * MINUTE, EVERY).await;
    lab.wechat.clear_faults(Some(&appid()));
    assert_eq!(lab.checks(), seen + 1);
    lab.live_through(40 * MINUTE, EVERY).await;
    assert!(lab.checks() <= seen + 1, "an hour from the refusal on");
}

#[tokio::test(start_paused = true)]
async fn an_audit_is_no_news_unless_it_finds_something() {
    let lab = audited(Endpoint::Token).await;
    lab.live_through(20 * MINUTE, EVERY).await;
    let events = || lab.fleet.history(APPID, 100).unwrap();
    let told = |name| events().iter().filter(|event| event.event == name).count();
    assert!(lab.checks() >= 3 && told("check") == 0 && told("state") <= 2, "{:#?}", events());
    lab.wechat.kill_tokens(&appid());
    lab.live_until_replaced().await;
    let found = events().into_iter().find(|event| event.event == "check").unwrap();
    let found = serde_json::to_value(found).unwrap();
    assert_eq!((&found["told"], &found["hint"]), (&"refused".into(), &"audit".into()));
}

#[tokio::test(start_paused = true)]
async fn every_hint_is_counted_with_what_became_of_it() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let lab = audited(Endpoint::StableToken).await;
    let mut app = App::new("crm");
    for _ in 0..4 {
        app.ask(&lab).await;
        sleep(Duration::from_secs(10)).await;
    }
    let count = |verdict: &str| {
        let series = format!("wxtokend_hints_total{{source=\"ask\",verdict=\"{verdict}\"}} ");
        let rendered = handle.render();
        let line = rendered.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
        line.map_or(0, |count| count.parse().unwrap())
    };
    assert_eq!(["alive", "skipped", "dead", "unknown"].map(count), [1, 2, 0, 0]);
    lab.wechat.kill_tokens(&appid());
    sleep(MINUTE).await;
    app.ask(&lab).await;
    sleep(EVERY).await;
    assert_eq!(["alive", "skipped", "dead", "unknown"].map(count), [1, 2, 1, 0]);
    assert_eq!(lab.mints(), 2);
}
