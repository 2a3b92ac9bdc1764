//! Each RPC answers and fails as documented: real services with TLS, files and databases, within this process.

mod bad_input;
mod bad_state;
mod calls;
mod changes;
mod disk;
mod early;
mod firmware;
mod half_open;
mod lost;
mod matrix;
mod mesh;
mod names;
mod placement;
mod planted;
mod refusal;
mod repeats;
mod resolver;
mod rights;
mod runs;
mod states;
mod stuck;
mod uploads;
mod vendor;
mod words;
