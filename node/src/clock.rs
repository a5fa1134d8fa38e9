//! Time, passed in. `Instant::now()` and `SystemTime::now()` have their home here.
//!
//! Two clocks: one that only moves forward, for deadlines and round trips, and the wall's, which may jump and decides
//! nothing. Both implementations read the first from tokio, so on a paused runtime time is virtual.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// A wall clock that starts where it is told, follows the runtime's time, and can be made to jump and to drift.
pub struct SimulatedClock {
    started: Instant,
    wall_ms_at_start: u64,
    /// Milliseconds that it was put forward or back, all in all.
    jumped_ms: AtomicI64,
    /// Millionths by which it is too fast.
    drift_ppm: AtomicI64,
}

impl SimulatedClock {
    /// Starts now, with this on the wall.
    pub fn starting_at(wall_ms: u64) -> Self {
        SimulatedClock {
            started: Instant::now(),
            wall_ms_at_start: wall_ms,
            jumped_ms: AtomicI64::new(0),
            drift_ppm: AtomicI64::new(0),
        }
    }

    /// Somebody puts the wall clock forward, or back.
    pub fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// From its start on the wall clock has been too fast by so many millionths, or too slow.
    pub fn drift(&self, ppm: i64) {
        self.drift_ppm.store(ppm, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_ms(&self) -> u64 {
        let since = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let drifted = since / 1000 * self.drift_ppm.load(Ordering::Relaxed) / 1000;
        let off = since + drifted + self.jumped_ms.load(Ordering::Relaxed);
        self.wall_ms_at_start.saturating_add_signed(off)
    }
}
