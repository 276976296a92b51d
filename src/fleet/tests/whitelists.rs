//! Accounts whose IP whitelist lacks our address.

use wxtokend_sandbox::Whitelist;

use super::*;

#[tokio::test(start_paused = true)]
async fn an_address_that_leaves_the_whitelist_costs_no_living_token_and_is_named_until_it_is_back() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let token = lab.token().await;
        let elsewhere: Whitelist = serde_json::from_str(r#"{"ips":["10.0.0.0/8"]}"#).unwrap();
        lab.wechat.set_whitelist(&appid(), Some(elsewhere));
        // Clients at such addresses are refused, too, and may blame the token.
        let _ = lab.fleet.reject(APPID, &token).await;
        assert_eq!(lab.token().await.access_token(), token.access_token(), "{endpoint:?}");
        lab.until("parked", |view| view.state == Phase::Parked).await;
        let fault = lab.view().last_fault.unwrap();
        assert_eq!(fault.errcode, Some(40164));
        assert!(fault.advice.contains("127.0.0.1"), "{fault:?}");
        assert_eq!((lab.mints(), lab.counters().forced_mints), (1, 0), "{endpoint:?}");
        lab.wechat.set_whitelist(&appid(), None);
        lab.until("fresh", |view| view.state == Phase::Fresh).await;
        lab.assert_alive(&lab.token().await);
        lab.fleet.shutdown().await;
    }
}
