//! A whole process: settings, telemetry, certificates, listener, the service itself, and an orderly end.
//!
//! ```text
//! settings ─▶ telemetry ─▶ certificates ─▶ listener ─▶ run(config, process) ─▶ drain ─▶ flush ─▶ exit code
//!    │64                       │69            │69            │69, 70              ▲
//!                                                              SIGTERM, SIGINT ───┘ at most --drain-grace
//! ```

use std::{
    fmt, io, net::SocketAddr, panic::AssertUnwindSafe, path::PathBuf, process::ExitCode, str::FromStr,
    time::Duration,
};

use futures::FutureExt as _;
use lockstep_model::Identity;
use tokio::signal::unix::{SignalKind, signal};

pub use crate::start::{EXIT_UNAVAILABLE, StartError};
use crate::{
    channel::Channels,
    config::{EXIT_USAGE, Settings, Span, UsageError},
    dial::TlsDial,
    drain::{Drain, panic_text},
    health::Health,
    listener::TlsIncoming,
    probe, supervisor,
    telemetry::{self, Collector, LogFilter, LogFormat},
    tls::TlsIdentity,
};

/// The exit code of a defect: EX_SOFTWARE in sysexits.h.
pub const EXIT_INTERNAL: u8 = 70;

/// Workers of the runtime: two so that one busy task stops nothing, eight because there is no more to do.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=8;
/// The part of the grace period that is kept for the last telemetry, at most.
const FLUSH_RESERVE_MAX: Duration = Duration::from_secs(1);
/// Threads that still block, for example on a disk that hangs, are left behind after this.
const RUNTIME_SHUTDOWN_MAX: Duration = Duration::from_millis(200);

/// What a service gets from its process.
#[derive(Debug)]
pub struct Process {
    /// The word of the service.
    pub service: &'static str,
    /// Whose certificate the process has.
    pub identity: Identity,
    /// The end of the process.
    pub drain: Drain,
    /// Its health; the conditions of the service are not met yet.
    pub health: Health,
    /// Proven connections of clients.
    pub incoming: TlsIncoming,
    /// Channels to other services.
    pub channels: Channels,
    /// The certificate of the process.
    pub tls: TlsIdentity,
    /// The trust domain.
    pub trust_domain: String,
    /// Where the process listens.
    pub address: SocketAddr,
}

/// The settings that every service has.
struct Common {
    listen: Listen,
    tls_cert: PathBuf,
    tls_key: PathBuf,
    tls_ca: PathBuf,
    trust_domain: String,
    otlp: Option<Collector>,
    log: LogFilter,
    log_format: LogFormat,
    health_listen: Option<Listen>,
    drain_grace: Span,
}

impl Common {
    fn read(settings: &mut Settings) -> Option<Self> {
        // Every setting is read before any is missed, so that all mistakes are told.
        let listen = settings.required("listen", "where to listen, host:port; port 0 is any free one");
        let tls_cert = settings.required("tls-cert", "the certificate of this process, PEM");
        let tls_key = settings.required("tls-key", "the key of the certificate, PEM");
        let tls_ca = settings.required("tls-ca", "the CAs that peers are believed from, PEM");
        let trust_domain = settings.or("trust-domain", "the trust domain of identities", "lockstep.local");
        let otlp = settings.optional("otlp", "an OTLP collector for gRPC, http://host:port");
        let log = settings.or("log", "what is logged, such as info,filesync=debug", "info");
        let log_format = settings.or("log-format", "text or json", "text");
        let health_listen = settings.optional("health-listen", "host:port for health probes in plain text");
        let drain_grace = settings.or("drain-grace", "the longest time from SIGTERM to exit", "5s");
        Some(Self {
            listen: listen?,
            tls_cert: tls_cert?,
            tls_key: tls_key?,
            tls_ca: tls_ca?,
            trust_domain: trust_domain?,
            otlp: otlp?,
            log: log?,
            log_format: log_format?,
            health_listen: health_listen?,
            drain_grace: drain_grace?,
        })
    }
}

/// `host:port`; the host may be a name.
#[derive(Clone, Debug)]
struct Listen(String);

#[derive(Debug, thiserror::Error)]
#[error("expected host:port")]
struct InvalidListen;

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidListen)?;
        let valid = !host.is_empty() && port.parse::<u16>().is_ok();
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidListen) }
    }
}

/// The conditions that make a service ready.
fn conditions(service: &str) -> &'static [&'static str] {
    match service {
        "filesync" => &["registry", "store"],
        _ => &["registry"],
    }
}

