//! Finds the route of a path.
//!
//! The router has its own way to do so, but a request's route is needed also where the router is not asked: to
//! count one that was refused or answered before it, and to know whether its caller needs a key.

use wxtokend_core::reference::routes::{ACCOUNTS, ALL, Route, Scope};

/// The route that `path` belongs to: of several for different methods, the first.
pub(super) fn of_path(path: &str) -> Option<&'static Route> {
    ALL.iter().find(|route| matches(route.path, path))
}

/// Whether `path` is `template`, in which `{…}` stands for any one segment that is not empty, and `{*…}` for all that
/// follows.
///
/// It compares what is before each parameter at once, and not segment by segment, since every read passes here.
fn matches(mut template: &str, mut path: &str) -> bool {
    while let Some((before, parameter)) = template.split_once('{') {
        let Some(rest) = path.strip_prefix(before) else { return false };
        let (segment, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if parameter.starts_with('*') {
            return !rest.is_empty();
        }
        if segment.is_empty() {
            return false;
        }
        path = after;
        template = parameter.split_once('}').map_or("", |(_name, after)| after);
    }
    template == path
}

/// Whether `path` is for monitoring.
pub(super) fn is_probe(path: &str) -> bool {
    of_path(path).is_some_and(|route| route.scope == Scope::Probe)
}

/// Whether `path` needs no key, whatever the method.
pub(super) fn needs_no_key(path: &str) -> bool {
    let Some(Route { path, .. }) = of_path(path) else { return false };
    ALL.iter().filter(|route| route.path == *path).all(Route::is_open)
}

/// The appid in the path of a token read; `None` for other paths.
pub(super) fn appid_of_token_read(path: &str) -> Option<&str> {
    let appid = path.strip_prefix(ACCOUNTS.path)?.strip_prefix('/')?.strip_suffix("/token")?;
    Some(appid).filter(|appid| !appid.contains('/'))
}

#[cfg(test)]
mod tests {
    use wxtokend_core::reference::routes::{
        ACCOUNT, ASSET, EVENTS, HEALTHZ, HISTORY, JSSDK, METRICS, PAGE, PROXY, READYZ, REFRESH, REJECT,
        RESOLVE, SESSION, TICKET, TOKEN, WECHAT_STABLE_TOKEN, WECHAT_TICKET, WECHAT_TOKEN,
    };

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
            ("/v1/resolve", Some(RESOLVE)),
            ("/v1/resolve/", None),
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
            ("/proxy/wx1/cgi-bin/user/info", Some(PROXY)),
            ("/proxy/wx1//", Some(PROXY)),
            ("/proxy/wx1/", None),
            ("/proxy/wx1", None),
            ("/proxy//cgi-bin/user/info", None),
            ("/", Some(PAGE)),
            ("/ui", None),
            ("/ui/", None),
            ("/ui/main.js", Some(ASSET)),
            ("/ui/a/b", None),
            ("", None),
        ] {
            assert_eq!(of_path(path), route.as_ref(), "{path}");
        }
    }

    #[test]
    fn only_the_page_and_what_monitors_need_no_key() {
        let paths = || ALL.iter().map(|route| route.path);
        let open: Vec<_> = paths().filter(|path| needs_no_key(path)).collect();
        assert_eq!(open, [PAGE, ASSET, HEALTHZ, READYZ, METRICS].map(|route| route.path));
        let probes: Vec<_> = paths().filter(|path| is_probe(path)).collect();
        assert_eq!(probes, [HEALTHZ, READYZ, METRICS].map(|route| route.path));
        assert!(!needs_no_key("/nowhere") && !is_probe("/nowhere"));
    }

    #[test]
    fn the_appid_of_a_token_read_is_the_segment_in_its_place() {
        for (path, appid) in [
            ("/v1/accounts/wx1/token", Some("wx1")),
            ("/v1/accounts/w%20x/token", Some("w%20x")),
            ("/v1/accounts/a/b/token", None),
            ("/v1/accounts/token", None),
            ("/v1/accounts/wx1", None),
            ("/v1/accounts/wx1/token/", None),
        ] {
            assert_eq!(appid_of_token_read(path), appid, "{path}");
            assert_eq!(of_path(path) == Some(&TOKEN), appid.is_some(), "{path}");
        }
    }
}
