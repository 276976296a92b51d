//! Target: the record of an account as the store returns it, whether our own, a newer program's, or corrupted
//! by a bad disk.
//!
//! An input is one byte, which decides what happens next, and the record.

use std::time::Duration;

use wxtokend::Defaults;
use wxtokend::internals::record::{decode, encode};
use wxtokend_core::account::{Account, Appid, Endpoint};
use wxtokend_core::budget::Bucket;
use wxtokend_core::clock::Moment;
use wxtokend_core::fault::Fault;
use wxtokend_core::secret::Secret;
use wxtokend_core::token::Token;
use wxtokend_core::token::decide::next_step;
use wxtokend_core::token::rejection::{decide_refresh, decide_rejection};
use wxtokend_core::token::schedule::{Draw, Rules};
use wxtokend_core::token::state::AccountState;
use wxtokend_core::token::transition::{Answer, CheckEnd, FetchEnd};

const BOOT: &str = "this-boot";
const NOW: Moment = Moment { wall_ms: 1_790_000_000_000, boot_ms: 5_000_000 };
const RULES: Rules = Rules {
    overlap: Duration::from_secs(300),
    timeout: Duration::from_secs(5),
    stale: Duration::from_secs(7200),
};

/// Decodes `input` as a record, and continues with what it says.
pub fn run(input: &[u8]) {
    let [next, record @ ..] = input else { return };
    let endpoint = if next & 1 == 0 { Endpoint::StableToken } else { Endpoint::Token };
    let account = Defaults { endpoint, ..Defaults::default() }
        .account(Appid::new("wx0123456789abcdef").expect("an appid"), Secret::new("app-secret"));
    let Ok((state, of_another)) = decode::<AccountState>(record, BOOT) else { return };
    let state = if of_another { state.rebased(NOW) } else { state };
    survives_a_round_trip(&state);
    serves_within_its_ends(&state, NOW);
    let later = NOW + Duration::from_secs(3600);
    serves_within_its_ends(&state, later);

    let mut recovered = state.clone();
    recovered.recover(&account, RULES, NOW);
    let (before, after) = (state.read(NOW), recovered.read(NOW));
    assert!(after.is_none() || before.is_some(), "a crash has brought a token to life");
    survives_a_round_trip(&recovered);
    serves_within_its_ends(&recovered, NOW);
    serves_within_its_ends(&recovered.clone().rebased(later), later);
    continue_from(*next, recovered, &account);
}

fn continue_from(next: u8, mut state: AccountState, account: &Account) {
    let version = state.version;
    let remaining = state.ledger.remaining(Bucket::Calls, account.settings.daily_budget, NOW);
    assert!(remaining <= account.settings.daily_budget);
    let _ = (state.phase(NOW), next_step(&state, account, next & 2 == 0, NOW), state.tombstone());
    let presented = state.token.as_ref().map_or_else(|| Secret::new("x"), |token| token.value.clone());
    let mut judged = state.clone();
    let _ = decide_rejection(&mut judged, account, &presented, NOW);
    let _ = decide_refresh(&mut judged, account, next & 4 != 0, NOW);
    let _ = next_step(&judged, account, true, NOW);
    if next & 8 != 0 {
        let end = [CheckEnd::Honoured, CheckEnd::Refused, CheckEnd::Inconclusive(Fault::unreadable("x"))];
        state.end_check(&end[usize::from(next >> 4) % 3], account, NOW);
    }
    let force = next & 4 != 0;
    if state.begin_fetch(account, force, NOW).is_ok() {
        assert!(remaining > 0, "a call was charged that the budget has not");
        serves_within_its_ends(&state, NOW);
        let value = if next & 16 == 0 { Secret::new("fresh") } else { presented };
        let result = match next & 32 == 0 {
            true => Ok(Answer { value, expires_in: Duration::from_secs(7200) }),
            false => Err(Fault::host("no connection")),
        };
        let may_have_minted = result.is_err() && next & 64 != 0;
        let sent_at = (result.is_ok() || next & 128 != 0).then_some(NOW);
        state.end_fetch(
            FetchEnd { force, sent_at, may_have_minted, result },
            account,
            RULES,
            NOW,
            Draw::alone(0.5),
        );
        serves_within_its_ends(&state, NOW);
    }
    assert!(state.version >= version, "the version went back");
    let _ = next_step(&state, account, true, NOW);
    survives_a_round_trip(&state);
}

fn survives_a_round_trip(state: &AccountState) {
    let written = encode(state, BOOT);
    let (read, _): (AccountState, _) = decode(&written, BOOT).expect("what we write, we read");
    assert_eq!(encode(&read, BOOT), written);
}

/// A served token never outlives an end in the state, by either clock. Computed independently of the code
/// under test.
fn serves_within_its_ends(state: &AccountState, now: Moment) {
    let Some(token) = state.read(now) else { return };
    let held = state.token.as_ref().expect("a token that is served is held");
    let ends = [
        Some(held.expires_at),
        state.doubt.map(|doubt| doubt.until),
        state.intent.map(|intent| intent.trusted_until),
    ];
    for end in ends.into_iter().flatten() {
        lives_at_most(&token, i128::from(end.wall_ms) - i128::from(now.wall_ms), state);
        lives_at_most(&token, i128::from(end.boot_ms) - i128::from(now.boot_ms), state);
    }
    assert!(token.max_age() <= token.expires_in());
    let _ = (token.expires_at(), token.etag());
}

fn lives_at_most(token: &Token, left_ms: i128, state: &AccountState) {
    let promised = i128::try_from(token.expires_in().as_millis()).expect("a duration fits");
    assert!(promised <= left_ms.max(0), "{promised} ms are promised of {left_ms}: {state:?}");
}
