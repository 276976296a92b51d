//! The scenarios of the testkit on the real daemon: one process each, over HTTP, all at the same time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::World;
use wxtokend_testkit::scenarios::model::read;
use wxtokend_testkit::scenarios::{
    APPID, Driver, FaultSeen, NEIGHBOUR, Outcome, Reading, Scenario, Seen, Stage, all, last_reason, play,
};

use crate::harness::{Answer, Daemon, Lab, appid};

/// A daemon that can be stopped, killed and started again.
struct Process {
    lab: Lab,
    daemon: Option<Daemon>,
}

impl Process {
    async fn start(scenario: &Scenario) -> Self {
        let pace = scenario.pace(Driver::Daemon);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap();
        let mut lab = Lab::new(ms(pace.lifetime), ms(pace.overlap)).await;
        lab.wechat.set_switches(scenario.switches(true));
        for id in [APPID, NEIGHBOUR] {
            lab.wechat.add_account(&appid(id), Secret::new(scenario.secret()));
        }
        lab.config = scenario.config(&pace, &base_url(&lab));
        let daemon = Some(lab.start().await);
        Self { lab, daemon }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }
}

fn base_url(lab: &Lab) -> String {
    format!("http://{}", lab.wechat.address)
}

fn outcome(answer: &Answer) -> Outcome {
    match answer.status {
        200 => serde_json::from_value(answer.json()["outcome"].clone()).unwrap(),
        503 => Outcome::Unavailable,
        _ => panic!("{answer:?}"),
    }
}

fn reading(answer: &Answer) -> Option<Reading> {
    if answer.status != 200 {
        assert_eq!(answer.status, 503, "{answer:?}");
        return None;
    }
    let (json, cache) = (answer.json(), answer.header("cache-control").unwrap());
    let max_age = cache.strip_prefix("private, max-age=").unwrap().parse().unwrap();
    Some(Reading {
        token: answer.access_token(),
        version: json["version"].as_u64().unwrap(),
        expires_in: Duration::from_secs(json["expires_in"].as_u64().unwrap()),
        max_age: Duration::from_secs(max_age),
    })
}

impl Stage for Process {
    const DRIVER: Driver = Driver::Daemon;

    fn wechat<R>(&self, look: impl FnOnce(&mut World, Duration) -> R) -> R {
        self.lab.wechat.with(look)
    }

    fn base_url(&self) -> String {
        base_url(&self.lab)
    }

    async fn pass(&mut self, time: Duration) {
        sleep(time).await;
    }

    async fn look(&mut self) -> Seen {
        let answer = self.daemon().get(&format!("/v1/accounts/{APPID}")).await;
        if answer.status == 404 {
            return Seen::removed();
        }
        let view = answer.json();
        let fault = &view["last_fault"];
        let fault = fault.is_object().then(|| FaultSeen {
            kind: serde_json::from_value(fault["kind"].clone()).unwrap(),
            errcode: fault["errcode"].as_i64(),
            advice: fault["advice"].as_str().unwrap().to_owned(),
        });
        // A read would wait for a token that may come soon.
        let served =
            if view["expires_at"].is_null() { None } else { reading(&self.daemon().token(APPID).await) };
        Seen {
            state: serde_json::from_value(view["state"].clone()).unwrap(),
            version: view["version"].as_u64().unwrap(),
            failures: view["consecutive_failures"].as_u64().unwrap(),
            remaining: view["budget"]["remaining"].as_u64().unwrap(),
            fault,
            served,
        }
    }

    async fn reason(&mut self) -> Option<String> {
        last_reason(&self.daemon().get(&format!("/v1/accounts/{APPID}/history")).await.json()["events"])
    }

    async fn reject(&mut self, token: &str) -> Outcome {
        outcome(&self.daemon().reject(APPID, token).await)
    }

    async fn refresh(&mut self, force: bool) -> Outcome {
        outcome(&self.daemon().refresh(APPID, force).await)
    }

    async fn reload(&mut self, config: &Value) {
        self.lab.config = config.clone();
        self.lab.write();
        self.daemon().reload().await;
    }

    async fn restart(&mut self) {
        assert!(self.daemon.take().unwrap().stop().await.success());
        self.daemon = Some(self.lab.start().await);
    }

    async fn crash(&mut self) {
        self.daemon.take().unwrap().kill().await;
        self.daemon = Some(self.lab.start().await);
    }

    async fn jump(&mut self, _: i64) {
        unreachable!("a process reads the machine's clock, which no test may set");
    }
}

/// Limits of concurrent processes, beyond which they slow each other down: in total, and of those that are
/// starting.
const MAX_CONCURRENT: usize = 32;
const MAX_STARTING: usize = 6;
/// The limit when scenarios are repeated.
const MAX_CONCURRENT_REPEATS: usize = 8;

