//! Reads the body of an answer: WeChat's JSON, and what proxies and other encodings leave of it.
//!
//! An errcode counts whatever the text next to it looks like: texts have come with raw line breaks, in GBK,
//! and with unescaped quotes. Valid JSON is read as any parser does. A body that is cut off or contradicts
//! itself is refused.

use std::borrow::Cow;
use std::str::Chars;

use super::transport::Response;

/// The fields of WeChat's answers that our calls need.
#[derive(Default)]
pub(super) struct AnswerBody {
    /// 0 counts as an errcode, too: WeChat has understood the call.
    pub(super) errcode: Option<i64>,
    /// Empty where there is no text.
    pub(super) errmsg: String,
    pub(super) access_token: Option<String>,
    pub(super) ticket: Option<String>,
    /// In whole seconds; a value that does not fit is the largest that does.
    pub(super) expires_in: Option<u32>,
    pub(super) has_ip_list: bool,
}

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("an answer that is not WeChat's JSON")]
    NotJson,
    /// Two errcodes, tokens or tickets, one together with a refusal, or a damaged one.
    #[error("an answer whose errcode, token or ticket is not clear")]
    Unclear,
}

impl AnswerBody {
    pub(super) fn of(answer: &Response) -> Result<Self, Unreadable> {
        let text = decode(&answer.body);
        let members = members(trimmed(&text)).ok_or(Unreadable::NotJson)?;
        let mut body = Self::default();
        for (name, value) in members {
            match (name.as_str(), value) {
                (_, JsonValue::Bare("null")) => {}
                ("errcode", value) => {
                    agree(&mut body.errcode, value.number().and_then(whole).ok_or(Unreadable::Unclear)?)?;
                }
                ("errmsg", JsonValue::Text(text)) => body.errmsg = text,
                ("access_token", JsonValue::Text(value)) => agree_on_secret(&mut body.access_token, value)?,
                ("ticket", JsonValue::Text(value)) => agree_on_secret(&mut body.ticket, value)?,
                ("expires_in", value) => {
                    let stated = value.number().and_then(seconds);
                    // Of two values, the shorter can do no harm.
                    body.expires_in = body.expires_in.into_iter().chain(stated).min();
                }
                ("ip_list", JsonValue::List) => body.has_ip_list = true,
                _ => {}
            }
        }
        let is_refusal = body.errcode.is_some_and(|errcode| errcode != 0);
        let brings_something = body.access_token.is_some() || body.ticket.is_some();
        if is_refusal && brings_something { Err(Unreadable::Unclear) } else { Ok(body) }
    }
}

/// The text without whitespace, control characters and byte order marks around it.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}')
}

/// Decodes UTF-8; of any other encoding it keeps the ASCII.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte.is_ascii() {
            text.push(char::from(byte));
            continue;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        // The second byte of a GBK or Big5 character may look like a backslash or a brace.
        rest.next_if(|byte| (0x40..=0xfe).contains(byte));
    }
    text.into()
}

fn agree<T: PartialEq>(known: &mut Option<T>, new: T) -> Result<(), Unreadable> {
    match known {
        Some(known) if *known != new => return Err(Unreadable::Unclear),
        Some(_) => {}
        None => *known = Some(new),
    }
    Ok(())
}

/// Takes in a token or ticket. One that was damaged in transit is an error.
fn agree_on_secret(known: &mut Option<String>, value: String) -> Result<(), Unreadable> {
    let is_damage = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    match value {
        value if value.is_empty() => Ok(()),
        value if value.contains(is_damage) => Err(Unreadable::Unclear),
        value => agree(known, value),
    }
}

/// Reads `40164`, `40164.0` and `" 40164"`.
fn whole(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        // Doubles represent each whole number up to this.
        let is_whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        // Exact, since it is whole and small.
        is_whole.then_some(number as i64)
    })
}

