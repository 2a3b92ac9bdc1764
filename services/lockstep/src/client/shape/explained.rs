//! The document of `file why`.

use lockstep_proto::gateway::v1::{self as gateway, copy_explanation, explanation};
use serde::Serialize;

use super::{Failure, cell_state, seconds, time, word};

/// `file why`.
#[derive(Serialize)]
pub(crate) struct Explained<'a> {
    path: &'a str,
    state: String,
    revision: i64,
    size_bytes: i64,
    digest: &'a str,
    origin_server_id: &'a str,
    register_time: String,
    changed_by: &'a str,
    moved_path: &'a str,
    summary: &'a str,
    advice: &'a str,
    copies: Vec<Copy<'a>>,
}

impl<'a> Explained<'a> {
    /// From the wire.
    pub(crate) fn of(found: &'a gateway::Explanation) -> Self {
        Self {
            path: &found.path,
            state: word(explanation::State::try_from(found.state).map(|state| state.as_str_name()), "STATE_"),
            revision: found.revision,
            size_bytes: found.size_bytes,
            digest: &found.digest,
            origin_server_id: &found.origin_server_id,
            register_time: time(found.register_time.as_ref()),
            changed_by: &found.changed_by,
            moved_path: &found.moved_path,
            summary: &found.summary,
            advice: &found.advice,
            copies: found.copies.iter().map(Copy::of).collect(),
        }
    }
}

/// One copy; without `state` if the path is not registered, and then with `loose`.
#[derive(Serialize)]
struct Copy<'a> {
    server_id: &'a str,
    state: Option<String>,
    failure: Option<Failure<'a>>,
    message: &'a str,
    age_seconds: Option<f64>,
    next: &'a str,
    next_seconds: Option<f64>,
    advice: &'a str,
    waits_behind_paths: &'a [String],
    loose: Option<String>,
}

impl<'a> Copy<'a> {
    fn of(copy: &'a gateway::CopyExplanation) -> Self {
        let loose = copy_explanation::Loose::try_from(copy.loose);
        let is_said = loose != Ok(copy_explanation::Loose::Unspecified);
        Self {
            server_id: &copy.server_id,
            state: copy.cell.as_ref().map(cell_state),
            failure: copy.cell.as_ref().and_then(|cell| cell.failure.as_ref()).map(Failure::of),
            message: &copy.message,
            age_seconds: copy.age.map(seconds),
            next: &copy.next,
            next_seconds: copy.next_delay.map(seconds),
            advice: &copy.advice,
            waits_behind_paths: &copy.waits_behind_paths,
            loose: is_said.then(|| word(loose.map(|loose| loose.as_str_name()), "LOOSE_")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_an_explanation_is_stable() {
        let copy = gateway::CopyExplanation {
            server_id: "s1".into(),
            loose: copy_explanation::Loose::Present as i32,
            ..gateway::CopyExplanation::default()
        };
        let found = gateway::Explanation {
            path: "a".into(),
            state: explanation::State::NeverRegistered as i32,
            copies: vec![copy],
            ..gateway::Explanation::default()
        };
        let text = serde_json::to_string(&Explained::of(&found)).expect("JSON");
        let expected = r#"{"path":"a","state":"NEVER_REGISTERED","revision":0,"size_bytes":0,"digest":"","origin_server_id":"","register_time":"","changed_by":"","moved_path":"","summary":"","advice":"","copies":[{"server_id":"s1","state":null,"failure":null,"message":"","age_seconds":null,"next":"","next_seconds":null,"advice":"","waits_behind_paths":[],"loose":"PRESENT"}]}"#;
        assert_eq!(text, expected);
    }
}