/// Runs scenarios, `at_a_time` at once. Returns those that failed, and why.
async fn failures(scenarios: Vec<Scenario>, at_a_time: usize) -> Vec<(Scenario, String)> {
    let mut plays = JoinSet::new();
    let local_set = LocalSet::new();
    let (permits, starts) = (Arc::new(Semaphore::new(at_a_time)), Arc::new(Semaphore::new(MAX_STARTING)));
    for scenario in scenarios {
        let (permits, starts) = (Arc::clone(&permits), Arc::clone(&starts));
        let play = async move {
            let _permit = permits.acquire().await.unwrap();
            let starting = starts.acquire().await.unwrap();
            let mut process = Process::start(&scenario).await;
            drop(starting);
            let played = play(&scenario, &mut process).await;
            played.map_err(|why| (scenario, format!("{why}\n{}", process.daemon().log.text())))
        };
        plays.spawn_local_on(play, &local_set);
    }
    local_set.run_until(plays.join_all()).await.into_iter().filter_map(Result::err).collect()
}

#[tokio::test]
async fn every_scenario_goes_as_expected_for_the_real_daemon() {
    let scenarios = all().into_iter().filter(|scenario| scenario.is_for(Driver::Daemon)).collect();
    // A daemon that a busy machine delays by more than an overlap is late through no fault of its own. A real
    // fault shows at any speed.
    let late = failures(scenarios, MAX_CONCURRENT).await;
    let again = late.into_iter().map(|(mut scenario, _)| {
        scenario.slow = true;
        scenario
    });
    let failures: Vec<_> =
        failures(again.collect(), MAX_CONCURRENT_REPEATS).await.into_iter().map(|(_, why)| why).collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

/// A file with one valid scenario, in which `replace` is replaced.
fn file(replace: &str, by: &str) -> String {
    let good = "
- name: a token comes
  given: { endpoint: both }
  steps:
    - until: { state: fresh }
    - inject: { kind: errcode, errcode: -1, times: 1 }
    - restart
  expected: { calls: 1, served: alive }
";
    assert!(good.contains(replace));
    good.replace(replace, by)
}

#[test]
fn a_mistake_in_the_file_is_an_error_with_a_place() {
    assert_eq!(read(&file("", "")).unwrap().len(), 2);
    for (replace, by, message) in [
        ("- restart", "- restrat", &["[0].steps[2]", "unknown variant `restrat`", "line 7"][..]),
        ("until:", "untill:", &["[0].steps[0]", "unknown variant `untill`", "line 5"]),
        ("state: fresh", "stat: fresh", &["[0].steps[0]", "unknown field `stat`", "line 5"]),
        ("state: fresh", "state: frash", &["[0].steps[0]", "unknown variant `frash`", "line 5"]),
        ("times: 1", "time: 1", &["[0].steps[1]", "unknown key \"time\" of a fault", "line 6"]),
        ("kind: errcode", "kind: errcod", &["[0].steps[1]", "unknown variant `errcod`", "line 6"]),
        ("- restart", "- wait: 5 minutes", &["[0].steps[2]", "\"5 minutes\" is no time", "line 7"]),
        ("- restart", "- outage: status:1", &["[0].steps[2]", "unknown outage", "line 7"]),
        ("- restart", "- reject: newest", &["[0].steps[2]", "unknown variant `newest`", "line 7"]),
        ("- restart", "- { clear: ~, crash: ~ }", &["[0].steps[2]", "line 7"]),
        ("calls: 1", "calls: many", &["[0].expected", "\"many\" is no count", "line 8"]),
        ("calls: 1", "cals: 1", &["[0].expected", "unknown field `cals`", "line 8"]),
        ("endpoint: both", "endpoint: all", &["[0].given", "unknown variant `all`", "line 3"]),
        ("both }", "both, quite: true }", &["[0].given", "unknown field `quite`", "line 3"]),
        ("  steps:", "  only: [fleet]\n  steps:", &["a token comes", "goes with `because`"]),
        ("  steps:", "  because: of this\n  steps:", &["a token comes", "goes with `because`"]),
        ("  steps:", "  onyl: [fleet]\n  steps:", &["[0]", "unknown field `onyl`"]),
        ("both }", "both, switches: { long: true } }", &["a token comes", "given.switches", "`long`"]),
        ("both }", "both, account: { dialy_budget: 4 } }", &["a token comes", "accounts[0].dialy_budget"]),
        ("- restart", "- reload: { daily_budget: 3 }", &["a token comes", "accounts[0].daily_budget"]),
        ("- restart", "- wait: 30 s", &["a token comes", "the daemon cannot play it"]),
        ("  steps:", "  stpes:", &["[0]", "unknown field `stpes`", "line 4"]),
    ] {
        let error = read(&file(replace, by)).expect_err(by);
        assert!(message.iter().all(|part| error.contains(part)), "{by:?} gave {error:?}, not {message:?}");
    }
    let twice = read(&[file("", ""), file("", "")].concat()).unwrap_err();
    assert!(twice.contains("\"a token comes\": stands here twice"), "{twice}");
}

#[test]
fn most_scenarios_are_played_by_all_three_and_the_rest_say_why_not() {
    let scenarios = all();
    let everywhere = scenarios.iter().filter(|scenario| {
        [Driver::Decision, Driver::Fleet, Driver::Daemon].into_iter().all(|driver| scenario.is_for(driver))
    });
    let share = everywhere.count() as f64 / scenarios.len() as f64;
    assert!(scenarios.len() >= 40 && share >= 0.7, "{share} of {}", scenarios.len());
}