/// Reads a number in the same forms, rounded down.
fn seconds(text: &str) -> Option<u32> {
    let number: f64 = text.trim().parse().ok()?;
    // The cast saturates: a value too large becomes the largest, one below 0 becomes 0.
    number.is_finite().then_some(number as u32)
}

enum JsonValue<'a> {
    Text(String),
    /// A number, `true`, `false` or `null`.
    Bare(&'a str),
    List,
    Object,
}

impl JsonValue<'_> {
    fn number(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bare(text) => Some(text),
            Self::List | Self::Object => None,
        }
    }
}

/// The members of the object that makes up all of `text`, in order; `None` when it is not an object.
fn members(text: &str) -> Option<Vec<(String, JsonValue<'_>)>> {
    let mut reader = BodyReader { rest: text };
    let mut members = Vec::new();
    reader.take('{')?;
    // A trailing comma is accepted.
    while reader.take('}').is_none() {
        reader.take('"')?;
        let name = reader.string(ends_name)?;
        reader.take(':')?;
        members.push((name, reader.value()?));
        if reader.take(',').is_none() {
            reader.take('}')?;
            break;
        }
    }
    reader.rest.is_empty().then_some(members)
}

/// Whether what follows a quote shows that it ends a name and is not a part of it.
fn ends_name(rest: &str) -> bool {
    rest.trim_start().starts_with(':')
}

/// Whether what follows a quote shows that it ends a text: another member, or the end of the object.
fn ends_text(rest: &str) -> bool {
    let rest = rest.trim_start();
    match rest.strip_prefix(',') {
        Some(next) => next.trim_start().starts_with(['"', '}']),
        None => rest == "}",
    }
}

struct BodyReader<'a> {
    rest: &'a str,
}

impl<'a> BodyReader<'a> {
    /// Consumes `wanted` where it comes next, after whitespace.
    fn take(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(wanted)?;
        Some(())
    }

    fn value(&mut self) -> Option<JsonValue<'a>> {
        if self.take('"').is_some() {
            return self.string(ends_text).map(JsonValue::Text);
        }
        self.rest = self.rest.trim_start();
        if self.rest.starts_with(['[', '{']) {
            let is_list = self.rest.starts_with('[');
            self.skip_nested()?;
            return Some(if is_list { JsonValue::List } else { JsonValue::Object });
        }
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let end = self.rest.find(|c| !is_bare(c)).filter(|end| *end > 0)?;
        let (bare, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(JsonValue::Bare(bare))
    }

    /// Reads a string whose opening quote is consumed, up to the first quote that ends it.
    fn string(&mut self, ends: fn(&str) -> bool) -> Option<String> {
        let mut string = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                '\\' => string.push(escaped(&mut chars)?),
                '"' if ends(chars.as_str()) => {
                    self.rest = chars.as_str();
                    return Some(string);
                }
                other => string.push(other),
            }
        }
    }

    /// Skips a list or an object, whose contents are not needed.
    fn skip_nested(&mut self) -> Option<()> {
        let mut open = Vec::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next()? {
                '[' => open.push(']'),
                '{' => open.push('}'),
                '"' => skip_string(&mut chars)?,
                closing @ (']' | '}') if open.pop()? != closing => return None,
                _ => {}
            }
            if open.is_empty() {
                self.rest = chars.as_str();
                return Some(());
            }
        }
    }
}

fn skip_string(chars: &mut Chars<'_>) -> Option<()> {
    loop {
        match chars.next()? {
            '"' => return Some(()),
            '\\' => drop(chars.next()?),
            _ => {}
        }
    }
}

