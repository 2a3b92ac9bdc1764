//! The ports over real mechanisms.

pub mod replicas_grpc;
