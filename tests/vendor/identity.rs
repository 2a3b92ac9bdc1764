//! The identity of the server: made at the first start, used again afterwards.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Whom the certificate is for. The names below `test` resolve to nothing outside of tests.
const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "::1", "vendor.test", "*.vendor.test"];

/// The configuration of TLS, with `ca.pem`, `cert.pem` and `key.pem` of `out`.
pub(crate) fn load(out: &Path) -> Result<ServerConfig> {
    if !out.join("key.pem").exists() {
        make(out)?;
    }
    let cert = CertificateDer::from_pem_file(out.join("cert.pem")).context("cert.pem")?;
    let key = PrivateKeyDer::from_pem_file(out.join("key.pem")).context("key.pem")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(vec![cert], key)?)
}

fn make(out: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "CA of a vendor");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, "server of a vendor");
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;
    fs::write(out.join("ca.pem"), issuer.pem())?;
    fs::write(out.join("cert.pem"), cert.pem())?;
    fs::write(out.join("key.pem"), key.serialize_pem())?;
    Ok(())
}
