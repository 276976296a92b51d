//! Checks each layout's bytes against PHP's `serialize` and `json_encode`, Go's `json.Marshal`, Python's
//! `json.dumps`, and `md5sum`.

use super::*;
use crate::account::Endpoint;

const PROMISED: Promised<'_> =
    Promised { value: "88_tok-EN", expires_in_s: 7100, expires_at_s: 1_790_007_100 };

fn account() -> Account {
    Account {
        secret: Secret::new("0123456789abcdef0123456789abcdef"),
        ..Account::example(Endpoint::StableToken)
    }
}

/// Keys and values as a reader sees them; a hash as its fields.
fn bytes(entries: Vec<Entry>) -> Vec<(String, String)> {
    let shown = |entry: Entry| {
        let value = match entry.content {
            Content::Text(text) => text.expose().to_owned(),
            Content::Hash { field, value, expired_at } => {
                format!("{field}={} expired_at={expired_at}", value.expose())
            }
        };
        (entry.key.expose().to_owned(), value)
    };
    entries.into_iter().map(shown).collect()
}

fn assert_bytes(layout: &Layout, found: Vec<Entry>, expected: &[(&str, &str)]) {
    let found = bytes(found);
    let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(found, expected, "{}", layout.name());
}

fn wxjava(prefix: &str) -> Layout {
    Layout::WxJava { prefix: prefix.to_owned() }
}

fn easywechat6(namespace: &str) -> Layout {
    Layout::EasyWeChat6 { namespace: namespace.to_owned() }
}

fn raw(key: &str, value: &str) -> Layout {
    Layout::Raw { key: Template::key(key).unwrap(), value: Template::value(value).unwrap() }
}

