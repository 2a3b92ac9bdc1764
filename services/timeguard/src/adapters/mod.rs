//! The real things behind the ports.

pub mod kernel_timex;
pub mod notebook;
pub mod ntp;
pub mod signals_timerfd;
pub mod witnesses;
