//! Keys below a prefix as a range, so that no engine needs pattern matching.

/// The first key after all that begin with `prefix`; `None` if there is no end.
///
/// The order of UTF-8 bytes is the order of characters, so the prefix with its last character replaced by the next one
/// is the bytewise end, and is still text.
pub(crate) fn end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        if let Some(next) = successor(last) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

fn successor(c: char) -> Option<char> {
    // The surrogates are a gap among the characters.
    if c == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(c) + 1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_range_is_the_prefix(prefix in "[a\u{7f}\u{d7ff}\u{e000}\u{10ffff}]{0,3}", key in "[a-b\u{7f}-\u{80}\u{d7ff}\u{e000}\u{10ffff}]{0,4}") {
            let inside = key >= prefix && end(&prefix).is_none_or(|end| key < end);
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }
}
