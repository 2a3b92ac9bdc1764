//! The time guard of the own server.

use crate::domain::guard::Standing;

/// What the own time guard says. Nothing here waits for the network: the answer is what is remembered.
pub trait Guard: Clone + Send + Sync + 'static {
    /// Whether this server may originate changes now.
    fn standing(&self) -> Standing;

    /// Waits until the answer may be another one than at the moment of this call; it may also be the same.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}
