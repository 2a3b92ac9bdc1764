//! What processes count and measure, as a collector hears it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lockstep_tests::harness::{Clocks, Installation, Options, wait};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{NumberDataPoint, metric::Data, number_data_point::Value as Number},
};
use tokio_stream::wrappers::TcpListenerStream;

use crate::clock::{WELL_MAX, attempt, options, until_well};

/// The last value of each point, by metric and attributes.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<BTreeMap<String, f64>>>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> tonic::Result<tonic::Response<ExportMetricsServiceResponse>> {
        let mut told = self.0.lock().expect("no panic");
        let resources = request.into_inner().resource_metrics.into_iter();
        let metrics = resources.flat_map(|resource| resource.scope_metrics).flat_map(|scope| scope.metrics);
        for metric in metrics {
            let points = match metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points,
                Some(Data::Sum(sum)) => sum.data_points,
                _ => Vec::new(),
            };
            told.extend(points.iter().map(|point| (named(&metric.name, &point.attributes), number(point))));
        }
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn named(metric: &str, attributes: &[KeyValue]) -> String {
    let value = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    };
    let attributes: Vec<String> = attributes.iter().map(value).collect();
    format!("{metric} {}", attributes.join(" ")).trim_end().to_owned()
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(Number::AsDouble(value)) => value,
        Some(Number::AsInt(value)) => value as f64,
        None => f64::NAN,
    }
}

/// R62, H11: offset and uncertainty of every witness, the fence and the steps of a clock are told as metrics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_are_told_as_metrics() {
    let (collector, clocks) = (Collector::default(), Clocks::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}", listener.local_addr().expect("bound"));
    let server =
        tonic::transport::Server::builder().add_service(MetricsServiceServer::new(collector.clone()));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let options = Options { args: vec![format!("--otlp={uri}")], ..options(&clocks, 2) };
    let mut installation = Installation::start(options).await;
    let client = installation.client("publisher");
    until_well(&client, "s1").await;
    clocks.set("s2", 90.0);
    // Of two that disagree both are fenced.
    wait::until("s1 is fenced", WELL_MAX, || async {
        match attempt(&client, "s1").await {
            Err(failure) if failure.reason.as_str() == "CLOCK_FENCED" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // What ends tells its last values.
    installation.stop(Signal::SIGTERM).await;
    let told = wait::until("the last values came", Duration::from_secs(20), || async {
        let told = collector.0.lock().expect("no panic").clone();
        let offset = told.get("lockstep.timeguard.clock.offset server s2").copied().unwrap_or_default();
        if offset > 80.0 { Ok(told) } else { Err(format!("{told:?}")) }
    })
    .await;
    let of = |name: &str| told.get(name).copied().unwrap_or_else(|| panic!("no {name} in {told:?}"));
    assert!((80.0..100.0).contains(&of("lockstep.timeguard.clock.offset server s2")));
    assert!((0.0..2.0).contains(&of("lockstep.timeguard.clock.uncertainty server s2")));
    assert!((1.0..1.1).contains(&of("lockstep.timeguard.fence")));
    let steps: Vec<_> =
        told.iter().filter(|(name, _)| name.starts_with("lockstep.timeguard.clock.steps")).collect();
    assert!(steps.iter().any(|(_, count)| **count >= 1.0), "{told:?}");
    server.abort();
}
