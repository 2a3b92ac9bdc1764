//! The own time guard over gRPC: one watch that is kept open, and the memory of what it said last.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use lockstep_chassis::{Channels, Drain, Failure, Health, Lane, status};
use lockstep_model::{
    Identity, Reason, ServerId,
    clock::{Entropy, Reading},
};
use lockstep_proto::timeguard::v1::{
    ClockReading, ClockReport, WatchClockReportsRequest, WatchClockReportsResponse,
    clock_service_client::ClockServiceClient, fence::State,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::Streaming;

use crate::{
    domain::guard::{Fence, Heard, Moment, Standing},
    ports::Guard,
};

/// Back-off between two tries to reach the guard.
const RECONNECT_LEAST: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(3);
/// How long the guard may take to accept the watch.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// A stream that says nothing for this long is dead: the guard speaks every five seconds.
const QUIET_MAX: Duration = Duration::from_secs(15);
/// How often somebody who waits looks again, since silence is no event.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the guard is, and who asks.
pub struct GuardLink<E> {
    /// The server of both.
    pub server: ServerId,
    /// Where its guard answers, `https://host:port`.
    pub uri: String,
    /// The ways to it.
    pub channels: Channels,
    /// Both clocks when this process began.
    pub started: Reading,
    /// Whether the certificate of this process is valid now, by its wall clock.
    pub is_current: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Chance.
    pub entropy: E,
}

/// What the guard of this server said last.
#[derive(Clone)]
pub struct GrpcGuard {
    shared: Arc<Shared>,
}

struct Shared {
    server: ServerId,
    is_current: Arc<dyn Fn() -> bool + Send + Sync>,
    began: Instant,
    heard: Mutex<Heard>,
    changes: watch::Sender<()>,
}

impl GrpcGuard {
    /// Listens to the guard until the process drains. What it says of a restart goes to `health`.
    pub fn start<E: Entropy>(link: GuardLink<E>, drain: &Drain, health: &Health) -> Self {
        let shared = Arc::new(Shared {
            server: link.server.clone(),
            is_current: Arc::clone(&link.is_current),
            began: Instant::now(),
            heard: Mutex::default(),
            changes: watch::Sender::new(()),
        });
        let (listening, health) = (Arc::clone(&shared), health.clone());
        drain.spawn_until("time guard", async move { listening.listen(&link, &health).await });
        Self { shared }
    }
}

impl Guard for GrpcGuard {
    fn standing(&self) -> Standing {
        let shared = &self.shared;
        let now = shared.now();
        let mut heard = shared.heard();
        // Asked anew each time: nothing tells when a clock is set, and a certificate says it before the guard can.
        heard.own_certificate((shared.is_current)(), now);
        heard.standing(&shared.server, now)
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        // Subscribed now, so that nothing is missed between the call and the first poll.
        let mut changes = self.shared.changes.subscribe();
        async move { drop(timeout(LOOK_EVERY, changes.changed()).await) }
    }
}

impl Shared {
    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard());
        self.changes.send_replace(());
    }

    /// Keeps the watch open.
    async fn listen<E: Entropy>(&self, link: &GuardLink<E>, health: &Health) {
        let mut pause = RECONNECT_LEAST;
        loop {
            let failure = match timeout(OPEN_MAX, open(link)).await {
                Ok(Ok(stream)) => self.take(stream, health, &mut pause).await,
                Ok(Err(failure)) => failure,
                Err(_) => quiet(OPEN_MAX),
            };
            tracing::debug!(reason = %failure.reason, error = %failure, "the time guard is not heard");
            let is_out_of_date = failure.metadata.get(status::CERTIFICATE_KEY).map(String::as_str)
                == Some(status::OUT_OF_DATE);
            let now = self.now();
            self.change(|heard| heard.lost(failure.message, is_out_of_date, now));
            sleep(link.entropy.jitter(pause)).await;
            pause = (pause * 2).min(RECONNECT_MOST);
        }
    }

    /// Takes what the guard says until it says nothing more; answers why.
    async fn take(
        &self,
        mut stream: Streaming<WatchClockReportsResponse>,
        health: &Health,
        pause: &mut Duration,
    ) -> Failure {
        loop {
            let message = match timeout(QUIET_MAX, stream.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Failure::new(Reason::PeerUnreachable, "it ended its report"),
                Ok(Err(status)) => return status::read(&status),
                Err(_) => return quiet(QUIET_MAX),
            };
            let Some(report) = message.report else { continue };
            if report.services_to_restart.iter().any(|service| service == "filesync") {
                health.require_restart("the clock of this server was set");
            }
            let (standing, now) = (standing_from_wire(&report), self.now());
            self.change(|heard| heard.said(standing, now));
            *pause = RECONNECT_LEAST;
        }
    }
}

async fn open<E>(link: &GuardLink<E>) -> Result<Streaming<WatchClockReportsResponse>, Failure> {
    let identity = Identity::Server { server_id: link.server.clone(), service: "timeguard" };
    let channel = link.channels.to(&link.uri, identity, Lane::Control);
    let started = Some(reading_into_wire(link.started));
    let request = WatchClockReportsRequest { resume_token: String::new(), started };
    let opened = ClockServiceClient::new(channel).watch_clock_reports(request).await;
    opened.map(tonic::Response::into_inner).map_err(|status| status::read(&status))
}

fn quiet(time: Duration) -> Failure {
    Failure::new(Reason::PeerUnreachable, format!("it said nothing for {} s", time.as_secs()))
}

fn reading_into_wire(reading: Reading) -> ClockReading {
    const SECOND: i128 = 1_000_000_000;
    ClockReading {
        wall_time: Some(prost_types::Timestamp {
            seconds: i64::try_from(reading.wall_ns.div_euclid(SECOND)).unwrap_or_default(),
            nanos: i32::try_from(reading.wall_ns.rem_euclid(SECOND)).unwrap_or_default(),
        }),
        uptime: prost_types::Duration::try_from(reading.since).ok(),
    }
}

fn standing_from_wire(report: &ClockReport) -> Standing {
    let fence = report.fence.clone().unwrap_or_default();
    match fence.state() {
        State::Starting => return Standing::Starting,
        State::Open | State::Overruled => return Standing::Open,
        // What a newer guard says that is none of these is no leave to originate.
        State::Fenced | State::Unspecified => {}
    }
    let length = |duration: Option<prost_types::Duration>| duration.and_then(|d| Duration::try_from(d).ok());
    let failure = fence.failure.unwrap_or_default();
    Standing::Fenced(Fence {
        reason: Reason::parse(&failure.reason).unwrap_or(Reason::ClockFenced),
        message: failure.message,
        offset: report.offset.map(|offset| {
            let nanos = SignedDuration::from_nanos(offset.nanos.into());
            SignedDuration::from_secs(offset.seconds).saturating_add(nanos)
        }),
        uncertainty: length(report.uncertainty),
        limit: length(report.limit),
        age: length(fence.age).unwrap_or_default(),
        is_said: true,
    })
}
