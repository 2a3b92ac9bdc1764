//! Who may call what.

use lockstep_chassis::{App, Drain, Health, PRINCIPAL_KEY, StartError, status};
use lockstep_model::{Identity, Reason};
use lockstep_proto::filesync::v1::{ReconcileRequest, RegisterFileRequest};
use prost::Message as _;
use tonic::{Request, body::Body};

use crate::common::{People, Pki, Served, get, operator, path, server};

/// I13, R67: each identity has exactly the rights that the contract gives it.
#[tokio::test]
async fn rights_are_those_of_the_contract() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let denied = Some(Reason::PermissionDenied);
    let unknown = Some(Reason::IdentityUnknown);
    let cases = [
        // identity, GetFile (viewer; gateway, catalog, resolver), RegisterFile (publisher; catalog),
        // Reconcile (operator; gateway)
        (operator("viewer"), None, denied, denied),
        (operator("publisher"), None, None, denied),
        (operator("operator"), None, None, None),
        (operator("local"), None, None, None),
        (operator("stranger"), unknown, unknown, unknown),
        (Identity::Service("gateway"), None, denied, None),
        (Identity::Service("catalog"), None, None, denied),
        (Identity::Service("resolver"), None, denied, denied),
        (server("s2", "filesync"), denied, denied, denied),
        (server("s2", "timeguard"), denied, denied, denied),
        (server("s9", "filesync"), unknown, unknown, unknown),
    ];
    for (identity, read, publish, operate) in cases {
        let before = served.reached();
        let channels = pki.channels(&identity);
        let (mut files, mut replicas) = (served.files(&channels), served.replicas(&channels));
        let reason =
            |result: Result<(), tonic::Status>| result.err().map(|error| status::read(&error).reason);
        assert_eq!(get(&mut files, path("x")).await.err().map(|f| f.reason), read, "{identity} reads");
        let registered = files.register_file(RegisterFileRequest::default()).await.map(|_| ());
        assert_eq!(reason(registered), publish, "{identity} publishes");
        let reconciled = replicas.reconcile(ReconcileRequest::default()).await.map(|_| ());
        assert_eq!(reason(reconciled), operate, "{identity} operates");
        let allowed = [read, publish, operate].iter().filter(|refused| refused.is_none()).count();
        assert_eq!(served.reached() - before, allowed, "{identity}: what is refused has no effect");
    }
    served.end().await;
}

/// The right that is missing is named.
#[tokio::test]
async fn a_refusal_names_the_right() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let channels = pki.channels(&operator("viewer"));
    let error =
        served.files(&channels).register_file(RegisterFileRequest::default()).await.expect_err("denied");
    let failure = status::read(&error);
    assert_eq!(failure.metadata["right"], "the role publisher or a service of catalog");
    assert_eq!(failure.metadata["principal"], "operator/viewer");
    served.end().await;
}

/// R67: only the gateway can say on whose behalf it calls.
#[tokio::test]
async fn a_principal_is_believed_only_from_the_gateway() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let on_behalf = |path_text: &str, principal: &str| {
        let mut request = Request::new(path(path_text));
        request.metadata_mut().insert(PRINCIPAL_KEY, principal.parse().expect("ascii"));
        request
    };
    let gateway = pki.channels(&Identity::Service("gateway"));
    let mut files = served.files(&gateway);
    assert_eq!(get(&mut files, path("who")).await.as_deref(), Ok("gateway for gateway"));
    let who = get(&mut files, on_behalf("who", "operator/viewer")).await;
    assert_eq!(who.as_deref(), Ok("gateway for operator/viewer"));
    for bad in
        ["operator/stranger", "operator/", "nonsense", "server/s9/filesync", "spiffe://lockstep.test/gateway"]
    {
        let failure = get(&mut files, on_behalf("who", bad)).await.expect_err("unknown");
        assert_eq!(failure.reason, Reason::IdentityUnknown, "{bad}");
    }
    let mut request = Request::new(RegisterFileRequest::default());
    request.metadata_mut().insert(PRINCIPAL_KEY, "operator/viewer".parse().unwrap());
    let error = files.register_file(request).await.expect_err("a viewer");
    assert_eq!(status::read(&error).reason, Reason::PermissionDenied);

    // A viewer who claims to be somebody else stays a viewer.
    let viewer = pki.channels(&operator("viewer"));
    let who = get(&mut served.files(&viewer), on_behalf("who", "operator/local")).await;
    assert_eq!(who.as_deref(), Ok("operator/viewer for operator/viewer"));
    served.end().await;
}

/// A lookup that failed is never reported as absent.
#[tokio::test]
async fn rights_that_cannot_be_looked_up_are_not_denied_but_unavailable() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    served.people.set_unavailable();
    for identity in [operator("local"), server("s2", "filesync")] {
        let failure =
            get(&mut served.files(&pki.channels(&identity)), path("x")).await.expect_err("unavailable");
        assert_eq!(failure.reason, Reason::RegistryUnavailable, "{identity}");
    }
    served.end().await;
}

#[derive(Clone)]
struct Unguarded;

impl tonic::server::NamedService for Unguarded {
    const NAME: &'static str = "test.v1.Unguarded";
}

impl tower::Service<http::Request<Body>> for Unguarded {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(Body::empty())))
    }
}

/// I13: an RPC whose right nobody declared is not served.
#[tokio::test]
async fn a_service_without_declared_rights_does_not_start() {
    let method = |name: &str| prost_types::MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(".test.v1.M".to_owned()),
        output_type: Some(".test.v1.M".to_owned()),
        ..Default::default()
    };
    let file = prost_types::FileDescriptorProto {
        name: Some("test/v1/unguarded.proto".to_owned()),
        package: Some("test.v1".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![prost_types::DescriptorProto { name: Some("M".to_owned()), ..Default::default() }],
        service: vec![prost_types::ServiceDescriptorProto {
            name: Some("Unguarded".to_owned()),
            method: vec![method("One"), method("Two")],
            ..Default::default()
        }],
        ..Default::default()
    };
    let set = prost_types::FileDescriptorSet { file: vec![file] }.encode_to_vec();
    let serve = async |app: App<People>| -> Result<(), StartError> {
        app.add(Unguarded)
            .serve(futures::stream::empty::<lockstep_chassis::TlsConnection>(), &Drain::new())
            .await
    };
    let app = || App::new("filesync", People::usual(), Health::new(&[]));
    let error = serve(app().descriptors(set.leak())).await.expect_err("no rights").to_string();
    assert!(error.contains("test.v1.Unguarded/One has no rights option"), "{error}");
    assert!(error.contains("test.v1.Unguarded/Two has no rights option"), "{error}");
    let error = serve(app()).await.expect_err("no description").to_string();
    assert!(error.contains("test.v1.Unguarded is in no descriptor set"), "{error}");
}
