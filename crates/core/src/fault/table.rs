//! The fault table: what each of WeChat's errcodes means, how long to wait after it, and what the operator should do.
//!
//! The README's table and docs/faults.md are written from it: `cargo xtask gen`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::advice::{self, Advice};
use super::kind::{FaultKind, FaultScope, HOUR, MINUTE, PARKED, Wait};

const LONGEST_UNKNOWN: Duration = Duration::from_secs(10 * 60);

/// Faults that are told in one row of the README's table: alike in kind and scope, and in what to do.
#[derive(Debug, Clone, Copy)]
pub struct FaultGroup {
    /// How they are treated.
    pub kind: FaultKind,
    /// Whom they affect.
    pub scope: FaultScope,
    /// Those that have an errcode.
    pub rows: &'static [Row],
    /// Those that have none.
    pub others: Option<Others>,
    /// When the call is repeated, where that is not each row's wait.
    pub retried: Option<Text>,
    /// What to do, in short.
    pub summary: Text,
}

/// Errcodes that are alike in every way.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// WeChat's codes.
    pub errcodes: &'static [i64],
    /// How long to wait after one.
    pub wait: Wait,
    /// What the operator should do.
    pub advice: Advice,
}

/// Failures without an errcode, or with any that the table does not have.
#[derive(Debug, Clone, Copy)]
pub struct Others {
    /// What fails.
    pub text: Text,
    /// What the operator should do.
    pub advice: Advice,
}

/// A text in both languages.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// English.
    pub en: &'static str,
    /// Simplified Chinese.
    pub zh: &'static str,
}

/// Codes that an access point WeChat has retired answers every call with.
pub const RETIRED_CODES: [i64; 2] = [410, 48017];

/// Any errcode that the table does not have.
pub const UNKNOWN: Row =
    Row { errcodes: &[], wait: Wait::UpTo(LONGEST_UNKNOWN), advice: advice::UNKNOWN_ERRCODE };

/// What can go wrong with a call, in the order of the README.
pub const TABLE: &[FaultGroup] = &[
    FaultGroup {
        kind: FaultKind::Transient,
        scope: FaultScope::Host,
        rows: &[],
        others: others(
            "none: connect error, timeout, HTTP 5xx",
            "无：连接失败、超时、HTTP 5xx",
            advice::NETWORK,
        ),
        retried: text(
            "once a probe (every 2 s) or a trial call (every 5 to 60 s) is answered",
            "每 2 秒探测一次，每 5 到 60 秒试一次真正的调用，有应答之后",
        ),
        summary: Text {
            en: "check network, DNS and TLS: the message says which",
            zh: "检查网络、DNS 和 TLS：错误信息会指明是哪一个",
        },
    },
    FaultGroup {
        kind: FaultKind::Transient,
        scope: FaultScope::Host,
        rows: &[row(&RETIRED_CODES, Wait::BackOff, advice::RETIRED_HOST)],
        others: others(
            "none: \"This ip is no longer use…\"",
            "无：\"This ip is no longer use…\"",
            advice::RETIRED_HOST,
        ),
        retried: text("at once, at the next host", "立即改用下一个主机"),
        summary: Text {
            en: "WeChat's address is retired: remove it from the hosts file, restart the proxy, let DNS resolve it",
            zh: "微信的这个接入地址已停用：从 hosts 文件中删除它，重启代理，改由 DNS 解析",
        },
    },
    FaultGroup {
        others: others(
            "none: a gateway's page, half an answer",
            "无：网关的页面、不完整的应答",
            advice::GATEWAY,
        ),
        ..group(
            FaultKind::Transient,
            &[row(&[-1], Wait::BackOff, advice::WECHAT_BUSY)],
            "nothing; on `token` see the next row",
            "无需处理；用 `token` 时见下一行",
        )
    },
    FaultGroup {
        others: others(
            "none: answer lost or HTTP 504, on `token`",
            "无：应答丢失或 HTTP 504，用 `token` 时",
            advice::OUTCOME_UNKNOWN,
        ),
        retried: text("2 s to 60 s", "2 秒到 60 秒"),
        ..group(
            FaultKind::UnknownOutcome,
            &[],
            "nothing; if it is frequent, `stable_token`",
            "无需处理；经常发生就改用 `stable_token`",
        )
    },
    FaultGroup {
        others: others("none: our own budget is spent", "无：我们自己的额度用完", advice::OWN_BUDGET),
        retried: text("when it allows a call", "额度允许时"),
        ..group(
            FaultKind::Throttled,
            &[],
            "find what spends it, or raise `daily_budget`",
            "查明额度花在哪里，或调高 `daily_budget`",
        )
    },
    group(
        FaultKind::Throttled,
        &[row(&[45011], Wait::For(MINUTE), advice::QUOTA_PER_MINUTE)],
        "nothing: quota per minute",
        "无需处理：每分钟的调用限额",
    ),
    group(
        FaultKind::Throttled,
        &[row(&[45009], Wait::For(HOUR), advice::QUOTA_PER_DAY)],
        "find who else fetches tokens; reset the quota in the console",
        "查明还有谁在获取 token；在后台清零额度",
    ),
    group(
        FaultKind::Parked,
        &[
            row(&[40001, 40125], PARKED, advice::WRONG_SECRET),
            row(&[40013], PARKED, advice::UNKNOWN_APPID),
            row(&[40243], PARKED, advice::FROZEN_SECRET),
        ],
        "put the right AppSecret (40013: appid) into the file, reload; 40243: unfreeze it in the console",
        "在文件里填上正确的 AppSecret（40013：appid），重新加载；40243：在后台解冻",
    ),
    group(
        FaultKind::Parked,
        &[row(&[40164, 61004], PARKED, advice::WHITELIST_IP)],
        "whitelist the IP that the message names",
        "把错误信息里的 IP 加入白名单",
    ),
    group(
        FaultKind::Parked,
        &[
            row(&[48001], PARKED, advice::NO_PERMISSION),
            row(&[48004], PARKED, advice::BANNED),
            row(&[50002], PARKED, advice::RESTRICTED),
            row(&[50004], PARKED, advice::FORBIDDEN),
            row(&[50007], PARKED, advice::FROZEN_OR_MIGRATED),
        ],
        "see the account's console: permission, ban or freeze",
        "查看账号后台：接口权限、封禁或冻结",
    ),
    group(
        FaultKind::Parked,
        &[row(&[61024], PARKED, advice::PLATFORM_APPID)],
        "a third-party platform's appid: remove it",
        "这是第三方平台的 appid：删掉它",
    ),
    group(
        FaultKind::Parked,
        &[
            row(&[89501, 89503], PARKED, advice::CONFIRM_IP),
            row(&[89502, 89504, 89505], PARKED, advice::CONFIRM_IP_PENDING),
            row(&[89507], Wait::For(HOUR), advice::IP_REFUSED),
            row(&[89506], Wait::For(Duration::from_secs(24 * 60 * 60)), advice::IP_REFUSED_TWICE),
        ],
        "its administrator must confirm this IP, or has refused it: talk to them",
        "需要账号管理员确认此 IP，或管理员拒绝了此 IP：与管理员沟通",
    ),
    FaultGroup {
        others: others("HTTP 412", "HTTP 412", advice::LENGTH_REQUIRED),
        ..group(
            FaultKind::Parked,
            &[row(&[40002, 41002, 41004, 43002, 44002, 47001], PARKED, advice::MALFORMED_REQUEST)],
            "a bug of ours (or a proxy's): report it",
            "本程序（或中间代理）的缺陷：请反馈",
        )
    },
    FaultGroup {
        others: others("any other errcode", "其他 errcode", advice::UNKNOWN_ERRCODE),
        ..group(FaultKind::Parked, &[UNKNOWN], "look it up at WeChat", "查阅微信文档")
    },
];

