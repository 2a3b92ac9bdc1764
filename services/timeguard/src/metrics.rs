//! Metrics of a time guard: the attributes are the kinds of witnesses and the servers of the installation, a closed set.

use std::sync::LazyLock;

use opentelemetry::{KeyValue, metrics::Counter};

use crate::{engine::Engine, ports::Ports};

static STEPS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("lockstep.timeguard")
        .u64_counter("lockstep.timeguard.clock.steps")
        .with_description("how often the clock was set")
        .build()
});

/// The clock was set, by so much that a restart is required, or by less.
pub(crate) fn stepped(asks_for_restart: bool) {
    STEPS.add(1, &[KeyValue::new("asks_for_restart", asks_for_restart)]);
}

/// Registers gauges that are read when metrics are exported.
#[allow(clippy::cast_precision_loss, reason = "a gauge of seconds needs no more than 15 digits")]
pub(crate) fn observe<P: Ports>(engine: &Engine<P>) {
    let meter = opentelemetry::global::meter("lockstep.timeguard");
    let seconds = |ns: i128| ns as f64 / 1e9;
    let (offsets, uncertainties, fence) = (engine.clone(), engine.clone(), engine.clone());
    meter
        .f64_observable_gauge("lockstep.timeguard.clock.offset")
        .with_description("how far a witness is ahead of the clock of this server")
        .with_unit("s")
        .with_callback(move |gauge| {
            offsets.read(|guard, now| {
                for (source, _, offset) in guard.known(now) {
                    if let Some(offset) = offset {
                        gauge.observe(
                            seconds(offset.middle()),
                            &[KeyValue::new("witness", source.to_string())],
                        );
                    }
                }
            });
        })
        .build();
    meter
        .f64_observable_gauge("lockstep.timeguard.clock.uncertainty")
        .with_description("how far the truth may be from the offset of a witness")
        .with_unit("s")
        .with_callback(move |gauge| {
            uncertainties.read(|guard, now| {
                for (source, _, offset) in guard.known(now) {
                    if let Some(offset) = offset {
                        gauge
                            .observe(seconds(offset.half()), &[KeyValue::new("witness", source.to_string())]);
                    }
                }
            });
        })
        .build();
    meter
        .u64_observable_gauge("lockstep.timeguard.fence")
        .with_description("1 while this server may not originate changes")
        .with_callback(move |gauge| {
            let is_up = fence.read(|guard, _| !guard.fence().state().may_originate());
            gauge.observe(u64::from(is_up), &[]);
        })
        .build();
}
