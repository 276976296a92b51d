//! Looks into an answer of WeChat's: whether it refuses the token.

use std::cell::Cell;
use std::fmt;
use std::io::Read;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use memchr::memmem;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// How much of an answer is looked into. WeChat's errors are short.
pub(super) const MAX_LOOK: usize = 64 * 1024;

/// The codes by which WeChat refuses a token.
const TOKEN_REFUSED: [i64; 3] = [40001, 40014, 42001];

/// How the body of an answer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    /// Cannot be decoded here, although nothing else was asked for.
    Unknown,
}

/// What an answer says of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It refuses the token.
    Refused,
    /// It does not, or is no JSON.
    Passed,
    /// It is compressed, and ends too early.
    Broken,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
        match (all.next().map(|value| value.as_bytes().trim_ascii()), all.next()) {
            (None, _) => Self::Identity,
            (Some(name), None) if name.eq_ignore_ascii_case(b"identity") => Self::Identity,
            (Some(name), None)
                if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") =>
            {
                Self::Gzip
            }
            (Some(name), None) if name.eq_ignore_ascii_case(b"deflate") => Self::Deflate,
            _ => Self::Unknown,
        }
    }
}

/// Whether a body with these headers may be JSON. WeChat sends some as `text/plain`.
pub(super) fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.as_bytes().trim_ascii_start();
    !["image/", "audio/", "video/", "font/", "application/octet-stream", "application/zip"].iter().any(
        |binary| kind.get(..binary.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(binary.as_bytes())),
    )
}

/// Whether a body that begins with `bytes` may be a JSON object, or a compressed one.
pub(super) fn may_begin_json(bytes: &[u8], encoding: Encoding) -> bool {
    encoding != Encoding::Identity || bytes.trim_ascii_start().first().is_none_or(|first| *first == b'{')
}

/// Judges the first bytes of an answer: all of them if `is_whole`, else [`MAX_LOOK`] or more.
pub(super) fn look(parts: &[Bytes], encoding: Encoding, is_whole: bool) -> Verdict {
    let joined;
    let bytes: &[u8] = match parts {
        [only] => only,
        parts => {
            joined = parts.concat();
            &joined
        }
    };
    let decoded;
    let (json, is_whole) = match encoding {
        Encoding::Identity => (bytes.get(..MAX_LOOK).unwrap_or(bytes), is_whole && bytes.len() <= MAX_LOOK),
        Encoding::Gzip => match (decode(MultiGzDecoder::new(bytes)), is_whole) {
            ((_, Decoded::Broken), true) => return Verdict::Broken,
            ((text, end), _) => {
                decoded = text;
                (&decoded[..], end == Decoded::Whole)
            }
        },
        Encoding::Deflate => match (decode(ZlibDecoder::new(bytes)), is_whole) {
            ((_, Decoded::Broken), true) => return Verdict::Broken,
            ((text, end), _) => {
                decoded = text;
                (&decoded[..], end == Decoded::Whole)
            }
        },
        Encoding::Unknown => return Verdict::Passed,
    };
    match errcode(json, is_whole) {
        Some(errcode) if TOKEN_REFUSED.contains(&errcode) => Verdict::Refused,
        _ => Verdict::Passed,
    }
}

/// [`look`] at an answer in one part, with this `Content-Encoding`.
#[cfg(feature = "internals")]
pub(crate) fn refuses_token(body: &[u8], encoding: Option<&str>, is_whole: bool) -> bool {
    let name = encoding.and_then(|name| axum::http::HeaderValue::from_str(name).ok());
    let headers = HeaderMap::from_iter(name.map(|name| (header::CONTENT_ENCODING, name)));
    look(&[Bytes::copy_from_slice(body)], Encoding::of(&headers), is_whole) == Verdict::Refused
}

/// How far decoding came.
#[derive(PartialEq, Eq)]
enum Decoded {
    Whole,
    /// There is more than is looked into.
    More,
    Broken,
}

fn decode(decoder: impl Read) -> (Vec<u8>, Decoded) {
    let mut text = Vec::new();
    let end = match decoder.take(MAX_LOOK as u64 + 1).read_to_end(&mut text) {
        Ok(_) if text.len() > MAX_LOOK => Decoded::More,
        Ok(_) => Decoded::Whole,
        Err(_) => Decoded::Broken,
    };
    text.truncate(MAX_LOOK);
    (text, end)
}

/// The top-level `errcode` of a JSON object. An object that `is_whole` must be valid to its end; of others the
/// beginning is enough.
fn errcode(json: &[u8], is_whole: bool) -> Option<i64> {
    // Nearly all answers end here or have no such code.
    let codes = [&b"40001"[..], b"40014", b"42001"];
    if codes.iter().all(|code| memmem::find(json, code).is_none()) {
        return None;
    }
    let found = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = deserializer.deserialize_map(TopLevel(&found)).and_then(|()| deserializer.end());
    let is_valid = match read {
        Ok(()) => true,
        Err(error) => error.is_eof() && !is_whole,
    };
    found.get().filter(|_| is_valid)
}

/// Notes the `errcode` of an object, as soon as it comes.
struct TopLevel<'a>(&'a Cell<Option<i64>>);

