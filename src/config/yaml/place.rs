//! A place in the file, such as `accounts[3].endpoint`.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A node in the path to a place. Formatting it costs something only when there is a problem.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Step<'a>,
}

/// One step of a path.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    Top,
    /// Into a mapping.
    Key(&'a str),
    /// Into a mapping, to the second occurrence of a key.
    Again(&'a str),
    /// Into a list.
    Item(usize),
}

impl<'a> Place<'a> {
    pub(crate) const TOP: Self = Self { parent: None, step: Step::Top };

    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }

    pub(crate) fn again(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Again(key) }
    }

    pub(crate) fn item(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Item(index) }
    }

    /// The steps from the top to this place.
    fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = vec![self.step];
        let mut place = self;
        while let Some(parent) = place.parent {
            steps.push(parent.step);
            place = parent;
        }
        steps.pop();
        steps.reverse();
        steps
    }

    /// A seed that fails at this place, so that the parser's error gives the line.
    pub(crate) fn seek(&self) -> PlaceVisitor<'a> {
        let mut remaining_steps = self.steps();
        remaining_steps.reverse();
        PlaceVisitor { remaining_steps }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps().into_iter().enumerate() {
            match step {
                Step::Top => {}
                Step::Item(item) => write!(f, "[{item}]")?,
                Step::Key(key) | Step::Again(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) | Step::Again(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// Descends to a [`Place`], or as near to it as the file goes, and fails there.
pub(crate) struct PlaceVisitor<'a> {
    /// The remaining steps, the next one last.
    remaining_steps: Vec<Step<'a>>,
}

impl<'de> DeserializeSeed<'de> for PlaceVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, node: D) -> Result<(), D::Error> {
        node.deserialize_any(self)
    }
}

/// Values without a method here fail by default, which is what is needed.
impl<'de> Visitor<'de> for PlaceVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place that was sought")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (key, mut skip) = match self.remaining_steps.pop() {
            Some(Step::Key(key)) => (key, 0),
            Some(Step::Again(key)) => (key, 1),
            _ => return Err(A::Error::custom("here")),
        };
        let last = self.remaining_steps.is_empty();
        while let Some(same) = map.next_key_seed(KeyVisitor { key, fail: last && skip == 0 })? {
            if same && skip == 0 {
                return map.next_value_seed(self);
            }
            skip -= usize::from(same);
            map.next_value::<IgnoredAny>()?;
        }
        Err(A::Error::custom("the mapping without the key"))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let Some(Step::Item(index)) = self.remaining_steps.pop() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..index {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(self).map(|_| ())
    }
}

/// Compares a key. Fails if the key matches and is the last step.
struct KeyVisitor<'a> {
    key: &'a str,
    fail: bool,
}

impl<'de> DeserializeSeed<'de> for KeyVisitor<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, node: D) -> Result<bool, D::Error> {
        node.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyVisitor<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        if key == self.key && self.fail { Err(E::custom("here")) } else { Ok(key == self.key) }
    }
}
