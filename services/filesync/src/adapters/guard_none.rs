//! No guard: for a server that is run without one on purpose, for simulations, and for tests that are about something else.

use crate::{domain::guard::Standing, ports::Guard};

/// Always open.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGuard;

impl Guard for NoGuard {
    fn standing(&self) -> Standing {
        Standing::Open
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}

/// A guard, or none.
impl<G: Guard> Guard for Option<G> {
    fn standing(&self) -> Standing {
        self.as_ref().map_or_else(|| NoGuard.standing(), Guard::standing)
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        let changed = self.as_ref().map(Guard::changed);
        async move {
            match changed {
                Some(changed) => changed.await,
                None => NoGuard.changed().await,
            }
        }
    }
}
