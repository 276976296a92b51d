//! The routes of the HTTP API: path, methods, what a caller must show, and what they do.
//!
//! To add one, add a row here and pair it with its handler in `src/daemon/http/routes.rs`; `cargo xtask gen`
//! writes docs/api.md.

/// What one path does when it is called by some methods. Several routes may have the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The path, in which `{…}` stands for any one segment, and `{*…}` for all that follows. Requests are counted under it: it is the label
    /// `route` of the metrics.
    pub path: &'static str,
    /// The methods. `HEAD` is answered wherever `GET` is.
    pub methods: &'static [Method],
    /// What a caller must show.
    pub scope: Scope,
    /// What it does, in one line of Markdown.
    pub summary: &'static str,
}

/// A method of HTTP that the API takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `DELETE`
    Delete,
    /// Whatever the client sends.
    Any,
}

impl Method {
    /// The method as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Any => "any",
        }
    }
}

/// What a caller must show. Where no clients are configured, any local caller has every scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing. For monitoring: also on the metrics' own listener.
    Probe,
    /// Nothing.
    Open,
    /// A key, whatever it may do.
    AnyKey,
    /// A key, whatever it may do, in the body.
    KeyInBody,
    /// A key that may `read`.
    Read,
    /// A key that may `refresh`.
    Refresh,
    /// A key that may `admin`.
    Admin,
    /// A key that may `sign`, or `read`.
    Sign,
    /// A key that may `read`, as the parameter `secret`: where SDKs send an AppSecret.
    Secret,
    /// A token of ours that is alive, as the parameter `access_token`.
    AccessToken,
    /// A key that may `call`.
    Call,
    /// A key that may `call`, as the parameter `secret`.
    CallSecret,
}

impl Route {
    /// Whether anybody may call it without a key.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.scope, Scope::Probe | Scope::Open)
    }

    /// Whether it answers as WeChat does: HTTP 200 whatever is wrong, and an `errcode`.
    #[must_use]
    pub fn answers_as_wechat(&self) -> bool {
        self.path.starts_with("/cgi-bin/") || self.path.starts_with("/sns/")
    }
}

macro_rules! routes {
    ($($id:ident = [$($method:ident),*], $path:literal, $scope:ident, $summary:literal;)*) => {
        $(
            #[doc = $summary]
            pub const $id: Route = Route {
                path: $path,
                methods: &[$(Method::$method),*],
                scope: Scope::$scope,
                summary: $summary,
            };
        )*

        /// All routes. The token's is the first, since nearly all requests are for it.
        pub const ALL: &[Route] = &[$($id),*];
    };
}

routes! {
    TOKEN = [Get], "/v1/accounts/{appid}/token", Read,
        "The current token; with `?after=VERSION&wait=30s` (60 s at most) the next one, or 304. \
         `If-None-Match` with an `ETag` is answered 304 as long as it is the same token";
    REJECT = [Post], "/v1/accounts/{appid}/token/reject", Refresh,
        "Reports that WeChat refuses a token; answers the outcome, and the current token to keys that may \
         `read`";
    REFRESH = [Post], "/v1/accounts/{appid}/token/refresh", Admin,
        "Refreshes the token now, also of a parked account; `?force=true` replaces a living one of \
         `stable_token`. `Prefer: return=minimal`: without the token in the answer";
    TICKET = [Get], "/v1/accounts/{appid}/tickets/{type}", Read,
        "The current ticket, `jsapi` or `wx_card`; `If-None-Match` as for a token";
    JSSDK = [Get], "/v1/accounts/{appid}/jssdk", Sign,
        "The signature of the page at `?url=`, for `wx.config`";
    RESOLVE = [Get], "/v1/resolve", Call,
        "The current token of the account whose token a request carries: in the query of `X-Original-URI`, or as \
         `?access_token=`; 204 with `X-Access-Token`, `X-Appid` and, of the former, `X-Rewritten-URI` with the current token in its place, \
         or 401. A token counts until `proxy.stale` after \
         its end. For nginx's `auth_request`: [docs/sdk](sdk/http.md)";
    HISTORY = [Get], "/v1/accounts/{appid}/history", Read,
        "The account's recent events, newest first; `?limit=100` (1000 at most)";
    ACCOUNT = [Get], "/v1/accounts/{appid}", Read,
        "The account's state, without its token";
    ACCOUNTS = [Get], "/v1/accounts", Read,
        "The key's accounts as `/v1/accounts/{appid}` has them, and WeChat's hosts; `?state=`, `?tag=`, \
         `?limit=1000` (10 000 at most), `?after=`: the `next` of the last answer";
    EVENTS = [Get], "/v1/events", Read,
        "A stream of events as server-sent events, of one account with `?appid=`; `Last-Event-ID` resumes it";
    SESSION = [Get], "/v1/session", AnyKey,
        "The key's client and what it may do, the program's version, and the time";
    SIGN_IN = [Post], "/v1/session", KeyInBody,
        "Signs in to the status page: sets its cookie";
    SIGN_OUT = [Delete], "/v1/session", Open,
        "Signs out of the status page: deletes its cookie";
    WECHAT_TOKEN = [Get, Post], "/cgi-bin/token", Secret,
        "The current token, answered as WeChat's `token` does";
    WECHAT_STABLE_TOKEN = [Post], "/cgi-bin/stable_token", Secret,
        "The current token, answered as WeChat's `stable_token` does; `force_refresh` from a key that may \
         `refresh` is a report";
    WECHAT_TICKET = [Get, Post], "/cgi-bin/ticket/getticket", AccessToken,
        "The current ticket, answered as WeChat's `getticket` does";
    PROXY = [Any], "/proxy/{appid}/{*path}", Call,
        "Passes the call on to WeChat, with the account's current token put in; if WeChat refuses the token, it is \
         replaced and the call repeated once";
    JSCODE2SESSION = [Get], "/sns/jscode2session", CallSecret,
        "Passes the call on to WeChat, with the AppSecret put in: the sign-in of a mini program's user";
    OAUTH2_ACCESS_TOKEN = [Get], "/sns/oauth2/access_token", CallSecret,
        "Passes the call on to WeChat, with the AppSecret put in: the sign-in of a web page's user";
    PAGE = [Get], "/", Open,
        "The status page";
    ASSET = [Get], "/ui/{file}", Open,
        "A file of the status page";
    HEALTHZ = [Get], "/healthz", Probe,
        "200 while the program runs";
    READYZ = [Get], "/readyz", Probe,
        "200 once every account has had a token or a first failure, until the program stops; else 503";
    METRICS = [Get], "/metrics", Probe,
        "Prometheus' text format; on the API's listener only if that is loopback and there is no \
         `metrics.listen`";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_called_by_methods_that_no_other_of_its_path_takes() {
        let mut taken = Vec::new();
        for Route { path, methods, summary, .. } in ALL {
            assert!(!methods.is_empty() && !summary.contains(['|', '\n']), "{path}");
            for method in *methods {
                assert!(!taken.contains(&(path, method)), "{} {path}", method.as_str());
                taken.push((path, method));
            }
        }
    }
}
