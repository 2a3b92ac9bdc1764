//! Between the contract and the domain.

use std::time::Duration;

use lockstep_chassis::Failure;
use lockstep_proto::timeguard::v1::{self as wire, clock_report, clock_witness, fence as wire_fence};

use crate::{
    domain::{
        Reading,
        fence::{Override, State, Why},
        guard::{Guard, Known},
        interval::Interval,
        nanos,
        verdict::Verdict,
        witness::Source,
        words,
    },
    ports::{Answer, KernelTime},
};

const SECOND_NS: i128 = 1_000_000_000;

/// A reading; times that the contract cannot say are moved to the nearer end.
pub(crate) fn reading_into_wire(reading: Reading) -> wire::ClockReading {
    let seconds = i64::try_from(reading.wall_ns.div_euclid(SECOND_NS)).unwrap_or(i64::MAX);
    let part = i32::try_from(reading.wall_ns.rem_euclid(SECOND_NS)).unwrap_or(0);
    wire::ClockReading {
        wall_time: Some(prost_types::Timestamp { seconds, nanos: part }),
        uptime: Some(length_into_wire(nanos(reading.since))),
    }
}

/// `None` if one of the two clocks is missing, or out of bounds.
pub(crate) fn reading_from_wire(reading: wire::ClockReading) -> Option<Reading> {
    let (wall, uptime) = (reading.wall_time?, reading.uptime?);
    let within = (0..1_000_000_000).contains(&wall.nanos);
    let wall_ns = i128::from(wall.seconds) * SECOND_NS + i128::from(wall.nanos);
    within.then_some(Reading { wall_ns, since: uptime.try_into().ok()? })
}

/// `None` if it lacks one of its readings.
pub(crate) fn answer_from_wire(answer: wire::SampleClockResponse) -> Option<Answer> {
    Some(Answer {
        received: reading_from_wire(answer.received?)?,
        replied: reading_from_wire(answer.replied?)?,
        incarnation: uuid::Uuid::parse_str(&answer.incarnation).ok()?.as_u128(),
        kernel_error: answer.kernel_error.and_then(|error| error.try_into().ok()),
    })
}

/// The answer to a sample.
pub(crate) fn answer_into_wire(
    received: Reading,
    replied: Reading,
    incarnation: String,
    kernel: Option<KernelTime>,
) -> wire::SampleClockResponse {
    wire::SampleClockResponse {
        received: Some(reading_into_wire(received)),
        replied: Some(reading_into_wire(replied)),
        incarnation,
        kernel_error: kernel.map(|kernel| length_into_wire(nanos(kernel.error))),
    }
}

/// The report, as of now.
pub(crate) fn report_into_wire(guard: &Guard, now: Reading) -> wire::ClockReport {
    let judgement = guard.judgement();
    let verdict = match judgement.verdict {
        Verdict::Trusted => clock_report::Verdict::Trusted,
        Verdict::Doubtful(_) => clock_report::Verdict::Doubtful,
        Verdict::Skewed => clock_report::Verdict::Skewed,
        Verdict::Unreachable => clock_report::Verdict::Unreachable,
        Verdict::Unconfirmed => clock_report::Verdict::Unconfirmed,
    };
    let witnesses =
        guard.known(now).map(|(source, known, offset)| witness_into_wire(guard, now, source, known, offset));
    wire::ClockReport {
        server_id: guard.own().to_string(),
        verdict: verdict.into(),
        why: words::verdict(guard).unwrap_or_default(),
        offset: judgement.offset.map(|offset| length_into_wire(offset.middle())),
        uncertainty: judgement.offset.map(|offset| length_into_wire(offset.half())),
        limit: Some(length_into_wire(nanos(guard.limit()))),
        witnesses: witnesses.collect(),
        fence: Some(fence_into_wire(guard, now)),
        last_step: guard.last_step().map(|step| wire::ClockStep {
            offset: Some(length_into_wire(step.by_ns)),
            age: Some(age(now, step.noticed.since)),
        }),
        services_to_restart: guard.services_to_restart().map(str::to_owned).collect(),
        step_count: i64::try_from(guard.step_count()).unwrap_or(i64::MAX),
    }
}

fn witness_into_wire(
    guard: &Guard,
    now: Reading,
    source: &Source,
    known: &Known,
    offset: Option<Interval>,
) -> wire::ClockWitness {
    let (kind, name) = match source {
        Source::Peer(server) => (clock_witness::Kind::Peer, server.to_string()),
        Source::Registry => (clock_witness::Kind::Registry, String::new()),
        Source::Ntp(server) => (clock_witness::Kind::Ntp, server.clone()),
        Source::Kernel => (clock_witness::Kind::Kernel, String::new()),
    };
    let judgement = guard.judgement();
    let state = if judgement.agreeing.contains(source) {
        clock_witness::State::Agrees
    } else if judgement.contradicting.contains(source) {
        clock_witness::State::Contradicts
    } else if judgement.uncertain.contains(source) {
        clock_witness::State::Uncertain
    } else {
        clock_witness::State::Away
    };
    let offset = offset.filter(|_| state != clock_witness::State::Away);
    let missed = known.missed.as_ref().filter(|_| state == clock_witness::State::Away);
    wire::ClockWitness {
        kind: kind.into(),
        name,
        state: state.into(),
        offset: offset.map(|offset| length_into_wire(offset.middle())),
        uncertainty: offset.map(|offset| length_into_wire(offset.half())),
        age: known.heard.map(|heard| age(now, heard)),
        failure: missed.map(|missed| Failure::new(missed.reason, missed.message.clone()).into_wire()),
    }
}

fn fence_into_wire(guard: &Guard, now: Reading) -> wire::Fence {
    let failure = |why: Why| Failure::new(words::reason(why), words::fence(guard, why)).into_wire();
    match guard.fence().state() {
        State::Starting => fence_of(wire_fence::State::Starting),
        State::Open => fence_of(wire_fence::State::Open),
        State::Fenced { why, since } => wire::Fence {
            failure: Some(failure(why)),
            age: Some(age(now, since)),
            ..fence_of(wire_fence::State::Fenced)
        },
        State::Overruled { by, why } => {
            let Override { until, principal, justification, .. } = by;
            let time_left = Some(age(Reading { since: until, ..now }, now.since));
            wire::Fence {
                failure: why.map(failure),
                clock_override: Some(wire::ClockOverride { principal, justification, time_left }),
                ..fence_of(wire_fence::State::Overruled)
            }
        }
    }
}

fn fence_of(state: wire_fence::State) -> wire::Fence {
    wire::Fence { state: state.into(), ..wire::Fence::default() }
}

fn age(now: Reading, then: Duration) -> prost_types::Duration {
    length_into_wire(nanos(now.since.saturating_sub(then)))
}

/// A length that may be negative: both parts have its sign.
fn length_into_wire(ns: i128) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(ns / SECOND_NS).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX }),
        nanos: i32::try_from(ns % SECOND_NS).unwrap_or(0),
    }
}
