//! Metrics of a catalog: counts only, no path and no name ever becomes an attribute.

use crate::{engine::Engine, ports::Ports};

/// Registers gauges that are read when metrics are exported.
pub(crate) fn observe<P: Ports>(engine: &Engine<P>) {
    let meter = opentelemetry::global::meter("lockstep.catalog");
    let working = engine.clone();
    meter
        .u64_observable_gauge("lockstep.catalog.updates.working")
        .with_description("firmware updates that this instance downloads, verifies or deletes")
        .with_unit("{update}")
        .with_callback(move |gauge| gauge.observe(working.working_count() as u64, &[]))
        .build();
}
