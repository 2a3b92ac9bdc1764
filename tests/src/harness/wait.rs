//! The one waiting primitive.

use std::{fmt, future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Between two looks at first; doubled up to [`MOST`].
const LEAST: Duration = Duration::from_millis(2);
/// Between two looks at most.
const MOST: Duration = Duration::from_millis(50);

/// Looks until there is something, and gives it; the text of the error is why there is nothing yet.
///
/// # Panics
/// When `limit` is over, with what was waited for and the last reason.
pub async fn until<T, E: fmt::Display, F: Future<Output = Result<T, E>>>(
    what: impl fmt::Display,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    let mut pause = LEAST;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if begun.elapsed() >= limit => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(MOST);
    }
}
