//! Real processes, real disks, real TLS: what a whole installation does, and what it does when it is hurt.

mod away;
mod copies;
mod crash;
mod environment;
mod fanout;
mod flips;
mod trace;
mod up;
