//! Logs on stderr; traces, metrics and logs over OTLP where a collector is named. Without one, spans still have
//! contexts, so that a `traceparent` exists everywhere.

use std::{io::IsTerminal as _, str::FromStr, time::Duration};

use lockstep_model::clock::{Entropy as _, SystemEntropy};
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    logs::SdkLoggerProvider,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::start::StartError;

/// How often metrics are sent.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// How long a span waits for others to be sent with. Bounded by the queue of the SDK, 2,048 spans.
const SPANS_DELAY: Duration = Duration::from_secs(1);
/// The longest wait for the collector, also for the last spans at the end of a process.
const EXPORT_MAX: Duration = Duration::from_secs(2);

/// The transport talks about itself; over OTLP that would make an exporter trace its own exports.
const TRANSPORT: [&str; 8] =
    ["h2", "hyper", "hyper_util", "tonic", "tower", "rustls", "opentelemetry", "opentelemetry_sdk"];

/// What is logged: directives of `tracing`, such as `info` or `info,filesync=debug`.
#[derive(Clone, Debug)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = tracing_subscriber::filter::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map(|_| Self(text.to_owned()))
    }
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one object a line.
    Json,
}

/// The text is no format.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("expected text or json")]
pub struct InvalidLogFormat;

impl FromStr for LogFormat {
    type Err = InvalidLogFormat;

    fn from_str(text: &str) -> Result<Self, InvalidLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(InvalidLogFormat),
        }
    }
}

/// Where an OTLP collector listens for gRPC.
#[derive(Clone, Debug)]
pub struct Collector(String);

/// The text is no address of a collector.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("expected http://host:port")]
pub struct InvalidCollector;

impl FromStr for Collector {
    type Err = InvalidCollector;

    fn from_str(text: &str) -> Result<Self, InvalidCollector> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidCollector)?;
        let complete = uri.scheme_str() == Some("http") && uri.port_u16().is_some();
        if complete { Ok(Self(text.to_owned())) } else { Err(InvalidCollector) }
    }
}

/// The telemetry of a process. What is not yet sent is sent by [`flush`](Self::flush).
#[derive(Debug)]
pub struct Telemetry {
    traces: SdkTracerProvider,
    exporting: Option<(SdkMeterProvider, SdkLoggerProvider)>,
}

/// Sets up the telemetry of this process. Must be called within the runtime, because the exporters live on it.
///
/// # Errors
/// [`StartError`] if an exporter cannot be made.
pub fn init(
    service: &'static str,
    filter: &LogFilter,
    format: LogFormat,
    collector: Option<&Collector>,
) -> Result<Telemetry, StartError> {
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", SystemEntropy.uuid().to_string()))
        .build();
    let mut traces = SdkTracerProvider::builder().with_resource(resource.clone());
    let mut exporting = None;
    if let Some(Collector(endpoint)) = collector {
        let failed = |error: opentelemetry_otlp::ExporterBuildError| {
            StartError::new(
                format!("telemetry cannot be sent to {endpoint}"),
                error,
                "correct or remove --otlp",
            )
        };
        let spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_MAX);
        let batches = BatchConfigBuilder::default().with_scheduled_delay(SPANS_DELAY).build();
        let spans = BatchSpanProcessor::builder(spans.build().map_err(failed)?).with_batch_config(batches);
        traces = traces.with_span_processor(spans.build());
        let metrics = MetricExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_MAX);
        let metrics =
            PeriodicReader::builder(metrics.build().map_err(failed)?).with_interval(METRICS_INTERVAL);
        let metrics =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(metrics.build()).build();
        opentelemetry::global::set_meter_provider(metrics.clone());
        let logs = LogExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_MAX);
        let logs = logs.build().map_err(failed)?;
        let logs = SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(logs).build();
        exporting = Some((metrics, logs));
    }
    let telemetry = Telemetry { traces: traces.build(), exporting };
    subscribe(&telemetry, filter, format);
    Ok(telemetry)
}

fn subscribe(telemetry: &Telemetry, filter: &LogFilter, format: LogFormat) {
    // What the person asked for comes last and wins.
    let mut directives = TRANSPORT.map(|target| format!("{target}=warn")).join(",");
    directives.push(',');
    directives.push_str(&filter.0);
    let stderr = tracing_subscriber::fmt::layer::<Registry>()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let stderr = match format {
        LogFormat::Text => stderr.boxed(),
        LogFormat::Json => stderr.json().flatten_event(true).boxed(),
    };
    let stderr = stderr.with_filter(EnvFilter::new(directives));
    let ours = || {
        let silent = TRANSPORT.map(|target| (target, LevelFilter::OFF));
        Targets::new().with_default(LevelFilter::INFO).with_targets(silent)
    };
    let traces =
        tracing_opentelemetry::layer().with_tracer(telemetry.traces.tracer("lockstep")).with_filter(ours());
    let logs = telemetry
        .exporting
        .as_ref()
        .map(|(_, logs)| OpenTelemetryTracingBridge::new(logs).with_filter(ours()));
    // A second call, which only a test makes, keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(stderr).with(traces).with(logs).try_init();
}

impl Telemetry {
    /// Sends what is left and stops. Takes at most a few seconds, and blocks.
    pub fn flush(self) {
        // A collector that went away is no reason to end badly.
        let _ = self.traces.shutdown_with_timeout(EXPORT_MAX);
        if let Some((metrics, logs)) = self.exporting {
            let _ = metrics.shutdown_with_timeout(EXPORT_MAX);
            let _ = logs.shutdown_with_timeout(EXPORT_MAX);
        }
    }
}