/// Runs a whole process of `service` with the arguments after its subcommand. `read` reads the settings of the
/// service, `run` is the service.
pub fn launch<C, Fut>(
    service: &'static str,
    args: Vec<String>,
    read: fn(&mut Settings) -> Option<C>,
    run: impl FnOnce(C, Process) -> Fut + Send,
) -> ExitCode
where
    Fut: Future<Output = Result<(), StartError>>,
{
    crate::crash::arm();
    let mut settings = Settings::collect(service, args);
    let common = Common::read(&mut settings);
    let config = read(&mut settings);
    let (common, config) = match (settings.finish(), common, config) {
        (Err(UsageError::Help(text)), _, _) => {
            use io::Write as _;
            // A reader that went away, such as `head`, is no failure.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        (Err(UsageError::Problems(text)), _, _) => {
            eprintln!("{text}");
            return ExitCode::from(EXIT_USAGE);
        }
        (Ok(()), Some(common), Some(config)) => (common, config),
        (Ok(()), _, _) => {
            eprintln!("the settings of {service} cannot be used, and it did not say why: this is a defect");
            return ExitCode::from(EXIT_INTERNAL);
        }
    };
    // One provider is compiled in; naming it keeps rustls from guessing. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let workers = std::thread::available_parallelism().map_or(*WORKERS.start(), std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.clamp(*WORKERS.start(), *WORKERS.end()))
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(live(service, common, config, run));
            runtime.shutdown_timeout(RUNTIME_SHUTDOWN_MAX);
            code
        }
        Err(error) => {
            eprintln!("lockstep {service} cannot start: no threads: {error}");
            EXIT_UNAVAILABLE
        }
    };
    ExitCode::from(code)
}

/// The life of a process within its runtime.
async fn live<C, Fut>(
    service: &'static str,
    common: Common,
    config: C,
    run: impl FnOnce(C, Process) -> Fut,
) -> u8
where
    Fut: Future<Output = Result<(), StartError>>,
{
    let telemetry = match telemetry::init(service, &common.log, common.log_format, common.otlp.as_ref()) {
        Ok(telemetry) => telemetry,
        Err(error) => return cannot_start(service, &error),
    };
    let drain = Drain::new();
    let reserve = FLUSH_RESERVE_MAX.min(common.drain_grace.0 / 4);
    let grace = common.drain_grace.0 - reserve;
    let limit = async {
        drain.started().await;
        tokio::time::sleep(grace).await;
    };
    let served = async {
        let process = prepare(service, &common, &drain).await?;
        tracing::info!(address = %process.address, identity = %process.identity, "listening");
        let result = run(config, process).await;
        drain.begin();
        drain.finished().await;
        result
    };
    let code = tokio::select! {
        biased;
        ended = Box::pin(AssertUnwindSafe(served).catch_unwind()) => match ended {
            Ok(Ok(())) if drain.failed() => EXIT_INTERNAL,
            Ok(Ok(())) => 0,
            Ok(Err(error)) => cannot_start(service, &error),
            Err(panic) => {
                tracing::error!(panic = panic_text(&*panic), "the service panicked");
                EXIT_INTERNAL
            }
        },
        () = limit => {
            tracing::warn!(running = drain.running(), "the drain took longer than its grace period, the rest is cut");
            if drain.failed() { EXIT_INTERNAL } else { 0 }
        }
    };
    tracing::info!(code, "ended");
    // Blocking, and bounded: a collector that does not answer holds nothing up.
    let flushed = tokio::task::spawn_blocking(move || telemetry.flush());
    let _ = tokio::time::timeout(reserve, flushed).await;
    code
}

/// Everything that the service itself needs to run.
async fn prepare(service: &'static str, common: &Common, drain: &Drain) -> Result<Process, StartError> {
    end_on_signals(drain)
        .map_err(|error| StartError::new("signals cannot be received", error, "report it"))?;
    let Common { tls_cert, tls_key, tls_ca, trust_domain, .. } = common;
    let tls = TlsIdentity::load(tls_cert, tls_key, tls_ca, trust_domain).map_err(|error| {
        let advice =
            "check --tls-cert, --tls-key, --tls-ca and --trust-domain; `lockstep up` makes certificates";
        StartError::new("the certificates cannot be used", error, advice)
    })?;
    let identity = tls.identity();
    if identity.service() != Some(service) {
        let why = format!("it belongs to {identity}, not to a {service}");
        let what = format!("the certificate {} cannot be used", tls_cert.display());
        return Err(StartError::new(what, why, "give this process a certificate of its own"));
    }
    tls.watch(drain);
    let health = Health::new(conditions(service));
    supervisor::keep_informed(&health, drain);
    let cannot_listen = |listen: &Listen, error: io::Error| {
        let advice = "choose another address or port, or stop what listens there";
        StartError::new(format!("cannot listen on {}", listen.0), error, advice)
    };
    if let Some(listen) = &common.health_listen {
        let bound = probe::serve(&listen.0, health.clone(), drain).await;
        let address = bound.map_err(|error| cannot_listen(listen, error))?;
        tracing::info!(%address, "answering health probes");
    }
    let incoming = TlsIncoming::bind(&common.listen.0, tls.clone(), drain).await;
    let incoming = incoming.map_err(|error| cannot_listen(&common.listen, error))?;
    Ok(Process {
        service,
        identity,
        drain: drain.clone(),
        health,
        address: incoming.address(),
        incoming,
        channels: Channels::new(TlsDial::new(tls.clone())),
        tls,
        trust_domain: trust_domain.clone(),
    })
}

fn end_on_signals(drain: &Drain) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let begun = drain.clone();
    drain.spawn("signals", async move {
        let name = tokio::select! {
            biased;
            () = begun.started() => return,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "draining");
        begun.begin();
    });
    Ok(())
}

fn cannot_start(service: &str, error: &StartError) -> u8 {
    eprintln!("lockstep {service} cannot start: {error}\n  {}", error.advice());
    EXIT_UNAVAILABLE
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
