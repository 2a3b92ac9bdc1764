//! Free ports of this machine.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use lockstep_model::clock::{Entropy as _, SystemEntropy};
use tokio::time::{Instant, sleep};

/// Ports are chosen below the range that the system gives to outgoing connections: a port from it could be taken while
/// its service restarts, and a client that tries again and again would in the end connect to itself.
const FIRST: u16 = 20_000;
/// The end of the range, exclusive.
const END: u16 = 32_000;
/// How many ports are tried.
const ATTEMPTS_MAX: u32 = 2_000;
/// How long a port may stay taken by what is left of an earlier installation: a drain, and a little.
pub(crate) const RELEASE_MAX: Duration = Duration::from_secs(7);

/// Chooses free ports, all different.
pub(crate) struct Chooser {
    chosen: Vec<u16>,
}

impl Chooser {
    /// One that stays away from `taken`.
    pub(crate) fn new(taken: Vec<u16>) -> Self {
        Self { chosen: taken }
    }

    /// A port that nobody listens on now.
    pub(crate) fn choose(&mut self) -> io::Result<u16> {
        for _ in 0..ATTEMPTS_MAX {
            let mut bytes = [0; 2];
            SystemEntropy.fill(&mut bytes);
            let port = FIRST + u16::from_be_bytes(bytes) % (END - FIRST);
            if !self.chosen.contains(&port) && bind(port).is_ok() {
                self.chosen.push(port);
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port between {FIRST} and {END}")))
    }
}

/// Waits until nobody listens on a port, for as long as `patience` lasts.
pub(crate) async fn released(port: u16, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match bind(port) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || Instant::now() >= deadline => {
                return Err(error);
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

fn bind(port: u16) -> io::Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_ports_are_free_and_different() {
        let mut chooser = Chooser::new(Vec::new());
        let mut ports: Vec<u16> = (0..20).map(|_| chooser.choose().expect("a port")).collect();
        assert!(ports.iter().all(|port| (FIRST..END).contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
