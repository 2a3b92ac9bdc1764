//! Which rows somebody wants to see.

use std::collections::BTreeSet;

use lockstep_model::ServerId;

use crate::domain::cell::CellState;

/// Which rows, and which of their cells. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    prefix: String,
    exact: bool,
    servers: BTreeSet<ServerId>,
    states: BTreeSet<CellState>,
}

impl Filter {
    /// Paths that begin with `prefix`.
    pub fn below(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Exactly `path`.
    pub fn at(path: impl Into<String>) -> Self {
        Self { prefix: path.into(), exact: true, ..Self::default() }
    }

    /// Only the cells of these servers; of all, if there are none.
    pub fn of_servers(self, servers: BTreeSet<ServerId>) -> Self {
        Self { servers, ..self }
    }

    /// Only rows with a cell in one of these states; any, if there are none.
    pub fn in_states(self, states: BTreeSet<CellState>) -> Self {
        Self { states, ..self }
    }

    /// What every path begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether rows are chosen by the states of their cells.
    pub fn is_by_state(&self) -> bool {
        !self.states.is_empty()
    }

    /// Whether it is about the file at `path`.
    pub fn names(&self, path: &str) -> bool {
        if self.exact { path == self.prefix } else { path.starts_with(&self.prefix) }
    }

    /// Whether the cell of this server is shown.
    pub fn shows(&self, server: &ServerId) -> bool {
        self.servers.is_empty() || self.servers.contains(server)
    }

    /// Whether a row with such a cell is shown.
    pub fn admits(&self, state: CellState) -> bool {
        self.states.is_empty() || self.states.contains(&state)
    }

    /// The servers that are named.
    pub fn servers(&self) -> &BTreeSet<ServerId> {
        &self.servers
    }

    /// All of it as text, to bind tokens to.
    pub fn to_text(&self) -> String {
        format!("{self:?}")
    }
}
