//! One more gateway beside that of an installation: a process of its own on the same registry.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{
    Client, Installation,
    installation::{Addresses, binary},
    wait,
};

/// From the start to the port.
const LISTENING_MAX: Duration = Duration::from_secs(30);

/// A running gateway. Dropped, it is killed.
pub struct Gateway {
    process: Child,
    addresses: Arc<Addresses>,
    pki: std::path::PathBuf,
}

impl Gateway {
    /// Starts one, and waits until it listens.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(installation: &Installation) -> Self {
        let log = installation.directory().join("gateway.log");
        let (folder, data) = (installation.pki().join("gateway"), installation.data());
        let output = File::create(&log).expect("a log");
        let argument = |name: &str, path: std::path::PathBuf| format!("--{name}={}", path.display());
        let process = Command::new(binary())
            .arg("gateway")
            .arg("--listen=127.0.0.1:0")
            .arg(format!("--registry=sqlite:{}", installation.registry().display()))
            .arg(argument("tls-cert", folder.join("cert.pem")))
            .arg(argument("tls-key", folder.join("key.pem")))
            .arg(argument("tls-ca", installation.pki().join("ca.pem")))
            .arg(format!("--trust-domain={}", installation.addresses().trust_domain))
            .current_dir(data)
            // It ends when its standard input does, however this process ends.
            .env("LOCKSTEP_SUPERVISED", "1")
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output)
            .spawn()
            .expect("lockstep can be started");
        let port = wait::until("the second gateway listens", LISTENING_MAX, || async {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find(|line| line.contains("listening")).unwrap_or_default();
            let after = line.split_once("127.0.0.1:").map_or("", |(_, after)| after);
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u16>().map_err(|_| format!("no port in {text:?}"))
        })
        .await;
        let addresses = Arc::new(installation.addresses().with_gateway(port));
        Self { process, addresses, pki: installation.pki() }
    }

    /// A client whose calls go to this gateway, with the certificate of an operator.
    pub fn client(&self, operator: &str) -> Client {
        let folder = self.pki.join(format!("operator.{operator}"));
        Client::new(&folder, &self.pki.join("ca.pem"), Arc::clone(&self.addresses))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
