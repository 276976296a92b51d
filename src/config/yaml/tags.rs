//! YAML tags, such as `!vault x` and `!!binary x`: whoever writes one means something by it that is not done here.
//!
//! The parser drops a tag where it is asked for a text, and shows none of YAML's own (`!!…`) at all. So the file is
//! walked once more with each tag turned into one of the file's own.

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::node::ReadOptions;
use super::place::Place;

/// Where YAML 1.1 ends a line.
const LINE_BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
const BYTE_ORDER_MARK: char = '\u{feff}';

/// `text` with every tag turned into one of the file's own: `!!binary` into `!-binary`, `!<uri>` into `!-----`.
/// Everything stays where it stands; what else changes are exclamation marks within texts.
pub(crate) fn made_local(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for line in text.split_inclusive(LINE_BREAKS) {
        // The parser skips a byte order mark.
        let line = line.strip_prefix(BYTE_ORDER_MARK).inspect(|_| made.push(BYTE_ORDER_MARK)).unwrap_or(line);
        // A handle of the file's own could stand for YAML's.
        let line = line.strip_prefix("%TAG").inspect(|_| made.push_str("#TAG")).unwrap_or(line);
        let mut rest = line;
        // Within `!word`.
        let mut in_tag = false;
        // How much of the line is left where the last `<` that nothing closes was given up: whatever begins before that
        // place is not closed either.
        let mut given_up = line.len();
        while let Some(char) = rest.chars().next() {
            if rest.len() <= given_up
                && made.ends_with('!')
                && let Some(uri) = rest.strip_prefix('<')
            {
                let length =
                    uri.find(|char: char| !char.is_ascii_graphic() || char == '>').unwrap_or(uri.len());
                if uri[length..].starts_with('>') {
                    made.extend(std::iter::repeat_n('-', length + 2));
                    rest = &rest[length + 2..];
                    continue;
                }
                given_up = uri.len() - length;
            }
            made.push(if in_tag && char == '!' { '-' } else { char });
            in_tag = char == '!' || in_tag && (char.is_ascii_alphanumeric() || "-_".contains(char));
            rest = &rest[char.len_utf8()..];
        }
    }
    made
}

/// Walks through a file and tells every place where a tag stands.
pub(crate) struct TagFinder<'a> {
    pub(crate) place: &'a Place<'a>,
    /// Whether `place` is the very place; else it is the nearest one above whose keys we know.
    pub(crate) exact: bool,
    /// The keys that may be shown. What else stands there may be a secret.
    pub(crate) known: &'a HashSet<&'static str>,
    pub(crate) manner: ReadOptions<'a>,
    pub(crate) told: &'a mut dyn FnMut(&Place<'_>),
}

impl TagFinder<'_> {
    /// The same walk at another place.
    fn at<'b>(&'b mut self, place: &'b Place<'b>, exact: bool) -> TagFinder<'b> {
        TagFinder { place, exact, known: self.known, manner: self.manner, told: &mut *self.told }
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
        self.manner.charge(0)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.manner.charge(0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.manner.charge(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.manner.charge(0)?;
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
        self.manner.charge(0)?;
        while let Some(key) = map.next_key_seed(KeyText(self.at(self.place, false)))? {
            let key = key.as_deref().and_then(|key| self.known.get(key)).filter(|_| self.exact);
            match key {
                Some(key) => map.next_value_seed(self.at(&self.place.key(key), true))?,
                None => map.next_value_seed(self.at(self.place, false))?,
            }
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        (self.told)(self.place);
        let (IgnoredAny, value) = tagged.variant()?;
        value.newtype_variant_seed(self)
    }
}

/// Reads a key as a text, if it is one, and tells of tags on it and in it.
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
        self.0.manner.charge(key.len())?;
        Ok(Some(key.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<String>, A::Error> {
        self.0.visit_seq(items).map(|()| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<String>, A::Error> {
        self.0.visit_map(map).map(|()| None)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Option<String>, A::Error> {
        self.0.visit_enum(tagged).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_form_of_a_tag_becomes_one_of_the_files_own_and_nothing_moves() {
        for (text, made) in [
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
            assert_eq!(made_local(text), made);
            assert_eq!(made.len(), text.len());
        }
    }

    #[test]
    fn a_file_of_tags_that_are_not_closed_is_read_in_time() {
        let started = tokio::time::Instant::now();
        let text = "!<".repeat(200_000);
        assert_eq!(made_local(&text), text);
        let text = format!("accounts: {}", "!<".repeat(40_000));
        assert!(Config::parse(&text, "".as_ref(), |_| None).is_err());
        let took = started.elapsed();
        assert!(took.as_secs() < 5, "{took:?}");
    }
}
