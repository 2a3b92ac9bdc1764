//! Between the contract and the domain.

use jiff::SignedDuration;
use lockstep_model::Reason;
use lockstep_proto::timeguard::v1::{self as timeguard, clock_report, fence};
use lockstep_replicas::{
    domain::cause::Cause,
    wire::{cause_from, duration_from},
};

use crate::domain::report::{Fence, Report, Verdict};

impl Report {
    /// From a report of the contract.
    ///
    /// # Errors
    /// That there is none, which breaks the contract.
    pub fn from_wire(report: Option<timeguard::ClockReport>) -> Result<Self, Cause> {
        let broken = || Cause::new(Reason::Internal, "the timeguard sent a message without a report");
        let report = report.ok_or_else(broken)?;
        let verdict = match report.verdict() {
            clock_report::Verdict::Trusted => Verdict::Trusted,
            clock_report::Verdict::Skewed => Verdict::Skewed,
            clock_report::Verdict::Unreachable => Verdict::Unreachable,
            clock_report::Verdict::Unconfirmed => Verdict::Unconfirmed,
            // What this version does not know is nothing to rely on.
            clock_report::Verdict::Doubtful | clock_report::Verdict::Unspecified => Verdict::Doubtful,
        };
        Ok(Self {
            verdict,
            offset: report.offset.map(signed_from),
            uncertainty: duration_from(report.uncertainty),
            fence: report.fence.map_or(Fence::Starting, fence_from),
        })
    }
}

fn fence_from(fence: timeguard::Fence) -> Fence {
    match fence.state() {
        fence::State::Open => Fence::Open,
        fence::State::Fenced => Fence::Fenced(cause_from(fence.failure.unwrap_or_default())),
        fence::State::Overruled => Fence::Overruled,
        fence::State::Starting | fence::State::Unspecified => Fence::Starting,
    }
}

/// A duration of the contract that may be below zero.
pub fn signed_from(value: prost_types::Duration) -> SignedDuration {
    let nanos = SignedDuration::from_nanos(i64::from(value.nanos));
    SignedDuration::from_secs(value.seconds).saturating_add(nanos)
}

/// A duration that may be below zero, for the contract: both parts have its sign.
pub fn signed(value: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: value.as_secs(), nanos: value.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use lockstep_proto::shared::v1::Failure;

    use super::*;

    /// R62: what a timeguard says arrives as it is, below zero too.
    #[test]
    fn a_report_survives_the_wire() {
        let failure = Failure { reason: "CLOCK_FENCED".to_owned(), ..Failure::default() };
        let report = timeguard::ClockReport {
            verdict: clock_report::Verdict::Skewed.into(),
            offset: Some(prost_types::Duration { seconds: -61, nanos: -3_000_000 }),
            uncertainty: Some(prost_types::Duration { seconds: 0, nanos: 400_000 }),
            fence: Some(timeguard::Fence {
                state: fence::State::Fenced.into(),
                failure: Some(failure),
                ..timeguard::Fence::default()
            }),
            ..timeguard::ClockReport::default()
        };
        let read = Report::from_wire(Some(report.clone())).expect("a report");
        assert_eq!(read.verdict, Verdict::Skewed);
        assert_eq!(read.offset, Some(SignedDuration::from_millis(-61_003)));
        assert_eq!(read.offset.map(signed), report.offset);
        assert!(read.fenced().is_some_and(|cause| cause.is(Reason::ClockFenced)));
    }

    /// What a newer timeguard says in words that are not known here is neither trusted nor a fence.
    #[test]
    fn what_a_newer_timeguard_says_is_tolerated() {
        let fence = timeguard::Fence { state: 99, ..timeguard::Fence::default() };
        let newer =
            timeguard::ClockReport { verdict: 99, fence: Some(fence), ..timeguard::ClockReport::default() };
        let read = Report::from_wire(Some(newer)).expect("tolerated");
        assert_eq!((read.verdict, read.fence), (Verdict::Doubtful, Fence::Starting));
        assert!(Report::from_wire(None).is_err_and(|cause| cause.is(Reason::Internal)));
    }
}
