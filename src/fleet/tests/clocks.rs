//! Clocks that go wrong.

use tokio::time::sleep;

use super::lab::{APPID, Lab};
use super::{BOTH, SECOND};

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_slewed_by_minutes_leaves_no_account_without_a_token() {
    for endpoint in BOTH {
        for (step_ms, most_ms) in [(100, 600_000), (416, 600_000), (1_900, 600_000), (-416, -600_000)] {
            let lab = Lab::start(endpoint).await;
            lab.token().await;
            let mut slewed_ms = 0;
            for second in 0..4 * 3600 {
                sleep(SECOND).await;
                if second % 5 == 0 && slewed_ms != most_ms {
                    let left_ms: i64 = most_ms - slewed_ms;
                    let step_ms = if left_ms.abs() > 1_900 { step_ms } else { left_ms };
                    slewed_ms += step_ms;
                    lab.clock.jump_wall(step_ms);
                }
                let token = lab.fleet.token_at_once(APPID);
                let told = format!("{endpoint:?}, {step_ms} ms in 5 s, after {second} s: {:?}", lab.view());
                lab.assert_alive(&token.unwrap_or_else(|| panic!("no token: {told}")));
            }
        }
    }
}
