//! Nodes of the file, read in a way that never aborts.
//!
//! serde stops at the first value that does not fit, and its messages quote values, secrets included. Here a
//! value that does not fit becomes a [`Node::Wrong`], and an unknown or repeated key is recorded in
//! [`UnknownKeys`]. So one pass finds every problem, and all messages are our own.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// One node of the file.
#[derive(Default)]
pub(crate) enum Node<T> {
    /// The key is missing.
    #[default]
    Absent,
    /// `null`, or nothing after the colon.
    Null,
    /// A value of the expected form.
    Value(T),
    /// A value of another form, which is named.
    Wrong(&'static str),
}

impl<T: NodeForm> Node<T> {
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Reads the value of a key. Of two equal keys the first one is kept.
    pub(crate) fn fill<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        options: ReadOptions<'_>,
    ) -> Result<KeyMatch, A::Error> {
        let value = map.next_value_seed(NodeReader::<T>::new(options))?;
        if !self.is_absent() {
            return Ok(KeyMatch::Twice);
        }
        *self = value;
        Ok(KeyMatch::Taken)
    }
}

/// The name of values with a YAML tag.
pub(crate) const TAGGED: &str = "a tagged value";

/// How scalar values are read.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ScalarMode {
    /// As the characters in the file, so that an AppSecret of digits is not changed. A list in such a place
    /// aborts the reading.
    Verbatim,
    /// As any value, with numbers reformatted: to find every problem of a file that cannot be read verbatim.
    AnyForm,
}

/// Nodes that the aliases of a file may add: a few lines can expand to more than fits into memory.
const ALIASED_NODES: usize = 1_000_000;
/// Text counts as one node for each of this many bytes.
const BYTES_A_NODE: usize = 16;

/// How many more nodes may be read.
pub(crate) struct AliasAllowance(Cell<usize>);

impl AliasAllowance {
    /// As many nodes as `text` can have without aliases, plus [`ALIASED_NODES`].
    pub(crate) fn of(text: &str) -> Self {
        Self(Cell::new(text.len().saturating_add(ALIASED_NODES)))
    }
}

/// How a file is read.
#[derive(Clone, Copy)]
pub(crate) struct ReadOptions<'a> {
    pub(crate) scalars: ScalarMode,
    pub(crate) allowance: &'a AliasAllowance,
}

impl ReadOptions<'_> {
    /// Counts a node with `bytes` of text.
    pub(crate) fn charge<E: Error>(self, bytes: usize) -> Result<(), E> {
        let Self { allowance: AliasAllowance(left), .. } = self;
        let rest = left.get().checked_sub(1 + bytes / BYTES_A_NODE);
        left.set(rest.ok_or_else(|| E::custom("too much"))?);
        Ok(())
    }
}

/// The result of looking up a key of a mapping.
pub(crate) enum KeyMatch {
    Taken,
    Twice,
    Unknown,
}

/// A form that a [`Node`] can have: a scalar value, a list or a mapping.
pub(crate) trait NodeForm: Sized {
    /// The form's name in messages.
    const FORM: &'static str;
    const SINGLE: bool = false;

    fn single(_text: String) -> Node<Self> {
        Node::Wrong("a single value")
    }

    fn list<'de, A: SeqAccess<'de>>(mut items: A, options: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        while items.next_element_seed(NodeReader::<Ignored>::new(options))?.is_some() {}
        Ok(Node::Wrong("a list"))
    }

    fn mapping<'de, A: MapAccess<'de>>(mut map: A, options: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        while map.next_key_seed(NodeReader::<Ignored>::new(options))?.is_some() {
            map.next_value_seed(NodeReader::<Ignored>::new(options))?;
        }
        Ok(Node::Wrong("a mapping"))
    }
}

impl NodeForm for String {
    const FORM: &'static str = "a single value";
    const SINGLE: bool = true;

    fn single(text: String) -> Node<Self> {
        Node::Value(text)
    }
}

/// A value of any form, which is skipped.
struct Ignored;

impl NodeForm for Ignored {
    const FORM: &'static str = "anything";
}

impl<T: NodeForm> NodeForm for Vec<Node<T>> {
    const FORM: &'static str = "a list";

    fn list<'de, A: SeqAccess<'de>>(mut items: A, options: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        let mut read = Self::new();
        while let Some(item) = items.next_element_seed(NodeReader::<T>::new(options))? {
            read.push(item);
        }
        Ok(Node::Value(read))
    }
}

