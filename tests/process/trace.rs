//! One trace across processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lockstep_tests::harness::{Installation, Ledger, Options, addressed, content, registration, wait};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use tokio_stream::wrappers::TcpListenerStream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ROOT: &str = "00f067aa0ba902b7";

/// A span with the process that it comes from.
#[derive(Clone, Debug)]
struct Told {
    service: String,
    instance: String,
    span: Span,
}

/// Collects what processes tell.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Told>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> tonic::Result<tonic::Response<ExportTraceServiceResponse>> {
        let mut told = self.0.lock().expect("no panic");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let (service, instance) =
                (text(&attributes, "service.name"), text(&attributes, "service.instance.id"));
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                told.push(Told { service: service.clone(), instance: instance.clone(), span });
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// H11: the spans of one registration, as the real processes tell them to a collector, are one tree below the caller's own
/// span: gateway, origin, the fan-out to both peers, their rounds and their copies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_registration_is_one_trace() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let uri = format!("http://{}", listener.local_addr().expect("bound"));
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let options = Options { args: vec![format!("--otlp={uri}")], ..Options::every("1h") };
    let installation = Installation::start(options).await;

    let mut request = addressed(registration("traced.bin", content("traced.bin", 2_000)), "s1");
    let parent = format!("00-{TRACE}-{ROOT}-01").parse().expect("a header");
    request.metadata_mut().insert("traceparent", parent);
    let answer = installation.client("publisher").files().register_file(request).await.expect("registered");
    let mut ledger = Ledger::default();
    ledger.note(&answer.into_inner().file.expect("the contract says so"));
    installation.in_sync(&ledger, Duration::from_secs(30)).await;

    let spans = wait::until("the spans are one tree", Duration::from_secs(20), || async {
        let told = collector.0.lock().expect("no panic").clone();
        let spans: Vec<Told> =
            told.into_iter().filter(|told| hex::encode(&told.span.trace_id) == TRACE).collect();
        complete(&spans).map(|()| spans)
    })
    .await;
    for told in &spans {
        eprintln!(
            "{} {} {} <- {}",
            told.service,
            told.span.name,
            hex::encode(&told.span.span_id),
            hex::encode(&told.span.parent_span_id)
        );
    }
    server.abort();
}

/// What is missing for the whole tree.
fn complete(spans: &[Told]) -> Result<(), String> {
    let by_id: BTreeMap<&[u8], &Told> = spans.iter().map(|told| (&told.span.span_id[..], told)).collect();
    let parent = |told: &Told| by_id.get(&told.span.parent_span_id[..]).copied();
    let names: Vec<String> =
        spans.iter().map(|told| format!("{} {}", told.service, told.span.name)).collect();
    for told in spans {
        let is_root = hex::encode(&told.span.parent_span_id) == ROOT;
        if !is_root && parent(told).is_none() {
            return Err(format!("{} of {} has no parent; there are {names:?}", told.span.name, told.service));
        }
    }
    let is_server = |told: &&Told| told.span.kind == SpanKind::Server as i32;
    let find = |service: &str, name: &str| {
        let mut found =
            spans.iter().filter(is_server).filter(|t| t.service == service && t.span.name.ends_with(name));
        found.next().ok_or_else(|| format!("no {name} of {service}; there are {names:?}"))
    };
    let (door, origin) =
        (find("gateway", "FileService/RegisterFile")?, find("filesync", "FileService/RegisterFile")?);
    if hex::encode(&door.span.parent_span_id) != ROOT {
        return Err("the span of the gateway is not the child of the caller's".to_owned());
    }
    if !below(origin, door, &parent) {
        return Err("the span of the origin is not below the one of the gateway".to_owned());
    }
    for server in ["s2", "s3"] {
        let of_server = |name: &str| {
            let mut found = spans
                .iter()
                .filter(|t| t.span.name == name && text(&t.span.attributes, "server_id") == server);
            found.next().ok_or_else(|| format!("no {name} of {server}; there are {names:?}"))
        };
        let (fan_out, fetch) = (of_server("fan_out")?, of_server("fetch")?);
        if fan_out.service != "gateway" || fetch.service != "filesync" {
            return Err(format!("the spans of {server} come from {} and {}", fan_out.service, fetch.service));
        }
        let mut rounds = spans
            .iter()
            .filter(is_server)
            .filter(|told| told.span.name.ends_with("ReplicaService/Reconcile"));
        if !rounds.any(|round| round.instance == fetch.instance && below(round, fan_out, &parent)) {
            return Err(format!("no round of {server} below its fan-out; there are {names:?}"));
        }
        for told in [fan_out, fetch] {
            if !below(told, door, &parent) {
                return Err(format!("{} of {server} is not below the registration", told.span.name));
            }
        }
    }
    Ok(())
}

/// Whether `told` is `above` or somewhere below it.
fn below<'a>(told: &'a Told, above: &Told, parent: &impl Fn(&Told) -> Option<&'a Told>) -> bool {
    let mut at = Some(told);
    // A trace is not deeper than this.
    for _ in 0..32 {
        match at {
            Some(told) if told.span.span_id == above.span.span_id => return true,
            Some(told) => at = parent(told),
            None => return false,
        }
    }
    false
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value =
        attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}
