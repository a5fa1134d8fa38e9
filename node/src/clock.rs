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

/// The machine's clocks, with a wall clock that somebody has set wrong.
#[derive(Default)]
pub struct SkewedClock {
    ahead_ms: AtomicI64,
}

impl SkewedClock {
    /// The wall clock shows so much more than the machine's from now on; negative: less, zero: the same.
    pub fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::Relaxed);
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn wall_ms(&self) -> u64 {
        SystemClock.wall_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that was set wrong is off by so much, either way, and right again when it is set right.
    #[test]
    fn a_clock_that_was_set_wrong() {
        let clock = SkewedClock::default();
        for ahead_ms in [3_600_000, -3_600_000, 0] {
            clock.set_ahead(ahead_ms);
            let before = SystemClock.wall_ms();
            let shown = clock.wall_ms();
            let after = SystemClock.wall_ms();
            let right =
                before.saturating_add_signed(ahead_ms)..=after.saturating_add_signed(ahead_ms);
            assert!(right.contains(&shown), "{shown} is not in {right:?}");
        }
        clock.set_ahead(i64::MIN);
        assert_eq!(clock.wall_ms(), 0);
    }
}
