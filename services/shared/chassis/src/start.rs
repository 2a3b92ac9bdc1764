//! Why a process cannot start: what, where, why, and what to do.

use std::fmt::Display;

/// The exit code of a process that cannot start: EX_UNAVAILABLE in sysexits.h.
pub const EXIT_UNAVAILABLE: u8 = 69;

/// A process cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct StartError {
    what: String,
    why: String,
    advice: String,
}

impl StartError {
    /// `what` could not be done (with where), `why`, and what a person can do about it.
    pub fn new(what: impl Into<String>, why: impl Display, advice: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), advice: advice.into() }
    }

    /// From a fault, with the advice of its reason.
    pub fn of(what: impl Into<String>, fault: &dyn lockstep_model::Fault) -> Self {
        Self::new(what, fault, fault.reason().advice())
    }

    /// What a person can do about it.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}
