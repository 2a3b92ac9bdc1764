//! The development CA of `lockstep up`: the secure path is the only path, so it must cost nothing to take.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use lockstep_model::{
    Identity,
    clock::{Clock as _, SystemClock},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate lives for 30 days; it is renewed at half of that.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The CA lives for ten years.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Everything is backdated, so that a wrong clock does not lock a server out.
const BACKDATED: Duration = DAY;

/// The certificate of the CA, in its directory.
pub const CA_FILE: &str = "ca.pem";
/// The key of the CA, in its directory.
const CA_KEY_FILE: &str = "ca.key";

/// The CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate cannot be made or read.
    #[error("{what}: {why}")]
    Certificate {
        /// Which.
        what: String,
        /// Why.
        why: String,
    },
}

/// A CA whose key lies on this disk: for development and tests.
pub struct DevelopmentCa {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    trust_domain: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl DevelopmentCa {
    /// Opens the CA in `directory`, or makes one there, for identities of the trust domain.
    ///
    /// # Errors
    /// [`PkiError`] if the files cannot be read, written or used.
    pub fn open_or_create(directory: &Path, trust_domain: &str) -> Result<Self, PkiError> {
        let (cert_file, key_file) = (directory.join(CA_FILE), directory.join(CA_KEY_FILE));
        let read = |path: &PathBuf| match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::File { path: path.clone(), source }),
        };
        let (cert_pem, key) = match (read(&cert_file)?, read(&key_file)?) {
            (Some(cert), Some(key)) => {
                (cert, KeyPair::from_pem(&key).map_err(|error| failed("the CA key", error))?)
            }
            // The key is written first: without the certificate nobody believes it yet, so it can be replaced.
            (None, _) => {
                let key = KeyPair::generate().map_err(|error| failed("the CA key", error))?;
                let cert = ca_params().self_signed(&key).map_err(|error| failed("the CA", error))?.pem();
                fs::create_dir_all(directory)
                    .map_err(|source| PkiError::File { path: directory.to_owned(), source })?;
                write(&key_file, &key.serialize_pem(), 0o600)?;
                write(&cert_file, &cert, 0o644)?;
                (cert, key)
            }
            (Some(_), None) => {
                let source = io::Error::new(io::ErrorKind::NotFound, "the key of the CA is missing");
                return Err(PkiError::File { path: key_file, source });
            }
        };
        let issuer = Issuer::new(ca_params(), key);
        Ok(Self { issuer, cert_pem, trust_domain: trust_domain.to_owned() })
    }

    /// The certificate of the CA.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A certificate for `identity` that also carries the DNS names and addresses that clients dial.
    ///
    /// # Errors
    /// [`PkiError`] for a name that no certificate can carry.
    pub fn issue(&self, identity: &Identity, names: &[String]) -> Result<Issued, PkiError> {
        let what = identity.to_string();
        let mut params = params(&what, LIFE);
        params.subject_alt_names.push(SanType::URI(
            identity.uri(&self.trust_domain).try_into().map_err(|error| failed(&what, error))?,
        ));
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.clone().try_into().map_err(|error| failed(name, error))?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(|error| failed(&what, error))?;
        let cert = params.signed_by(&key, &self.issuer).map_err(|error| failed(&what, error))?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

impl Issued {
    /// Writes both files, each whole or not at all; the key only for its owner.
    ///
    /// # Errors
    /// [`PkiError`] if a file cannot be written.
    pub fn write(&self, cert: &Path, key: &Path) -> Result<(), PkiError> {
        write(key, &self.key_pem, 0o600)?;
        write(cert, &self.cert_pem, 0o644)
    }
}

/// Whether a certificate is past half of its life, or cannot be read: then it should be renewed.
pub fn needs_renewal(cert_pem: &[u8]) -> bool {
    let validity = CertificateDer::from_pem_slice(cert_pem)
        .map_err(|error| error.to_string())
        .and_then(|cert| crate::verify::validity_of(&cert));
    match validity {
        Ok((from, to)) => SystemClock.now().as_second() > from + (to - from) / 2,
        Err(_) => true,
    }
}

fn ca_params() -> CertificateParams {
    let mut params = params("Lockstep development CA", CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let seconds = u64::try_from(SystemClock.now().as_second()).unwrap_or(0);
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = now - BACKDATED;
    params.not_after = now + life;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn failed(what: &str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate { what: what.to_owned(), why: why.to_string() }
}

/// Writes a file beside its place, then puts it there, so that a reader never sees half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // A leftover keeps its old mode, so it goes first.
    let _ = fs::remove_file(&beside);
    let written =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.and_then(|()| fs::rename(&beside, path)).map_err(failed)
}
