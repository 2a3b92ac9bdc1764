//! Dialling with mutual TLS.

use std::{io, sync::Arc};

use http::Uri;
use lockstep_model::Identity;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{channel::Dial, tls::TlsIdentity};

/// Connects with the certificates of this process, the latest at each connection.
#[derive(Clone, Debug)]
pub struct TlsDial {
    tls: TlsIdentity,
}

impl TlsDial {
    /// With the certificates of `tls`.
    pub fn new(tls: TlsIdentity) -> Self {
        Self { tls }
    }
}

impl Dial for TlsDial {
    type Io = TlsStream<TcpStream>;

    async fn dial(&self, uri: Uri, expected: Option<Identity>) -> io::Result<Self::Io> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} {why}"));
        if uri.scheme_str() != Some("https") {
            return Err(invalid("does not begin with https://"));
        }
        let host = uri.host().ok_or_else(|| invalid("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().ok_or_else(|| invalid("names no port"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid("names no host"))?;
        let config = self.tls.client_config(expected).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}
