//! Text that travels: cut to its bound, never in the middle of a character.

/// `text`, cut to at most `bytes`.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mark = if bytes >= 3 { "…" } else { "" };
    let end = text.floor_char_boundary(bytes - mark.len());
    format!("{}{mark}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcdef", 4), "a…");
        assert_eq!(cut("äöü", 5), "ä…");
        assert_eq!(cut("äöü", 1), "");
    }
}
