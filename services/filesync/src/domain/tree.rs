//! Content as a tree: the BLAKE3 hashes of its 1 MiB groups, which lead to its digest.
//!
//! A record carries only the digest. A sender gives the group hashes along; the receiver checks them against the digest
//! once, and each group as it arrives, so a wrong byte is found within a mebibyte and any range can be checked alone.

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use lockstep_model::Digest;

/// The size of a group: a power of two, as a subtree of BLAKE3 has to be. 1 MiB is one chunk on the wire.
pub const GROUP_BYTES: u64 = 1 << 20;
/// The bytes of one group hash.
pub const HASH_BYTES: usize = 32;

/// The BLAKE3 chaining value of one group.
pub type GroupHash = [u8; HASH_BYTES];

/// The hash of the group at `index`.
pub fn group_hash(index: usize, bytes: &[u8]) -> GroupHash {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index as u64 * GROUP_BYTES);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// The group hashes of a content above [`GROUP_BYTES`]; smaller content has none, its digest says it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(Vec<GroupHash>);

/// Hashes content as it streams by, in order.
#[derive(Debug)]
pub struct TreeHasher {
    groups: Vec<GroupHash>,
    current: blake3::Hasher,
    in_group: u64,
    size_bytes: u64,
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self { groups: Vec::new(), current: blake3::Hasher::new(), in_group: 0, size_bytes: 0 }
    }
}

impl TreeHasher {
    /// Bytes so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The hashes of the groups that further bytes came after.
    pub fn closed(&self) -> &[GroupHash] {
        &self.groups
    }

    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_group == GROUP_BYTES {
                self.close_group();
            }
            let room = usize::try_from(GROUP_BYTES - self.in_group).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.in_group += now.len() as u64;
            self.size_bytes += now.len() as u64;
            bytes = later;
        }
    }

    fn close_group(&mut self) {
        self.groups.push(self.current.finalize_non_root());
        self.current = blake3::Hasher::new();
        self.current.set_input_offset(self.groups.len() as u64 * GROUP_BYTES);
        self.in_group = 0;
    }

    /// The digest and the group hashes.
    pub fn finish(mut self) -> (Digest, Groups) {
        if self.groups.is_empty() {
            return (Digest::from_bytes(*self.current.finalize().as_bytes()), Groups::default());
        }
        self.close_group();
        let groups = Groups(self.groups);
        (groups.root(), groups)
    }
}

impl Groups {
    /// From the concatenated hashes; `None` if the length is no multiple of [`HASH_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
        rest.is_empty().then(|| Self(hashes.to_vec()))
    }

    /// The concatenated hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// The hashes, in order.
    pub fn as_slice(&self) -> &[GroupHash] {
        &self.0
    }

    /// How many groups content of this size has; 0 where the digest alone says it all.
    pub fn count_for(size_bytes: u64) -> u64 {
        if size_bytes <= GROUP_BYTES { 0 } else { size_bytes.div_ceil(GROUP_BYTES) }
    }

    /// How many hashes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The digest these hashes lead to. Only for more than one group.
    fn root(&self) -> Digest {
        let (left, right) = self.0.split_at(left_len(self.0.len()));
        Digest::from_bytes(*merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes())
    }

    /// Whether these are the group hashes of content with this digest and size.
    pub fn belong_to(&self, digest: Digest, size_bytes: u64) -> bool {
        let count = Self::count_for(size_bytes);
        self.0.len() as u64 == count && (count == 0 || self.root() == digest)
    }

    /// Whether `bytes` are the group at `index`.
    pub fn verify(&self, index: usize, bytes: &[u8]) -> bool {
        self.0.get(index).is_some_and(|expected| *expected == group_hash(index, bytes))
    }
}

/// BLAKE3 puts the largest power of two of groups, that leaves at least one, to the left.
fn left_len(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn subtree(groups: &[[u8; HASH_BYTES]]) -> ChainingValue {
    match groups {
        [one] => *one,
        _ => {
            let (left, right) = groups.split_at(left_len(groups.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|i| u8::try_from(i * 31 % 251).unwrap_or(0)).collect()
    }

    /// I2: the group hashes lead to the plain BLAKE3 digest, for every shape of tree.
    #[test]
    fn group_hashes_lead_to_the_plain_digest() {
        let mib = 1 << 20;
        for size in [0, 1, mib - 1, mib, mib + 1, 2 * mib, 3 * mib + 7, 4 * mib, 5 * mib, 7 * mib + 1] {
            let bytes = content(size);
            let mut hasher = TreeHasher::default();
            bytes.chunks(300_000).for_each(|chunk| hasher.update(chunk));
            let (digest, groups) = hasher.finish();
            assert_eq!(digest, Digest::of(&bytes), "{size}");
            assert!(groups.belong_to(digest, size as u64), "{size}");
            assert!(!groups.belong_to(digest, size as u64 + 2 * GROUP_BYTES), "{size}");
            for (index, chunk) in bytes.chunks(mib).enumerate().take(groups.len()) {
                assert!(groups.verify(index, chunk), "{size} {index}");
                assert!(!groups.verify(index + 1, chunk), "{size} {index}");
            }
            assert_eq!(Groups::from_bytes(&groups.to_bytes()).as_ref(), Some(&groups));
        }
    }

    /// I2: one flipped bit is found in its own group, and a flipped hash never leads to the digest.
    #[test]
    fn a_flipped_bit_is_found_in_its_group() {
        let mut bytes = content(3 << 20);
        let mut hasher = TreeHasher::default();
        hasher.update(&bytes);
        let (digest, groups) = hasher.finish();
        bytes[(1 << 20) + 17] ^= 1;
        let good: Vec<bool> =
            bytes.chunks(1 << 20).enumerate().map(|(i, chunk)| groups.verify(i, chunk)).collect();
        assert_eq!(good, [true, false, true]);
        let mut raw = groups.to_bytes();
        raw[40] ^= 1;
        assert!(!Groups::from_bytes(&raw).expect("whole hashes").belong_to(digest, 3 << 20));
    }
}
