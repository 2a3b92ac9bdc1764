//! The ports over real mechanisms.

pub mod clock_board;
