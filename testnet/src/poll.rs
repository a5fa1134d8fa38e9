//! Waiting for what nobody tells us: the end of a process that is not our child, a lock in another hand, the first
//! answer of a node that is still starting, another line in a log.
//!
//! The only place here that looks again and again. Everything else waits for an event.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Looks until there is something to see or the time is over.
pub(crate) async fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        pause().await;
    }
}

/// Between one look and the next: short beside the time a node takes to stop, long beside the time a look takes.
pub(crate) async fn pause() {
    sleep(Duration::from_millis(20)).await;
}
