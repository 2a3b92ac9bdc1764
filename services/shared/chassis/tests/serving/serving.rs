//! Health, reflection, drain, and requests that are no requests.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use lockstep_chassis::{Dial as _, Lane, TlsDial, status};
use lockstep_model::{Identity, Reason};
use lockstep_proto::filesync::v1::{
    GetFileRequest, WatchReplicasRequest, file_service_client::FileServiceClient,
};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb;

use crate::common::{People, Pki, SOON, Served, get, operator, path, server};

/// Everybody with a certificate may ask, also when the registry cannot say who they are.
#[tokio::test]
async fn health_starts_as_not_serving_and_needs_no_registry() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    served.people.set_unavailable();
    let channels = pki.channels(&operator("stranger"));
    let mut client = HealthClient::new(channels.to(&served.uri, served.identity.clone(), Lane::Control));
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        client.check(request).await.map(|answer| answer.into_inner().status())
    };
    assert_eq!(check("").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check("lockstep.filesync.v1.FileService").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check("liveness").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("nobody").await.expect_err("unknown").code(), Code::NotFound);
    served.health.set("registry", true);
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    served.health.set("registry", false);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    served.end().await;
}

#[tokio::test]
async fn reflection_lists_our_services_in_both_versions() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let channels = pki.channels(&operator("viewer"));
    let channel = || channels.to(&served.uri, served.identity.clone(), Lane::Control);
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "lockstep.filesync.v1.FileService",
        "lockstep.filesync.v1.ReplicaService",
    ];
    macro_rules! check {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask =
                |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
            let requests = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("lockstep.filesync.v1.FileService".to_owned())),
                ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned())),
                ask(MessageRequest::FileContainingSymbol("grpc.health.v1.Health".to_owned())),
            ];
            let mut client = ServerReflectionClient::new(channel());
            let mut answers =
                client.server_reflection_info(futures::stream::iter(requests)).await.unwrap().into_inner();
            let mut answer = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
            let MessageResponse::ListServicesResponse(list) = answer().await else { panic!("a list") };
            let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
            names.sort();
            assert_eq!(names, expected);
            for _ in 0..3 {
                let MessageResponse::FileDescriptorResponse(files) = answer().await else { panic!("a file") };
                assert!(!files.file_descriptor_proto.is_empty());
            }
        }};
    }
    check!(v1);
    check!(v1alpha);
    served.end().await;
}

/// A watch does not hold a process open; what draining means is told.
#[tokio::test]
async fn a_drain_ends_watches_and_finishes_calls() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let channels = pki.channels(&operator("viewer"));
    let mut stream = served
        .replicas(&channels)
        .watch_replicas(WatchReplicasRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some());
    // A reflection stream that its client never ends must not hold the process open either.
    let mut reflection = pb::v1::server_reflection_client::ServerReflectionClient::new(
        channels.to_anyone(&served.uri, Lane::Control),
    );
    let endless = futures::stream::pending();
    let mut endless = reflection.server_reflection_info(endless).await.unwrap().into_inner();
    served.health.set("registry", true);
    assert!(served.health.is_ready());
    let (uri, identity, health) = (served.uri.clone(), served.identity.clone(), served.health.clone());
    served.end().await;
    assert!(!health.is_ready());
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a status"),
            Err(end) => break end,
        }
    };
    assert_eq!((end.code(), status::read(&end).reason), (Code::Unavailable, Reason::Draining));
    assert_eq!(status::read(&endless.message().await.expect_err("drained")).reason, Reason::Draining);
    let channel = channels.to(&uri, identity, Lane::Control);
    let mut files = FileServiceClient::new(channel);
    let failure = get(&mut files, path("x"));
    assert_eq!(failure.await.expect_err("it is gone").reason, Reason::PeerUnreachable);
}

