//! The documents of `events`, one a line.

use serde::Serialize;

use crate::client::events_diff::{Change, Happened};

use super::Failure;

/// Something that happened.
#[derive(Serialize)]
pub(crate) struct Event<'a> {
    /// Of the clock of this machine, RFC 3339, UTC.
    time: String,
    /// What kind it is: WATCHING, FILE_CHANGED, FILE_GONE, COPY, SERVER, CONDITION_BEGAN or CONDITION_ENDED.
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'a>>,
}

impl<'a> Event<'a> {
    /// What happened, at this time.
    pub(crate) fn of(time: String, happened: &'a Happened) -> Self {
        let Happened { path, revision, server_id, failure, change } = happened;
        let (event, from, to) = match change {
            Change::Watching => ("WATCHING", None, None),
            Change::FileChanged => ("FILE_CHANGED", None, None),
            Change::FileGone => ("FILE_GONE", None, None),
            Change::Copy { from, to } => ("COPY", Some(from), Some(to)),
            Change::Server { from, to } => ("SERVER", Some(from), Some(to)),
            Change::ConditionBegan => ("CONDITION_BEGAN", None, None),
            Change::ConditionEnded => ("CONDITION_ENDED", None, None),
        };
        Self {
            time,
            event,
            path: path.as_deref(),
            revision: *revision,
            server_id: server_id.as_deref(),
            from: from.map(String::as_str).filter(|from| !from.is_empty()),
            to: to.map(String::as_str),
            failure: failure.as_ref().map(Failure::of),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_an_event_is_stable() {
        let happened = Happened {
            path: Some("a".to_owned()),
            revision: Some(7),
            server_id: Some("s1".to_owned()),
            failure: None,
            change: Change::Copy { from: "PENDING".to_owned(), to: "IN_SYNC".to_owned() },
        };
        let text = serde_json::to_string(&Event::of("t".to_owned(), &happened)).expect("JSON");
        let expected = r#"{"time":"t","event":"COPY","path":"a","revision":7,"server_id":"s1","from":"PENDING","to":"IN_SYNC"}"#;
        assert_eq!(text, expected);
    }
}
