//! A whole installation of real processes, for tests.
//!
//! ```text
//! Installation::start(Options)      `lockstep up` on a directory of its own: real TLS, real disks, real registry
//!  ├─ client("local")  Client       typed clients with any certificate of the installation, by the gateway or directly
//!  ├─ kill take_down bring_up …     one child at a time, by its name: gateway, s1.filesync, …
//!  ├─ Hold                           one child waits at a fail point
//!  ├─ in_sync(&Ledger)              waits for the matrix; Ledger::check_disks compares every byte on every disk
//!  ├─ Monitor                       holds every IN_SYNC row to the disk, and positions to their order, all the time
//!  ├─ in_own_mounts, Mount           small disks and read-only roots that are real, in a mount namespace
//!  ├─ Clocks, TimeServer             wall clocks of servers that a test sets wrong, and a time server that speaks NTP
//!  ├─ Relay                          counts the bytes of a connection on their way
//!  ├─ Vendor                         the server of a vendor: feeds and files over TLS, and every misbehaviour
//!  └─ log()                         every line of every child
//! ```
//!
//! Nothing here sleeps for a fixed time: [`wait::until`] is the one primitive, always with a limit. The directory is removed
//! when the test succeeds and kept, with its path printed, when it fails. Everything dies with the test process.

mod children;
mod client;
mod clocks;
mod gateway;
mod hold;
mod installation;
mod ledger;
mod log;
mod monitor;
mod mounts;
mod relay;
pub mod vendor;
pub mod wait;

pub use client::{Client, addressed};
pub use clocks::{Clocks, TimeServer};
pub use gateway::Gateway;
pub use hold::Hold;
pub use installation::{Installation, Options, binary};
pub use ledger::{Entry, Ledger, content, digests, registration};
pub use log::Line;
pub use monitor::Monitor;
pub use mounts::{Mount, in_own_mounts};
pub use relay::Relay;
pub use vendor::Vendor;

/// The servers of an installation of three.
pub const SERVERS: [&str; 3] = ["s1", "s2", "s3"];
