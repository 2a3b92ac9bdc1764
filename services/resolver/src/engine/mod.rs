//! The loops over the ports: the copies are followed by the shared library, so what is left are the calls.
//!
//! ```text
//! registry, reports ─▶ lockstep-replicas ─▶ board ─▶ resolver: answers from memory
//!                   ◀── commit ── servers ◀─ waits ─┘
//! ```

pub mod resolver;
pub mod servers;

use crate::domain::view::View;

/// The view and its signals.
pub type Board = lockstep_replicas::Board<View>;
