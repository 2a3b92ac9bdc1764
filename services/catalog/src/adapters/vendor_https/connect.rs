//! One connection to one vendor: to an address that was checked, and to no other.

use std::{io, net::IpAddr, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{Limits, Resolve, shown, unreachable};
use crate::{
    domain::{
        address::{self, AddressRule, Target},
        sources::Source,
    },
    ports::VendorError,
};

/// The most addresses of one host that are tried; all of them are checked.
const TRIED_MAX: usize = 8;

/// What a connection is made with.
pub(super) struct Origin {
    pub(super) source: Source,
    pub(super) limits: Limits,
    tls: Arc<ClientConfig>,
}

/// A connection, with or without TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Origin {
    /// Reads the certificates that a source names.
    pub(super) fn new(source: Source, limits: Limits) -> Result<Self, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(file) = &source.ca_file {
            let wrong = |what: &str| format!("ca_file {} {what}", file.display());
            let certs = CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
            if certs.is_empty() {
                return Err(wrong("has no certificate in it"));
            }
            for cert in certs {
                roots.add(cert).map_err(|_| wrong("has a certificate in it that is none of a CA"))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("no TLS: {error}"))?;
        let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { source, limits, tls: Arc::new(tls) })
    }

    /// Holds an address to the rules of the source.
    pub(super) fn check(&self, uri: &Url) -> Result<Target, VendorError> {
        address::check_form(&self.source, uri).map_err(|rule| refused(uri, &rule))
    }

    /// Connects. The name is resolved once: what was checked is what is connected to.
    pub(super) async fn connect(
        &self,
        target: &Target,
        resolver: &impl Resolve,
    ) -> Result<Box<dyn Io>, VendorError> {
        let limit = self.limits.connect;
        let late = |_| unreachable(&target.uri, format!("no connection within {limit:?}"));
        timeout(limit, self.connect_in_time(target, resolver)).await.map_err(late)?
    }

    async fn connect_in_time(
        &self,
        target: &Target,
        resolver: &impl Resolve,
    ) -> Result<Box<dyn Io>, VendorError> {
        let Target { uri, host, .. } = target;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let resolved = resolver.resolve(host).await;
                resolved.map_err(|_| unreachable(uri, "the name of its host is not known"))?
            }
        };
        if addresses.is_empty() {
            return Err(unreachable(uri, "the name of its host has no address"));
        }
        address::check_resolved(&self.source, target, &addresses).map_err(|rule| refused(uri, &rule))?;
        let stream = self.connect_to_one(target, &addresses).await?;
        // Without it the end of a request waits for nothing.
        let _ = stream.set_nodelay(true);
        if !target.is_https {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.clone())
            .map_err(|_| unreachable(uri, "the name of its host cannot be that of a certificate"))?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector.connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| unreachable(uri, tls_cause(&error)))?))
    }

    /// The first address that answers; one that does not takes no more than its share of the time.
    async fn connect_to_one(&self, target: &Target, addresses: &[IpAddr]) -> Result<TcpStream, VendorError> {
        let tried = &addresses[..addresses.len().min(TRIED_MAX)];
        let share = self.limits.connect / u32::try_from(tried.len()).unwrap_or(1).max(1);
        let mut cause = "no connection".to_owned();
        for address in tried {
            match timeout(share, TcpStream::connect((*address, target.port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => cause = format!("no connection: {}", error.kind()),
                Err(_) => cause = "no connection: nobody answered".to_owned(),
            }
        }
        Err(unreachable(&target.uri, cause))
    }
}

/// An address that is not asked.
pub(super) fn refused(uri: &Url, rule: &AddressRule) -> VendorError {
    VendorError::AddressRefused { uri: shown(uri), rule: rule.to_string() }
}

/// What is wrong with the TLS of a vendor. The texts of rustls quote its certificate, so they are not used.
fn tls_cause(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer => {
                "its certificate is from no CA that is believed (ca_file of the source adds one)"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            _ => "its certificate is not valid",
        },
        Some(_) => "no TLS could be agreed on",
        None => "the connection broke before TLS was agreed on",
    }
}
