//! The format of records: JSON, with the boot whose clocks its instants are on.
//!
//! JSON can be read when something is wrong.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use wxtokend_core::clock::Moment;
use wxtokend_core::ticket::TicketState;
use wxtokend_core::token::Validity;
use wxtokend_core::token::state::AccountState;

/// What is written for one account or ticket.
pub trait Record: Serialize + DeserializeOwned {
    /// The same state on the clocks of another boot.
    #[must_use]
    fn rebased(self, now: Moment) -> Self;

    /// What is left of it where its token or ticket is of another upstream.
    #[must_use]
    fn forgotten(&self) -> Self;

    /// Whether its token or ticket lives by the wall clock, or seems to have been made in the future.
    fn may_live(&self, now: Moment) -> bool;
}

impl Record for AccountState {
    fn rebased(self, now: Moment) -> Self {
        Self::rebased(self, now)
    }

    fn forgotten(&self) -> Self {
        let mut state = self.clone();
        state.forget_token();
        state
    }

    fn may_live(&self, now: Moment) -> bool {
        // A token that a check has found dead is not served whatever its age.
        let token = self.token.as_ref().filter(|token| token.validity == Validity::Good);
        token.is_some_and(|token| token.expires_at.wall_ms > now.wall_ms)
    }
}

impl Record for TicketState {
    fn rebased(self, now: Moment) -> Self {
        Self::rebased(self, now)
    }

    fn forgotten(&self) -> Self {
        self.tombstone()
    }

    fn may_live(&self, now: Moment) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.expires_at.wall_ms > now.wall_ms)
    }
}

#[derive(Serialize)]
struct Written<'a, R> {
    boot: &'a str,
    #[serde(flatten)]
    state: &'a R,
}

/// A record whose boot comes first, as we write it. A derived reader of a flattened state would first take it
/// apart into values, which takes twice as long.
struct BootFirst<'a, R>(Cow<'a, str>, R);

#[derive(Deserialize)]
struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

/// A record whose boot is elsewhere, for instance because it was edited by hand.
#[derive(Deserialize)]
struct BootAnywhere<'a> {
    #[serde(borrow)]
    boot: Cow<'a, str>,
}

impl<'de, R: Record> Deserialize<'de> for BootFirst<'de, R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct BootOrder<R>(PhantomData<R>);
        impl<'de, R: Record> Visitor<'de> for BootOrder<R> {
            type Value = BootFirst<'de, R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                match map.next_entry()? {
                    Some((BorrowedText(key), BorrowedText(boot))) if key == "boot" => {
                        Ok(BootFirst(boot, R::deserialize(MapAccessDeserializer::new(map))?))
                    }
                    _ => Err(M::Error::missing_field("boot")),
                }
            }
        }
        from.deserialize_map(BootOrder(PhantomData))
    }
}

/// Encodes `state`, whose instants are on the clocks of `boot`.
#[must_use]
pub fn encode(state: &impl Record, boot: &str) -> Vec<u8> {
    // Plain structs with string keys always serialise.
    serde_json::to_vec(&Written { boot, state }).unwrap_or_default()
}

/// Decodes a state; also returns whether it is on the clocks of another boot than `boot`.
///
/// # Errors
/// When `bytes` are not a record; the message contains no values.
pub fn decode<R: Record>(bytes: &[u8], boot: &str) -> Result<(R, bool), String> {
    let (written_in, state) = read(bytes)?;
    Ok((state, written_in != boot))
}

/// How records are read at a start.
pub(super) struct Reading<'a> {
    pub(super) boot: &'a str,
    pub(super) now: Moment,
    /// Whether tokens and tickets are of another upstream.
    pub(super) other_upstream: bool,
}

/// A record that was read.
pub(super) struct DecodedRecord<R> {
    /// On the clocks of this boot.
    pub(super) state: R,
    /// The record as another boot has written it, where its token or ticket lives by the wall clock alone.
    /// The `state` is without that.
    pub(super) withheld: Option<R>,
    /// What must be written in its place, since the other boot's clocks are gone.
    pub(super) converted: Option<Vec<u8>>,
}

impl Reading<'_> {
    pub(super) fn of<R: Record>(&self, bytes: &[u8]) -> Result<DecodedRecord<R>, String> {
        let (written, is_of_another): (R, bool) = decode(bytes, self.boot)?;
        let written = if self.other_upstream { written.forgotten() } else { written };
        if !is_of_another {
            return Ok(DecodedRecord { state: written, withheld: None, converted: None });
        }
        if written.may_live(self.now) {
            let state = written.forgotten().rebased(self.now);
            return Ok(DecodedRecord { state, withheld: Some(written), converted: None });
        }
        let state = written.rebased(self.now);
        let converted = Some(encode(&state, self.boot));
        Ok(DecodedRecord { state, withheld: None, converted })
    }
}

/// Whether `bytes` are a record.
pub(super) fn check<R: Record>(bytes: &[u8]) -> Result<(), String> {
    read::<R>(bytes).map(drop)
}

/// Reads the boot and the state.
fn read<R: Record>(bytes: &[u8]) -> Result<(Cow<'_, str>, R), String> {
    if let Ok(BootFirst(boot, state)) = serde_json::from_slice(bytes) {
        return Ok((boot, state));
    }
    let unreadable = |error: serde_json::Error| {
        format!("no readable record at line {} column {}", error.line(), error.column())
    };
    let BootAnywhere { boot } = serde_json::from_slice(bytes).map_err(unreadable)?;
    Ok((boot, serde_json::from_slice(bytes).map_err(unreadable)?))
}
