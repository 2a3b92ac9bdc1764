//! All digests of a content in one pass.

use lockstep_model::{Md5, digest::Sha256};
use md5::Digest as _;

use crate::{
    domain::{
        held::Stat,
        tree::{GroupHash, TreeHasher},
    },
    ports::{Algorithms, Hashed},
};

/// Hashes content as it streams by.
#[derive(Debug)]
pub struct ContentHasher {
    tree: TreeHasher,
    md5: Option<md5::Md5>,
    sha256: Option<sha2::Sha256>,
}

impl ContentHasher {
    /// For BLAKE3 and what else is wanted.
    pub fn new(wanted: Algorithms) -> Self {
        Self {
            tree: TreeHasher::default(),
            md5: wanted.md5.then(md5::Md5::new),
            sha256: wanted.sha256.then(sha2::Sha256::new),
        }
    }

    /// The hashes of the groups that further bytes came after.
    pub fn closed(&self) -> &[GroupHash] {
        self.tree.closed()
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.tree.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// The digests, for a file that looks like `stat`.
    pub fn finish(self, stat: Stat) -> Hashed {
        let (digest, groups) = self.tree.finish();
        let md5 = self.md5.map(|md5| Md5::from_bytes(md5.finalize().into()));
        let sha256 = self.sha256.map(|sha256| Sha256::from_bytes(sha256.finalize().into()));
        Hashed { digest, groups, md5, sha256, stat }
    }
}
