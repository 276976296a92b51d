//! Strings that must not leave the process by accident.

use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// An AppSecret, an access_token or a client key: wiped on drop, and printed as `[redacted]`.
#[derive(Clone)]
pub struct Secret {
    value: SecretString,
    /// Computed on first use: tokens are read far more often than they change.
    sha256: OnceLock<[u8; 32]>,
}

impl Secret {
    /// Wraps `value`; from then on only [`Secret::expose`] shows it.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: SecretString::from(value.into()), sha256: OnceLock::new() }
    }

    /// Returns the value itself. Every caller sends it to a party that is entitled to it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// SHA-256 of the value.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        *self.sha256.get_or_init(|| Sha256::digest(self.expose().as_bytes()).into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    /// Constant-time: takes equally long wherever the two differ.
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

/// Serialises a [`Secret`] for the store, whose file only its owner can read. Nothing else serialises one.
pub(crate) mod on_disk {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Secret;

    pub(crate) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}

/// Serialises a digest as hex.
pub(crate) mod in_hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{hex, unhex};

    pub(crate) fn serialize<S: Serializer>(digest: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(digest))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let digest = unhex(&String::deserialize(from)?).and_then(|bytes| bytes.try_into().ok());
        digest.ok_or_else(|| D::Error::custom("no digest in 64 hex digits"))
    }
}

/// Encodes `bytes` as lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

/// Appends the [`hex`] of `bytes` to `text`.
pub fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |four_bits: u8| char::from(b"0123456789abcdef"[usize::from(four_bits)]);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// Identifies a value without revealing it: `<version>-<8 hex of its SHA-256>`.
#[must_use]
pub fn etag(version: u64, value: &Secret) -> String {
    let mut etag = String::with_capacity(30);
    push_etag(&mut etag, version, value);
    etag
}

/// Appends the [`etag`] to `text`.
pub fn push_etag(text: &mut String, version: u64, value: &Secret) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{version}-");
    let [first, second, third, fourth, ..] = value.sha256();
    push_hex(text, &[first, second, third, fourth]);
}

/// Decodes hex of either case; `None` if `text` is anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
        assert_eq!(format!("{:#?}", Some(Secret::new("hunter2"))), "Some(\n    [redacted],\n)");
    }

    #[test]
    fn equality_compares_the_values() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }

    #[test]
    fn hex_is_lower_case_and_padded() {
        assert_eq!(hex(&[0, 0x0f, 0xab]), "000fab");
    }
}
