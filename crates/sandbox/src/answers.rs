//! The wording of WeChat's answers: JSON with varying content types, and errors whose text must not be relied
//! on.

use std::net::IpAddr;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::call::Call;
use super::wire::Answer;

/// An error as WeChat reports it: HTTP 200 with an errcode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) errcode: i64,
    /// Replaces the usual wording.
    pub(super) errmsg: Option<String>,
}

impl From<i64> for Refusal {
    fn from(errcode: i64) -> Self {
        Self { errcode, errmsg: None }
    }
}

/// Result of a call, before it is put on the wire.
pub(super) type Outcome = Result<Value, Refusal>;

/// What an answer's wording depends on in addition to its outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerContext {
    pub(super) call: Option<Call>,
    pub(super) wall_s: u64,
    pub(super) source_ip: IpAddr,
}

/// Builds the answer for `outcome`.
pub(super) fn answer_for(outcome: Outcome, of: AnswerContext, rng: &mut StdRng) -> Answer {
    let mut logic_ret = 0;
    let value = outcome.unwrap_or_else(|Refusal { errcode, errmsg }| {
        logic_ret = errcode;
        let text = errmsg.unwrap_or_else(|| wording(errcode, of.call, of.source_ip));
        let (a, b): (u32, u32) = (rng.random(), rng.random());
        let joint = match rng.random_range(0..3) {
            0 => " ".to_owned(),
            1 => ", ".to_owned(),
            _ => format!(" hint: [{}] ", hint(rng)),
        };
        // 32 bits of Unix time, as in WeChat's own.
        json!({"errcode": errcode, "errmsg": format!("{text}{joint}rid: {:08x}-{a:08x}-{b:08x}", of.wall_s)})
    });
    let content_type = if rng.random() { "application/json; encoding=utf-8" } else { "text/plain" };
    // Which backend answered and with what result: on all of WeChat's answers, of no use to clients.
    let ret_key = if logic_ret == 0 { "11" } else { "14" };
    let headers = vec![
        ("Content-Type".into(), content_type.into()),
        ("RetKey".into(), ret_key.into()),
        ("LogicRet".into(), logic_ret.to_string().into()),
    ];
    Answer { status: 200, headers, body: value.to_string().into_bytes() }
}

/// Six letters and digits, then eight digits, as in `[jotvMa01143580]`.
fn hint(rng: &mut StdRng) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let name: String = (0..6).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
    format!("{name}{:08}", rng.random_range(0..100_000_000))
}

/// A page of some gateway on the way; 412 has an empty body, as WeChat's own does.
pub(super) fn page(status: u16) -> Answer {
    let body = match status {
        412 => String::new(),
        _ => format!(
            "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        ),
    };
    let headers = vec![("Content-Type".into(), "text/html".into())];
    Answer { status, headers, body: body.into_bytes() }
}

/// What WeChat has added since 2023 where `stable_token` would help: to 40001, whichever call minted the
/// token, and to 45009 on `token`.
const BY_STABLE_TOKEN: &str =
    "could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r";

/// Message for a token of an OAuth user; the message for an account's token begins with it.
pub(super) const INVALID_CREDENTIAL: &str = "invalid credential, access_token is invalid or not latest";

/// WeChat's message for `errcode`, without the rid. Where it documents no English text, its Chinese one is
/// used.
fn wording(errcode: i64, call: Option<Call>, source_ip: IpAddr) -> String {
    let text = match errcode {
        -1 => "system error",
        40001 => return format!("{INVALID_CREDENTIAL}, {BY_STABLE_TOKEN}"),
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40029 => "invalid code",
        40030 => "invalid refresh_token",
        40066 => "invalid url",
        40097 => "invalid args",
        40125 => "invalid appsecret, view more at http://t.cn/LOEdzVq",
        40163 => "code been used",
        40164 => return not_whitelisted(source_ip),
        40243 => "AppSecret已被冻结，请登录MP解冻后再次调用",
        41001 => "access_token missing",
        41002 => "appid missing",
        41003 => "refresh_token missing",
        41004 => "appsecret missing",
        41008 => "missing code",
        41009 => "openid missing",
        42001 => "access_token expired",
        42002 => "refresh_token expired",
        43001 => "require GET method",
        43002 => "require POST method",
        44002 => "empty post data",
        45009 if call == Some(Call::Token) => {
            return format!("reach max api daily quota limit, {BY_STABLE_TOKEN}");
        }
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit  mustslower  retry next minute",
        47001 => "data format error",
        48001 => "api unauthorized",
        48004 => "api forbidden for irregularities, view detail on mp.weixin.qq.com",
        48006 => "forbid to clear quota because of reaching the limit",
        50002 => "user limited",
        50004 => "禁止使用 token 接口",
        50007 => "账号已冻结",
        61004 => {
            return format!("access clientip is not registered requestIP: {}", source_ip.to_canonical());
        }
        61024 => "第三方平台 API 需要使用第三方平台专用 token",
        76003 => "cgi_path should start with /",
        76021 => "cgi_path not found, please check",
        89501 => "此IP正在等待管理员确认，请联系管理员",
        89503 => "此IP调用需要管理员确认，请联系管理员",
        89506 => "24小时内该IP被管理员拒绝调用两次，24小时内不可再使用该IP调用",
        89507 => "1小时内该IP被管理员拒绝调用一次，1小时内不可再使用该IP调用",
        _ => "api error",
    };
    text.to_owned()
}

fn not_whitelisted(source_ip: IpAddr) -> String {
    match source_ip.to_canonical() {
        IpAddr::V4(v4) => format!("invalid ip {v4} ipv6 {}, not in whitelist", v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => format!("invalid ip {v6} ipv6 {v6}, not in whitelist"),
    }
}
