//! Dialling with mutual TLS.

use std::{io, sync::Arc};

use http::Uri;
use lockstep_model::Identity;
use rustls::{AlertDescription, CertificateError, pki_types::ServerName};
use tokio::{io::AsyncBufReadExt as _, net::TcpStream};
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

/// A certificate that is not valid now says as much about a clock as about the certificate.
fn of_clocks(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => io::Error::new(error.kind(), OutOfDate { cause: error.to_string() }),
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
            io::Error::new(error.kind(), RefusedAsOutOfDate)
        }
        _ => error,
    }
}

/// Whether a connection failed because the certificate of the other end is not valid now.
pub(crate) fn is_out_of_date(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    chain.any(|error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<OutOfDate>())
    })
}

/// The certificate of this process is not valid by the wall clock of the other end.
#[derive(Debug, thiserror::Error)]
#[error(
    "by its clock the certificate of this process is not valid now: one of the two clocks is wrong, or nobody renewed the certificate"
)]
struct RefusedAsOutOfDate;

/// The certificate of the other end is not valid by the wall clock of this process.
#[derive(Debug, thiserror::Error)]
#[error(
    "its certificate is not valid now by the clock of this server, so the clock is wrong, or nobody renewed the certificate: {cause}"
)]
pub(crate) struct OutOfDate {
    cause: String,
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
        let mut stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(of_clocks)?;
        // The other end judges our certificate after our part of the handshake; a server of HTTP/2 speaks first if it takes it.
        // Whoever writes at once would only see a closed connection, and not why.
        match stream.fill_buf().await.map_err(of_clocks)? {
            [] => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended after the handshake"))
            }
            _ => Ok(stream),
        }
    }
}
