//! The rules of connection data, pure and synchronous: nothing here can see tonic, prost, a database or tokio.
//!
//! ```text
//! records, reports ──▶ view ──▶ holders: who holds all of what        resolve: the question
//! address/<id>     ──▶   │      reach: how devices reach a server       ├─ choose: which server, and why
//!                        └──────────────────────────────────────────────┴─ connection: the data
//! ```

pub mod address;
pub mod choose;
pub mod connection;
pub mod device;
pub mod edit;
pub mod error;
pub mod explain;
pub mod holders;
pub mod load;
pub mod progress;
pub mod reach;
pub mod resolve;
pub mod update;
pub mod view;
