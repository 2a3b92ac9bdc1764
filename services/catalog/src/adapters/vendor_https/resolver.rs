//! Where names lead.

use std::{io, net::IpAddr};

/// What turns the name of a host into addresses. It is asked once for each connection: what it says later changes nothing.
pub trait Resolve: Clone + Send + Sync + 'static {
    /// All addresses of a host.
    fn resolve(&self, host: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The resolver of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}
