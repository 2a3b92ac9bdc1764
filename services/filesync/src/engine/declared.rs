//! Digests that a caller knows already, and holding bytes to them.

use lockstep_model::{Digest, Md5, digest::Sha256};

use super::NewFile;
use crate::{domain::error::FileError, ports::Hashed};

/// Digests that the caller knows already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declared {
    /// BLAKE3.
    pub blake3: Option<Digest>,
    /// MD5.
    pub md5: Option<Md5>,
    /// SHA-256.
    pub sha256: Option<Sha256>,
}

/// Compares what was computed from the bytes with what the caller declared.
pub(super) fn check_declared(file: &NewFile, hashed: &Hashed, md5: Md5) -> Result<(), FileError> {
    let check = |algorithm: &'static str, declared: Option<String>, actual: String| match declared {
        Some(declared) if declared != actual => {
            Err(FileError::DigestMismatch { path: file.path.clone(), algorithm, declared, actual })
        }
        _ => Ok(()),
    };
    let declared = file.declared;
    check("BLAKE3", declared.blake3.map(String::from), hashed.digest.to_string())?;
    check("MD5", declared.md5.map(String::from), md5.to_string())?;
    let sha256 = hashed.sha256.map_or_else(String::new, String::from);
    check("SHA-256", declared.sha256.map(String::from), sha256)
}
