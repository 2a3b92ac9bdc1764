//! Other clocks: peers by gRPC, time servers by NTP, the kernel.

use std::time::Duration;

use lockstep_chassis::{
    Channels, Failure, Lane, TlsIdentity, deadline,
    status::{self, CERTIFICATE_KEY, OUT_OF_DATE},
};
use lockstep_model::{
    Identity, Reason, ServerId,
    clock::{Entropy as _, SystemEntropy},
};
use lockstep_proto::timeguard::v1::{SampleClockRequest, clock_service_client::ClockServiceClient};

use super::{kernel_timex, ntp};
use crate::{
    domain::guard::Missed,
    grpc::wire,
    ports::{Answer, KernelTime, NtpAnswer, Witnesses},
};

/// A clock that needs longer says too little to wait for it.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The real ones.
#[derive(Clone, Debug)]
pub struct RealWitnesses {
    channels: Channels,
    tls: TlsIdentity,
    asks_kernel: bool,
}

impl RealWitnesses {
    /// Over the channels and the certificate of this process.
    pub fn new(channels: Channels, tls: TlsIdentity, asks_kernel: bool) -> Self {
        Self { channels, tls, asks_kernel }
    }
}

impl Witnesses for RealWitnesses {
    async fn sample(&self, peer: &ServerId, uri: &str) -> Result<Answer, Missed> {
        let identity = Identity::Server { server_id: peer.clone(), service: "timeguard" };
        let mut client = ClockServiceClient::new(self.channels.to(uri, identity, Lane::Control));
        let asked = deadline::within(ANSWER_MAX, client.sample_clock(SampleClockRequest {})).await;
        let answered = asked.map_err(|expired| missed(&Failure::of(&expired)))?;
        let answer = answered.map_err(|status| missed(&status::read(&status)))?.into_inner();
        wire::answer_from_wire(answer).ok_or_else(|| Missed {
            reason: Reason::Internal,
            message: format!("server {peer} answers without its clocks"),
            is_out_of_date: false,
        })
    }

    async fn ask_time_server(&self, server: &str, now_ns: i128) -> Result<NtpAnswer, Missed> {
        let unreachable = |message: String| Missed {
            reason: Reason::PeerUnreachable,
            message: format!("time server {server}: {message}"),
            is_out_of_date: false,
        };
        let nonce = u64::from_be_bytes(*SystemEntropy.uuid().as_bytes().first_chunk().unwrap_or(&[0; 8]));
        match tokio::time::timeout(ANSWER_MAX, ntp::ask(server, now_ns, nonce)).await {
            Ok(answer) => answer.map_err(|error| unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {} s", ANSWER_MAX.as_secs()))),
        }
    }

    fn kernel(&self) -> Option<KernelTime> {
        self.asks_kernel.then(kernel_timex::read).flatten()
    }

    fn is_certified(&self) -> bool {
        self.tls.is_current()
    }
}

fn missed(failure: &Failure) -> Missed {
    Missed {
        reason: failure.reason,
        message: failure.message.clone(),
        is_out_of_date: failure.metadata.get(CERTIFICATE_KEY).is_some_and(|found| found == OUT_OF_DATE),
    }
}
