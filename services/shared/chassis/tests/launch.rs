//! A whole process: its exit codes, and what a collector sees of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use lockstep_chassis::{
    App, EXIT_USAGE, Lane, Process, Settings, StartError,
    launch::{EXIT_INTERNAL, EXIT_UNAVAILABLE, launch},
    pki::DevelopmentCa,
    watch,
};
use lockstep_model::{
    Identity, Role, ServerId,
    identity::{Members, MembersUnavailable},
};
use lockstep_proto::filesync::v1::{
    LocateContentRequest, LocateContentResponse, ReadContentRequest, ReadContentResponse,
    WriteContentRequest, WriteContentResponse,
    content_service_client::ContentServiceClient,
    content_service_server::{ContentService, ContentServiceServer},
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value::Value,
    metrics::v1::metric::Data,
    trace::v1::{Span, span::SpanKind},
};
use tonic::{Request, Response};
use tracing::Instrument as _;

/// What a collector received.
#[derive(Clone, Default)]
struct Collector {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> tonic::Result<Response<ExportTraceServiceResponse>> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> tonic::Result<Response<ExportMetricsServiceResponse>> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> tonic::Result<Response<ExportLogsServiceResponse>> {
        self.logs.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

impl Collector {
    /// Serves on a runtime of its own, as another process would.
    fn start() -> (Self, String, tokio::runtime::Runtime) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let collector = Self::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()))
            .add_service(LogsServiceServer::new(collector.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        runtime.spawn(server);
        (collector, uri, runtime)
    }
}

#[derive(Clone)]
struct Nobody;

impl Members for Nobody {
    async fn role(&self, _: &str) -> Result<Option<Role>, MembersUnavailable> {
        Ok(None)
    }

    async fn knows(&self, _: &ServerId) -> Result<bool, MembersUnavailable> {
        Ok(false)
    }
}

struct Content;

#[tonic::async_trait]
impl ContentService for Content {
    type ReadContentStream = watch::BoxStream<ReadContentResponse>;

    async fn locate_content(
        &self,
        _: Request<LocateContentRequest>,
    ) -> tonic::Result<Response<LocateContentResponse>> {
        tracing::info!("looked for content");
        Ok(Response::new(Default::default()))
    }

    async fn read_content(
        &self,
        _: Request<ReadContentRequest>,
    ) -> tonic::Result<Response<Self::ReadContentStream>> {
        let failure =
            lockstep_chassis::Failure::new(lockstep_model::Reason::ContentNotFound, "nothing is here");
        Err(lockstep_chassis::status::of(&failure))
    }

