//! What may stand at one place of the file, read so that nothing aborts.
//!
//! serde stops at the first value that does not fit, and its messages quote values, secrets included. Here what
//! does not fit becomes a [`Node::Wrong`], an unknown or repeated key a note in [`UnknownKeys`]: one reading finds every
//! problem, and the words of each are ours.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// One place of the file.
#[derive(Default)]
pub(crate) enum Node<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// `null`, or nothing after the colon.
    Null,
    /// What should stand there.
    Value(T),
    /// Something of another form, which is named.
    Wrong(&'static str),
}

impl<T: NodeForm> Node<T> {
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Reads the value of a key. The first of two equal keys stays.
    pub(crate) fn fill<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        manner: ReadOptions<'_>,
    ) -> Result<KeyMatch, A::Error> {
        let value = map.next_value_seed(NodeReader::<T>::new(manner))?;
        if !self.is_absent() {
            return Ok(KeyMatch::Twice);
        }
        *self = value;
        Ok(KeyMatch::Taken)
    }
}

/// The form of a value with a YAML tag.
pub(crate) const TAGGED: &str = "a tagged value";

/// How single values are read.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ScalarMode {
    /// As the characters that stand in the file, so that an AppSecret of digits stays what it is. A list in such
    /// a place ends the reading.
    Verbatim,
    /// As whatever stands there, numbers rewritten: to find every problem of a file that cannot be read verbatim.
    AnyForm,
}

/// What the aliases of a file may add to it, in nodes: a few lines can stand for more than any memory holds.
const ALIASED_NODES: usize = 1_000_000;
/// Text counts as a node for each so many bytes.
const BYTES_A_NODE: usize = 16;

/// How much more may be read.
pub(crate) struct AliasAllowance(Cell<usize>);

impl AliasAllowance {
    /// What `text` holds without aliases, and some more.
    pub(crate) fn of(text: &str) -> Self {
        Self(Cell::new(text.len().saturating_add(ALIASED_NODES)))
    }
}

/// How a file is read.
#[derive(Clone, Copy)]
pub(crate) struct ReadOptions<'a> {
    pub(crate) leaves: ScalarMode,
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

/// What a key of a mapping turned out to be.
pub(crate) enum KeyMatch {
    Taken,
    Twice,
    Unknown,
}

/// A form that a [`Node`] may have: a single value, a list, a mapping.
pub(crate) trait NodeForm: Sized {
    /// The form's name in messages.
    const FORM: &'static str;
    const SINGLE: bool = false;

    fn single(_text: String) -> Node<Self> {
        Node::Wrong("a single value")
    }

    fn list<'de, A: SeqAccess<'de>>(mut items: A, manner: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        while items.next_element_seed(NodeReader::<Ignored>::new(manner))?.is_some() {}
        Ok(Node::Wrong("a list"))
    }

    fn mapping<'de, A: MapAccess<'de>>(mut map: A, manner: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        while map.next_key_seed(NodeReader::<Ignored>::new(manner))?.is_some() {
            map.next_value_seed(NodeReader::<Ignored>::new(manner))?;
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

/// Whatever stands in a wrong place.
struct Ignored;

impl NodeForm for Ignored {
    const FORM: &'static str = "anything";
}

impl<T: NodeForm> NodeForm for Vec<Node<T>> {
    const FORM: &'static str = "a list";

    fn list<'de, A: SeqAccess<'de>>(mut items: A, manner: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        let mut read = Self::new();
        while let Some(item) = items.next_element_seed(NodeReader::<T>::new(manner))? {
            read.push(item);
        }
        Ok(Node::Value(read))
    }
}

/// A mapping with keys that we know; declared by [`mapping!`].
pub(crate) trait Mapping: Default {
    /// The keys that may stand in it.
    fn keys() -> Vec<&'static str>;
    /// Reads the value of `key`, unless it is unknown.
    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut A,
        manner: ReadOptions<'_>,
    ) -> Result<KeyMatch, A::Error>;
    /// The keys that should not be there.
    fn stray(&mut self) -> &mut UnknownKeys;
}

/// Keys that should not be there.
#[derive(Default)]
pub(crate) struct UnknownKeys {
    /// `None`: the key is no text.
    pub(crate) unknown: Vec<Option<String>>,
    pub(crate) twice: Vec<String>,
}

impl<T: Mapping> NodeForm for T {
    const FORM: &'static str = "a mapping";

    fn mapping<'de, A: MapAccess<'de>>(mut map: A, manner: ReadOptions<'_>) -> Result<Node<Self>, A::Error> {
        let mut read = Self::default();
        while let Some(key) = map.next_key_seed(NodeReader::<String>::new(manner))? {
            let Node::Value(key) = key else {
                map.next_value::<IgnoredAny>()?;
                read.stray().unknown.push(None);
                continue;
            };
            match read.take(&key, &mut map, manner)? {
                KeyMatch::Taken => {}
                KeyMatch::Twice => read.stray().twice.push(key),
                KeyMatch::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    read.stray().unknown.push(Some(key));
                }
            }
        }
        Ok(Node::Value(read))
    }
}

/// Declares a [`Mapping`]: `Name { key: form, … }`, and `+ field: Other` for the keys of another one beside them.
macro_rules! mapping {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $form:ty),* $(,)? } $(+ $inner:ident: $inner_form:ty)?) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $name {
            $(pub(crate) $key: Node<$form>,)*
            $(pub(crate) $inner: $inner_form,)?
            stray: UnknownKeys,
        }

        impl Mapping for $name {
            fn keys() -> Vec<&'static str> {
                let own = [$(stringify!($key)),*].into_iter();
                own$(.chain(<$inner_form>::keys()))?.collect()
            }

            fn take<'de, A: MapAccess<'de>>(
                &mut self, key: &str, map: &mut A, manner: ReadOptions<'_>,
            ) -> Result<KeyMatch, A::Error> {
                $(if key == stringify!($key) {
                    return self.$key.fill(map, manner);
                })*
                $(if true {
                    return self.$inner.take(key, map, manner);
                })?
                Ok(KeyMatch::Unknown)
            }

            fn stray(&mut self) -> &mut UnknownKeys {
                &mut self.stray
            }
        }
    };
}
pub(crate) use mapping;

/// Reads a [`Node`].
pub(crate) struct NodeReader<'a, T>(ReadOptions<'a>, PhantomData<T>);

impl<'a, T> NodeReader<'a, T> {
    pub(crate) fn new(manner: ReadOptions<'a>) -> Self {
        Self(manner, PhantomData)
    }
}

impl<'de, T: NodeForm> DeserializeSeed<'de> for NodeReader<'_, T> {
    type Value = Node<T>;

    fn deserialize<D: Deserializer<'de>>(self, node: D) -> Result<Node<T>, D::Error> {
        if T::SINGLE && self.0.leaves == ScalarMode::Verbatim {
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

    /// A YAML tag of the file's own, `!name value`.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node<T>, A::Error> {
        self.0.charge(0)?;
        let (IgnoredAny, value) = tagged.variant()?;
        value.newtype_variant_seed(NodeReader::<Ignored>::new(self.0))?;
        Ok(Node::Wrong(TAGGED))
    }
}
