//! Where one watcher is: a walk over all rows, and the changes since it began.
//!
//! A walk that is overtaken by more changes than are remembered goes on to the end and then once more around to where it
//! was overtaken, so that it ends even while everything changes.

use serde::{Deserialize, Serialize};

use crate::domain::changes::Sequence;

/// A place in a watch. As text it becomes the resume token, valid within one life of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Changed rows up to here were given, or are still ahead of the walk.
    #[serde(rename = "c")]
    pub changed: Sequence,
    /// Removed rows up to here were given.
    #[serde(rename = "r")]
    pub removed: Sequence,
    /// What of a walk is left.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none", default)]
    pub walk: Option<Walk>,
    /// Whether every row was given once.
    #[serde(rename = "d")]
    pub caught_up: bool,
}

/// A walk over all rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// The last path that was given; empty at the beginning.
    #[serde(rename = "a")]
    pub after: String,
    /// Go around to this path, inclusively, after the end.
    #[serde(rename = "u", skip_serializing_if = "Option::is_none", default)]
    pub until: Option<String>,
    /// Whether the walk has gone around.
    #[serde(rename = "o")]
    pub around: bool,
}

impl Walk {
    /// From the first row to the last.
    pub fn whole() -> Self {
        Self { after: String::new(), until: None, around: false }
    }

    /// Everything must be given (again), beginning where this walk is.
    pub fn renewed(self) -> Self {
        let until = (!self.after.is_empty()).then(|| self.after.clone());
        Self { after: self.after, until, around: false }
    }
}

impl Cursor {
    /// The beginning of a watch that starts now.
    pub fn start(sequence: Sequence) -> Self {
        Self { changed: sequence, removed: sequence, walk: Some(Walk::whole()), caught_up: false }
    }

    /// As text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From text; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_as_text() {
        let walk = Walk { after: "ä/b c".to_owned(), until: Some("z".to_owned()), around: true };
        for cursor in [Cursor::start(7), Cursor { walk: Some(walk), ..Cursor::start(0) }] {
            assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        }
        assert_eq!(Cursor::parse("nonsense"), None);
    }
}
