//! Just enough of the Rust grammar: what is code, what is a comment, and which functions are there.

use std::ops::Range;

/// What a stretch of source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// The source in order, without gaps.
fn pieces(text: &str) -> Vec<(Kind, Range<usize>)> {
    let mut pieces = Vec::new();
    let mut code_from = 0;
    let mut at = 0;
    while at < text.len() {
        let Some((kind, length)) = opaque(text, at) else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        pieces.push((Kind::Code, code_from..at));
        pieces.push((kind, at..at + length));
        at += length;
        code_from = at;
    }
    pieces.push((Kind::Code, code_from..text.len()));
    pieces
}

/// The comment or literal that begins at `at`, with its length.
fn opaque(text: &str, at: usize) -> Option<(Kind, usize)> {
    let rest = &text[at..];
    let inside_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return Some((Kind::Comment, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((Kind::Comment, block_comment(rest)));
    }
    if rest.starts_with('"') {
        return Some((Kind::Literal, quoted(rest, '"')));
    }
    if !inside_word && rest.starts_with(['r', 'b', 'c']) {
        let prefix = ["br", "cr", "r"].into_iter().find(|prefix| raw_hashes(rest, prefix).is_some());
        if let Some((prefix, hashes)) = prefix.and_then(|prefix| Some((prefix, raw_hashes(rest, prefix)?))) {
            let open = prefix.len() + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let length = rest[open..].find(&close).map_or(rest.len(), |found| open + found + close.len());
            return Some((Kind::Literal, length));
        }
    }
    // A quote begins a character unless it begins a lifetime: 'a' against 'a.
    if rest.starts_with('\'') && !inside_word_byte_prefix(text, at) {
        let mut chars = rest[1..].chars();
        let (first, second) = (chars.next()?, chars.next());
        if first == '\\' || second == Some('\'') {
            return Some((Kind::Literal, quoted(rest, '\'')));
        }
    }
    None
}

fn inside_word_byte_prefix(text: &str, at: usize) -> bool {
    text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && !text[..at].ends_with('b')
}

fn raw_hashes(rest: &str, prefix: &str) -> Option<usize> {
    let after = rest.strip_prefix(prefix)?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The source with comments and literals blanked; offsets and lines stay as they are.
pub(crate) fn code(text: &str) -> String {
    blanked(text, &[Kind::Comment, Kind::Literal])
}

/// The source with comments blanked.
pub(crate) fn without_comments(text: &str) -> String {
    blanked(text, &[Kind::Comment])
}

fn blanked(text: &str, kinds: &[Kind]) -> String {
    let mut kept = String::with_capacity(text.len());
    for (kind, range) in pieces(text) {
        match kinds.contains(&kind) {
            true => kept += &blank(&text[range]),
            false => kept += &text[range],
        }
    }
    kept
}

fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Like [`code`], without the modules that are compiled for tests only.
pub(crate) fn production_code(text: &str) -> String {
    let mut code = code(text);
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]").map(|found| from + found) {
        let after = &code[found..];
        let (brace, semicolon) = (after.find('{'), after.find(';'));
        let end = match (brace, semicolon) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                found + brace + block(&after[brace..])
            }
            (_, Some(semicolon)) => found + semicolon + 1,
            _ => code.len(),
        };
        let blanked = blank(&code[found..end]);
        code.replace_range(found..end, &blanked);
        from = end;
    }
    code
}

/// The length of the block that begins at the start of `code` with a brace.
fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The line of an offset, from 1.
pub(crate) fn line(text: &str, at: usize) -> usize {
    1 + text[..at].bytes().filter(|byte| *byte == b'\n').count()
}

/// The identifiers of blanked source, with their offsets.
pub(crate) fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(word)?;
        let end = code[start..].find(|c| !word(c)).map_or(code.len(), |length| start + length);
        at = end;
        Some((start, &code[start..end]))
    })
}

/// Every path that the blanked source names, imports expanded: `use std::{fs, net::{self, X}}` gives `std::fs`,
/// `std::net` and `std::net::X`. Each with the line it is on.
pub(crate) fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut in_use = false;
    let mut tokens = tokens(code).peekable();
    while let Some((at, token)) = tokens.next() {
        let mut finish = |current: &mut String, prefixes: &[String]| {
            if !current.is_empty() {
                let whole = prefixes.concat() + current;
                found.push((line(code, at), whole.strip_suffix("::self").unwrap_or(&whole).to_owned()));
                current.clear();
            }
        };
        match token {
            "use" => {
                finish(&mut current, &prefixes);
                in_use = true;
            }
            "::" => current.push_str("::"),
            "{" if in_use => prefixes.push(std::mem::take(&mut current)),
            "}" if in_use => {
                finish(&mut current, &prefixes);
                prefixes.pop();
            }
            "," if in_use => finish(&mut current, &prefixes),
            ";" => {
                finish(&mut current, &prefixes);
                in_use = false;
                prefixes.clear();
            }
            "as" if in_use => {
                tokens.next();
            }
            word if word.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                if !current.ends_with("::") {
                    finish(&mut current, &prefixes);
                }
                current.push_str(word);
            }
            _ => finish(&mut current, &prefixes),
        }
    }
    found
}

