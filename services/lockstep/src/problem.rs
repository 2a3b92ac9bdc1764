//! What a person is told when something did not work: what, where, why, and what to do about it.

use std::{collections::BTreeMap, fmt, io};

use lockstep_chassis::status::Failure;
use lockstep_model::{Fault, Kind, Reason};

use crate::{cli::Format, out};

/// How the process ends when it does not end well. Success is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A call was refused or failed.
    Failed = 1,
    /// Not everything is in sync.
    NotInSync = 2,
    /// The command line is wrong.
    Usage = 64,
    /// A service is unavailable, or an installation could not start.
    Unavailable = 69,
}

/// Something that did not work.
#[derive(Debug)]
pub(crate) struct Problem {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What was tried.
    what: String,
    /// Where, empty if it is obvious.
    place: String,
    /// Why it did not work.
    why: String,
    /// The stable reason, if a service or a rule of the contract said so.
    reason: Option<Reason>,
    /// What to do about it.
    advice: String,
    /// The values of the reason.
    metadata: BTreeMap<String, String>,
}

/// Boxed, because a problem is large and rare.
pub(crate) type Result<T> = std::result::Result<T, Box<Problem>>;

impl Problem {
    /// `what` did not work because of `why`.
    pub(crate) fn new(exit: Exit, what: impl Into<String>, why: impl fmt::Display) -> Box<Self> {
        Box::new(Self {
            exit,
            what: what.into(),
            place: String::new(),
            why: why.to_string(),
            reason: None,
            advice: String::new(),
            metadata: BTreeMap::new(),
        })
    }

    /// Something on this machine that the operating system refused.
    pub(crate) fn io(what: impl Into<String>, place: impl fmt::Display, error: &io::Error) -> Box<Self> {
        Self::new(Exit::Failed, what, error).at(place)
    }

    /// A call that a service refused, or that did not reach one.
    pub(crate) fn call(what: impl Into<String>, place: impl fmt::Display, failure: &Failure) -> Box<Self> {
        let exit = if failure.kind() == Kind::Unavailable { Exit::Unavailable } else { Exit::Failed };
        let mut problem = Self::new(exit, what, &failure.message).at(place).advise(&failure.advice);
        problem.reason = Some(failure.reason);
        problem.metadata = failure.metadata.clone();
        let violations = failure.violations.iter().filter(|violation| !violation.field.is_empty());
        problem.metadata.extend(violations.map(|it| (it.field.clone(), it.description.clone())));
        problem
    }

    /// A rule of the contract that is already broken here.
    pub(crate) fn rule(what: impl Into<String>, fault: &dyn Fault) -> Box<Self> {
        let mut problem = Self::new(Exit::Failed, what, fault).advise(fault.reason().advice());
        problem.reason = Some(fault.reason());
        problem.metadata = fault.metadata().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        problem
    }

    /// Says where.
    #[must_use]
    pub(crate) fn at(mut self: Box<Self>, place: impl fmt::Display) -> Box<Self> {
        self.place = place.to_string();
        self
    }

    /// Says what to do.
    #[must_use]
    pub(crate) fn advise(mut self: Box<Self>, advice: impl Into<String>) -> Box<Self> {
        self.advice = advice.into();
        self
    }

    /// As it is printed.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => {
                let document = serde_json::json!({ "error": {
                    "exit_code": self.exit as u8,
                    "what": self.what,
                    "where": self.place,
                    "reason": self.reason.map(Reason::as_str),
                    "message": self.why,
                    "advice": self.advice,
                    "metadata": self.metadata,
                }});
                document.to_string()
            }
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("error: {}", out::escaped(&self.what))];
        let mut add = |label: &str, value: &str| {
            if !value.is_empty() {
                lines.push(format!("  {label:<6} {}", out::escaped_lines(value, "         ")));
            }
        };
        add("where", &self.place);
        match self.reason {
            Some(reason) => add("why", &format!("{} ({reason})", self.why)),
            None => add("why", &self.why),
        }
        add("do", &self.advice);
        lines.extend(
            self.metadata
                .iter()
                .map(|(key, value)| format!("         {} = {}", out::escaped(key), out::escaped(value))),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_why_and_what_to_do() {
        let mut problem =
            Problem::new(Exit::Failed, "could not register a.img", "a.img is registered already")
                .at("server s1")
                .advise("choose another path");
        problem.reason = Some(Reason::FileExists);
        problem.metadata.insert("revision".to_owned(), "3".to_owned());
        let expected = "error: could not register a.img\n  where  server s1\n  why    a.img is registered already \
                        (FILE_EXISTS)\n  do     choose another path\n         revision = 3";
        assert_eq!(problem.render(Format::Text), expected);
        let json: serde_json::Value = serde_json::from_str(&problem.render(Format::Json)).expect("JSON");
        assert_eq!(json["error"]["reason"], "FILE_EXISTS");
        assert_eq!(json["error"]["exit_code"], 1);
        assert_eq!(json["error"]["metadata"]["revision"], "3");
    }

    #[test]
    fn what_a_name_contains_cannot_change_the_terminal() {
        let problem = Problem::new(Exit::Failed, "could not read a\u{1b}[2Jb", "x\u{202e}y");
        assert_eq!(problem.render(Format::Text), "error: could not read a\\u{1b}[2Jb\n  why    x\\u{202e}y");
    }
}
