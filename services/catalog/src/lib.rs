//! The catalog: firmware updates, from the vendor's feed to the registered files of an update.
//!
//! Owns the records of firmware updates and of the settings that govern them. Refuses to own bytes: what it downloads
//! streams into the filesync of one server. It keeps nothing on disk, so any number of instances may run anywhere.
//!
//! ```text
//! grpc ──▶ engine ──▶ ports ◀── adapters: vendor (HTTPS), servers (gRPC), archive (zip)
//!             └──▶ domain: life, draft, edit, offers, note, vigil, feed, sources, address, archive   (pure)
//! ```
//!
//! Invariants
//! 1. An update is registered whole or not at all, after sizes and SHA-256 were compared by the server that has the bytes.
//! 2. Nothing depends on which instance does something, or on how many do it at once: uploads have fixed names, and every
//!    change is bound to a revision or to the name of its request.
//! 3. Who takes over decides by what it saw itself, by its own monotonic time; no clock is compared (R63).
//! 4. A deletion names files by their ids: nothing of anybody else, and no directory, is ever deleted (R35).
//! 5. A password leaves the process sealed only, and no answer, log or note has one.

pub mod adapters;
pub mod config;
pub mod domain;
pub mod engine;
pub mod grpc;
mod metrics;
pub mod ports;
mod run;

pub use config::Config;
pub use run::{Parts, Real, run, serve};