/// A mapping with known keys, declared by [`mapping!`].
pub(crate) trait Mapping: Default {
    /// The allowed keys.
    fn keys() -> Vec<&'static str>;
    /// Reads the value of `key`, if the key is known.
    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        options: ReadOptions<'_>,
    ) -> Result<KeyMatch, A::Error>;
    /// The unknown and repeated keys.
    fn unexpected(&mut self) -> &mut UnknownKeys;
}

/// Unknown and repeated keys of a mapping.
#[derive(Default)]
pub(crate) struct UnknownKeys {
    /// Unknown keys; `None` for a key that is not text.
    pub(crate) unknown: Vec<Option<String>>,
    pub(crate) twice: Vec<String>,
}

impl<T: Mapping> NodeForm for T {
    const FORM: &'static str = "a mapping";

    fn mapping<'de, A: MapAccess<'de>>(mut map: A, options: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        let mut read = Self::default();
        while let Some(key) = map.next_key_seed(NodeReader::<String>::new(options))? {
            let Node::Value(key) = key else {
                map.next_value::<IgnoredAny>()?;
                read.unexpected().unknown.push(None);
                continue;
            };
            match read.take(&key, &mut map, options)? {
                KeyMatch::Taken => {}
                KeyMatch::Twice => read.unexpected().twice.push(key),
                KeyMatch::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    read.unexpected().unknown.push(Some(key));
                }
            }
        }
        Ok(Node::Value(read))
    }
}

/// Declares a [`Mapping`]: `Name { key: form, … }`. With `+ field: Other` it has the keys of another mapping,
/// too.
macro_rules! mapping {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $form:ty),* $(,)? } $(+ $inner:ident: $inner_form:ty)?) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $(pub(crate) $key: Node<$form>,)*
            $(pub(crate) $inner: $inner_form,)?
            unexpected: UnknownKeys,
        }

        impl Mapping for $name {
            fn keys() -> Vec<&'static str> {
                let own = [$(stringify!($key)),*].into_iter();
                own$(.chain(<$inner_form>::keys()))?.collect()
            }

            fn take<'de, A: MapAccess<'de>>(
                &mut self, key: &str, map: &mut A, options: ReadOptions<'_>,
            ) -> Result<KeyMatch, A::Error> {
                $(if key == stringify!($key) {
                    return self.$key.fill(map, options);
                })*
                $(if true {
                    return self.$inner.take(key, map, options);
                })?
                Ok(KeyMatch::Unknown)
            }

            fn unexpected(&mut self) -> &mut UnknownKeys {
                &mut self.unexpected
            }
        }
    };
}
pub(crate) use mapping;

/// Reads a [`Node`].
pub(crate) struct NodeReader<'a, T>(ReadOptions<'a>, PhantomData<T>);

impl<'a, T> NodeReader<'a, T> {
    pub(crate) fn new(options: ReadOptions<'a>) -> Self {
        Self(options, PhantomData)
    }
}

impl<'de, T: NodeForm> DeserializeSeed<'de> for NodeReader<'_, T> {
    type Value = Node<T>;

    fn deserialize<D: Deserializer<'de>>(self, node: D) -> Result<Node<T>, D::Error> {
        if T::SINGLE && self.0.scalars == ScalarMode::Verbatim {
            node.deserialize_option(self)
        } else {
            node.deserialize_any(self)
        }
    }
}

impl<'de, T: NodeForm> Visitor<'de> for NodeReader<'_, T> {
    type Value = Node<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::FORM)
    }

    fn visit_none<E: Error>(self) -> Result<Node<T>, E> {
        self.0.charge(0)?;
        Ok(Node::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Node<T>, E> {
        self.0.charge(0)?;
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, node: D) -> Result<Node<T>, D::Error> {
        node.deserialize_str(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node<T>, E> {
        self.0.charge(text.len())?;
        Ok(T::single(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Node<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Node<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node<T>, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Node<T>, A::Error> {
        self.0.charge(0)?;
        T::list(items, self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Node<T>, A::Error> {
        self.0.charge(0)?;
        T::mapping(map, self.0)
    }

    /// A local YAML tag, `!name value`.
    fn visit_enum<A: EnumAccess<'de>>(self, find_tags: A) -> Result<Node<T>, A::Error> {
        self.0.charge(0)?;
        let (IgnoredAny, value) = find_tags.variant()?;
        value.newtype_variant_seed(NodeReader::<Ignored>::new(self.0))?;
        Ok(Node::Wrong(TAGGED))
    }
}
