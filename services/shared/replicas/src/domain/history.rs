//! Whether a position belongs to the history that is followed.

use std::collections::BTreeMap;

use lockstep_model::{Chain, Position, Revision};

/// How many chains are remembered: a few minutes of changes at the highest rate, half a megabyte. An older position is
/// asked of the registry once.
const CHAINS_KEPT: usize = 10_000;

/// What is known of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is in the history.
    Known,
    /// It is beyond what was read.
    Ahead,
    /// It is in another history.
    Foreign,
    /// It is older than what is remembered: the registry must be asked.
    Unknown,
}

/// The history as far as it was read.
#[derive(Clone, Debug)]
pub struct History {
    position: Position,
    chains: BTreeMap<Revision, Chain>,
}

impl History {
    /// Begins to follow the history at `position`.
    pub fn at(position: Position) -> Self {
        let start = Position::start(position.epoch);
        Self {
            position,
            chains: BTreeMap::from([(start.revision, start.chain), (position.revision, position.chain)]),
        }
    }

    /// How far it was read.
    pub fn position(&self) -> Position {
        self.position
    }

    /// It was read up to `position`.
    pub fn advance(&mut self, position: Position) {
        self.remember(position);
        self.position = position;
    }

    /// `position` is in this history: the registry said so, or its chain was computed from the changes.
    pub fn remember(&mut self, position: Position) {
        self.chains.insert(position.revision, position.chain);
        while self.chains.len() > CHAINS_KEPT {
            // The start stays: a new server reports it.
            let oldest = self.chains.keys().find(|revision| **revision > Revision::ZERO).copied();
            let Some(oldest) = oldest else { break };
            self.chains.remove(&oldest);
        }
    }

    /// What is known of `position`.
    pub fn judge(&self, position: &Position) -> Standing {
        if position.epoch != self.position.epoch {
            return Standing::Foreign;
        }
        match self.chains.get(&position.revision) {
            Some(chain) if *chain == position.chain => Standing::Known,
            Some(_) => Standing::Foreign,
            None if position.revision > self.position.revision => Standing::Ahead,
            None => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::samples::position;

    #[test]
    fn positions_are_told_apart_by_epoch_revision_and_chain() {
        let mut history = History::at(position(5));
        history.advance(position(8));
        assert_eq!(history.judge(&position(0)), Standing::Known);
        assert_eq!(history.judge(&position(5)), Standing::Known);
        assert_eq!(history.judge(&position(6)), Standing::Unknown);
        assert_eq!(history.judge(&position(9)), Standing::Ahead);
        let forked = Position { chain: position(7).chain, ..position(8) };
        assert_eq!(history.judge(&forked), Standing::Foreign);
        let elsewhere = Position { epoch: lockstep_model::Epoch(Default::default()), ..position(9) };
        assert_eq!(history.judge(&elsewhere), Standing::Foreign);
        history.remember(position(6));
        assert_eq!(history.judge(&position(6)), Standing::Known);
    }

    #[test]
    fn the_start_is_remembered_when_others_are_forgotten() {
        let mut history = History::at(position(0));
        for revision in 1..=CHAINS_KEPT as u64 + 10 {
            history.advance(position(revision));
        }
        assert_eq!(history.judge(&position(0)), Standing::Known);
        assert_eq!(history.judge(&position(3)), Standing::Unknown);
        assert_eq!(history.judge(&position(100)), Standing::Known);
    }
}
