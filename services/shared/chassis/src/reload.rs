//! Takes up replaced certificates: told by inotify, and by looking every 30 s where that tells nothing.

use std::time::Duration;

use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use lockstep_model::clock::{Clock as _, SystemClock};

use crate::{
    drain::Drain,
    tls::{TlsError, TlsIdentity},
};

/// How often the files are looked at without a hint.
const POLL: Duration = Duration::from_secs(30);
/// The files are replaced one after the other; a burst of events is one replacement.
const SETTLE: Duration = Duration::from_millis(200);
/// A replacement that is still not usable after this long is reported.
const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the files of `tls` until the process drains.
pub(crate) fn watch(tls: TlsIdentity, drain: &Drain) {
    let begun = drain.clone();
    drain.spawn("certificate watch", async move {
        tokio::select! {
            biased;
            () = begun.started() => {}
            () = follow(tls) => {}
        }
    });
}

async fn follow(tls: TlsIdentity) {
    // 4 KiB hold at least 15 events with the longest names; more of them only mean another look.
    let mut buffer = [0; 4_096];
    let mut events = hints(&tls).and_then(|inotify| inotify.into_event_stream(&mut buffer[..]).ok());
    if events.is_none() {
        tracing::info!("certificates are looked at every 30 s, since inotify is not available");
    }
    let mut reported: Option<TlsError> = None;
    let mut warned = None;
    loop {
        warned = warn_of_expiry(&tls, warned);
        let hint = async {
            match &mut events {
                Some(events) => drop(events.next().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = hint => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(POLL) => {}
        }
        reported = match reload(&tls).await {
            Ok(changed) => {
                if changed {
                    tracing::info!(identity = %tls.identity(), "new certificates are in use");
                }
                None
            }
            Err(_) => {
                tokio::time::sleep(PATIENCE).await;
                match reload(&tls).await {
                    Ok(_) => None,
                    Err(error) => {
                        if reported.as_ref() != Some(&error) {
                            tracing::error!(%error, "new certificates cannot be used, the old ones stay");
                        }
                        Some(error)
                    }
                }
            }
        };
    }
}

/// Reading files blocks, so it is not done on a worker of the runtime.
async fn reload(tls: &TlsIdentity) -> Result<bool, TlsError> {
    let tls = tls.clone();
    match tokio::task::spawn_blocking(move || tls.reload()).await {
        Ok(result) => result,
        Err(_) => Ok(false), // the runtime is shutting down
    }
}

fn hints(tls: &TlsIdentity) -> Option<Inotify> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::ATTRIB;
    for directory in tls.directories() {
        inotify.watches().add(directory, mask).ok()?;
    }
    Some(inotify)
}

/// Warns once for each certificate that is in the last quarter of its life. For display only: whether it is accepted
/// is decided by the other end.
fn warn_of_expiry(tls: &TlsIdentity, warned: Option<(i64, i64)>) -> Option<(i64, i64)> {
    let validity = tls.validity();
    let (from, to) = validity;
    let left = to - SystemClock.now().as_second();
    if left > (to - from) / 4 || warned == Some(validity) {
        return warned;
    }
    tracing::warn!(identity = %tls.identity(), left_seconds = left, "the certificate expires soon, replace its files");
    Some(validity)
}
