//! The hash over the history: two registries with one chain at one revision did the same things in the same order.

use lockstep_model::{Chain, Revision};

/// What one transaction did to one key, exactly as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The key.
    pub key: &'a str,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The stored body, never serialised anew.
    pub body: &'a str,
}

/// The chain after a transaction that follows `previous` and makes `revision`; `links` ordered by key, each key once.
///
/// ```text
/// BLAKE3(previous ‖ revision as u64 LE ‖ for each link: len(key) ‖ key ‖ deleted ‖ len(body) ‖ body)
/// ```
///
/// Lengths are u64 LE, so that no two different transactions hash the same bytes.
pub fn next<'a>(previous: &Chain, revision: Revision, links: impl IntoIterator<Item = Link<'a>>) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous.as_bytes());
    hasher.update(&revision.0.to_le_bytes());
    for link in links {
        text(&mut hasher, link.key);
        hasher.update(&[u8::from(link.deleted)]);
        text(&mut hasher, link.body);
    }
    Chain::from_bytes(*hasher.finalize().as_bytes())
}

fn text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lockstep_model::{Epoch, Position};
    use proptest::prelude::*;

    use super::*;

    type Transaction = BTreeMap<String, (bool, String)>;

    fn start() -> Chain {
        Position::start(Epoch(uuid::Uuid::from_u128(1))).chain
    }

    fn over(history: &[Transaction]) -> Chain {
        let step = |(chain, revision): (Chain, Revision), transaction: &Transaction| {
            let links =
                transaction.iter().map(|(key, (deleted, body))| Link { key, deleted: *deleted, body });
            (next(&chain, revision.next(), links), revision.next())
        };
        history.iter().fold((start(), Revision::ZERO), step).0
    }

    fn transaction() -> impl Strategy<Value = Transaction> {
        prop::collection::btree_map("[ab/]{1,3}", (any::<bool>(), "[xy]{0,3}"), 0..4)
    }

    fn histories() -> impl Strategy<Value = Vec<Transaction>> {
        prop::collection::vec(transaction(), 0..5)
    }

    proptest! {
        /// I5: another history has another chain, however small the difference.
        #[test]
        fn chains_are_equal_exactly_when_histories_are(a in histories(), b in histories()) {
            prop_assert_eq!(over(&a) == over(&b), a == b);
        }

        /// I5: a difference is never forgotten, whatever follows.
        #[test]
        fn what_parted_never_meets(both in histories(), a in transaction(), b in transaction(), tail in histories()) {
            prop_assume!(a != b);
            let [a, b] = [a, b].map(|parted| [both.clone(), vec![parted], tail.clone()].concat());
            prop_assert_ne!(over(&a), over(&b));
        }
    }

    #[test]
    fn lengths_keep_neighbours_apart() {
        let link = |key, body| Link { key, deleted: false, body };
        let one = next(&start(), Revision(1), [link("ab", "c")]);
        assert_ne!(one, next(&start(), Revision(1), [link("a", "bc")]));
        assert_ne!(one, next(&start(), Revision(2), [link("ab", "c")]));
        assert_ne!(one, next(&start(), Revision(1), [Link { deleted: true, ..link("ab", "c") }]));
        assert_ne!(one, next(&start(), Revision(1), []));
    }

    /// The bytes that are hashed are part of the contract between versions: this value must never change.
    #[test]
    fn the_form_is_pinned() {
        let links = [
            Link { key: "file/a", deleted: false, body: "{}" },
            Link { key: "file/b", deleted: true, body: "{\"x\":1}" },
        ];
        let mut bytes = start().as_bytes().to_vec();
        bytes.extend(7_u64.to_le_bytes());
        for (key, deleted, body) in [("file/a", 0_u8, "{}"), ("file/b", 1, "{\"x\":1}")] {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.bytes());
            bytes.push(deleted);
            bytes.extend((body.len() as u64).to_le_bytes());
            bytes.extend(body.bytes());
        }
        assert_eq!(next(&start(), Revision(7), links), Chain::of(&bytes));
    }
}
