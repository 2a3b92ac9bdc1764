//! What the engine needs from the outside, as traits it owns.

use std::time::Duration;

use lockstep_model::{
    ServerId,
    clock::{Entropy, Readings},
};
use lockstep_registry::Registry;

use crate::domain::{Reading, guard::Missed};

/// Everything outside the engine, chosen once.
pub trait Ports: Clone + Send + Sync + 'static {
    /// Both own clocks.
    type Clock: Readings;
    /// Other clocks.
    type Witnesses: Witnesses;
    /// Word from the kernel that the own clock was set.
    type Signals: Signals;
    /// Who belongs to the installation, and the clock of its database.
    type Registry: Registry;
    /// Chance.
    type Entropy: Entropy;
}

/// What a peer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the question came there.
    pub received: Reading,
    /// When the answer left there.
    pub replied: Reading,
    /// Which life of the other process answered.
    pub incarnation: u128,
    /// How far its clock may be from the true one, where its kernel keeps it in time.
    pub kernel_error: Option<Duration>,
}

/// What a time server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpAnswer {
    /// When the question came there, in nanoseconds since 1970.
    pub received_ns: i128,
    /// When the answer left there.
    pub replied_ns: i128,
    /// How far it may be from the source of its time.
    pub error: Duration,
}

/// What the kernel says of the clock of the machine, which it keeps in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTime {
    /// What it shows, in nanoseconds since 1970.
    pub wall_ns: i128,
    /// How far it may be from the true time.
    pub error: Duration,
}

/// Other clocks. Each call answers within two seconds.
pub trait Witnesses: Clone + Send + Sync + 'static {
    /// Asks the timeguard of a server at its address.
    fn sample(&self, peer: &ServerId, uri: &str) -> impl Future<Output = Result<Answer, Missed>> + Send;

    /// Asks a time server, `host:port`. `now` is the own wall clock, which tells in which of the eras of NTP we live.
    fn ask_time_server(
        &self,
        server: &str,
        now_ns: i128,
    ) -> impl Future<Output = Result<NtpAnswer, Missed>> + Send;

    /// The kernel of this machine; `None` if it does not keep its clock in time, or does not tell.
    fn kernel(&self) -> Option<KernelTime>;

    /// Whether the certificate of this process is valid now, by its own clock.
    fn is_certified(&self) -> bool;
}

/// Word that the own clock was set.
pub trait Signals: Send + 'static {
    /// Waits until somebody sets the clock; never ends where nobody tells.
    fn clock_set(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether such word comes at all; where it does not, the clocks are compared more often.
    fn is_told(&self) -> bool;
}
