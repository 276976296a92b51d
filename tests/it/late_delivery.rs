//! Token calls that have timed out but reach WeChat later.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;
use wxtokend_core::secret::Secret;
use wxtokend_sandbox::{Call, Fault, FaultKind, LostAs};

use crate::harness::{Daemon, Lab, Link, Reader, appid, until};

const TIMEOUT: Duration = Duration::from_secs(5);
const OVERLAP: Duration = Duration::from_secs(8);
/// Time after a call has timed out. A kernel without a limit would retransmit 6 s after the call, 13 s and 26
/// s.
const OUTAGE: Duration = Duration::from_millis(4_500);
/// Time until the token of a lost call is checked: the latest arrival of the call, plus an overlap.
const UNTIL_CHECKED: Duration = Duration::from_secs(38);

/// An account for which no other token is requested after the lost call, so that its token has to be checked.
const CHECKED: &str = "left-alone";
/// An account that gets another token after the lost call, which the lost call would end.
const REPLACED: &str = "asked-again";

async fn lab() -> Lab {
    let mut lab = Lab::new(7_200_000, OVERLAP.as_millis().try_into().unwrap()).await;
    lab.config["upstream"]["timeout"] = json!(format!("{}s", TIMEOUT.as_secs()));
    for account in [CHECKED, REPLACED] {
        lab.add(account, json!({ "endpoint": "token" }));
    }
    lab
}

/// Conditions that an account must fulfil all the time.
struct Watch<'a> {
    lab: &'a Lab,
    daemon: &'a Daemon,
    account: &'static str,
    first_version: u64,
}

impl<'a> Watch<'a> {
    async fn new(lab: &'a Lab, daemon: &'a Daemon, account: &'static str) -> Self {
        daemon.until_state(account, "fresh").await;
        Self { lab, daemon, account, first_version: version(daemon, account).await.unwrap() }
    }

    /// Requests refreshes until the daemon makes a call.
    async fn refresh(&self) {
        until(&format!("{} is tried", self.account), async || {
            self.daemon.refresh(self.account, false).await.json()["outcome"] != "limited"
        })
        .await;
    }

    /// Requests refreshes until the daemon has replaced the token.
    async fn replace(&self) {
        until(&format!("{} is refreshed", self.account), async || {
            self.daemon.refresh(self.account, false).await.json()["outcome"] == "refreshed"
        })
        .await;
    }

    /// Reads forever; every token must be alive.
    async fn read(&self) {
        let mut reader = Reader::new(&self.lab.wechat, self.account);
        loop {
            reader.read(self.daemon).await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until there is a token, and the daemon knows all tokens that WeChat has minted except `late`
    /// ones.
    async fn until_mints_are_known(&self, late: u64) {
        until(&format!("{}: a version for each mint but {late}", self.account), async || {
            let versions = version(self.daemon, self.account).await.map(|last| last - self.first_version + 1);
            versions.is_some_and(|versions| versions + late == self.lab.wechat.mints(self.account))
        })
        .await;
    }
}

/// The version of the served token, if there is one.
async fn version(daemon: &Daemon, account: &str) -> Option<u64> {
    daemon.token(account).await.json()["version"].as_u64()
}

#[test]
fn a_token_call_that_was_given_up_mints_nothing_when_the_link_is_back() {
    Link::test(async |link| {
        let mut lab = lab().await;
        lab.wechat.move_to(link.listen()).await;
        lab.config["upstream"]["base_urls"] = json!([format!("http://{}", lab.wechat.address)]);
        for account in [CHECKED, REPLACED] {
            // The token call is one packet, longer than the limited link forwards; the probe before it is
            // not.
            let secret = format!("appsecret-of-{account}-").repeat(40);
            lab.account(account)["secret"] = json!(secret);
            lab.wechat.set_secret(&appid(account), Secret::new(secret));
        }
        let daemon = lab.start().await;
        let (left, asked) =
            (Watch::new(&lab, &daemon, CHECKED).await, Watch::new(&lab, &daemon, REPLACED).await);
        let story = async {
            sleep(OVERLAP).await;
            link.forward_small_packets_only().await;
            tokio::join!(left.refresh(), asked.refresh(), link.cut_under(2));
            sleep(OUTAGE).await;
            assert_eq!(
                [CHECKED, REPLACED].map(|account| lab.wechat.calls(account)),
                [1, 1],
                "the link is cut"
            );
            let fault = daemon.event("fault", 2).await;
            assert_eq!(fault["fault"], "unknown_outcome", "{fault}");
            link.restore().await;
            tokio::join!(asked.replace(), sleep(UNTIL_CHECKED));
        };
        tokio::select! {
            () = story => {}
            () = left.read() => {}
            () = asked.read() => {}
        }
        assert_eq!(lab.wechat.mints(CHECKED), 1, "nothing was minted by the call that was given up");
        left.until_mints_are_known(0).await;
        asked.until_mints_are_known(0).await;
        assert!(lab.wechat.mints(REPLACED) > 1, "it has got another");
    });
}

#[tokio::test]
async fn no_dead_token_is_served_when_a_call_mints_long_after_it_was_given_up() {
    let lab = lab().await;
    let daemon = lab.start().await;
    let (left, asked) = (Watch::new(&lab, &daemon, CHECKED).await, Watch::new(&lab, &daemon, REPLACED).await);
    let story = async {
        sleep(OVERLAP).await;
        for account in [CHECKED, REPLACED] {
            let late = FaultKind::Late { after_ms: 20_000, seen_as: LostAs::Hang };
            lab.wechat.inject(Some(&appid(account)), Fault::new(late).on(Call::Token).times(1));
        }
        tokio::join!(left.refresh(), asked.refresh());
        sleep(OUTAGE).await;
        tokio::join!(asked.replace(), sleep(UNTIL_CHECKED));
    };
    tokio::select! {
        () = story => {}
        () = left.read() => {}
        () = asked.read() => {}
    }
    left.until_mints_are_known(1).await;
    asked.until_mints_are_known(1).await;
}
