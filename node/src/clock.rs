//! Time, passed in. `Instant::now()` and `SystemTime::now()` have their home here.
//!
//! Two clocks: one that only moves forward, for deadlines and round trips, and the wall's, which may jump and decides
//! nothing. Both implementations read the first from tokio, so on a paused runtime time is virtual.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// What time it is.
pub trait Clock: Send + Sync {
    /// A clock that never goes back.
    fn now(&self) -> Instant;

    /// Milliseconds since 1970 by the wall clock, which may jump.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A wall clock that starts where it is told and follows the runtime's time.
pub struct SimulatedClock {
    started: Instant,
    wall_ms_at_start: u64,
}

impl SimulatedClock {
    /// Starts now, with this on the wall.
    pub fn starting_at(wall_ms: u64) -> Self {
        SimulatedClock { started: Instant::now(), wall_ms_at_start: wall_ms }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_ms(&self) -> u64 {
        let since = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.wall_ms_at_start.saturating_add(since)
    }
}