/// Sends any bytes as a call and returns the status of its answer.
pub(crate) async fn raw_call(
    pki: &Pki,
    served: &Served,
    path: &str,
    body: &[u8],
    change: impl FnOnce(&mut http::HeaderMap),
) -> Status {
    let dial = TlsDial::new(pki.tls(&operator("local")));
    let io = dial.dial(served.uri.parse().unwrap(), None).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(io)).await.unwrap();
    let call = async {
        let mut request = http::Request::post(format!("https://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        change(request.headers_mut());
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        Status::from_header_map(&head.headers)
            .or_else(|| body.trailers().and_then(Status::from_header_map))
            .expect("a status")
    };
    let answered = async {
        tokio::select! {
            status = call => status,
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    };
    tokio::time::timeout(SOON, answered).await.expect("an answer")
}

/// One gRPC message with its prefix.
fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.len() as u32);
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// Whatever arrives, the answer has a code and a reason that tell the caller what to do.
#[tokio::test]
async fn requests_that_are_no_requests_get_a_reason() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let get_file = "/lockstep.filesync.v1.FileService/GetFile";
    let huge = framed(&vec![0; (4 << 20) + 1]);
    let cases: [(&str, Bytes, Code, Reason); 7] = [
        // A tag with wire type 7 does not exist.
        (get_file, framed(&[0xff, 0xff]), Code::InvalidArgument, Reason::FieldViolation),
        // Text that is no UTF-8.
        (get_file, framed(&[0x0a, 2, 0xc3, 0x28]), Code::InvalidArgument, Reason::FieldViolation),
        (get_file, Bytes::new(), Code::InvalidArgument, Reason::FieldViolation),
        (get_file, huge, Code::OutOfRange, Reason::SizeLimitExceeded),
        (
            "/lockstep.filesync.v1.FileService/Nothing",
            framed(&[]),
            Code::Unimplemented,
            Reason::Unimplemented,
        ),
        ("/nobody.Here/Nothing", framed(&[]), Code::Unimplemented, Reason::Unimplemented),
        ("/", framed(&[]), Code::Unimplemented, Reason::Unimplemented),
    ];
    for (path, body, code, reason) in cases {
        let status = raw_call(&pki, &served, path, &body, |_| {}).await;
        assert_eq!((status.code(), status::read(&status).reason), (code, reason), "{path} {status}");
        assert!(!status.details().is_empty(), "{path}");
    }
    assert_eq!(served.reached(), 0);
    served.end().await;
}

/// A defect in a handler is told without its detail, and concerns that call only.
#[tokio::test]
async fn a_panic_in_a_handler_is_an_internal_error_of_that_call() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let mut files = served.files(&pki.channels(&operator("viewer")));
    let failure = get(&mut files, path("panic")).await.expect_err("a panic");
    assert_eq!(failure.reason, Reason::Internal);
    assert!(!failure.message.contains("on purpose"), "{failure}");
    assert_eq!(get(&mut files, path("x")).await.as_deref(), Ok("x"));
    served.end().await;
}

/// What a fallback gets is authenticated and nothing else.
#[tokio::test]
async fn a_fallback_gets_every_other_call() {
    use lockstep_chassis::{App, Drain, Health, TlsIncoming};
    let pki = Pki::new();
    let (drain, tls) = (Drain::new(), pki.tls(&Identity::Service("gateway")));
    let incoming = TlsIncoming::bind("127.0.0.1:0", tls, &drain).await.unwrap();
    let uri = format!("https://localhost:{}", incoming.address().port());
    let behind = tower::service_fn(|request: http::Request<tonic::body::Body>| async move {
        let caller = request.extensions().get::<lockstep_model::Caller>().cloned().expect("authenticated");
        let failure =
            lockstep_chassis::Failure::new(Reason::ServerRequired, format!("for {}", caller.principal));
        let mut response = http::Response::new(tonic::body::Body::empty());
        let _ = status::of(&failure).add_header(response.headers_mut());
        Ok::<_, std::convert::Infallible>(response)
    });
    let app = App::new("gateway", People::usual(), Health::new(&[])).fallback(behind);
    drain.spawn("app", {
        let drain = drain.clone();
        async move { app.serve(incoming, &drain).await.expect("it serves") }
    });
    let channel = pki.channels(&operator("viewer")).to(&uri, Identity::Service("gateway"), Lane::Control);
    let mut client = FileServiceClient::new(channel);
    let failure = get(&mut client, path("x")).await.expect_err("from the fallback");
    assert_eq!((failure.reason, failure.message.as_str()), (Reason::ServerRequired, "for operator/viewer"));
    drain.begin();
    tokio::time::timeout(SOON, drain.finished()).await.expect("the drain ends");
}

/// HTTP/2 keep-alive runs on both ends: a stream without messages survives it.
#[tokio::test]
async fn an_idle_connection_stays_usable() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let mut files = served.files(&pki.channels(&operator("viewer")));
    assert_eq!(get(&mut files, path("x")).await.as_deref(), Ok("x"));
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(get(&mut files, GetFileRequest { path: "y".to_owned() }).await.as_deref(), Ok("y"));
    served.end().await;
}
