//! The port over gRPC.

pub mod clock_reports_grpc;
