//! The table of hostile names, `contract/names.txt`: what happens to each name, the same in every tier.
//!
//! A name is written in double quotes with these escapes: `\\`, `\"`, `\n`, `\u{…}` for a character, `\xNN` for a raw
//! byte, and `\{N*…}` for something N times, which may hold escapes itself.

use std::fmt;

use lockstep_model::path::InvalidPath;

const TABLE: &str = include_str!("../contract/names.txt");
/// The line between the names and the pairs.
const PAIRS: &str = "[pairs]";

/// What happens to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored, to the byte.
    Stored,
    /// It is refused with the rule it breaks.
    Refused(InvalidPath),
    /// It is not UTF-8, so that no request can carry it: the decoder refuses it.
    NotText,
}

/// A name and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The line of the table.
    pub line: usize,
    /// The name.
    pub name: Vec<u8>,
    /// The name as it is written in the table.
    pub escaped: String,
    /// What happens to it.
    pub outcome: Outcome,
}

impl Case {
    /// The name as text; `None` if it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "names.txt:{} {} {:?}", self.line, self.escaped, self.outcome)
    }
}

/// Two names that are valid by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The line of the table.
    pub line: usize,
    /// The name that is registered first.
    pub first: String,
    /// The name that comes second.
    pub second: String,
    /// Whether the second one is refused with `PATH_CONFLICT`.
    pub clash: bool,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "names.txt:{} {:?} {:?}", self.line, self.first, self.second)
    }
}

/// Every name of the table.
///
/// # Panics
/// If the table is not well formed.
pub fn table() -> Vec<Case> {
    let mut cases = Vec::new();
    for (line, text) in lines(false) {
        let (name, escaped, rest) = quoted(line, text);
        let outcome = outcome(rest.split_whitespace().next().unwrap_or_default());
        let outcome = outcome.unwrap_or_else(|| panic!("names.txt:{line}: {rest} is no outcome"));
        cases.push(Case { line, name, escaped: escaped.to_owned(), outcome });
    }
    cases
}

/// Every pair of the table.
///
/// # Panics
/// If the table is not well formed.
pub fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (line, text) in lines(true) {
        let (first, _, rest) = quoted(line, text);
        let (second, _, rest) = quoted(line, rest.trim_start());
        let clash = match rest.split_whitespace().next() {
            Some("clash") => true,
            Some("distinct") => false,
            _ => panic!("names.txt:{line}: neither clash nor distinct"),
        };
        let [first, second] = [first, second].map(|name| String::from_utf8(name).expect("pairs are text"));
        pairs.push(Pair { line, first, second, clash });
    }
    pairs
}

fn lines(pairs: bool) -> impl Iterator<Item = (usize, &'static str)> {
    let numbered = TABLE.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut in_pairs = false;
    numbered.filter(move |(_, line)| {
        if *line == PAIRS {
            in_pairs = true;
            return false;
        }
        in_pairs == pairs && !line.is_empty() && !line.starts_with('#')
    })
}

fn outcome(word: &str) -> Option<Outcome> {
    use InvalidPath as Rule;
    let rules = [
        Rule::Empty,
        Rule::TooLong,
        Rule::TooDeep,
        Rule::EmptyComponent,
        Rule::DotComponent,
        Rule::ComponentTooLong,
        Rule::Control,
        Rule::Deceptive,
        Rule::NotPortable,
        Rule::TrailingDotOrSpace,
        Rule::DeviceName,
        Rule::Reserved,
    ];
    match word {
        "stored" => Some(Outcome::Stored),
        "not-text" => Some(Outcome::NotText),
        word => rules.into_iter().find(|rule| format!("{rule:?}") == word).map(Outcome::Refused),
    }
}

/// The name in quotes at the start of `text`, as it is written, and what follows.
fn quoted(line: usize, text: &str) -> (Vec<u8>, &str, &str) {
    let mut reader = Reader { line, text, at: 0 };
    assert_eq!(reader.next(), Some('"'), "names.txt:{line}: a name stands in double quotes");
    let name = reader.name('"');
    (name, &text[..reader.at], &text[reader.at..])
}

struct Reader<'a> {
    line: usize,
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.text[self.at..].chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// The text up to `end`, which is consumed too.
    fn until(&mut self, end: char) -> String {
        let from = self.at;
        while self.next().unwrap_or_else(|| self.fail("an escape is not closed")) != end {}
        self.text[from..self.at - end.len_utf8()].to_owned()
    }

    fn name(&mut self, end: char) -> Vec<u8> {
        let mut name = Vec::new();
        loop {
            match self.next().unwrap_or_else(|| self.fail("a name is not closed")) {
                c if c == end => return name,
                '\\' => self.escape(&mut name),
                c => name.extend(c.to_string().bytes()),
            }
        }
    }

    fn escape(&mut self, name: &mut Vec<u8>) {
        match self.next() {
            Some(c @ ('\\' | '"')) => name.push(c as u8),
            Some('n') => name.push(b'\n'),
            Some('x') => {
                let digits: String = [self.next(), self.next()].into_iter().flatten().collect();
                name.push(u8::from_str_radix(&digits, 16).unwrap_or_else(|_| self.fail("not two digits")));
            }
            Some('u') => {
                assert_eq!(self.next(), Some('{'), "names.txt:{}: \\u{{…}}", self.line);
                let digits = self.until('}');
                let c = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                name.extend(c.unwrap_or_else(|| self.fail("no character")).to_string().bytes());
            }
            Some('{') => {
                let times = self.until('*').parse().unwrap_or_else(|_| self.fail("no number"));
                name.extend(self.name('}').repeat(times));
            }
            _ => self.fail("no such escape"),
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("names.txt:{}: {what}", self.line)
    }
}
