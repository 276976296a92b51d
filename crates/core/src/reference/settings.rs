//! Every key of `accounts.yaml`. Those of an account are declared with [`AccountSettings`].
//!
//! `docs/configure.md` and the plain keys of `accounts.example.yaml` are written from it: `cargo xtask gen`.

use super::setting::{DefaultValue, Setting};
use crate::account::AccountSettings;

/// A mapping of the file, with its keys.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its key path; `[]` for each item of a list.
    pub path: &'static str,
    /// What it is for, with code in backticks.
    pub doc: &'static str,
    /// Its keys, in the order of the file.
    pub settings: &'static [Setting],
}

const REQUIRED: &str = "required";

const fn literal(key: &'static str, kind: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting { key, kind, default: DefaultValue::Literal(default), doc }
}

const fn described(
    key: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { key, kind, default: DefaultValue::Described(default), doc }
}

/// All sections, in the order of the file.
pub const SECTIONS: &[Section] = &[
    Section {
        path: "api",
        doc: "The HTTP API.",
        settings: &[
            literal(
                "listen",
                "address with a port",
                "127.0.0.1:8787",
                "Where the API listens. Without clients only a loopback address is accepted, since every \
                 local caller may then do everything.",
            ),
            literal(
                "wechat_path",
                "path",
                "/",
                "SDKs that know WeChat alone are pointed here by their base URL: `/cgi-bin/token`, \
                 `/cgi-bin/stable_token` and `/cgi-bin/ticket/getticket` are answered as WeChat does, with a \
                 client's key as the secret; at the root, and below this path.",
            ),
            literal(
                "trusted_proxies",
                "list of networks",
                "[]",
                "Proxies in front of the API, whose `X-Forwarded-For` tells who calls. It matters for \
                 `proxy.transparent` alone.",
            ),
            literal(
                "clients",
                "list",
                "[]",
                "Who may call the API. With clients, each request carries its client's key: `Authorization: \
                 Bearer KEY`",
            ),
        ],
    },
    Section {
        path: "api.clients[]",
        doc: "A client of the API: its key, the accounts that it sees, and what it may do with them.",
        settings: &[
            described("name", "text", REQUIRED, "What logs call the client."),
            described(
                "key",
                "secret",
                "one of the three is required",
                "A long random text, such as from `openssl rand -hex 32`.",
            ),
            described(
                "key_file",
                "path",
                "see `key`",
                "The key is the file's content, less one trailing newline.",
            ),
            described(
                "key_sha256",
                "64 hex digits",
                "see `key`",
                "Only the digest of the key: `printf %s \"$KEY\" | sha256sum`",
            ),
            described(
                "accounts",
                "list",
                REQUIRED,
                "Appids, globs of appids (`*` and `?`), or `tag:NAME`; `\"*\"` is every account.",
            ),
            literal(
                "allow",
                "list of `read`, `refresh`, `admin`, `sign`, `call`",
                "[read]",
                "What it may do; none implies another.\n\
                 `read`: get tokens and tickets, have pages signed, see the state of accounts.\n\
                 `refresh`: report a token that WeChat refused.\n\
                 `admin`: order a refresh.\n\
                 `sign`: have pages signed for the JS-SDK, and nothing else.\n\
                 `call`: have calls passed on to WeChat with the account's token, without seeing it.",
            ),
            described(
                "urls",
                "list of addresses",
                "any page",
                "Only pages whose address begins with one of these and does not contain `&url=` are signed. Not together with \
                 `read`.",
            ),
            described(
                "paths",
                "list of paths",
                "any path",
                "Only calls whose path begins with one of these are passed on. Whatever is listed, \
                 `/cgi-bin/token`, `/cgi-bin/stable_token`, `/cgi-bin/gettoken`, `/cgi-bin/clear_quota`, \
                 `/cgi-bin/component/` and `/cgi-bin/service/` are not.",
            ),
            described(
                "promise_at_most",
                "duration, at least 60s",
                "as long as it lives",
                "The longest `expires_in` and `max-age` that it gets with a token or a ticket, so that it asks again \
                 sooner. `/cgi-bin/stable_token` promises 300 s at least, as WeChat's own does.",
            ),
        ],
    },
    Section {
        path: "metrics",
        doc: "Where Prometheus finds `/metrics`, and how much is there.",
        settings: &[
            literal(
                "listen",
                "address with a port, or `null`",
                "null",
                "A separate address for `/metrics`, for example `0.0.0.0:9187`. `null`: with the \
                 API, if that is on a loopback address.",
            ),
            literal(
                "per_account",
                "`all`, `troubled` or `none`",
                "all",
                "Which accounts have series of their own, 22 each and 13 for a ticket: `all`, `troubled` \
                 (those that are degraded, unavailable or parked, or whose last call has failed, or a \
                 ticket's) or `none`. Those of the whole fleet, `wxtokend_fleet_*`, are there in any case.",
            ),
        ],
    },
    Section {
        path: "store",
        doc: "What must survive a restart.",
        settings: &[literal("path", "path", "wxtokend.redb", "The file with tokens, versions and budgets.")],
    },
    Section {
        path: "upstream",
        doc: "How WeChat is called.",
        settings: &[
            literal(
                "base_urls",
                "list of URLs, at least one",
                "[https://api.weixin.qq.com]",
                "WeChat's API hosts, tried in this order. Others are api2.weixin.qq.com, \
                 sh.api.weixin.qq.com, sz.api.weixin.qq.com and hk.api.weixin.qq.com. Only `https`, except \
                 on loopback addresses.",
            ),
            literal(
                "timeout",
                "duration",
                "5s",
                "How long one attempt may take, including the connect. A call that is given up may still reach \
                 WeChat for 30 s: the kernel goes on sending it for as long as the timeout, and WeChat may be slow.",
            ),
            literal(
                "overlap",
                "duration",
                "5m",
                "How long WeChat honours the previous token once there is a new one.",
            ),
            literal(
                "max_in_flight",
                "number, at least 1",
                "64",
                "Calls in flight at the same time, over all accounts; at least 1.",
            ),
            literal(
                "max_per_second",
                "number, at least 1",
                "100",
                "Calls begun per second, over all accounts; at least 1.",
            ),
        ],
    },
    Section {
        path: "proxy",
        doc: "How calls are passed on to WeChat, at `/proxy/{appid}/…`, with the account's token put in: for \
              clients that may `call`.",
        settings: &[
            literal(
                "keep_body",
                "size",
                "1MiB",
                "A call whose token WeChat refuses is repeated once with a new one, if its body is no longer than \
                 this: it is kept until the answer. `0`: only calls without a body are repeated.",
            ),
            literal(
                "timeout",
                "duration",
                "60s",
                "How long a call may make no progress: connecting, sending, waiting for the answer, or receiving \
                 it.",
            ),
            literal(
                "max_connections",
                "number, at least 1",
                "256",
                "Connections to each of WeChat's hosts at the same time, over all accounts; further calls wait.",
            ),
            literal(
                "stale",
                "duration",
                "2h",
                "How long after its end a token that was handed out is still known as its account's, so that a \
                 request which carries it can be given the current one: `/v1/resolve`. The digests of 64 such tokens \
                 are kept of an account at most.",
            ),
            literal(
                "transparent",
                "list",
                "[]",
                "Applications that know WeChat alone, and need no key: calls from their networks to WeChat's own paths \
                 are passed on, below `api.wechat_path` as well.",
            ),
        ],
    },
    Section {
        path: "proxy.transparent[]",
        doc: "Applications that count as one client. A token of ours that a call carries, also one that has been \
              replaced, is exchanged for the current one; a call without one passes unchanged.",
        settings: &[
            described(
                "client",
                "name of a client",
                REQUIRED,
                "Whose accounts and `paths` hold; it needs `allow: [call]`.",
            ),
            described("from", "list of networks", REQUIRED, "Where they call from, such as `10.0.0.0/8`."),
        ],
    },
    Section {
        path: "publish[]",
        doc: "A Redis that SDKs read their tokens from: written as soon as there is a token, with an expiry, \
              and put right when somebody else has changed it. Not with `--sandbox`: nothing real is \
              touched there.",
        settings: &[
            described("name", "text", "`preset@host:port/database`", "What logs and metrics call it."),
            described(
                "redis",
                "URL, a secret",
                "one of the two is required",
                "`redis://[user][:password@]host[:6379][/0]`, or `rediss://` for TLS. The ACL that it needs: \
                 [docs/sdk](sdk/README.md).",
            ),
            described(
                "redis_file",
                "path",
                "see `redis`",
                "The URL is the file's content, less one trailing newline.",
            ),
            described(
                "preset",
                "`wxjava`, `silenceper`, `silenceper-stable`, `easywechat6`, `easywechat5`, `powerwechat`, \
                 `wechatpy`, `weixin_authorize` or `raw`",
                "`raw` with a `key`, else required",
                "How the SDK keeps tokens. The keys of `easywechat6` hold the AppSecret.",
            ),
            described(
                "prefix",
                "text",
                "`wx` for `wxjava`, else none",
                "For `wxjava` (its mini programs: `wa`), and for `easywechat6`, where it is the namespace.",
            ),
            described(
                "key",
                "text",
                "required for `raw`",
                "For `raw`: the key in Redis. `{appid}` and `{name}` are filled in.",
            ),
            literal(
                "value",
                "text",
                "'{access_token}'",
                "For `raw`: the value in Redis. `{expires_in}` and `{expires_at}` are filled in, too.",
            ),
            described("accounts", "list", REQUIRED, "Whose tokens are published, as for clients."),
        ],
    },
    Section {
        path: "defaults",
        doc: "What holds for every account that does not say otherwise: an account may have each of these \
              keys, too.",
        settings: AccountSettings::TABLE,
    },
    Section {
        path: "accounts[]",
        doc: "An account, 1 to 100 000 of them. Each may have the keys of `defaults`, too.",
        settings: &[
            described("appid", "1 to 64 of `A-Z a-z 0-9 _ -`", REQUIRED, "The account's ID at WeChat."),
            described("name", "text", "the appid", "What people call it."),
            described("secret", "secret", "one of the two is required", "Its AppSecret."),
            described(
                "secret_file",
                "path",
                "see `secret`",
                "The AppSecret is the file's content, less one trailing newline.",
            ),
            literal("tags", "list", "[]", "Labels, which `tag:NAME` and filters refer to."),
        ],
    },
];
