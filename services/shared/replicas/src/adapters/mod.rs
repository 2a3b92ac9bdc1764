//! The port over gRPC.

pub mod reports_grpc;
