//! What this process tells whoever started it: that it is ready, that it turns, and that it has to be started again.
//!
//! ```text
//! systemd      READY=1, WATCHDOG=1 while it is alive, WATCHDOG=trigger when it is not meant to go on (sd_notify)
//! lockstep up  the process ends by itself, and is started again
//! Kubernetes   liveness, which the probe asks for
//! ```

use std::time::Duration;

use sd_notify::NotifyState;

use crate::{drain::Drain, health::Health};

/// Set by `lockstep up` for its children, and by whoever starts `lockstep up` and wants it to end with itself.
pub const SUPERVISED: &str = "LOCKSTEP_SUPERVISED";
/// How often the state is looked at where nobody asks for a watchdog.
const LOOK: Duration = Duration::from_secs(5);

/// Tells the supervisor, until the process drains.
pub(crate) fn keep_informed(health: &Health, drain: &Drain) {
    let (health, begun) = (health.clone(), drain.clone());
    drain.spawn("supervisor", async move {
        tokio::select! {
            biased;
            () = begun.started() => {}
            () = inform(&health) => {
                if std::env::var_os(SUPERVISED).is_some() {
                    begun.begin();
                }
                begun.started().await;
            }
        }
        tell(&[NotifyState::Stopping]);
    });
}

/// Ends when the process has to be started again.
async fn inform(health: &Health) {
    let alive = async {
        health.ready().await;
        tell(&[NotifyState::Ready]);
        // Half of what is allowed, as the manual of the watchdog asks for.
        let every = sd_notify::watchdog_enabled().map_or(LOOK, |most| most / 2);
        loop {
            if health.is_alive() {
                tell(&[NotifyState::Watchdog]);
            }
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        biased;
        why = health.restart_required() => {
            tracing::warn!(why, "this process has to be started again: its liveness fails until then");
            tell(&[NotifyState::WatchdogTrigger]);
        }
        () = alive => {}
    }
}

/// Nobody may listen; then there is nobody to tell.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the supervisor cannot be told");
    }
}
