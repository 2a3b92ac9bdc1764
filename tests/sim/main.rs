//! The simulation: the real engines and the real gRPC code of filesync and gateway over a simulated network, disk, clock
//! and source of chance, judged after every step.
//!
//! ```text
//!   scenarios ─▶ mesh ─▶ turmoil: s1 s2 s3 gateway operator-…      (net, ports, chance)
//!                  └──▶ judge: every disk, every index, the registry, at every step
//! ```
//! `SEED=7 LOG=debug cargo test -p lockstep-tests --test sim <test> -- --nocapture` shows one world closely.

mod ahead;
mod alone;
mod chance;
mod converge;
mod doubt;
mod faults;
mod judge;
mod mesh;
mod net;
mod operator;
mod poison;
mod ports;
mod seeds;
mod trace;
mod witness;
mod work;
