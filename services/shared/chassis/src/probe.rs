//! The probe port: health in plain text and nothing else, because a kubelet cannot present a certificate.

use std::{io, time::Duration};

use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;

use crate::{
    connection,
    drain::Drain,
    health::{Health, HealthRpc},
};

/// Probes at once.
const CONNECTIONS_MAX: usize = 64;
/// A probe takes milliseconds. Nobody proves anything here, so nobody stays.
const AGE_MAX: Duration = Duration::from_secs(60);
/// After an error of `accept`, which usually means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `grpc.health.v1` on `address` until the process drains. Every other path is unimplemented.
pub(crate) async fn serve(address: &str, health: Health, drain: &Drain) -> io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let rpc = HealthServer::new(HealthRpc::new(health, &[], drain));
    let begun = drain.clone();
    drain.spawn("probe port", async move {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = begun.started() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    let rpc = rpc.clone();
                    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
                        tower::Service::call(&mut rpc.clone(), request.map(Body::new))
                    });
                    let served = connection::run(stream, service, begun.clone(), AGE_MAX);
                    begun.spawn_for_client("probe", connections.track_future(served));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    Ok(address)
}
