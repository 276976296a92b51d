//! Parsers of scalar values. Each error completes a sentence that begins with the value: `"5" is not …`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::Url;
use wxtokend_core::account::{Endpoint, RefreshAhead};
use wxtokend_core::secret::unhex;
use wxtokend_core::ticket::TicketKind;

use crate::config::checked::PerAccount;
use crate::config::duration;
use crate::config::grants::Client;
use crate::config::invisible;
use crate::config::rules::{end_in_slash, problem_of_url};

type Parsed<T> = Result<T, String>;

pub(crate) fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| "is not an address with a port; such as 127.0.0.1:8787 or [::1]:8787".to_owned())
}

pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    duration::parse(text).map_err(|why| format!("is not a duration: {why}"))
}

/// The longest promise to a client.
pub(crate) fn promise(text: &str) -> Parsed<Duration> {
    let least = Client::LEAST_PROMISE;
    let too_short = || format!("is less than {}", duration::show(least));
    duration(text).and_then(|most| if most < least { Err(too_short()) } else { Ok(most) })
}

/// A duration, or `0s` for what is switched off.
pub(crate) fn duration_or_zero(text: &str) -> Parsed<Duration> {
    if text == "0s" { Ok(Duration::ZERO) } else { duration(text) }
}

/// A whole number of at least `min`.
pub(crate) fn at_least(min: u32) -> impl FnOnce(&str) -> Parsed<u32> {
    move |text| {
        let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits_only && *number >= min);
        number.ok_or_else(|| format!("is not a whole number from {min} to {}", u32::MAX))
    }
}

/// A network, or one address.
pub(crate) fn network(text: &str) -> Parsed<IpNet> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| "is neither a network nor an address; such as 10.0.0.0/8 or 10.1.2.3".to_owned())?,
    };
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(format!("is an address in a network; the network is {whole}")),
    }
}

/// A number of bytes, at most 1 GiB.
pub(crate) fn size(text: &str) -> Parsed<u32> {
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = unit.and_then(|unit: u32| number.parse::<u32>().ok()?.checked_mul(unit));
    bytes
        .filter(|bytes| *bytes <= 1 << 30)
        .ok_or_else(|| "is not a size up to 1GiB; such as 0, 64KiB or 1MiB".to_owned())
}

pub(crate) fn yes_or_no(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| "is neither true nor false".to_owned())
}

pub(crate) fn endpoint(text: &str) -> Parsed<Endpoint> {
    let known = [Endpoint::StableToken, Endpoint::Token];
    known
        .into_iter()
        .find(|endpoint| endpoint.as_str() == text)
        .ok_or_else(|| format!("is not an endpoint; allowed: {}", known.map(Endpoint::as_str).join(", ")))
}

pub(crate) fn ticket(text: &str) -> Parsed<TicketKind> {
    text.parse()
        .map_err(|_| format!("is no ticket; allowed: {}", TicketKind::ALL.map(TicketKind::as_str).join(", ")))
}

/// The beginning of a page's address, including host and slash, in the form that browsers use, so that
/// comparing strings is enough.
pub(crate) fn page_prefix(text: &str) -> Parsed<String> {
    let url = Url::parse(text).map_err(|why| format!("is no URL: {why}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err("is no page: an http:// or https:// URL without credentials".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment: pages are signed without".to_owned());
    }
    if url.as_str() == text {
        Ok(text.to_owned())
    } else {
        Err("is not as a browser writes it: with a lower-case host, a slash behind it and no default port"
            .to_owned())
    }
}

pub(crate) fn per_account(text: &str) -> Parsed<PerAccount> {
    let known = [PerAccount::All, PerAccount::Troubled, PerAccount::None];
    known
        .into_iter()
        .find(|accounts| accounts.as_str() == text)
        .ok_or_else(|| format!("names no accounts; allowed: {}", known.map(PerAccount::as_str).join(", ")))
}

pub(crate) fn refresh_ahead(text: &str) -> Parsed<RefreshAhead> {
    let ahead = match text.strip_suffix('%') {
        Some(percent) => share(percent).map(RefreshAhead::Share),
        None => duration::parse(text).ok().map(RefreshAhead::Fixed),
    };
    ahead
        .ok_or_else(|| "is neither a percentage above 0% and up to 50% nor a duration such as 30m".to_owned())
}

fn share(percent: &str) -> Option<f64> {
    let plain = percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let share = percent.parse::<f64>().ok().filter(|_| plain)? / 100.0;
    (share > 0.0 && share <= 0.5).then_some(share)
}

/// A base URL of WeChat's API, with a path that ends in `/`.
pub(crate) fn base_url(text: &str) -> Parsed<Url> {
    // The URL parser silently drops these characters.
    if text.contains(invisible::is_invisible) {
        return Err("must not hold a blank or an invisible character".to_owned());
    }
    let mut url = Url::parse(text).map_err(|why| format!("is no URL: {why}"))?;
    if let Some(problem) = problem_of_url(&url) {
        return Err(problem.to_owned());
    }
    end_in_slash(&mut url);
    Ok(url)
}

/// A path of segments between slashes, without characters that would have to be escaped in a URL.
pub(crate) fn url_path(text: &str) -> Parsed<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let fits = text.starts_with('/') && text.bytes().all(plain);
    if fits { Ok(text.to_owned()) } else { Err("is no path; such as /wx".to_owned()) }
}

pub(crate) fn sha256_hex(text: &str) -> Option<[u8; 32]> {
    unhex(text)?.try_into().ok()
}
