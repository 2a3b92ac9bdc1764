//! The name of a file object: a relative path that every server can store, exactly as given.
//!
//! A name is either stored unchanged or refused with the rule it breaks (R6); nothing is ever altered silently. What
//! is refused is what some server could not store (Windows names included), what could reach outside the transfer
//! directory (R70), and what would deceive the person who reads it.

use std::{fmt, str::FromStr};

use unicode_normalization::UnicodeNormalization as _;

/// The longest path, in bytes of UTF-8. Linux takes 4,095 and the terminating NUL.
pub const PATH_BYTES_MAX: usize = 4_095;
/// The longest component, in bytes of UTF-8: what ext4, XFS and NTFS all store.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// The deepest path, in components. Every ancestor is asserted in the commit, so depth costs records.
pub const DEPTH_MAX: usize = 100;
/// Names that begin with this, in any case, are ours.
pub const RESERVED_PREFIX: &str = ".lockstep";

/// A valid path of a file object, relative to the transfer directory, with `/` between components.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(String);

/// A path after NFC and full case folding: two paths that fold to the same text cannot both exist, because some
/// server could not tell them apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Folded(String);

/// The rule that a refused name breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// The path is empty.
    #[error("a path must not be empty")]
    Empty,
    /// The path is longer than [`PATH_BYTES_MAX`].
    #[error("a path has at most {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// The path is deeper than [`DEPTH_MAX`].
    #[error("a path has at most {DEPTH_MAX} components")]
    TooDeep,
    /// An absolute path, a trailing slash, or two slashes in a row.
    #[error("a path is relative, and no component is empty")]
    EmptyComponent,
    /// `.` or `..` as a component.
    #[error("no component may be . or ..")]
    DotComponent,
    /// A component is longer than [`COMPONENT_BYTES_MAX`].
    #[error("a component has at most {COMPONENT_BYTES_MAX} bytes")]
    ComponentTooLong,
    /// A control character, line feed and NUL included.
    #[error("control characters are not allowed")]
    Control,
    /// An invisible or bidirectional formatting character.
    #[error("invisible and bidirectional formatting characters are not allowed")]
    Deceptive,
    /// One of `\ : * ? " < > |`, which Windows servers cannot store.
    #[error("the characters \\ : * ? \" < > | are not allowed")]
    NotPortable,
    /// A trailing dot or space, which Windows servers drop.
    #[error("no component may end with a dot or a space")]
    TrailingDotOrSpace,
    /// A device name of Windows, with or without an extension.
    #[error("CON, PRN, AUX, NUL, COM1 to COM9 and LPT1 to LPT9 are device names")]
    DeviceName,
    /// A name that begins with [`RESERVED_PREFIX`].
    #[error("names that begin with {RESERVED_PREFIX} are reserved")]
    Reserved,
}

impl FilePath {
    /// The exact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The directories above the file, outermost first, each as its full path.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The directory that holds the file; `None` at the top.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// The folded form.
    pub fn folded(&self) -> Folded {
        fold(&self.0)
    }
}

/// Folds any path or directory: NFC, full case folding, and NFC again, since folding can leave a sequence that is not.
pub fn fold(text: &str) -> Folded {
    let composed: String = text.nfc().collect();
    Folded(caseless::default_case_fold_str(&composed).nfc().collect())
}

impl Folded {
    /// The folded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        if text.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(InvalidPath::TooLong);
        }
        if text.split('/').count() > DEPTH_MAX {
            return Err(InvalidPath::TooDeep);
        }
        text.split('/').try_for_each(check_component)?;
        Ok(Self(text.to_owned()))
    }
}

fn check_component(name: &str) -> Result<(), InvalidPath> {
    let broken = [
        (name.is_empty(), InvalidPath::EmptyComponent),
        (name == "." || name == "..", InvalidPath::DotComponent),
        (name.len() > COMPONENT_BYTES_MAX, InvalidPath::ComponentTooLong),
        (name.chars().any(char::is_control), InvalidPath::Control),
        (name.chars().any(is_deceptive), InvalidPath::Deceptive),
        (name.contains(['\\', ':', '*', '?', '"', '<', '>', '|']), InvalidPath::NotPortable),
        (name.ends_with(['.', ' ']), InvalidPath::TrailingDotOrSpace),
        (is_device_name(name), InvalidPath::DeviceName),
        (fold(name).0.starts_with(RESERVED_PREFIX), InvalidPath::Reserved),
    ];
    broken.into_iter().find(|(is, _)| *is).map_or(Ok(()), |(_, rule)| Err(rule))
}

/// Characters that change how the rest of a name is shown, or that show nothing. The joiners U+200C and U+200D stay:
/// several scripts cannot be written without them.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn is_device_name(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        let digit = stem.strip_prefix(prefix).filter(|rest| rest.chars().count() == 1);
        digit.is_some_and(|rest| rest.contains(['1', '2', '3', '4', '5', '6', '7', '8', '9', '¹', '²', '³']))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT")
}

impl TryFrom<String> for FilePath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> String {
        path.0
    }
}

impl AsRef<str> for FilePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6: what is accepted is kept to the byte.
    #[test]
    fn accepted_names_are_kept_exactly() {
        for name in [
            "a",
            "os/base image.img",
            "Ä/ö ü",
            "e\u{301}",
            "%2e%2e/..%2f",
            "．．",
            "می\u{200c}خواهم",
            "-rf",
            "$(x)",
        ] {
            assert_eq!(name.parse::<FilePath>().expect(name).as_str(), name);
        }
    }

    #[test]
    fn folding_joins_what_some_server_cannot_tell_apart() {
        for (a, b) in [("A/x", "a/X"), ("é", "e\u{301}"), ("straße", "STRASSE"), ("ﬀ", "FF"), ("Σ", "ς")]
        {
            assert_eq!(fold(a), fold(b), "{a} {b}");
        }
        assert_ne!(fold("ı"), fold("i"));
    }

    #[test]
    fn ancestors_are_whole_paths() {
        let path: FilePath = "a/b/c".parse().expect("valid");
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!((path.parent(), path.name()), (Some("a/b"), "c"));
    }
}
