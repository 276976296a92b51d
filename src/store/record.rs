//! How an account's state is written: JSON, so that it can be read when something is wrong, with the boot whose
//! clock its instants are told on.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::state::AccountState;

#[derive(Serialize)]
struct Written<'a> {
    boot: &'a str,
    #[serde(flatten)]
    state: &'a AccountState,
}

#[derive(Deserialize)]
struct Read {
    boot: String,
    #[serde(flatten)]
    state: AccountState,
}

/// What is written of `state`, whose instants are told on the clocks of `boot`.
#[must_use]
pub fn encode(state: &AccountState, boot: &str) -> Vec<u8> {
    // Plain structs with string keys always serialise.
    serde_json::to_vec(&Written { boot, state }).unwrap_or_default()
}

/// The state, told on the clocks of this boot, and whether it was written on those of another.
///
/// # Errors
/// When `bytes` are no record; the text names no value.
pub fn decode(bytes: &[u8], boot: &str, now: Moment) -> Result<(AccountState, bool), String> {
    let read = read(bytes)?;
    let of_another = read.boot != boot;
    Ok((if of_another { read.state.rebased(now) } else { read.state }, of_another))
}

/// Whether `bytes` are a record.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    read(bytes).map(|_| ())
}

fn read(bytes: &[u8]) -> Result<Read, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("no readable record at line {} column {}", error.line(), error.column()))
}
