//! The contract of Lockstep: messages, clients and servers generated from `lockstep/<service>/v1/*.proto`.
//!
//! Owns the wire format and nothing else. Conversions to and from the domain live in each service's `wire.rs`.

#![allow(missing_docs, unreachable_pub, reason = "the contract documents itself; see the .proto files")]
#![allow(clippy::all, clippy::unwrap_used, clippy::or_fun_call, reason = "generated code")]

/// Rights, reasons, failures and positions: what every service shares.
pub mod shared {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("lockstep.shared.v1");
    }
}

/// Registered files and their content on one server.
pub mod filesync {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("lockstep.filesync.v1");
    }
}

/// Firmware updates and settings.
pub mod catalog {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("lockstep.catalog.v1");
    }
}

/// Connection data, and what people say of servers.
pub mod resolver {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("lockstep.resolver.v1");
    }
}

/// The clock of one server.
pub mod timeguard {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("lockstep.timeguard.v1");
    }
}

/// The matrix.
pub mod gateway {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("lockstep.gateway.v1");
    }
}

/// The raw descriptor set of the whole contract, with custom options and comments, imports included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lockstep.binpb"));
