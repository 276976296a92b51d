//! What each errcode of the token endpoints means, how long to wait after it, and what the operator should do.

use std::time::Duration;

use super::kind::{FaultKind, HOUR, MINUTE, PARKED, Wait};

const LONGEST_UNKNOWN: Duration = Duration::from_secs(10 * 60);
/// What to do about a retired access point.
pub(super) const RETIRED_ADVICE: &str = "this address of WeChat's is retired: remove it from the hosts file, restart the proxy that \
     resolved it once, and let DNS name it; the next of upstream.base_urls is tried by itself";

/// The fault table of the token endpoints.
pub(super) fn classify(errcode: i64, errmsg: &str) -> (FaultKind, Wait, String) {
    use FaultKind::{Parked, Throttled, Transient};
    let (kind, wait, advice) = match errcode {
        -1 => (Transient, Wait::BackOff, "nothing to do: WeChat is busy; it is tried again by itself"),
        45011 => (
            Throttled,
            Wait::For(MINUTE),
            "nothing to do: WeChat's quota per minute; it is tried again by itself",
        ),
        45009 => (
            Throttled,
            Wait::For(HOUR),
            "WeChat's daily quota for this account is used up: find out who else fetches its tokens; \
             a quota reset (10 a month) in the console or by clear_quota frees it at once",
        ),
        40001 | 40125 => (
            Parked,
            PARKED,
            "the AppSecret is wrong or was reset: put the right one into the file and reload (of a ticket: the account may not use it)",
        ),
        40013 => (Parked, PARKED, "WeChat does not know this appid: correct it in the file and reload"),
        40002 | 41002 | 41004 | 43002 | 44002 | 47001 => (
            Parked,
            PARKED,
            "WeChat calls our request malformed: a bug of ours, report it with the errcode and rid",
        ),
        410 | 48017 => (Transient, Wait::BackOff, RETIRED_ADVICE),
        40164 | 61004 => {
            let ip = refused_ip(errmsg)
                .map_or_else(|| "this machine's address".to_owned(), |ip| format!("IP {ip}"));
            return (
                Parked,
                PARKED,
                format!(
                    "add {ip} to the account's IP whitelist in the WeChat console; it takes about 5 minutes to work"
                ),
            );
        }
        40243 => (Parked, PARKED, "the AppSecret is frozen: unfreeze it in the WeChat console"),
        48001 => (
            Parked,
            PARKED,
            "this account may not use the API: check its type and permissions in the WeChat console",
        ),
        48004 => {
            (Parked, PARKED, "WeChat has banned this account from the API: see the notice in its console")
        }
        50002 => (Parked, PARKED, "WeChat restricts this account: see the notice in its console"),
        50004 => (Parked, PARKED, "WeChat forbids this account the API: see the notice in its console"),
        50007 => (
            Parked,
            PARKED,
            "the account is frozen or was migrated: see its console, or remove it from the file",
        ),
        61024 => (
            Parked,
            PARKED,
            "this appid belongs to a third-party platform (component) and has no access_token of its own: remove it",
        ),
        89501 | 89503 => (
            Parked,
            PARKED,
            "an administrator of the account must confirm this IP: ask them to accept WeChat's message",
        ),
        89502 | 89504 | 89505 => {
            (Parked, PARKED, "an administrator of the account must confirm this IP; the request is under way")
        }
        89507 => (
            Parked,
            Wait::For(HOUR),
            "the administrator refused this IP: it may be asked again after 1 hour; talk to them",
        ),
        89506 => (
            Parked,
            Wait::For(24 * HOUR),
            "the administrator refused this IP twice: it may be asked again after 24 hours; talk to them",
        ),
        _ => (
            Parked,
            Wait::UpTo(LONGEST_UNKNOWN),
            "an errcode this program does not know: look it up in WeChat's documentation",
        ),
    };
    (kind, wait, advice.to_owned())
}

/// Finds the address in 40164's `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist` and in 61004's
/// `access clientip is not registered requestIP: 1.2.3.4`.
fn refused_ip(errmsg: &str) -> Option<std::net::IpAddr> {
    errmsg
        .split([' ', ',', ':'])
        .find_map(|word| word.parse::<std::net::Ipv4Addr>().ok())
        .map(Into::into)
        .or_else(|| errmsg.split([' ', ',']).find_map(|word| word.parse::<std::net::IpAddr>().ok()))
}