    async fn write_content(
        &self,
        _: Request<tonic::Streaming<WriteContentRequest>>,
    ) -> tonic::Result<Response<WriteContentResponse>> {
        Ok(Response::new(WriteContentResponse::default()))
    }
}

/// Serves, calls itself twice, and ends.
async fn run((): (), process: Process) -> Result<(), StartError> {
    let Process { identity, drain, health, incoming, channels, address, .. } = process;
    let Identity::Server { server_id, .. } = &identity else { panic!("a filesync belongs to a server") };
    let app = App::new("filesync", Nobody, health)
        .own_server(server_id.clone())
        .add(ContentServiceServer::new(Content));
    let round = async {
        let uri = format!("https://localhost:{}", address.port());
        let mut client = ContentServiceClient::new(channels.to(&uri, identity.clone(), Lane::Control));
        client.locate_content(LocateContentRequest::default()).await.expect("an answer");
        client.read_content(ReadContentRequest::default()).await.expect_err("nothing is there");
        drain.begin();
    };
    let (served, ()) =
        tokio::join!(app.serve(incoming, &drain), round.instrument(tracing::info_span!("round")));
    served
}

fn arguments(directory: &Path, identity: &Identity, more: &[&str]) -> Vec<String> {
    let ca = DevelopmentCa::open_or_create(&directory.join("ca"), "lockstep.local").unwrap();
    let file = |name: &str| directory.join(name);
    ca.issue(identity, &["localhost".to_owned()]).unwrap().write(&file("tls.pem"), &file("tls.key")).unwrap();
    let arguments = [
        "--listen=127.0.0.1:0".to_owned(),
        format!("--tls-cert={}", file("tls.pem").display()),
        format!("--tls-key={}", file("tls.key").display()),
        format!("--tls-ca={}", file("ca/ca.pem").display()),
    ];
    arguments.into_iter().chain(more.iter().map(|argument| (*argument).to_owned())).collect()
}

/// One test, because telemetry is set up once in a process.
#[test]
fn a_process_tells_its_story_and_ends_with_a_code() {
    let directory = tempfile::tempdir().unwrap();
    let filesync = Identity::Server { server_id: "s1".parse().unwrap(), service: "filesync" };
    let (collector, uri, _runtime) = Collector::start();
    let otlp = format!("--otlp={uri}");
    let nothing: fn(&mut Settings) -> Option<()> = |_| Some(());

    let code =
        launch("filesync", arguments(directory.path(), &filesync, &[&otlp, "--log=warn"]), nothing, run);
    assert_eq!(code, ExitCode::SUCCESS);
    spans_form_one_tree(&collector);
    metrics_count_calls_in_seconds(&collector);
    logs_carry_their_trace(&collector);

    // The CA that was made before is opened again, so both certificates are of one installation.
    let exit = |arguments: Vec<String>, code: u8| {
        let ended = launch("filesync", arguments.clone(), nothing, async |(), _| Ok(()));
        assert_eq!(ended, ExitCode::from(code), "{arguments:?}");
    };
    exit(arguments(directory.path(), &filesync, &["--log=warn"]), 0);
    exit(arguments(directory.path(), &filesync, &["--help"]), 0);
    exit(arguments(directory.path(), &filesync, &["--lisen=x"]), EXIT_USAGE);
    exit(Vec::new(), EXIT_USAGE);
    exit(arguments(directory.path(), &filesync, &["--health-listen=192.0.2.1:1"]), EXIT_UNAVAILABLE);
    exit(arguments(directory.path(), &filesync, &["--trust-domain=other"]), EXIT_UNAVAILABLE);
    exit(arguments(directory.path(), &Identity::Service("gateway"), &[]), EXIT_UNAVAILABLE);
    let good = || arguments(directory.path(), &filesync, &["--log=off"]);
    let ended = launch("filesync", good(), nothing, async |(), _| Err(StartError::new("x", "y", "z")));
    assert_eq!(ended, ExitCode::from(EXIT_UNAVAILABLE));
    let ended = launch("filesync", good(), nothing, async |(), _| panic!("on purpose"));
    assert_eq!(ended, ExitCode::from(EXIT_INTERNAL));

    // A service that does not end is cut when its grace period is over.
    let begun = std::time::Instant::now();
    let stubborn = arguments(directory.path(), &filesync, &["--log=off", "--drain-grace=400ms"]);
    let ended = launch("filesync", stubborn, nothing, async |(), process: Process| {
        process.drain.begin();
        std::future::pending().await
    });
    assert_eq!(ended, ExitCode::SUCCESS);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

fn spans_form_one_tree(collector: &Collector) {
    let exports = collector.traces.lock().unwrap();
    let resources = || exports.iter().flat_map(|export| &export.resource_spans);
    let name =
        resources().flat_map(|r| &r.resource.as_ref().unwrap().attributes).find(|a| a.key == "service.name");
    let name = name.and_then(|a| a.value.as_ref()).and_then(|value| value.value.clone());
    assert_eq!(name, Some(Value::StringValue("filesync".to_owned())));
    let spans: Vec<&Span> = resources().flat_map(|r| &r.scope_spans).flat_map(|scope| &scope.spans).collect();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let find = |name: &str, kind: SpanKind| {
        let found = spans.iter().find(|span| span.name == name && span.kind == kind as i32);
        *found.unwrap_or_else(|| panic!("{name} {kind:?} is not among {names:?}"))
    };
    let text = |span: &Span, key: &str| {
        let value =
            span.attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone()).and_then(|v| v.value);
        match value {
            Some(Value::StringValue(text)) => text,
            other => panic!("{key} is {other:?}"),
        }
    };
    let round = find("round", SpanKind::Internal);
    for (method, status) in [("LocateContent", "OK"), ("ReadContent", "NOT_FOUND")] {
        let name = format!("lockstep.filesync.v1.ContentService/{method}");
        let (client, server) = (find(&name, SpanKind::Client), find(&name, SpanKind::Server));
        assert_eq!(client.trace_id, round.trace_id);
        assert_eq!(server.trace_id, round.trace_id);
        assert_eq!(client.parent_span_id, round.span_id);
        assert_eq!(server.parent_span_id, client.span_id);
        for span in [client, server] {
            assert_eq!(text(span, "rpc.response.status_code"), status);
            assert_eq!(text(span, "rpc.method"), name);
        }
        if status != "OK" {
            assert_eq!(text(server, "reason"), "CONTENT_NOT_FOUND");
        }
    }
    assert_eq!(spans.len(), 5, "nobody traces the exports themselves: {names:?}");
}

fn metrics_count_calls_in_seconds(collector: &Collector) {
    let exports = collector.metrics.lock().unwrap();
    let metrics: Vec<_> = exports
        .iter()
        .flat_map(|export| &export.resource_metrics)
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics)
        .collect();
    for name in ["rpc.server.call.duration", "rpc.client.call.duration"] {
        let metric = metrics.iter().find(|metric| metric.name == name).expect(name);
        assert_eq!(metric.unit, "s");
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{name} is a histogram") };
        assert_eq!(histogram.data_points.len(), 2, "one for each call and code");
        assert!(histogram.data_points.iter().all(|point| point.explicit_bounds.first() == Some(&0.001)));
    }
}

fn logs_carry_their_trace(collector: &Collector) {
    let exports = collector.logs.lock().unwrap();
    let records: Vec<_> = exports
        .iter()
        .flat_map(|export| &export.resource_logs)
        .flat_map(|resource| &resource.scope_logs)
        .flat_map(|scope| &scope.log_records)
        .collect();
    let text = |record: &&&opentelemetry_proto::tonic::logs::v1::LogRecord| {
        let body = record.body.as_ref().and_then(|body| body.value.clone());
        body == Some(Value::StringValue("looked for content".to_owned()))
    };
    let record = records.iter().find(text).expect("the line of the handler");
    assert_eq!(record.trace_id.len(), 16);
    assert!(record.trace_id.iter().any(|byte| *byte != 0));
}
