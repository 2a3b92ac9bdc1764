//! A list of JSON that stops at its bound: a feed of brackets and commas takes no memory to speak of.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::Raw;

/// A list of at most `MAX` values, which are not looked at; `None` if it has more.
#[derive(Debug)]
pub(super) struct Bounded<'a, const MAX: usize>(Option<Vec<Raw<'a>>>);

impl<'a, const MAX: usize> Bounded<'a, MAX> {
    /// The values; `None` if there are more than the bound.
    pub(super) fn within(self) -> Option<Vec<Raw<'a>>> {
        self.0
    }
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Bounded<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List::<MAX>).map(Bounded)
    }
}

struct List<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for List<MAX> {
    type Value = Option<Vec<Raw<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while values.len() < MAX {
            match list.next_element()? {
                Some(value) => values.push(value),
                None => return Ok(Some(values)),
            }
        }
        let mut is_more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_more = true;
        }
        Ok((!is_more).then_some(values))
    }
}
