//! Plays the testkit's scenarios on a simulated fleet: supervisor, actors, store and budget on paused time.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use wxtokend_core::account::Appid;
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Sandbox, Settings, World};
use wxtokend_testkit::TokioClock;
use wxtokend_testkit::scenarios::{
    APPID, Driver, FaultSeen, NEIGHBOUR, Outcome, Reading, Scenario, Seen, Stage, all, last_reason, play,
};

use super::lab::{Lab, drawn_from};
use crate::config::Config;
use crate::fleet::{RefreshResponse, TokenError};
use crate::store::memory::MemoryBackend;

const BASE_URL: &str = "https://wechat.test/";

/// A fleet that can be stopped and restarted.
struct Simulated {
    lab: Option<Lab>,
}

fn parse(config: &Value) -> Config {
    Config::parse(&config.to_string(), Path::new(""), |_| None).unwrap()
}

impl Simulated {
    async fn start(scenario: &Scenario) -> Self {
        let pace = scenario.pace(Driver::Fleet);
        let known = [APPID, NEIGHBOUR].map(|id| (Appid::new(id).unwrap(), Secret::new(scenario.secret())));
        let wechat = Sandbox::new(Settings {
            token_lifetime: pace.lifetime,
            overlap: pace.overlap,
            switches: scenario.switches(true),
            accounts: known.into(),
            ..Settings::default()
        });
        let config = parse(&scenario.config(&pace, BASE_URL));
        let (clock, disk) = (TokioClock::new(), MemoryBackend::new());
        let jitter = drawn_from(&[0.5]);
        Self { lab: Some(Lab::on(wechat, clock, disk, config, jitter).await) }
    }

    fn lab(&self) -> &Lab {
        self.lab.as_ref().unwrap()
    }
}

fn outcome(answer: Result<RefreshResponse, TokenError>) -> Outcome {
    match answer {
        Ok(rejected) => serde_json::from_value(json!(rejected.outcome)).unwrap(),
        Err(TokenError::Unavailable(_)) => Outcome::Unavailable,
        Err(error) => panic!("{error}"),
    }
}

impl Stage for Simulated {
    const DRIVER: Driver = Driver::Fleet;

    fn wechat<R>(&self, look: impl FnOnce(&mut World, Duration) -> R) -> R {
        self.lab().wechat.with(look)
    }

    fn base_url(&self) -> String {
        BASE_URL.to_owned()
    }

    async fn pass(&mut self, time: Duration) {
        sleep(time).await;
    }

    async fn look(&mut self) -> Seen {
        let fleet = &self.lab().fleet;
        let (Some(view), Some(snapshot)) = (fleet.account(APPID), fleet.snapshot(APPID)) else {
            return Seen::removed();
        };
        Seen {
            state: serde_json::from_value(json!(view.state)).unwrap(),
            version: view.version,
            failures: view.consecutive_failures.into(),
            remaining: view.budget.remaining.into(),
            fault: view.last_fault.map(|fault| FaultSeen {
                kind: serde_json::from_value(json!(fault.kind)).unwrap(),
                errcode: fault.errcode,
                advice: fault.advice,
            }),
            served: snapshot.state.read(fleet.now()).map(|token| Reading {
                token: token.access_token().to_owned(),
                version: token.version(),
                expires_in: token.expires_in(),
                max_age: token.max_age(),
            }),
        }
    }

    async fn reason(&mut self) -> Option<String> {
        let events = self.lab().fleet.history(APPID, usize::MAX)?;
        last_reason(&json!(events.iter().map(|event| json!(event)).collect::<Vec<_>>()))
    }

    async fn reject(&mut self, token: &str) -> Outcome {
        outcome(self.lab().fleet.reject(APPID, token).await)
    }

    async fn refresh(&mut self, force: bool) -> Outcome {
        outcome(self.lab().fleet.refresh(APPID, force).await)
    }

    async fn reload(&mut self, config: &Value) {
        let lab = self.lab.as_mut().unwrap();
        lab.config = parse(config);
        lab.fleet.reload(lab.config.clone()).await.unwrap();
    }

    async fn restart(&mut self) {
        self.lab().fleet.shutdown().await;
        self.crash().await;
    }

    async fn crash(&mut self) {
        let lab = self.lab.take().unwrap();
        self.lab = Some(lab.crash_and_restart().await);
    }

    async fn jump(&mut self, ms: i64) {
        self.lab().clock.jump_wall(ms);
    }
}

#[test]
fn every_scenario_goes_as_expected_for_the_simulated_fleet() {
    let mut failures = Vec::new();
    for scenario in all().iter().filter(|scenario| scenario.is_for(Driver::Fleet)) {
        // A runtime for each, so that what a scenario leaves behind ends with it.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let played = runtime.block_on(async {
            let mut stage = Simulated::start(scenario).await;
            let played = play(scenario, &mut stage).await;
            stage.lab().fleet.shutdown().await;
            played
        });
        failures.extend(played.err());
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}
