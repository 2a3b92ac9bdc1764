//! The metrics of calls, by the names of OpenTelemetry, and of connections.

use std::{sync::LazyLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use tonic::Code;

use crate::status::code_name;

/// In seconds; the default boundaries are meant for milliseconds.
const BOUNDARIES_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

struct Instruments {
    server: Histogram<f64>,
    client: Histogram<f64>,
    handshakes_failed: Counter<u64>,
}

/// Made at the first use, which is after telemetry was set up; without telemetry they cost nothing.
static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = opentelemetry::global::meter("lockstep");
    let duration = |name: &'static str, what: &'static str| {
        let histogram = meter.f64_histogram(name).with_unit("s").with_description(what);
        histogram.with_boundaries(BOUNDARIES_SECONDS.to_vec()).build()
    };
    Instruments {
        server: duration("rpc.server.call.duration", "duration of incoming calls"),
        client: duration("rpc.client.call.duration", "duration of outgoing calls"),
        handshakes_failed: meter
            .u64_counter("lockstep.chassis.handshakes.failed")
            .with_description("connections refused before anything was read from them")
            .build(),
    }
});

/// Which end of a call is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// One call ended. `method` comes from the contract, so the set of attributes is closed.
pub(crate) fn call_ended(side: Side, method: &str, code: Code, took: Duration) {
    let histogram = match side {
        Side::Server => &INSTRUMENTS.server,
        Side::Client => &INSTRUMENTS.client,
    };
    let attributes = [
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method.to_owned()),
        KeyValue::new("rpc.response.status_code", code_name(code)),
    ];
    histogram.record(took.as_secs_f64(), &attributes);
}

/// A connection was refused before anything was read from it.
pub(crate) fn handshake_failed() {
    INSTRUMENTS.handshakes_failed.add(1, &[]);
}
