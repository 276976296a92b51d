//! Detection of YAML tags, such as `!vault x` and `!!binary x`, which are refused: whoever writes one expects
//! it to have a meaning.
//!
//! The parser drops a tag where a string is requested, and does not show YAML's own tags (`!!…`) at all. So
//! the file is traversed once more with each tag turned into a local one.

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::node::ReadOptions;
use super::place::Place;

/// The line breaks of YAML 1.1.
const LINE_BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Turns every tag in `text` into a local one: `!!binary` into `!-binary`, `!<uri>` into `!-----`. All
/// positions stay the same. Exclamation marks within strings may change, too.
pub(crate) fn localize_tags(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for line in text.split_inclusive(LINE_BREAKS) {
        // The parser skips a byte order mark.
        let line =
            line.strip_prefix(BYTE_ORDER_MARK).inspect(|_| output.push(BYTE_ORDER_MARK)).unwrap_or(line);
        // A tag handle defined in the file could stand for YAML's own.
        let line = line.strip_prefix("%TAG").inspect(|_| output.push_str("#TAG")).unwrap_or(line);
        let mut rest = line;
        // Within `!word`.
        let mut in_tag = false;
        // Length of the rest of the line where the search for a closing `>` last failed. Any `<` before that
        // place is not closed either.
        let mut unclosed_at = line.len();
        while let Some(c) = rest.chars().next() {
            if rest.len() <= unclosed_at
                && output.ends_with('!')
                && let Some(uri) = rest.strip_prefix('<')
            {
                let length = uri.find(|c: char| !c.is_ascii_graphic() || c == '>').unwrap_or(uri.len());
                if uri[length..].starts_with('>') {
                    output.extend(std::iter::repeat_n('-', length + 2));
                    rest = &rest[length + 2..];
                    continue;
                }
                unclosed_at = uri.len() - length;
            }
            output.push(if in_tag && c == '!' { '-' } else { c });
            in_tag = c == '!' || in_tag && (c.is_ascii_alphanumeric() || "-_".contains(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    output
}

/// Traverses a file and reports every place that has a tag.
pub(crate) struct TagFinder<'a> {
    pub(crate) place: &'a Place<'a>,
    /// Whether `place` is exact; otherwise it is the nearest ancestor with known keys.
    pub(crate) exact: bool,
    /// The keys that may be shown. Any other key may be a secret.
    pub(crate) known: &'a HashSet<&'static str>,
    pub(crate) options: ReadOptions<'a>,
    pub(crate) on_tag: &'a mut dyn FnMut(&Place<'_>),
}

impl TagFinder<'_> {
    /// The same traversal at another place.
    fn at<'b>(&'b mut self, place: &'b Place<'b>, exact: bool) -> TagFinder<'b> {
        TagFinder { place, exact, known: self.known, options: self.options, on_tag: &mut *self.on_tag }
    }
}

impl<'de> DeserializeSeed<'de> for TagFinder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, node: D) -> Result<(), D::Error> {
        node.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TagFinder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.options.charge(0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.options.charge(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.options.charge(0)?;
        for index in 0.. {
            let item = self.place.item(index);
            let (place, exact) = if self.exact { (&item, true) } else { (self.place, false) };
            if items.next_element_seed(self.at(place, exact))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.options.charge(0)?;
        while let Some(key) = map.next_key_seed(KeyText(self.at(self.place, false)))? {
            let key = key.as_deref().and_then(|key| self.known.get(key)).filter(|_| self.exact);
            match key {
                Some(key) => map.next_value_seed(self.at(&self.place.key(key), true))?,
                None => map.next_value_seed(self.at(self.place, false))?,
            }
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, find_tags: A) -> Result<(), A::Error> {
        (self.on_tag)(self.place);
        let (IgnoredAny, value) = find_tags.variant()?;
        value.newtype_variant_seed(self)
    }
}

/// Reads a key as text, if it is text, and reports tags on it and inside it.
struct KeyText<'a>(TagFinder<'a>);

impl<'de> DeserializeSeed<'de> for KeyText<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, node: D) -> Result<Option<String>, D::Error> {
        node.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyText<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<String>, E> {
        self.0.options.charge(key.len())?;
        Ok(Some(key.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<String>, A::Error> {
        self.0.visit_seq(items).map(|()| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<String>, A::Error> {
        self.0.visit_map(map).map(|()| None)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, find_tags: A) -> Result<Option<String>, A::Error> {
        self.0.visit_enum(find_tags).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_form_of_a_tag_becomes_one_of_the_files_own_and_nothing_moves() {
        for (text, output) in [
            ("a: !!binary x", "a: !-binary x"),
            ("a: !<tag:yaml.org,2002:str> x", "a: !----------------------- x"),
            (
                "%TAG !e! tag:yaml.org,2002:\n---\na: !e!str x",
                "#TAG !e- tag:yaml.org,2002:\n---\na: !e-str x",
            ),
            ("a: ! x", "a: ! x"),
            ("a: !vault x", "a: !vault x"),
            ("a: !<!<b> x !<c !<d>", "a: !----- x !<c !---"),
            (
                "# a\r%TAG !e! b\u{85}%TAG\u{2028}%TAG\u{2029}%TAG",
                "# a\r#TAG !e- b\u{85}#TAG\u{2028}#TAG\u{2029}#TAG",
            ),
            ("\u{feff}%TAG !e! b", "\u{feff}#TAG !e- b"),
            ("a: 店!!y <z> !<店> # !!", "a: 店!-y <z> !<店> # !-"),
        ] {
            assert_eq!(localize_tags(text), output);
            assert_eq!(output.len(), text.len());
        }
    }

    #[test]
    fn a_file_of_tags_that_are_not_closed_is_read_in_time() {
        let started = tokio::time::Instant::now();
        let text = "!<".repeat(200_000);
        assert_eq!(localize_tags(&text), text);
        let text = format!("accounts: {}", "!<".repeat(40_000));
        assert!(Config::parse(&text, "".as_ref(), |_| None).is_err());
        let took = started.elapsed();
        assert!(took.as_secs() < 5, "{took:?}");
    }
}
