//! The documents of `clock` and `clock override`.

use lockstep_proto::timeguard::v1::{self as timeguard, clock_report, clock_witness, fence};
use serde::Serialize;

use super::{Failure, seconds, word};

/// `clock`.
#[derive(Serialize)]
pub(crate) struct Clocks<'a> {
    pub(crate) servers: Vec<ServerClock<'a>>,
}

/// A server: what its timeguard says, or why it says nothing.
#[derive(Serialize)]
pub(crate) struct ServerClock<'a> {
    pub(crate) server_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub(crate) report: Option<Clock<'a>>,
}

/// What a timeguard says.
#[derive(Serialize)]
pub(crate) struct Clock<'a> {
    verdict: String,
    why: &'a str,
    offset_seconds: Option<f64>,
    uncertainty_seconds: Option<f64>,
    limit_seconds: Option<f64>,
    fence: Option<Fence<'a>>,
    witnesses: Vec<Witness<'a>>,
    last_step: Option<Step>,
    services_to_restart: &'a [String],
    step_count: i64,
}

/// Whether the server may originate.
#[derive(Serialize)]
struct Fence<'a> {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'a>>,
    age_seconds: Option<f64>,
    clock_override: Option<Override<'a>>,
}

/// Who lets it originate all the same.
#[derive(Serialize)]
struct Override<'a> {
    principal: &'a str,
    justification: &'a str,
    time_left_seconds: Option<f64>,
}

/// A pair: this clock, and what it is compared with.
#[derive(Serialize)]
struct Witness<'a> {
    kind: String,
    name: &'a str,
    state: String,
    offset_seconds: Option<f64>,
    uncertainty_seconds: Option<f64>,
    age_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'a>>,
}

/// Somebody set the clock.
#[derive(Serialize)]
struct Step {
    offset_seconds: Option<f64>,
    age_seconds: Option<f64>,
}

impl<'a> Clock<'a> {
    /// From the wire.
    pub(crate) fn of(report: &'a timeguard::ClockReport) -> Self {
        Self {
            verdict: clock_verdict(report),
            why: &report.why,
            offset_seconds: report.offset.map(seconds),
            uncertainty_seconds: report.uncertainty.map(seconds),
            limit_seconds: report.limit.map(seconds),
            fence: report.fence.as_ref().map(Fence::of),
            witnesses: report.witnesses.iter().map(Witness::of).collect(),
            last_step: report.last_step.map(|step| Step {
                offset_seconds: step.offset.map(seconds),
                age_seconds: step.age.map(seconds),
            }),
            services_to_restart: &report.services_to_restart,
            step_count: report.step_count,
        }
    }
}

impl<'a> Fence<'a> {
    fn of(fence: &'a timeguard::Fence) -> Self {
        Self {
            state: fence_state(fence),
            failure: fence.failure.as_ref().map(Failure::of),
            age_seconds: fence.age.map(seconds),
            clock_override: fence.clock_override.as_ref().map(|it| Override {
                principal: &it.principal,
                justification: &it.justification,
                time_left_seconds: it.time_left.map(seconds),
            }),
        }
    }
}

impl<'a> Witness<'a> {
    fn of(witness: &'a timeguard::ClockWitness) -> Self {
        Self {
            kind: witness_kind(witness),
            name: &witness.name,
            state: witness_state(witness),
            offset_seconds: witness.offset.map(seconds),
            uncertainty_seconds: witness.uncertainty.map(seconds),
            age_seconds: witness.age.map(seconds),
            failure: witness.failure.as_ref().map(Failure::of),
        }
    }
}

/// What is said of a clock, without its prefix.
pub(crate) fn clock_verdict(report: &timeguard::ClockReport) -> String {
    word(clock_report::Verdict::try_from(report.verdict).map(|it| it.as_str_name()), "VERDICT_")
}

/// The state of a fence, without its prefix.
pub(crate) fn fence_state(fence: &timeguard::Fence) -> String {
    word(fence::State::try_from(fence.state).map(|state| state.as_str_name()), "STATE_")
}

/// What a witness is, without its prefix.
pub(crate) fn witness_kind(witness: &timeguard::ClockWitness) -> String {
    word(clock_witness::Kind::try_from(witness.kind).map(|kind| kind.as_str_name()), "KIND_")
}

/// What a witness says, without its prefix.
pub(crate) fn witness_state(witness: &timeguard::ClockWitness) -> String {
    word(clock_witness::State::try_from(witness.state).map(|state| state.as_str_name()), "STATE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recorded shape: programs depend on these names.
    #[test]
    fn the_shape_of_a_clock_is_stable() {
        let span = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let report = timeguard::ClockReport {
            server_id: "s2".to_owned(),
            verdict: clock_report::Verdict::Skewed.into(),
            offset: span(-61, -500_000_000),
            uncertainty: span(0, 500_000),
            limit: span(60, 0),
            witnesses: vec![timeguard::ClockWitness {
                kind: clock_witness::Kind::Peer.into(),
                name: "s1".to_owned(),
                state: clock_witness::State::Contradicts.into(),
                offset: span(-61, -500_000_000),
                ..timeguard::ClockWitness::default()
            }],
            fence: Some(timeguard::Fence {
                state: fence::State::Overruled.into(),
                clock_override: Some(timeguard::ClockOverride {
                    principal: "operator/local".to_owned(),
                    justification: "j".to_owned(),
                    time_left: span(60, 0),
                }),
                ..timeguard::Fence::default()
            }),
            last_step: Some(timeguard::ClockStep { offset: span(61, 0), age: span(2, 0) }),
            services_to_restart: vec!["filesync".to_owned()],
            step_count: 1,
            why: "w".to_owned(),
        };
        let document = ServerClock { server_id: "s2", failure: None, report: Some(Clock::of(&report)) };
        let text = serde_json::to_string(&document).expect("JSON");
        let expected = r#"{"server_id":"s2","verdict":"SKEWED","why":"w","offset_seconds":-61.5,"uncertainty_seconds":0.0005,"limit_seconds":60.0,"fence":{"state":"OVERRULED","age_seconds":null,"clock_override":{"principal":"operator/local","justification":"j","time_left_seconds":60.0}},"witnesses":[{"kind":"PEER","name":"s1","state":"CONTRADICTS","offset_seconds":-61.5,"uncertainty_seconds":null,"age_seconds":null}],"last_step":{"offset_seconds":61.0,"age_seconds":2.0},"services_to_restart":["filesync"],"step_count":1}"#;
        assert_eq!(text, expected);
        let silent = ServerClock { server_id: "s3", failure: None, report: None };
        assert_eq!(serde_json::to_string(&silent).expect("JSON"), r#"{"server_id":"s3"}"#);
    }
}
