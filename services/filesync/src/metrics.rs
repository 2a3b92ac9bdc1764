//! Metrics of a filesync: counts only, no path ever becomes an attribute.

use crate::{engine::Engine, ports::Ports};

/// Registers gauges that are read when metrics are exported.
pub(crate) fn observe<P: Ports>(engine: &Engine<P>) {
    let meter = opentelemetry::global::meter("lockstep.filesync");
    let exceptions = engine.clone();
    meter
        .u64_observable_gauge("lockstep.filesync.exceptions")
        .with_description("files that this server does not hold")
        .with_unit("{file}")
        .with_callback(move |gauge| gauge.observe(exceptions.board().exception_count() as u64, &[]))
        .build();
    let position = engine.clone();
    meter
        .u64_observable_gauge("lockstep.filesync.position")
        .with_description("the revision of the registry that this server has followed")
        .with_unit("{revision}")
        .with_callback(move |gauge| {
            gauge.observe(position.board().position().map_or(0, |p| p.revision.0), &[])
        })
        .build();
}
