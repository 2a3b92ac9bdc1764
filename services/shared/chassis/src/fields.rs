//! Decoding a request: every field that is wrong is told in one answer.

use std::{any::TypeId, fmt::Display, str::FromStr};

use lockstep_model::{Fault, Reason, Violation, path::InvalidPath};
use tonic::Status;

use crate::{failure::Failure, status};

/// The most violations that one answer tells.
pub const VIOLATIONS_MAX: usize = 100;

/// A request while it is decoded.
#[derive(Debug)]
pub struct Fields<T> {
    request: T,
    violations: Vec<Violation>,
    /// Whether every violation so far is one of the rules of names.
    only_paths: bool,
}

impl<T> Fields<T> {
    /// Begins with `request`.
    pub fn of(request: T) -> Self {
        Self { request, violations: Vec::new(), only_paths: true }
    }

    /// The request.
    pub fn request(&self) -> &T {
        &self.request
    }

    /// The text of a field as a value of the domain; `None`, and a violation, if it is none.
    pub fn parse<V>(&mut self, name: impl Into<String>, field: impl FnOnce(&T) -> &str) -> Option<V>
    where
        V: FromStr,
        V::Err: Display + 'static,
    {
        let parsed = field(&self.request).parse();
        self.parsed(name.into(), parsed)
    }

    /// Like [`parse`](Self::parse) for text that is not in this request's own fields, such as the path of `files[3]`.
    pub fn parse_text<V>(&mut self, name: impl Into<String>, text: &str) -> Option<V>
    where
        V: FromStr,
        V::Err: Display + 'static,
    {
        self.parsed(name.into(), text.parse())
    }

    fn parsed<V, E: Display + 'static>(&mut self, name: String, parsed: Result<V, E>) -> Option<V> {
        let of_path = TypeId::of::<E>() == TypeId::of::<InvalidPath>();
        parsed.map_err(|error| self.add(name, error.to_string(), of_path)).ok()
    }

    /// A violation unless `holds`.
    pub fn check(
        &mut self,
        name: impl Into<String>,
        holds: impl FnOnce(&T) -> bool,
        must: impl Into<String>,
    ) {
        if !holds(&self.request) {
            self.violation(name, must);
        }
    }

    /// A violation.
    pub fn violation(&mut self, name: impl Into<String>, description: impl Into<String>) {
        self.add(name.into(), description.into(), false);
    }

    /// A violation if there is no value.
    pub fn required<V>(&mut self, name: impl Into<String>, value: Option<V>) -> Option<V> {
        if value.is_none() {
            self.violation(name, "must be set");
        }
        value
    }

    /// Takes the value or the violation of a helper such as [`crate::paging::page_size`].
    pub fn take<V>(&mut self, result: Result<V, Violation>) -> Option<V> {
        result.map_err(|violation| self.add(violation.field, violation.description, false)).ok()
    }

    fn add(&mut self, field: String, description: String, of_path: bool) {
        self.only_paths &= of_path;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { field, description });
        }
    }

    /// The decoded value, or one status that tells every violation.
    ///
    /// # Errors
    /// `PATH_INVALID` if only names are wrong, else `FIELD_VIOLATION`.
    #[allow(clippy::result_large_err, reason = "the type that tonic wants")]
    pub fn finish<V>(self, value: Option<V>) -> Result<V, Status> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(status::of(&self.fault())),
        }
    }

    fn fault(self) -> InvalidFields {
        let reason = match (self.violations.is_empty(), self.only_paths) {
            // A decoder that yields neither a value nor a violation is a defect of ours.
            (true, _) => Reason::Internal,
            (false, true) => Reason::PathInvalid,
            (false, false) => Reason::FieldViolation,
        };
        InvalidFields { reason, violations: self.violations }
    }
}

/// The fields of a request that are wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", describe(.violations))]
struct InvalidFields {
    reason: Reason,
    violations: Vec<Violation>,
}

fn describe(violations: &[Violation]) -> String {
    let texts: Vec<String> =
        violations.iter().take(5).map(|v| format!("{}: {}", v.field, v.description)).collect();
    let rest = violations.len() - texts.len();
    if rest == 0 { texts.join("; ") } else { format!("{}; and {rest} more", texts.join("; ")) }
}

impl Fault for InvalidFields {
    fn reason(&self) -> Reason {
        self.reason
    }

    fn violations(&self) -> Vec<Violation> {
        self.violations.clone()
    }
}

/// The violations of a request as a failure of one of its parts, where a batch tells them per item.
pub fn failure_of<T>(fields: Fields<T>) -> Option<Failure> {
    (!fields.violations.is_empty()).then(|| Failure::of(&fields.fault()))
}

#[cfg(test)]
mod tests {
    use lockstep_model::{FilePath, RequestId};

    use super::*;
    use crate::status::read;

    struct Request {
        path: String,
        request_id: String,
        size: i64,
    }

    #[test]
    fn every_violation_is_told_in_one_answer() {
        let mut fields = Fields::of(Request { path: "../x".into(), request_id: String::new(), size: -1 });
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let id = fields.parse::<RequestId>("request_id", |r| &r.request_id);
        fields.check("size_bytes", |r| r.size >= 0, "must not be negative");
        let failure = read(&fields.finish(path.zip(id)).map(|_| ()).expect_err("three violations"));
        assert_eq!(failure.reason, Reason::FieldViolation);
        let names: Vec<&str> = failure.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(names, ["path", "request_id", "size_bytes"]);
    }

    /// R6: a refused name says which rule it breaks.
    #[test]
    fn a_request_whose_only_fault_are_names_is_path_invalid() {
        let mut fields = Fields::of(Request { path: "a/../x".into(), request_id: "r".into(), size: 0 });
        let path = fields.parse::<FilePath>("path", |r| &r.path);
        let failure = read(&fields.finish(path).map(|_| ()).expect_err("a bad name"));
        assert_eq!(failure.reason, Reason::PathInvalid);
        assert!(failure.message.contains("no component may be"), "{failure}");
    }

    #[test]
    fn more_violations_than_fit_are_cut() {
        let mut fields = Fields::of(());
        for n in 0..10_000 {
            fields.violation(format!("files[{n}].path"), "x".repeat(400));
        }
        let status = fields.finish(Some(())).expect_err("violations");
        assert!(status.details().len() < 32 * 1_024, "{}", status.details().len());
        assert!(!read(&status).violations.is_empty());
    }
}
