//! What an operator is told to do about each fault, in the page's two languages.
//!
//! The page, the README, the Grafana dashboards and the Prometheus rules get their texts from here: `cargo xtask gen`.

/// What the operator should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Names the advice for good, whatever its words: an anchor in docs/faults.md.
    pub id: &'static str,
    /// English, for one line. `{ip}` stands for an address.
    pub en: &'static str,
    /// Simplified Chinese.
    pub zh: &'static str,
}

macro_rules! advice {
    ($($name:ident = $id:literal, $en:literal, $zh:literal;)*) => {
        $(pub(super) const $name: Advice = Advice { id: $id, en: $en, zh: $zh };)*

        /// All advice that a fault may carry.
        pub const ALL: &[Advice] = &[$($name),*];
    };
}

advice! {
    WECHAT_BUSY = "wechat-busy",
        "nothing to do: WeChat is busy; it is tried again by itself",
        "无需处理：微信系统繁忙，程序会自动重试";
    QUOTA_PER_MINUTE = "quota-per-minute",
        "nothing to do: WeChat's quota per minute; it is tried again by itself",
        "无需处理：触发微信每分钟的调用限额，程序会自动重试";
    QUOTA_PER_DAY = "quota-per-day",
        "WeChat's daily quota for this account is used up: find out who else fetches its tokens; a quota \
         reset (10 a month) in the console or by clear_quota frees it at once",
        "该账号当天的微信调用额度已用完：查明还有谁在获取它的 token；在后台或用 clear_quota 清零（每月 10 次）可立即恢复";
    WRONG_SECRET = "wrong-secret",
        "the AppSecret is wrong or was reset: put the right one into the file and reload",
        "AppSecret 错误或已被重置：在配置文件中填入正确的 AppSecret 并重新加载";
    TICKET_NOT_ALLOWED = "ticket-not-allowed",
        "the account may not use this ticket: check its type and permissions in the WeChat console, or \
         take the ticket out of its tickets in the file",
        "该账号无权使用这种 ticket：在微信后台检查账号类型和接口权限，或在配置文件中把它从 tickets 里去掉";
    UNKNOWN_APPID = "unknown-appid",
        "WeChat does not know this appid: correct it in the file and reload",
        "微信不认识这个 appid：在配置文件中改正并重新加载";
    MALFORMED_REQUEST = "malformed-request",
        "WeChat calls our request malformed: a bug of ours, report it with the errcode and rid",
        "微信认为请求格式有误：这是本程序的缺陷，请附上 errcode 和 rid 反馈";
    WHITELIST_IP = "whitelist-ip",
        "add IP {ip} to the account's IP whitelist in the WeChat console; it takes about 5 minutes to work",
        "在微信后台把 IP {ip} 加入该账号的 IP 白名单；约 5 分钟后生效";
    WHITELIST_THIS_MACHINE = "whitelist-this-machine",
        "add this machine's address to the account's IP whitelist in the WeChat console; it takes about 5 \
         minutes to work",
        "在微信后台把本机的出口 IP 加入该账号的 IP 白名单；约 5 分钟后生效";
    RETIRED_HOST = "retired-host",
        "this address of WeChat's is retired: remove it from the hosts file, restart the proxy that \
         resolved it once, and let DNS resolve it; the next of upstream.base_urls is tried by itself",
        "微信的这个接入地址已停用：从 hosts 文件中删除它，重启只解析过一次域名的代理，改由 DNS 解析；程序会自动改用 upstream.base_urls 中的下一个";
    FROZEN_SECRET = "frozen-secret",
        "the AppSecret is frozen: unfreeze it in the WeChat console",
        "AppSecret 已被冻结：在微信后台解冻";
    NO_PERMISSION = "no-permission",
        "this account may not use the API: check its type and permissions in the WeChat console",
        "该账号没有此接口的权限：在微信后台检查账号类型和接口权限";
    BANNED = "banned",
        "WeChat has banned this account from the API: see the notice in its console",
        "该账号的接口权限已被微信封禁：查看其后台的通知";
    RESTRICTED = "restricted",
        "WeChat restricts this account: see the notice in its console",
        "该账号被微信限制：查看其后台的通知";
    FORBIDDEN = "forbidden",
        "WeChat forbids this account the API: see the notice in its console",
        "该账号被微信禁止使用接口：查看其后台的通知";
    FROZEN_OR_MIGRATED = "frozen-or-migrated",
        "the account is frozen or was migrated: see its console, or remove it from the file",
        "该账号已被冻结或已迁移：查看其后台，或从配置文件中删除";
    PLATFORM_APPID = "platform-appid",
        "this appid belongs to a third-party platform (component) and has no access_token of its own: remove it",
        "这个 appid 属于第三方平台（component），没有自己的 access_token：请从配置文件中删除";
    CONFIRM_IP = "confirm-ip",
        "an administrator of the account must confirm this IP: ask them to accept WeChat's message",
        "需要账号管理员确认此 IP：请管理员在微信消息中同意";
    CONFIRM_IP_PENDING = "confirm-ip-pending",
        "an administrator of the account must confirm this IP; the request is under way",
        "需要账号管理员确认此 IP；确认请求已发出";
    IP_REFUSED = "ip-refused",
        "the administrator refused this IP: it may be asked again after 1 hour; talk to them",
        "管理员拒绝了此 IP：1 小时后才能再次请求；请与管理员沟通";
    IP_REFUSED_TWICE = "ip-refused-twice",
        "the administrator refused this IP twice: it may be asked again after 24 hours; talk to them",
        "管理员两次拒绝了此 IP：24 小时后才能再次请求；请与管理员沟通";
    UNKNOWN_ERRCODE = "unknown-errcode",
        "an errcode this program does not know: look it up in WeChat's documentation",
        "本程序不认识的 errcode：请查阅微信文档";
    NETWORK = "network",
        "check the network, the DNS, the certificates and the proxy between this machine and \
         upstream.base_urls; it is tried again by itself",
        "检查本机到 upstream.base_urls 之间的网络、DNS、证书和代理；程序会自动重试";
    OUTCOME_UNKNOWN = "outcome-unknown",
        "nothing to do: the current token is trusted for the overlap only and then checked; if this \
         happens often, use endpoint: stable_token",
        "无需处理：当前 token 只在重叠期内继续使用，之后会检查一次；若经常发生，请改用 endpoint: stable_token";
    GATEWAY = "gateway",
        "a gateway between us and WeChat answers in its place; it is tried again by itself",
        "本机与微信之间的网关代替微信作了应答；程序会自动重试";
    LENGTH_REQUIRED = "length-required",
        "a proxy in between re-chunks requests, or this is a bug of ours: take the proxy out, or report it",
        "中间的代理改写了请求（去掉了 Content-Length），或是本程序的缺陷：去掉该代理，或反馈";
    OWN_BUDGET = "own-budget",
        "find out what spends it (the rejections and the failures of this account), or raise daily_budget",
        "查明额度花在哪里（该账号的失效上报和失败次数），或调高 daily_budget";
    FORCED_BY_OTHERS = "forced-by-others",
        "it is replaced by a forced refresh, of which WeChat allows 20 a day: if this happens often, \
         somebody else holds the AppSecret and forces tokens; find them or reset the secret",
        "将用强制刷新换新（微信每天允许 20 次）：若经常发生，说明有人持有 AppSecret 并在强制刷新；找到他，或重置 AppSecret";
    TOKEN_REFUSED = "token-refused",
        "nothing to do: the token is checked, and replaced if it is dead; it is tried again by itself",
        "无需处理：程序会检查 token，若已失效则换新，并自动重试";
    BUG = "bug",
        "a bug of ours: report it with the log around this line; it is tried again by itself",
        "本程序的缺陷：请附上此时前后的日志反馈；程序会自动重试";
}