/// Identifiers, `::` and single other characters of blanked source.
fn tokens(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(|c: char| !c.is_whitespace())?;
        let rest = &code[start..];
        let first = rest.chars().next()?;
        let length = match first {
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        at = start + length;
        Some((start, &rest[..length]))
    })
}

/// A function with what stands above it.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Its documentation.
    pub(crate) docs: String,
    /// Its attributes, without `#[` and `]`.
    attributes: Vec<String>,
}

impl Function {
    /// Whether a test runner calls it: `#[test]`, `#[tokio::test(…)]`, `#[sim(…)]`.
    pub(crate) fn is_test(&self) -> bool {
        self.attributes.iter().any(|attribute| {
            let path = attribute.split(['(', '=']).next().unwrap_or_default();
            matches!(path.rsplit("::").next().unwrap_or_default().trim(), "test" | "sim")
        })
    }
}

/// The functions of a file, in order, nested ones too.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let (mut docs, mut attributes) = (String::new(), Vec::new());
    // The attribute that is open, with its depth of brackets.
    let mut attribute: Option<(String, usize)> = None;
    let (mut hash, mut named) = (false, false);
    for (kind, range) in pieces(text) {
        let piece = &text[range];
        match (kind, &mut attribute) {
            (Kind::Comment, None) => {
                if let Some(doc) = piece.strip_prefix("///").or_else(|| piece.strip_prefix("/**")) {
                    docs.push_str(doc.trim_end_matches("*/"));
                    docs.push('\n');
                }
            }
            (Kind::Literal, Some((open, _))) => open.push_str(piece),
            (Kind::Comment | Kind::Literal, _) => {}
            (Kind::Code, _) => {
                for (_, token) in tokens(piece) {
                    if let Some((mut open, depth)) = attribute.take() {
                        match (token, depth) {
                            ("]", 1) => attributes.push(open),
                            _ => {
                                open.push_str(token);
                                let depth = depth + usize::from(token == "[") - usize::from(token == "]");
                                attribute = Some((open, depth));
                            }
                        }
                        continue;
                    }
                    match token {
                        "[" if hash => attribute = Some((String::new(), 1)),
                        name if named => functions.push(Function {
                            name: name.to_owned(),
                            docs: std::mem::take(&mut docs),
                            attributes: std::mem::take(&mut attributes),
                        }),
                        "{" | "}" | ";" => {
                            docs.clear();
                            attributes.clear();
                        }
                        _ => {}
                    }
                    (hash, named) = (token == "#", token == "fn");
                }
            }
        }
    }
    functions
}

/// H6: what the other tests see of a source file is what the compiler sees.
#[test]
fn comments_and_literals_are_no_code() {
    let text = "use a::{b, c::{self, D as E}}; // tonic::x\nlet x = \"tokio::y\"; /* a /* b */ c */ let y = 'z'; \
                fn f<'a>() { r#\"std::fs\"#; b'\\''; std::net::Q }\n#[cfg(test)]\nmod tests { use h::i; }\n";
    let of = |code: &str| paths(code).into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    let all = of(&code(text));
    for path in ["a::b", "a::c", "a::c::D", "std::net::Q", "h::i"] {
        assert!(all.iter().any(|found| found == path), "{path} not in {all:?}");
    }
    assert!(
        !all.iter().any(|path| path.contains("tonic") || path.contains("tokio") || path.contains("std::fs"))
    );
    assert!(!of(&production_code(text)).iter().any(|path| path == "h::i"));
    assert_eq!(code(text).len(), text.len());
}

/// H6: tests are found with what stands above them, whatever their attributes.
#[test]
fn functions_keep_their_documentation() {
    let text = "/// R1: x.\n#[tokio::test(start_paused = true)]\n#[ignore = \"]\"]\nasync fn a() {}\n\
                struct S;\n/// no test\nfn b(f: fn(u8)) { /// R2\n #[test] fn c() {} }";
    let found: Vec<_> =
        functions(text).into_iter().map(|f| (f.is_test(), f.docs.trim().to_owned(), f.name)).collect();
    let expected = [(true, "R1: x.", "a"), (false, "no test", "b"), (true, "R2", "c")];
    for (is_test, docs, name) in expected {
        assert!(found.contains(&(is_test, docs.to_owned(), name.to_owned())), "{name} in {found:?}");
    }
}