/// Classifies an errcode. Its advice has the address in it that WeChat's text names.
pub(super) fn classify(errcode: i64, errmsg: &str) -> (FaultKind, FaultScope, Wait, String) {
    let of_code = |row: &&Row| row.errcodes.contains(&errcode);
    let found = TABLE.iter().find_map(|group| Some((group, group.rows.iter().find(of_code)?)));
    let (kind, scope, row) = found
        .map_or((FaultKind::Parked, FaultScope::Account, UNKNOWN), |(group, row)| {
            (group.kind, group.scope, *row)
        });
    let advice = match refused_ip(errmsg) {
        _ if row.advice != advice::WHITELIST_IP => row.advice.en.to_owned(),
        Some(ip) => row.advice.en.replace("{ip}", &ip.to_string()),
        None => advice::WHITELIST_THIS_MACHINE.en.to_owned(),
    };
    (kind, scope, row.wait, advice)
}

/// Finds the address in 40164's `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist` and in 61004's
/// `access clientip is not registered requestIP: 1.2.3.4`.
fn refused_ip(errmsg: &str) -> Option<IpAddr> {
    errmsg
        .split([' ', ',', ':'])
        .find_map(|word| word.parse::<Ipv4Addr>().ok())
        .map(Into::into)
        .or_else(|| errmsg.split([' ', ',']).find_map(|word| word.parse::<IpAddr>().ok()))
}

/// What is the account's own, and has an errcode.
const fn group(kind: FaultKind, rows: &'static [Row], en: &'static str, zh: &'static str) -> FaultGroup {
    FaultGroup {
        kind,
        scope: FaultScope::Account,
        rows,
        others: None,
        retried: None,
        summary: Text { en, zh },
    }
}

const fn row(errcodes: &'static [i64], wait: Wait, advice: Advice) -> Row {
    Row { errcodes, wait, advice }
}

const fn others(en: &'static str, zh: &'static str, advice: Advice) -> Option<Others> {
    Some(Others { text: Text { en, zh }, advice })
}

const fn text(en: &'static str, zh: &'static str) -> Option<Text> {
    Some(Text { en, zh })
}
