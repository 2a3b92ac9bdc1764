//! The real things behind the ports, and those of the simulation.

pub mod guard_grpc;
pub mod guard_none;
pub mod index_memory;
pub mod index_sqlite;
pub mod peers_grpc;
pub mod state_lock;
pub mod store_fs;
pub mod store_memory;
