//! Asks the registry about positions that are older than what this process remembers.

use std::time::Duration;

use lockstep_model::{Fault as _, Position, Reason};
use lockstep_registry::{Registry, RegistryError};

use crate::{
    domain::{cause::Cause, live::Live},
    engine::board::Board,
};

/// How long to wait when the registry does not answer.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run<R: Registry, V: Live>(registry: R, board: Board<V>) {
    loop {
        board.doubted().await;
        loop {
            let doubts = board.read(|view| view.copies().doubts());
            if doubts.is_empty() {
                break;
            }
            for (id, position) in doubts {
                match judge(&registry, position).await {
                    Ok(foreign) => {
                        if let Some(cause) = &foreign {
                            tracing::warn!(server_id = %id, %position, cause = cause.message, "a server follows another history");
                        }
                        board.update(|view| view.rule(&id, position, foreign));
                    }
                    Err(()) => tokio::time::sleep(RETRY).await,
                }
            }
        }
    }
}

/// Why the position is not in the history, `None` if it is; `Err` if the registry could not be asked.
async fn judge<R: Registry>(registry: &R, position: Position) -> Result<Option<Cause>, ()> {
    // The registry compares the position before it reads; one transaction is the least it gives.
    match registry.changes(position, String::new(), 1).await {
        Ok(_) => Ok(None),
        Err(error @ (RegistryError::Forked { .. } | RegistryError::TooOld { .. })) => {
            Ok(Some(Cause::new(error.reason(), error.to_string())))
        }
        Err(error) if error.reason() == Reason::RegistryUnavailable => Err(()),
        Err(error) => {
            tracing::error!(%error, %position, "the registry cannot judge a position");
            Err(())
        }
    }
}
