//! Secrets at rest: encrypted with a key from a file, so that neither the database nor a listing has them.

use std::{fmt, fs, path::Path};

use lockstep_model::clock::Entropy;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::StartError;

/// Bytes of a key; the file has them as 64 hexadecimal digits.
pub const KEY_BYTES: usize = 32;

/// A key. Nothing shows it.
#[derive(Clone)]
pub struct SealKey(LessSafeKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// What was sealed cannot be opened: another key, or it was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret cannot be opened with this key: it was sealed with another one, or altered")]
pub struct CannotOpen;

impl SealKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// [`StartError`] if it cannot be read or is no key.
    pub fn read(path: &Path) -> Result<Self, StartError> {
        let advice = "make one with: openssl rand -hex 32; every catalog and resolver needs the same";
        let what = format!("the key of stored passwords {} cannot be used", path.display());
        let text = fs::read_to_string(path).map_err(|error| StartError::new(what.as_str(), error, advice))?;
        Self::parse(text.trim())
            .ok_or_else(|| StartError::new(what.as_str(), "it is not 64 hexadecimal digits", advice))
    }

    /// The key that `text` spells: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; KEY_BYTES];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        UnboundKey::new(&AES_256_GCM, &bytes).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// Encrypts `secret` for the record `owner`: nobody can open it as that of another record. An empty secret stays empty.
    pub fn seal(&self, secret: &str, owner: &str, entropy: &impl Entropy) -> String {
        if secret.is_empty() {
            return String::new();
        }
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut bytes = secret.as_bytes().to_vec();
        let owner = Aad::from(owner.as_bytes());
        // It fails only beyond 64 GiB.
        match self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), owner, &mut bytes) {
            Ok(()) => format!("{}{}", hex::encode(nonce), hex::encode(bytes)),
            Err(_) => String::new(),
        }
    }

    /// Decrypts what was sealed for the record `owner`.
    ///
    /// # Errors
    /// [`CannotOpen`].
    pub fn open(&self, sealed: &str, owner: &str) -> Result<String, CannotOpen> {
        if sealed.is_empty() {
            return Ok(String::new());
        }
        let bytes = hex::decode(sealed).map_err(|_| CannotOpen)?;
        let (nonce, bytes) = bytes.split_at_checked(NONCE_LEN).ok_or(CannotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CannotOpen)?;
        let mut bytes = bytes.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut bytes);
        let opened = opened.map_err(|_| CannotOpen)?;
        String::from_utf8(opened.to_vec()).map_err(|_| CannotOpen)
    }
}

#[cfg(test)]
mod tests {
    use lockstep_model::clock::SystemEntropy;

    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_for_its_owner_only() {
        let key = SealKey::parse(&"ab".repeat(KEY_BYTES)).expect("a key");
        let other = SealKey::parse(&"cd".repeat(KEY_BYTES)).expect("a key");
        let sealed = key.seal("canary", "firmware/1", &SystemEntropy);
        assert!(!sealed.contains("canary") && !sealed.contains(&hex::encode("canary")), "{sealed}");
        assert_eq!(key.open(&sealed, "firmware/1").as_deref(), Ok("canary"));
        assert_eq!(key.open(&sealed, "firmware/2"), Err(CannotOpen));
        assert_eq!(other.open(&sealed, "firmware/1"), Err(CannotOpen));
        assert_ne!(sealed, key.seal("canary", "firmware/1", &SystemEntropy), "each has a nonce of its own");
        for altered in ["00", "zz", &sealed[..sealed.len() - 2]] {
            assert_eq!(key.open(altered, "firmware/1"), Err(CannotOpen), "{altered}");
        }
        assert_eq!((key.seal("", "x", &SystemEntropy).as_str(), key.open("", "x").as_deref()), ("", Ok("")));
        assert_eq!(format!("{key:?}"), "SealKey");
        assert!(SealKey::parse("ab").is_none());
    }
}