/// The character that an escape sequence stands for. Half a surrogate pair stands for a lost character.
fn escaped(chars: &mut Chars<'_>) -> Option<char> {
    Some(match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let first = unit(chars)?;
            let mut ahead = chars.clone();
            let second = (ahead.next() == Some('\\') && ahead.next() == Some('u')).then(|| unit(&mut ahead));
            match (char::decode_utf16([first]).next()?, second.flatten()) {
                (Ok(whole), _) => whole,
                (Err(_), Some(second)) => match char::decode_utf16([first, second]).next()? {
                    Ok(whole) => {
                        *chars = ahead;
                        whole
                    }
                    Err(_) => char::REPLACEMENT_CHARACTER,
                },
                (Err(_), None) => char::REPLACEMENT_CHARACTER,
            }
        }
        other => other,
    })
}

fn unit(chars: &mut Chars<'_>) -> Option<u16> {
    let digits = chars.as_str().get(..4).filter(|digits| digits.bytes().all(|d| d.is_ascii_hexdigit()))?;
    *chars = chars.as_str()[4..].chars();
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(body: impl AsRef<[u8]>) -> Result<AnswerBody, Unreadable> {
        AnswerBody::of(&Response { status: 200, body: body.as_ref().to_vec(), date: None, retry_after: None })
    }

    /// A refusal with `errmsg` exactly as given, in any encoding.
    fn refused_with(errmsg: impl AsRef<[u8]>) -> [Vec<u8>; 2] {
        let errmsg = errmsg.as_ref();
        [
            [br#"{"errcode":40164,"errmsg":"#, errmsg, b"}"].concat(),
            [br#"{"errmsg":"#, errmsg, br#", "errcode" : 40164 }"#].concat(),
        ]
    }

    #[test]
    fn an_errcode_counts_whatever_its_text_is() {
        let texts: [&[u8]; 19] = [
            b"\"invalid ip\n1.2.3.4\"",
            b"\"\r\n\t\x00\x1b[31m\"",
            // GBK, Big5 whose second bytes are a backslash, Latin 1, half of a UTF-8 character.
            b"\"\xb2\xbb\xba\xcf\xb7\xa8\xb5\xc4IP\"",
            b"\"\xa5\x5c\xa5\x5c\"",
            b"\"caf\xe9\"",
            b"\"\xe4\xb8\"",
            br#""not in "whitelist", rid: 1""#,
            br#""bad "appid": empty""#,
            br#""C:\windows \'x\'""#,
            br#""half of a pair \ud83d, and \udc00\ud800""#,
            b"1",
            b"-1.5e3",
            b"null",
            b"true",
            b"{}",
            br#"{"errcode":40001,"deep":["\"}]",{}]}"#,
            b"[]",
            br#"["a",1]"#,
            b"\"\"",
        ];
        for body in texts.into_iter().flat_map(refused_with) {
            let found = read(&body).map(|body| body.errcode);
            assert_eq!(found, Ok(Some(40164)), "{}", String::from_utf8_lossy(&body));
        }
        assert_eq!(read(r#"{"errcode":40164}"#).unwrap().errcode, Some(40164));
        assert_eq!(read(r#"{"errcode":40164,"errmsg":"x",}"#).unwrap().errcode, Some(40164));
        let [body, _] = refused_with(b"\"ip 1.2.3.4\xa5\x5c\nrid: 5f-1\"");
        assert_eq!(read(body).unwrap().errmsg, "ip 1.2.3.4\u{fffd}\nrid: 5f-1");
    }

    #[test]
    fn a_number_is_read_bare_or_quoted_and_with_a_fraction_or_exponent() {
        for text in ["40164", "40164.0", "4.0164e4", "\"40164\"", "\" 40164 \"", "\"40164.0\""] {
            let found = read(format!(r#"{{"errcode":{text},"expires_in":{text}}}"#)).unwrap();
            assert_eq!((found.errcode, found.expires_in), (Some(40164), Some(40164)), "{text}");
        }
        for (text, seconds) in [
            ("7200.9", Some(7200)),
            ("1e300", Some(u32::MAX)),
            ("-5", Some(0)),
            ("\"x\"", None),
            ("[]", None),
        ] {
            let found = read(format!(r#"{{"errcode":-1,"expires_in":{text}}}"#)).unwrap();
            assert_eq!((found.errcode, found.expires_in), (Some(-1), seconds), "{text}");
        }
        for text in ["\"\"", "\"x\"", "true", "{}", "[40001]", "40001.5", "1e300", "NaN", "\"inf\""] {
            assert_eq!(read(format!(r#"{{"errcode":{text}}}"#)).err(), Some(Unreadable::Unclear), "{text}");
        }
    }

    #[test]
    fn a_token_is_taken_whatever_stands_around_it() {
        for body in [
            "\u{feff}{\"access_token\":\"t\",\"expires_in\":7200}",
            " \r\n{\"access_token\":\"t\",\"expires_in\":\"7200\"}\n\0",
            r#"{"errcode":"0","errmsg":"o"k","access_token":"t","expires_in":7200.0}"#,
            r#"{"errcode":null,"access_token":"t","access_token":"t","expires_in":7200,"expires_in":7300}"#,
            r#"{"new":{"access_token":"x","errcode":1},"access_token":"t","expires_in":7200,}"#,
            r#"{"access\u005ftoken":"\u0074","expires_in":7200}"#,
        ] {
            let found = read(body).unwrap();
            assert_eq!((found.access_token.as_deref(), found.expires_in), (Some("t"), Some(7200)), "{body}");
        }
    }

    #[test]
    fn what_says_two_things_or_is_cut_off_or_damaged_is_not_read() {
        for body in [
            r#"{"errcode":40013,"errcode":40001}"#,
            r#"{"errcode":0,"errcode":40001}"#,
            r#"{"errcode":40001,"access_token":"t","expires_in":7200}"#,
            r#"{"errcode":40001,"ticket":"t"}"#,
            r#"{"access_token":"t","access_token":"u","expires_in":7200}"#,
            r#"{"access_token":"t\n","expires_in":7200}"#,
            r#"{"access_token":"t\ud800","expires_in":7200}"#,
        ] {
            assert_eq!(read(body).err(), Some(Unreadable::Unclear), "{body}");
        }
        let damaged = b"{\"access_token\":\"t\xff\",\"expires_in\":7200}";
        assert_eq!(read(damaged).err(), Some(Unreadable::Unclear));
        let whole = r#"{"errcode":40164,"errmsg":"invalid ip","more":[1]}"#;
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).err(), Some(Unreadable::NotJson), "{}", &whole[..end]);
        }
        for body in
            ["[]", "\"x\"", "null", "{}{}", r#"{"errcode":0}x"#, "<html>", "{,}", "{\"a\"}", "{\"a\":[}"]
        {
            assert_eq!(read(body).err(), Some(Unreadable::NotJson), "{body}");
        }
    }

    /// Any text at all, and those that are likely to trip up a reader.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), r#"[\\"{}:, \n\u{1f600}u0d8]{0,20}"#]
    }

    fn json_of_any_kind() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            text().prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::vec((text(), inner), 0..4)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn right_json_is_read_as_any_parser_reads_it(
            others in prop::collection::vec((text(), json_of_any_kind()), 0..4),
            errcode in any::<i32>(),
            errmsg in text(),
            pretty in any::<bool>(),
        ) {
            let mut body: serde_json::Map<_, _> = others.into_iter().collect();
            for ours in ["access_token", "ticket", "expires_in", "ip_list"] {
                body.remove(ours);
            }
            body.insert("errcode".to_owned(), json!(errcode));
            body.insert("errmsg".to_owned(), json!(errmsg));
            let body = Json::Object(body);
            let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
            let found = read(text.unwrap()).unwrap();
            prop_assert_eq!((found.errcode, found.errmsg), (Some(errcode.into()), errmsg));
        }

        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read([b"{\"".as_slice(), &body, b"}"].concat());
        }
    }
}