#[test]
fn every_layout_is_its_sdks_byte_for_byte() {
    let ew6_key = "official_account.access_token.wx0123456789abcdef.0123456789abcdef0123456789abcdef.";
    let ew6_keys = ["", "hub:"].map(|namespace| [0, 1].map(|stable| format!("{namespace}{ew6_key}{stable}")));
    let php = r#"s:9:"88_tok-EN";"#;
    for (layout, expected) in [
        (wxjava("wx"), vec![("wx:access_token:wx0123456789abcdef", "88_tok-EN")]),
        (wxjava("wa"), vec![("wa:access_token:wx0123456789abcdef", "88_tok-EN")]),
        (
            Layout::Silenceper,
            vec![("gowechat_officialaccount__access_token_wx0123456789abcdef", "88_tok-EN")],
        ),
        (
            Layout::SilenceperStable,
            vec![("gowechat_officialaccount__stable_access_token_wx0123456789abcdef", "88_tok-EN")],
        ),
        (easywechat6(""), vec![(&ew6_keys[0][0], php), (&ew6_keys[0][1], php)]),
        (easywechat6("hub"), vec![(&ew6_keys[1][0], php), (&ew6_keys[1][1], php)]),
        (
            Layout::EasyWeChat5,
            vec![(
                "easywechat.kernel.access_token.63a7f48fe14d3f4d55882d4d65f3335b",
                r#"a:2:{s:12:"access_token";s:9:"88_tok-EN";s:10:"expires_in";i:7100;}"#,
            )],
        ),
        (
            Layout::PowerWeChat,
            vec![(
                "powerwechat.access_token.9dd2ec3e8fe48143541c4ddbfd61b06a",
                r#"{"access_token":"88_tok-EN","expires_in":7100}"#,
            )],
        ),
        (
            Layout::Wechatpy,
            vec![
                ("wechatpy:wx0123456789abcdef_access_token", r#""88_tok-EN""#),
                ("wechatpy:wx0123456789abcdef_access_token_expires_at", "1790007100"),
            ],
        ),
        (
            Layout::WeixinAuthorize,
            vec![("BC8A9037BA7A495C80E355FD4600FFED", "access_token=88_tok-EN expired_at=1790007100")],
        ),
        (raw("t/{appid}/{name}", "{access_token}"), vec![("t/wx0123456789abcdef/Flower Shop", "88_tok-EN")]),
        (
            raw("{appid}", r#"{"t":"{access_token}","in":{expires_in},"at":{expires_at},"{}":{"a":1}}"#),
            vec![("wx0123456789abcdef", r#"{"t":"88_tok-EN","in":7100,"at":1790007100,"{}":{"a":1}}"#)],
        ),
    ] {
        assert_bytes(&layout, layout.entries(&account(), PROMISED), &expected);
        assert!(Layout::NAMES.contains(&layout.name()));
    }
}

#[test]
fn every_ticket_is_its_sdks_byte_for_byte_where_the_sdk_shares_it() {
    let of = |layout: Layout, jsapi: Vec<(&str, &str)>, wx_card: Vec<(&str, &str)>| {
        let promised = Promised { value: "tick-ET", ..PROMISED };
        for (kind, expected) in [(TicketKind::Jsapi, jsapi), (TicketKind::WxCard, wx_card)] {
            assert_bytes(&layout, layout.ticket_entries(&account(), kind, promised), &expected);
        }
    };
    of(
        wxjava("wx"),
        vec![("wx:ticket:key:wx0123456789abcdef:jsapi", "tick-ET")],
        vec![("wx:ticket:key:wx0123456789abcdef:wx_card", "tick-ET")],
    );
    for layout in [Layout::Silenceper, Layout::SilenceperStable] {
        let key = "gowechat_officialaccount__jsapi_ticket_wx0123456789abcdef";
        of(layout, vec![(key, "tick-ET")], vec![]);
    }
    let php = r#"s:7:"tick-ET";"#;
    of(easywechat6(""), vec![("official_account.jsapi_ticket.wx0123456789abcdef", php)], vec![]);
    of(easywechat6("hub"), vec![("hub:official_account.jsapi_ticket.wx0123456789abcdef", php)], vec![]);
    let php = r#"a:4:{s:7:"errcode";i:0;s:6:"errmsg";s:2:"ok";s:6:"ticket";s:7:"tick-ET";s:10:"expires_in";i:7100;}"#;
    of(
        Layout::EasyWeChat5,
        vec![("easywechat.basic_service.jssdk.ticket.jsapi.wx0123456789abcdef", php)],
        vec![("easywechat.basic_service.jssdk.ticket.wx_card.wx0123456789abcdef", php)],
    );
    let json = r#"{"errcode":0,"errmsg":"ok","expires_in":7100,"ticket":"tick-ET"}"#;
    of(
        Layout::PowerWeChat,
        vec![("powerwechat.basic_service.jssdk.ticket.jsapi.wx0123456789abcdef", json)],
        vec![("powerwechat.basic_service.jssdk.ticket.wx_card.wx0123456789abcdef", json)],
    );
    of(
        Layout::Wechatpy,
        vec![
            ("wechatpy:wx0123456789abcdef_jsapi_ticket", r#""tick-ET""#),
            ("wechatpy:wx0123456789abcdef_jsapi_ticket_expires_at", "1790007100"),
        ],
        vec![
            ("wechatpy:wx0123456789abcdef_jsapi_card_ticket", r#""tick-ET""#),
            ("wechatpy:wx0123456789abcdef_jsapi_card_ticket_expires_at", "1790007100"),
        ],
    );
    of(
        Layout::WeixinAuthorize,
        vec![("C3B2F9D4E604CF8D2FCE6DE4B6400BB6", "jsticket=tick-ET expired_at=1790007100")],
        vec![],
    );
    of(raw("{appid}", "{access_token}"), vec![], vec![]);
}

#[test]
fn what_must_be_escaped_is_as_each_language_does_it() {
    let account = Account {
        name: "茶/館".to_owned(),
        secret: Secret::new("s/\u{82b1}\u{1f600}\"\\\u{7f}\t"),
        ..account()
    };
    let promised = Promised { value: "88/花\"", ..PROMISED };
    for (layout, expected) in [
        (
            Layout::EasyWeChat5,
            vec![(
                "easywechat.kernel.access_token.47ce146cbc7848f167bebfa34f70fe26",
                r#"a:2:{s:12:"access_token";s:7:"88/花"";s:10:"expires_in";i:7100;}"#,
            )],
        ),
        (
            easywechat6(""),
            vec![
                ("official_account.access_token.wx0123456789abcdef.s/花😀\"\\\u{7f}\t.0", r#"s:7:"88/花"";"#),
                ("official_account.access_token.wx0123456789abcdef.s/花😀\"\\\u{7f}\t.1", r#"s:7:"88/花"";"#),
            ],
        ),
        (
            Layout::PowerWeChat,
            vec![(
                "powerwechat.access_token.aafc3ba1131afa5cd48376603defe5d6",
                r#"{"access_token":"88/花\"","expires_in":7100}"#,
            )],
        ),
        (
            Layout::Wechatpy,
            vec![
                ("wechatpy:wx0123456789abcdef_access_token", r#""88/\u82b1\"""#),
                ("wechatpy:wx0123456789abcdef_access_token_expires_at", "1790007100"),
            ],
        ),
        (raw("t/{name}", "{access_token}"), vec![("t/茶/館", "88/花\"")]),
    ] {
        assert_bytes(&layout, layout.entries(&account, promised), &expected);
    }
    for (layout, value) in [
        (
            Layout::EasyWeChat5,
            r#"a:4:{s:7:"errcode";i:0;s:6:"errmsg";s:2:"ok";s:6:"ticket";s:7:"88/花"";s:10:"expires_in";i:7100;}"#,
        ),
        (Layout::PowerWeChat, r#"{"errcode":0,"errmsg":"ok","expires_in":7100,"ticket":"88/花\""}"#),
        (Layout::Wechatpy, r#""88/\u82b1\"""#),
    ] {
        let found = bytes(layout.ticket_entries(&account, TicketKind::Jsapi, promised));
        assert_eq!(found[0].1, value, "{}", layout.name());
    }
}

#[test]
fn php_writes_its_json_with_escapes() {
    assert_eq!(php_json("a/b\"花😀"), r#""a\/b\"\u82b1\ud83d\ude00""#);
}

#[test]
fn a_key_tells_accounts_apart_and_a_value_holds_the_token() {
    use InvalidTemplate::*;
    for (key, expected) in [
        ("t:{appid}", None),
        ("{name}{", None),
        ("token", Some(SameForAll)),
        ("{Appid}", Some(SameForAll)),
        ("{appid}{access_token}", Some(Changing)),
        ("{appid}{secret}", Some(Unknown)),
    ] {
        assert_eq!(Template::key(key).err(), expected, "{key}");
    }
    for (value, expected) in
        [("{access_token}", None), ("{appid}", Some(WithoutToken)), ("{access_token}{token}", Some(Unknown))]
    {
        assert_eq!(Template::value(value).err(), expected, "{value}");
    }
}

#[test]
fn debug_shows_neither_a_key_nor_a_value() {
    let layout = Layout::EasyWeChat6 { namespace: String::new() };
    let shown = format!("{:?}", layout.entries(&account(), PROMISED));
    assert!(!shown.contains("88_tok") && !shown.contains("0123456789abcdef"), "{shown}");
}
