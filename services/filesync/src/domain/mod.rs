//! The rules, pure and synchronous: what content is, what to do about a change, who may have which name.

pub mod aside;
pub mod check;
pub mod error;
pub mod exception;
pub mod guard;
pub mod hasher;
pub mod held;
pub mod intent;
pub mod naming;
pub mod plan;
pub mod tree;
