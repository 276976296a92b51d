//! What arrives while a fleet stops.

use tokio::time::sleep;
use wxtokend_core::ticket::TicketKind::Jsapi;
use wxtokend_sandbox::{Call, Fault, FaultKind};

use super::lab::{APPID, Lab, account, appid};
use super::{BOTH, SECOND};

#[tokio::test(start_paused = true)]
async fn a_token_that_arrives_while_the_fleet_stops_is_published_as_well_as_stored() {
    for endpoint in BOTH {
        let lab = Lab::start(endpoint).await;
        let first = lab.token().await.version();
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 3000 }).times(1));
        while lab.mints() == 1 {
            sleep(SECOND).await;
        }
        lab.fleet.shutdown().await;
        let shown = lab.fleet.snapshot(APPID).unwrap().state.version;
        let stored: serde_json::Value = serde_json::from_str(&lab.disk.record(APPID)).unwrap();
        assert_eq!((shown, &stored["version"]), (first + 1, &serde_json::json!(first + 1)), "{endpoint:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_arrives_while_the_fleet_stops_is_published_as_well_as_stored() {
    for endpoint in BOTH {
        let ours = account(APPID, endpoint).with(|settings| settings.tickets = [Jsapi].into_iter().collect());
        let lab = Lab::with(vec![ours]).await;
        lab.wechat.inject(Some(&appid()), Fault::new(FaultKind::Delay { delay_ms: 1000 }).on(Call::Ticket));
        let slow = Fault::new(FaultKind::Delay { delay_ms: 4000 });
        lab.token().await;
        // Shutdown waits for the token call, and the ticket arrives meanwhile.
        let fleet = lab.fleet.clone();
        lab.wechat.inject(Some(&appid()), slow.times(2));
        sleep(SECOND / 2).await;
        tokio::spawn(async move { drop(fleet.refresh(APPID, false).await) });
        sleep(SECOND / 10).await;
        lab.fleet.shutdown().await;
        let record = lab.disk.ticket_record(APPID, Jsapi);
        let stored: serde_json::Value = serde_json::from_str(&record).unwrap();
        let cells = lab.fleet.cells();
        let shown = cells[0].ticket(Jsapi).unwrap().load().version;
        assert_eq!(stored["version"], serde_json::json!(shown), "{endpoint:?}: {record}");
    }
}
