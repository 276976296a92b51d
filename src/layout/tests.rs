//! The bytes, one layout after another; digests as `md5sum` makes them.

use super::*;
use crate::account::Endpoint;

const PROMISED: Promised<'_> =
    Promised { token: "88_tok-EN", expires_in_s: 7100, expires_at_s: 1_790_007_100 };

fn account() -> Account {
    Account {
        secret: Secret::new("0123456789abcdef0123456789abcdef"),
        ..Account::example(Endpoint::StableToken)
    }
}

/// Keys and values as a reader sees them; a hash as its fields.
fn bytes(layout: &Layout, account: &Account) -> Vec<(String, String)> {
    let shown = |entry: Entry| {
        let value = match entry.content {
            Content::Text(text) => text.expose().to_owned(),
            Content::Hash { access_token, expired_at } => {
                format!("access_token={} expired_at={expired_at}", access_token.expose())
            }
        };
        (entry.key.expose().to_owned(), value)
    };
    layout.entries(account, PROMISED).into_iter().map(shown).collect()
}

#[test]
fn every_layout_is_its_sdks_byte_for_byte() {
    let raw =
        |key, value| Layout::Raw { key: Template::key(key).unwrap(), value: Template::value(value).unwrap() };
    let ew6 = |namespace: &str| Layout::EasyWeChat6 { namespace: namespace.to_owned() };
    let ew6_key = "official_account.access_token.wx0123456789abcdef.0123456789abcdef0123456789abcdef.";
    let ew6_keys = ["", "hub:"].map(|namespace| [0, 1].map(|stable| format!("{namespace}{ew6_key}{stable}")));
    let php = r#"s:9:"88_tok-EN";"#;
    for (layout, expected) in [
        (
            Layout::WxJava { prefix: "wx".to_owned() },
            vec![("wx:access_token:wx0123456789abcdef", "88_tok-EN")],
        ),
        (
            Layout::WxJava { prefix: "wa".to_owned() },
            vec![("wa:access_token:wx0123456789abcdef", "88_tok-EN")],
        ),
        (
            Layout::Silenceper,
            vec![("gowechat_officialaccount__access_token_wx0123456789abcdef", "88_tok-EN")],
        ),
        (
            Layout::SilenceperStable,
            vec![("gowechat_officialaccount__stable_access_token_wx0123456789abcdef", "88_tok-EN")],
        ),
        (ew6(""), vec![(&ew6_keys[0][0], php), (&ew6_keys[0][1], php)]),
        (ew6("hub"), vec![(&ew6_keys[1][0], php), (&ew6_keys[1][1], php)]),
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
        let found = bytes(&layout, &account());
        let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, expected, "{}", layout.name());
        assert!(Layout::NAMES.contains(&layout.name()));
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
