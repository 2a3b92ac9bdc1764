//! Who holds every byte of something.

use lockstep_model::ServerId;
use lockstep_replicas::domain::{
    cell::{holds, whole_state},
    records::Records,
    server::Server,
};

use crate::domain::update::Update;

/// A set of servers, by the number that each has for as long as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots(Vec<u64>);

impl Slots {
    /// Puts the server in, or takes it out.
    pub fn set(&mut self, slot: usize, is_in: bool) {
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        if word >= self.0.len() {
            if !is_in {
                return;
            }
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word = if is_in { *word | bit } else { *word & !bit };
        }
    }

    /// Whether the server is in it.
    pub fn has(&self, slot: usize) -> bool {
        self.0.get(slot / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    /// The servers in it.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

/// A server, with its id.
pub type Known<'a> = (&'a ServerId, &'a Server);

/// Whether `server` holds the file at `path`, verified, at its registered revision: what is partial, unverified, drifted or out
/// of reach does not count (R48); a copy that is kept although it is not meant to be there does (R12).
pub fn holds_file((id, server): Known<'_>, records: &Records, path: &str) -> bool {
    records.file(path).is_some_and(|file| holds(server, file.asked(path, id)))
}

/// Whether `server` holds every one of the files; nobody holds what has none.
pub fn holds_all<'a>(server: Known<'_>, records: &Records, paths: impl IntoIterator<Item = &'a str>) -> bool {
    let mut paths = paths.into_iter().peekable();
    whole_state(server.1).is_none()
        && paths.peek().is_some()
        && paths.all(|path| holds_file(server, records, path))
}

/// Whether `server` holds every file of an update, and they are those of the update.
pub fn holds_update(server: Known<'_>, records: &Records, update: Option<&Update>) -> bool {
    update.is_some_and(|update| {
        holds_all(server, records, update.files.iter().map(String::as_str))
            && update.foreign(records).is_none()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_are_a_set(changes in prop::collection::vec((0..300_usize, any::<bool>()), 0..200)) {
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for (slot, is_in) in changes {
                slots.set(slot, is_in);
                if is_in { model.insert(slot); } else { model.remove(&slot); }
                prop_assert_eq!(slots.has(slot), is_in);
            }
            prop_assert_eq!(slots.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