impl<'de> Visitor<'de> for TopLevel<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_errcode) = map.next_key_seed(IsErrcode)? {
            match is_errcode {
                true => self.0.set(map.next_value::<Errcode>()?.0),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Whether a key is `errcode`, however it is escaped.
struct IsErrcode;

impl<'de> DeserializeSeed<'de> for IsErrcode {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsErrcode {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == "errcode")
    }
}

/// A whole number; anything else is no code.
struct Errcode(Option<i64>);

impl<'de> Deserialize<'de> for Errcode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Number(i64),
            Other(IgnoredAny),
        }
        Value::deserialize(deserializer).map(|value| match value {
            Value::Number(number) => Self(Some(number)),
            Value::Other(IgnoredAny) => Self(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn whole(json: &str) -> Verdict {
        look(&[Bytes::copy_from_slice(json.as_bytes())], Encoding::Identity, true)
    }

    #[test]
    fn a_token_is_refused_by_the_top_level_code_of_a_json_object() {
        for refused in [
            r#"{"errcode":40001,"errmsg":"invalid credential rid: 1"}"#,
            r#"{"errcode":40014}"#,
            r#" { "errmsg" : {"errcode":0}, "errcode" : 42001 } "#,
            r#"{"a":[1,{"b":"}"}],"err\u0063ode":40001}"#,
        ] {
            assert_eq!(whole(refused), Verdict::Refused, "{refused}");
        }
        for passed in [
            "",
            "40001",
            r#"{"errcode":0,"msgid":40001}"#,
            r#"{"errcode":45009,"rid":"40001"}"#,
            r#"{"errcode":"40001"}"#,
            r#"{"errcode":40001.5}"#,
            r#"{"errcode":[40001]}"#,
            r#"{"data":{"errcode":40001}}"#,
            r#"[{"errcode":40001}]"#,
            r#""{\"errcode\":40001}""#,
            r#"{"errcode":40001}, more"#,
            r#"{"errcode":40001"#,
            r#"{"errcode":400011}"#,
            "<xml>errcode 40001</xml>",
        ] {
            assert_eq!(whole(passed), Verdict::Passed, "{passed}");
        }
    }

    #[test]
    fn of_a_long_answer_the_beginning_is_enough() {
        let long = |front: &str| {
            let text = format!("{front}{}", "x".repeat(MAX_LOOK));
            look(&[Bytes::from(text)], Encoding::Identity, false)
        };
        assert_eq!(long(r#"{"errcode":40001,"errmsg":""#), Verdict::Refused);
        assert_eq!(long(r#"{"data":{"errcode":40001,"errmsg":""#), Verdict::Passed);
        let late = format!(r#"{{"data":"{}","errcode":40001}}"#, "x".repeat(MAX_LOOK));
        assert_eq!(whole(&late), Verdict::Passed, "behind what is looked into");
        assert_eq!(
            look(
                &[Bytes::from_static(b"{\"errcode\":400"), Bytes::from_static(b"01}")],
                Encoding::Identity,
                true
            ),
            Verdict::Refused,
            "in parts"
        );
    }

    #[test]
    fn a_compressed_answer_is_decoded_to_look_into_it() {
        let json = br#"{"errcode":40001,"errmsg":"invalid credential"}"#;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(json).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(json).unwrap();
        let zlib = zlib.finish().unwrap();
        let verdict = |bytes: &[u8], encoding| look(&[Bytes::copy_from_slice(bytes)], encoding, true);
        assert_eq!(verdict(&gzip, Encoding::Gzip), Verdict::Refused);
        assert_eq!(verdict(&zlib, Encoding::Deflate), Verdict::Refused);
        assert_eq!(verdict(&gzip[..gzip.len() / 2], Encoding::Gzip), Verdict::Broken);
        assert_eq!(verdict(&zlib[..zlib.len() / 2], Encoding::Deflate), Verdict::Broken);
        assert_eq!(verdict(json, Encoding::Gzip), Verdict::Broken);
        assert_eq!(verdict(json, Encoding::Unknown), Verdict::Passed);
        // A hundred megabytes of zeros in a hundred kilobytes are read no further than is looked into.
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![b' '; 8 << 20]).unwrap();
        assert_eq!(verdict(&bomb.finish().unwrap(), Encoding::Gzip), Verdict::Passed);
    }

    #[test]
    fn what_cannot_be_json_is_not_looked_into() {
        let headers = |name: header::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for (kind, may) in [
            ("application/json; encoding=utf-8", true),
            ("text/plain", true),
            ("image/jpeg", false),
            ("Video/mp4", false),
            ("application/octet-stream", false),
        ] {
            assert_eq!(may_be_json(&headers(header::CONTENT_TYPE, kind)), may, "{kind}");
        }
        assert!(may_be_json(&HeaderMap::new()));
        assert!(may_begin_json(b" \r\n{", Encoding::Identity) && may_begin_json(b"", Encoding::Identity));
        assert!(
            !may_begin_json(b"\xff\xd8", Encoding::Identity) && !may_begin_json(b"[", Encoding::Identity)
        );
        assert!(may_begin_json(b"\x1f\x8b", Encoding::Gzip));
        for (value, encoding) in
            [("gzip", Encoding::Gzip), ("deflate", Encoding::Deflate), ("br", Encoding::Unknown)]
        {
            assert_eq!(Encoding::of(&headers(header::CONTENT_ENCODING, value)), encoding);
        }
    }
}
