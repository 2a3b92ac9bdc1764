//! How long calls may take.

use std::time::Duration;

use lockstep_chassis::{deadline, status};
use lockstep_model::{Identity, Kind, Reason};
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::common::{People, Pki, Served, get, operator, path, server};

async fn two_hops(pki: &Pki) -> (Served, Served) {
    let last = Served::start(pki.tls(&server("s2", "filesync")), People::usual()).await;
    // The first hop is a gateway by its certificate, so that the second lets it read.
    let first_tls = pki.tls(&server("s1", "filesync"));
    let next = (pki.channels(&Identity::Service("gateway")), last.uri.clone(), last.identity.clone());
    (Served::with(first_tls, People::usual(), Some(next)).await, last)
}

fn timed(text: &str, limit: Duration) -> Request<lockstep_proto::filesync::v1::GetFileRequest> {
    let mut request = Request::new(path(text));
    request.set_timeout(limit);
    request
}

/// A deadline travels along, each hop keeps a reserve, and the first caller hears DEADLINE_EXCEEDED with its reason.
/// H9: the hop that runs out of time answers.
#[tokio::test]
async fn a_deadline_is_forwarded_over_two_hops() {
    let pki = Pki::new();
    let (first, last) = two_hops(&pki).await;
    let mut files = first.files(&pki.channels(&operator("viewer")));
    let left = get(&mut files, timed("forward left", Duration::from_secs(2))).await.expect("in time");
    let left: u64 = left.parse().expect("a number");
    assert!((1_000..=1_960).contains(&left), "two reserves of 20 ms are kept: {left}");

    let begun = Instant::now();
    let error = files.get_file(timed("forward", Duration::from_millis(400))).await.expect_err("it sleeps");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(status::read(&error).reason, Reason::DeadlineExpired);
    assert!(!error.details().is_empty(), "with its details");
    first.end().await;
    last.end().await;
}

#[tokio::test]
async fn a_call_without_a_deadline_gets_one() {
    let pki = Pki::new();
    let (first, last) = two_hops(&pki).await;
    let mut files = first.files(&pki.channels(&operator("viewer")));
    let left: u128 = get(&mut files, path("left")).await.expect("an answer").parse().expect("a number");
    let least = deadline::CLIENT_DEFAULT.as_millis() - 1_000;
    assert!((least..=deadline::CLIENT_DEFAULT.as_millis()).contains(&left), "{left}");
    first.end().await;
    last.end().await;
}

#[tokio::test]
async fn too_little_time_is_refused_before_any_work() {
    let pki = Pki::new();
    let (first, last) = two_hops(&pki).await;
    let mut files = first.files(&pki.channels(&operator("viewer")));
    // Warm, so that the time is not spent on connecting.
    get(&mut files, path("forward left")).await.expect("an answer");
    let before = first.reached();
    let failure = get(&mut files, timed("x", Duration::from_millis(4))).await.expect_err("4 ms");
    assert_eq!(failure.kind(), Kind::Late, "{failure}");
    assert_eq!(first.reached(), before, "the handler was not reached");

    // The client refuses by itself when its own caller leaves too little.
    let called = deadline::within(Duration::from_millis(4), get(&mut files, path("x"))).await;
    assert_eq!(called.expect("refused at once").expect_err("4 ms").reason, Reason::DeadlineTooShort);
    first.end().await;
    last.end().await;
}

/// DEADLINE_TOO_SHORT comes from the server, with a raw header that our own client would not send.
#[tokio::test]
async fn the_server_says_that_a_deadline_is_too_short() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let error = crate::serving::raw_call(
        &pki,
        &served,
        "/lockstep.filesync.v1.FileService/GetFile",
        &[],
        |headers| {
            headers.insert("grpc-timeout", "4999u".parse().expect("a value"));
        },
    )
    .await;
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(status::read(&error).reason, Reason::DeadlineTooShort);
    assert_eq!(served.reached(), 0);
    served.end().await;
}
