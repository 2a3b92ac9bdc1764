//! Word from the kernel that the clock was set: a timer that is cancelled by that.

use std::{io, os::fd::OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::ports::Signals;

/// When the timer ends, in seconds since 1970: never, as far as clocks go.
const NEVER: i64 = 1 << 40;

/// [`Signals`] by `timerfd`.
pub struct TimerfdSignals {
    timer: Option<AsyncFd<OwnedFd>>,
    #[cfg(feature = "failpoints")]
    test: tokio::sync::watch::Receiver<u64>,
}

impl TimerfdSignals {
    /// Asks the kernel for word. Where it gives none, that is logged.
    pub fn new() -> Self {
        let timer = open().inspect_err(|error| {
            tracing::info!(%error, "the kernel does not tell when the clock is set, so it is looked at more often");
        });
        Self {
            timer: timer.ok(),
            #[cfg(feature = "failpoints")]
            test: lockstep_chassis::crash::clock_set(),
        }
    }
}

impl Default for TimerfdSignals {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(
    deprecated,
    reason = "the way without `unsafe`; what it warns of cannot be: an OwnedFd is open for as long as it lives"
)]
fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let never = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 } };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
    AsyncFd::with_interest(timer, Interest::READABLE)
}

/// Ends when the timer is cancelled. It stays armed: the next cancellation is told as well.
async fn cancelled(timer: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = timer.readable().await else { return std::future::pending().await };
        let read = ready.try_io(|timer| rustix::io::read(timer, &mut [0_u8; 8]).map_err(io::Error::from));
        match read {
            // It was not ready after all.
            Err(_) => {}
            Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => {
                return;
            }
            // It never ends, and is ours: this cannot be. The clocks are compared each second all the same.
            Ok(other) => {
                tracing::warn!(?other, "the kernel does not tell any more when the clock is set");
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Signals for TimerfdSignals {
    async fn clock_set(&mut self) {
        let told = async {
            match &self.timer {
                Some(timer) => cancelled(timer).await,
                None => std::future::pending().await,
            }
        };
        #[cfg(feature = "failpoints")]
        tokio::select! {
            biased;
            _ = self.test.changed() => {}
            () = told => {}
        }
        #[cfg(not(feature = "failpoints"))]
        told.await;
    }

    fn is_told(&self) -> bool {
        self.timer.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime, clock_settime};
    use tokio::time::timeout;

    use super::*;

    /// R64: the kernel tells that the clock is set, each time, and also when it is set to what it shows.
    #[tokio::test]
    #[ignore = "sets the clock of the machine to what it shows, which needs the right to; run it by its name with --ignored"]
    async fn the_kernel_tells_that_the_clock_is_set() {
        let mut signals = TimerfdSignals::new();
        assert!(signals.is_told());
        assert!(timeout(Duration::from_millis(300), signals.clock_set()).await.is_err(), "nobody set it");
        for _ in 0..3 {
            clock_settime(ClockId::Realtime, clock_gettime(ClockId::Realtime))
                .expect("the right to set the clock");
            timeout(Duration::from_millis(200), signals.clock_set()).await.expect("it is told");
        }
        assert!(
            timeout(Duration::from_millis(300), signals.clock_set()).await.is_err(),
            "nobody set it again"
        );
    }
}
