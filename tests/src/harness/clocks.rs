//! Clocks that are wrong: of the servers of an installation, and of a time server.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use lockstep_chassis::SystemReadings;
use lockstep_model::clock::Readings as _;
use tempfile::TempDir;
use tokio::net::UdpSocket;

const SECOND_NS: i128 = 1_000_000_000;
/// From 1900, where NTP begins to count, to 1970.
const NTP_TO_UNIX_SECONDS: i128 = 2_208_988_800;

/// The wall clocks of servers, each set by the test at any time. The processes of a server share its clock, in all their lives;
/// no kernel speaks for it, since it is not the one of the kernel.
#[derive(Debug)]
pub struct Clocks {
    directory: TempDir,
}

impl Clocks {
    /// All of them right.
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    /// What the children of so many servers have to be told, for `Options::environment`.
    pub fn environment(&self, servers: u8) -> Vec<(String, String, String)> {
        let variables = |server: String| {
            let path = self.path(&server).display().to_string();
            let told = move |service: &str, name: &str, value: &str| {
                (format!("{server}.{service}"), name.to_owned(), value.to_owned())
            };
            [
                told("filesync", "LOCKSTEP_CLOCK", &path),
                told("timeguard", "LOCKSTEP_CLOCK", &path),
                told("timeguard", "TIMEGUARD_KERNEL", "off"),
            ]
        };
        (1..=servers).flat_map(|number| variables(format!("s{number}"))).collect()
    }

    /// From now on the clock of a server is so many seconds ahead of that of the machine.
    pub fn set(&self, server: &str, ahead_seconds: f64) {
        let (path, beside) = (self.path(server), self.directory.path().join("new"));
        let ahead_ns = (ahead_seconds * 1e9).round() as i64;
        fs::write(&beside, ahead_ns.to_string()).expect("written");
        fs::rename(beside, path).expect("renamed");
    }

    fn path(&self, server: &str) -> PathBuf {
        self.directory.path().join(server)
    }
}

impl Default for Clocks {
    fn default() -> Self {
        Self::new()
    }
}

/// A time server that speaks NTP, on a port of its own.
#[derive(Debug)]
pub struct TimeServer {
    socket: Arc<UdpSocket>,
    /// `host:port`.
    pub address: SocketAddr,
}

impl TimeServer {
    /// On a free port; it answers while [`TimeServer::serve`] runs.
    pub async fn bind() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        Self { socket: Arc::new(socket), address }
    }

    /// Answers with a time that is so many seconds ahead of that of the machine, until it is dropped.
    pub async fn serve(&self, ahead_seconds: i128) {
        let mut packet = [0; 48];
        loop {
            let (_, from) = self.socket.recv_from(&mut packet).await.expect("a question");
            let now_ns = SystemReadings.reading().wall_ns + (ahead_seconds + NTP_TO_UNIX_SECONDS) * SECOND_NS;
            let time = u64::try_from(((now_ns << 32) / SECOND_NS) & i128::from(u64::MAX)).expect("64 bits");
            let mut answer = [0; 48];
            (answer[0], answer[1]) = ((4 << 3) | 4, 1);
            answer[24..32].copy_from_slice(&packet[40..]);
            answer[32..40].copy_from_slice(&time.to_be_bytes());
            answer[40..].copy_from_slice(&time.to_be_bytes());
            self.socket.send_to(&answer, from).await.expect("sent");
        }
    }
}
