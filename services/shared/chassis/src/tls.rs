//! Mutual TLS whose certificates are taken up without a restart (R68).
//!
//! The three files are read together and used together: the leaf, its key, and the CAs that peers are believed from.
//! What cannot be used leaves the old ones in place. Both sides check the chain and then the identity in the SAN URI;
//! host names prove nothing here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use lockstep_model::{
    Digest, Identity,
    clock::{Clock as _, SystemClock},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{
    drain::Drain,
    verify::{PeerVerifier, ServerVerifier, identity_of, validity_of},
};

/// Both ends speak HTTP/2 only.
const ALPN: &[u8] = b"h2";

/// Certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A file holds no certificate or key.
    #[error("{path} cannot be used: {cause}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Everybody on the machine can read the key.
    #[error("{path} can be read by every user of this machine")]
    KeyExposed {
        /// The file.
        path: PathBuf,
    },
    /// The new certificate belongs to somebody else.
    #[error("{path} belongs to {found}, not to {expected}")]
    OtherIdentity {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}

/// The certificate of this process and the CAs it believes, always the latest good ones. Clones share them.
#[derive(Clone)]
pub struct TlsIdentity {
    shared: Arc<Shared>,
}

struct Shared {
    files: Files,
    trust_domain: String,
    loaded: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// What the three files hold, checked together.
struct Loaded {
    identity: Identity,
    server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    /// First and last second of the certificate, as Unix time.
    validity: (i64, i64),
    contents: Digest,
}

impl TlsIdentity {
    /// Loads the files.
    ///
    /// # Errors
    /// [`TlsError`] if one cannot be read or used, or they do not belong together.
    pub fn load(cert: &Path, key: &Path, ca: &Path, trust_domain: &str) -> Result<Self, TlsError> {
        let files = Files { cert: cert.to_owned(), key: key.to_owned(), ca: ca.to_owned() };
        let loaded = load(&files, &files.read()?, trust_domain)?;
        let shared =
            Shared { files, trust_domain: trust_domain.to_owned(), loaded: ArcSwap::from_pointee(loaded) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whose certificate it is.
    pub fn identity(&self) -> Identity {
        self.shared.loaded.load().identity.clone()
    }

    /// The trust domain in which identities count.
    pub fn trust_domain(&self) -> &str {
        &self.shared.trust_domain
    }

    /// Takes up new files as they appear, until the process drains. Nothing else is asked of whoever replaces them
    /// than that they end up complete and matching.
    pub fn watch(&self, drain: &Drain) {
        crate::reload::watch(self.clone(), drain);
    }

    /// The directories in which the files are replaced.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let Files { cert, key, ca } = &self.shared.files;
        let directory = |file: &PathBuf| match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut directories: Vec<PathBuf> = [cert, key, ca].map(directory).into();
        directories.sort();
        directories.dedup();
        directories
    }

    /// Reads the files again and uses them if they changed: whether they did. It blocks on the disk.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used; the old ones stay.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let Shared { files, trust_domain, loaded } = &*self.shared;
        let contents = files.read()?;
        let old = loaded.load();
        if contents.digest() == old.contents {
            return Ok(false);
        }
        let new = load(files, &contents, trust_domain)?;
        if new.identity != old.identity {
            let (found, expected) = (new.identity.to_string(), old.identity.to_string());
            return Err(TlsError::OtherIdentity { path: files.cert.clone(), found, expected });
        }
        loaded.store(Arc::new(new));
        Ok(true)
    }

    /// Whether the certificate in use is valid now, by the wall clock of this process.
    pub fn is_current(&self) -> bool {
        let ((from, to), now) = (self.validity(), SystemClock.now().as_second());
        (from..=to).contains(&now)
    }

    /// First and last second of the certificate in use, as Unix time.
    pub(crate) fn validity(&self) -> (i64, i64) {
        self.shared.loaded.load().validity
    }

    /// How connections are accepted now.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.shared.loaded.load().server.clone()
    }

    /// How a connection to `expected` is made now; `None` believes every identity of the trust domain.
    pub(crate) fn client_config(&self, expected: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
        let loaded = self.shared.loaded.load();
        let provider = provider();
        let verifier = ServerVerifier {
            roots: loaded.roots.clone(),
            algorithms: provider.signature_verification_algorithms,
            trust_domain: self.shared.trust_domain.clone(),
            expected,
        };
        let key: SingleCertAndKey = CertifiedKey::clone(&loaded.key).into();
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(WallTime))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(key));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would keep a certificate alive that was replaced.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

/// The wall clock of this process, for the validity of certificates.
#[derive(Debug)]
struct WallTime;

impl rustls::time_provider::TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        // Before 1970 no certificate is valid.
        let seconds = u64::try_from(SystemClock.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// ring, and nothing else is compiled in.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The bytes of the three files.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Contents {
    fn digest(&self) -> Digest {
        let parts = [&self.cert, &self.key, &self.ca].map(|part| *Digest::of(part).as_bytes());
        Digest::of(parts.as_flattened())
    }
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        use std::os::unix::fs::PermissionsExt as _;
        let read = |path: &PathBuf| {
            let failed =
                |error: std::io::Error| TlsError::Unreadable { path: path.clone(), cause: error.to_string() };
            let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
            std::fs::read(path).map_err(failed).map(|bytes| (bytes, mode))
        };
        let (key, mode) = read(&self.key)?;
        if mode & 0o004 != 0 {
            return Err(TlsError::KeyExposed { path: self.key.clone() });
        }
        Ok(Contents { cert: read(&self.cert)?.0, key, ca: read(&self.ca)?.0 })
    }
}

fn load(files: &Files, contents: &Contents, trust_domain: &str) -> Result<Loaded, TlsError> {
    let Files { cert, key, ca } = files;
    let invalid = |path: &PathBuf, cause: String| TlsError::Invalid { path: path.clone(), cause };
    let chain = certificates(&contents.cert).map_err(|cause| invalid(cert, cause))?;
    let identity = identity_of(&chain[0], trust_domain).map_err(|cause| invalid(cert, cause))?;
    let validity = validity_of(&chain[0]).map_err(|cause| invalid(cert, cause))?;
    let private =
        PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| invalid(key, error.to_string()))?;
    let provider = provider();
    let certified = CertifiedKey::from_der(chain, private, &provider)
        .map(Arc::new)
        .map_err(|error| invalid(key, format!("it does not belong to {}: {error}", cert.display())))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(&contents.ca).map_err(|cause| invalid(ca, cause))? {
        roots.add(root).map_err(|error| invalid(ca, error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let verifier =
        PeerVerifier::new(roots.clone(), &provider, trust_domain).map_err(|cause| invalid(ca, cause))?;
    let resolver: SingleCertAndKey = CertifiedKey::clone(&certified).into();
    let mut server = ServerConfig::builder_with_details(provider, Arc::new(WallTime))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(cert, error.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    server.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would keep a certificate alive that was replaced.
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let contents = contents.digest();
    Ok(Loaded { identity, server: Arc::new(server), roots, key: certified, validity, contents })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}
