//! How a connection waits for the lock of the database.
//!
//! SQLite's own way asks less and less often, in the end ten times a second. A process that commits without a break, on a
//! slow disk, leaves the lock for parts of a millisecond only, and whoever asks as seldom as that may never get it.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

/// How often the lock is asked for. It costs some microseconds.
const ASK_EVERY: Duration = Duration::from_millis(1);

thread_local! {
    /// When the call of this thread gives up.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on, this thread waits for the lock on this connection until `deadline`.
pub(super) fn wait_until(deadline: Instant, connection: &mut Connection) -> rusqlite::Result<()> {
    DEADLINE.set(Some(deadline));
    connection.busy_handler(Some(ask_again))
}

fn ask_again(_asked: i32) -> bool {
    let goes_on = DEADLINE.get().is_some_and(|deadline| Instant::now() < deadline);
    if goes_on {
        thread::sleep(ASK_EVERY);
    }
    goes_on
}
