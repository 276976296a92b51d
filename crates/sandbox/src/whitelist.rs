//! IP whitelists, as an account's owner maintains them in WeChat's console.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// The addresses that may call for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whitelist {
    /// Addresses, ranges (`10.0.0.0/8`) and patterns (`172.0.0.*`).
    pub ips: Vec<IpRange>,
    /// Which calls need a listed address.
    #[serde(default)]
    pub calls: Covered,
}

/// Which calls an IP whitelist covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covered {
    /// All calls, including those with an access_token: 公众号 and 服务号.
    #[default]
    All,
    /// Calls with the AppSecret: mini programs.
    Appsecret,
}

impl Whitelist {
    /// Whether a call from `ip` is allowed. `by_token` distinguishes calls with an access_token from those
    /// with the AppSecret.
    pub(super) fn admits(&self, ip: IpAddr, by_token: bool) -> bool {
        (by_token && self.calls == Covered::Appsecret) || self.ips.iter().any(|range| range.contains(ip))
    }
}

/// An address, a range or a pattern of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    /// As it was written.
    text: String,
    address: u128,
    /// How many bits of the address count.
    bits: u32,
}

impl IpRange {
    fn contains(&self, ip: IpAddr) -> bool {
        let differing = self.address ^ as_number(ip);
        self.bits == 0 || differing.leading_zeros() >= self.bits
    }
}

/// Maps IPv4 addresses to IPv6.
fn as_number(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Parses an address and the number of its bits that count.
fn parsed(text: &str) -> Option<(IpAddr, u32)> {
    if text.contains('*') {
        let parts: Vec<&str> = text.split('.').collect();
        let stars = parts.iter().rev().take_while(|part| **part == "*").count();
        let address: Ipv4Addr = text.replace('*', "0").parse().ok()?;
        let fits = parts.iter().filter(|part| part.contains('*')).count() == stars;
        return fits.then(|| (address.into(), 96 + 8 * u32::try_from(4 - stars).unwrap_or_default()));
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((address, before + bits))
}

impl TryFrom<String> for IpRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match parsed(&text) {
            Some((address, bits)) => Ok(Self { address: as_number(address), bits, text }),
            None => Err(format!("{text:?} is no IP address, range (10.0.0.0/8) or pattern (172.0.0.*)")),
        }
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> Self {
        range.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Result<IpRange, String> {
        IpRange::try_from(text.to_owned())
    }

    #[test]
    fn addresses_ranges_and_patterns_hold_what_they_say() {
        for (text, inside, outside) in [
            ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("1.2.3.4", "::ffff:1.2.3.4", "::1"),
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("172.0.0.*", "172.0.0.255", "172.0.1.0"),
            ("172.*.*.*", "172.9.9.9", "173.0.0.0"),
            ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
            ("0.0.0.0/0", "9.9.9.9", "2001:db8::1"),
        ] {
            let range = range(text).unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "1.2.3", "1.2.3.4/33", "1.*.3.4", "1.2.3.4*", "::1/129", "example.com", "1.2.3.4/-1"]
        {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
