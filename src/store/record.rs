//! How the state of an account, or of a ticket, is written: JSON, so that it can be read when something is wrong, with the boot whose
//! clock its instants are told on.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::Moment;
use crate::state::AccountState;
use crate::ticket::TicketState;

/// What is written of one account or ticket.
pub trait Record: Serialize + DeserializeOwned {
    /// The same told on the clocks of another boot.
    #[must_use]
    fn rebased(self, now: Moment) -> Self;

    /// What is left of it where its token or ticket is of another upstream.
    #[must_use]
    fn forgotten(&self) -> Self;
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
}

impl Record for TicketState {
    fn rebased(self, now: Moment) -> Self {
        Self::rebased(self, now)
    }

    fn forgotten(&self) -> Self {
        self.departed()
    }
}

#[derive(Serialize)]
struct Written<'a, R> {
    boot: &'a str,
    #[serde(flatten)]
    state: &'a R,
}

/// A record whose boot comes first, as it is written. A derived reader of a flattened state would take it apart into values
/// first, which takes twice as long.
struct BootFirst<'a, R>(Cow<'a, str>, R);

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A record whose boot stands elsewhere, as somebody may have edited it.
#[derive(Deserialize)]
struct OfBoot<'a> {
    #[serde(borrow)]
    boot: Cow<'a, str>,
}

impl<'de, R: Record> Deserialize<'de> for BootFirst<'de, R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder<R>(PhantomData<R>);
        impl<'de, R: Record> Visitor<'de> for InOrder<R> {
            type Value = BootFirst<'de, R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                match map.next_entry()? {
                    Some((Text(key), Text(boot))) if key == "boot" => {
                        Ok(BootFirst(boot, R::deserialize(MapAccessDeserializer::new(map))?))
                    }
                    _ => Err(M::Error::missing_field("boot")),
                }
            }
        }
        from.deserialize_map(InOrder(PhantomData))
    }
}

/// What is written of `state`, whose instants are told on the clocks of `boot`.
#[must_use]
pub fn encode(state: &impl Record, boot: &str) -> Vec<u8> {
    // Plain structs with string keys always serialise.
    serde_json::to_vec(&Written { boot, state }).unwrap_or_default()
}

/// The state, told on the clocks of this boot, and whether it was written on those of another.
///
/// # Errors
/// When `bytes` are no record; the text names no value.
pub fn decode<R: Record>(bytes: &[u8], boot: &str, now: Moment) -> Result<(R, bool), String> {
    let (written_in, state): (_, R) = read(bytes)?;
    let of_another = written_in != boot;
    Ok((if of_another { state.rebased(now) } else { state }, of_another))
}

/// Whether `bytes` are a record.
pub(super) fn check<R: Record>(bytes: &[u8]) -> Result<(), String> {
    read::<R>(bytes).map(drop)
}

/// The boot and the state.
fn read<R: Record>(bytes: &[u8]) -> Result<(Cow<'_, str>, R), String> {
    if let Ok(BootFirst(boot, state)) = serde_json::from_slice(bytes) {
        return Ok((boot, state));
    }
    let unreadable = |error: serde_json::Error| {
        format!("no readable record at line {} column {}", error.line(), error.column())
    };
    let OfBoot { boot } = serde_json::from_slice(bytes).map_err(unreadable)?;
    Ok((boot, serde_json::from_slice(bytes).map_err(unreadable)?))
}
