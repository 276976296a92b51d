//! The paths of the API, each as the template of its route.

pub(super) const TOKEN: &str = "/v1/accounts/{appid}/token";
pub(super) const REJECT: &str = "/v1/accounts/{appid}/token/reject";
pub(super) const REFRESH: &str = "/v1/accounts/{appid}/token/refresh";
pub(super) const TICKET: &str = "/v1/accounts/{appid}/tickets/{type}";
pub(super) const JSSDK: &str = "/v1/accounts/{appid}/jssdk";
pub(super) const HISTORY: &str = "/v1/accounts/{appid}/history";
pub(super) const ACCOUNT: &str = "/v1/accounts/{appid}";
pub(super) const ACCOUNTS: &str = "/v1/accounts";
pub(super) const EVENTS: &str = "/v1/events";
pub(super) const SESSION: &str = "/v1/session";
pub(super) const WECHAT_TOKEN: &str = "/cgi-bin/token";
pub(super) const WECHAT_STABLE_TOKEN: &str = "/cgi-bin/stable_token";
pub(super) const WECHAT_TICKET: &str = "/cgi-bin/ticket/getticket";
pub(super) const PAGE: &str = "/";
pub(super) const ASSET: &str = "/ui/{file}";
pub(super) const HEALTHZ: &str = "/healthz";
pub(super) const READYZ: &str = "/readyz";
pub(super) const METRICS: &str = "/metrics";

/// All routes. Those on the metrics' own listener come last, and `/metrics` at the very end.
pub(super) const ROUTES: [&str; 18] = [
    TOKEN,
    REJECT,
    REFRESH,
    TICKET,
    JSSDK,
    HISTORY,
    ACCOUNT,
    ACCOUNTS,
    EVENTS,
    SESSION,
    WECHAT_TOKEN,
    WECHAT_STABLE_TOKEN,
    WECHAT_TICKET,
    PAGE,
    ASSET,
    HEALTHZ,
    READYZ,
    METRICS,
];
/// Index of the first probe.
pub(super) const PROBES: usize = ROUTES.len() - 3;
/// Index of the first route that needs no key: the page, its files and the probes.
const OPEN: usize = PROBES - 2;

/// The index in [`ROUTES`] of the route that `path` belongs to. For metric labels; the router itself decides
/// what answers.
pub(super) fn of_path(path: &str) -> Option<usize> {
    let template = match path.strip_prefix(ACCOUNTS).unwrap_or_default().split_once('/') {
        Some(("", rest)) => match rest.split_once('/').unwrap_or((rest, "")) {
            ("", _) => return None,
            (_, "") if !rest.ends_with('/') => ACCOUNT,
            (_, "token") => TOKEN,
            (_, "history") => HISTORY,
            (_, "jssdk") => JSSDK,
            (_, rest) if is_direct_child(rest, "tickets/") => TICKET,
            (_, "token/reject") => REJECT,
            (_, "token/refresh") => REFRESH,
            _ => return None,
        },
        _ if is_direct_child(path, "/ui/") => ASSET,
        _ => path,
    };
    ROUTES.iter().position(|route| *route == template)
}

/// Whether `path` is for monitoring.
pub(super) fn is_probe(path: &str) -> bool {
    ROUTES[PROBES..].contains(&path)
}

/// Whether `path` needs no key.
pub(super) fn needs_no_key(path: &str) -> bool {
    of_path(path).is_some_and(|route| route >= OPEN)
}

/// The appid in the path of a token read; `None` for other paths.
pub(super) fn appid_of_token_read(path: &str) -> Option<&str> {
    let appid = path.strip_prefix(ACCOUNTS)?.strip_prefix('/')?.strip_suffix("/token")?;
    Some(appid).filter(|appid| !appid.contains('/'))
}

/// Whether `path` is `parent` followed by exactly one segment.
fn is_direct_child(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|segment| !segment.is_empty() && !segment.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_counted_under_its_route() {
        for (path, route) in [
            ("/v1/accounts", Some(ACCOUNTS)),
            ("/v1/accounts/", None),
            ("/v1/accounts/wx1", Some(ACCOUNT)),
            ("/v1/accounts/w%20x", Some(ACCOUNT)),
            ("/v1/accounts/wx1/", None),
            ("/v1/accounts/wx1/token", Some(TOKEN)),
            ("/v1/accounts/wx1/token/", None),
            ("/v1/accounts//token", None),
            ("/v1/accounts/wx1/token/reject", Some(REJECT)),
            ("/v1/accounts/wx1/token/refresh", Some(REFRESH)),
            ("/v1/accounts/wx1/token/other", None),
            ("/v1/accounts/wx1/history", Some(HISTORY)),
            ("/v1/events", Some(EVENTS)),
            ("/v1/events/", None),
            ("/v1/accounts/{appid}", Some(ACCOUNT)),
            ("/v1/accountsx", None),
            ("/healthz", Some(HEALTHZ)),
            ("/readyz", Some(READYZ)),
            ("/metrics", Some(METRICS)),
            ("/metrics/", None),
            ("/v1/session", Some(SESSION)),
            ("/cgi-bin/token", Some(WECHAT_TOKEN)),
            ("/cgi-bin/stable_token", Some(WECHAT_STABLE_TOKEN)),
            ("/v1/accounts/wx1/tickets/jsapi", Some(TICKET)),
            ("/v1/accounts/wx1/tickets/x", Some(TICKET)),
            ("/v1/accounts/wx1/tickets/", None),
            ("/v1/accounts/wx1/tickets/a/b", None),
            ("/v1/accounts/wx1/jssdk", Some(JSSDK)),
            ("/cgi-bin/ticket", None),
            ("/cgi-bin/ticket/getticket", Some(WECHAT_TICKET)),
            ("/", Some(PAGE)),
            ("/ui", None),
            ("/ui/", None),
            ("/ui/main.js", Some(ASSET)),
            ("/ui/a/b", None),
            ("", None),
        ] {
            assert_eq!(of_path(path).map(|route| ROUTES[route]), route, "{path}");
        }
        assert_eq!(ROUTES[PROBES..], [HEALTHZ, READYZ, METRICS]);
        assert_eq!(ROUTES[OPEN..PROBES], [PAGE, ASSET]);
    }
}
